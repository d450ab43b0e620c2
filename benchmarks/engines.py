"""OpenVINO and ONNX Runtime: the network alone, on images that lie ready as it wants them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from contenders import Run, Skip, Work, decoded, torchvision_features, wanted

from vggfeat.nets.preprocessing import TORCHVISION

Engine = Callable[[np.ndarray], np.ndarray]


def openvino_forward(work: Work) -> Run:
    """Run torchvision's network, converted by OpenVINO."""
    _on_cpu(work)
    ov = wanted("openvino")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO traces, which torch will give up one day
        example = torch.zeros(2, 3, 64, 64)
        model = ov.convert_model(torchvision_features(work), example_input=example)
    ready = list(normalised(work))
    shapes = {x.shape for x in ready}
    model.reshape(shapes.pop() if len(shapes) == 1 else [2, 3, -1, -1])
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if work.precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
    }
    request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()
    return forward(work, ready, lambda x: request.infer([x], share_inputs=True)[0])


def onnxruntime_forward(work: Work) -> Run:
    """Run torchvision's network, exported by torch."""
    _on_cpu(work)
    if work.precision != "fp32":
        raise Skip("ONNX Runtime has no convolution in bf16 on CPUs")
    ort = wanted("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(exported(work), options, providers=["CPUExecutionProvider"])
    return forward(work, list(normalised(work)), lambda x: session.run(None, {"x": x})[0])


def exported(work: Work) -> bytes:
    """Write the network as ONNX, for images of any shape."""
    wanted("onnx")
    told = io.BytesIO()
    free = {0: "images", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter wants one more package
        torch.onnx.export(
            torchvision_features(work),
            (torch.zeros(2, 3, 64, 64),),
            told,
            dynamo=False,
            input_names=["x"],
            output_names=["maps"],
            dynamic_axes={"x": free, "maps": free},
        )
    return told.getvalue()


def forward(work: Work, ready: list[np.ndarray], engine: Engine) -> Run:
    """Run an engine over every image with its mirror image."""

    def run() -> np.ndarray:
        found = [engine(x).mean((0, 2, 3), dtype=np.float32) for x in ready]
        return np.stack(found).reshape(len(work.scales), len(work.images), -1)

    return run


def normalised(work: Work) -> Iterator[np.ndarray]:
    """Images with their mirror images (2, 3, H, W), float32, scale by scale."""
    mean, std = (np.asarray(values, np.float32) for values in (TORCHVISION.mean, TORCHVISION.std))
    images = [image.pixels for image in decoded(work)]
    for Q in work.scales:
        for pixels in images:
            x = (pixels[Q].astype(np.float32) / 255 - mean) / std
            yield np.ascontiguousarray(np.stack([x, x[:, ::-1]]).transpose(0, 3, 1, 2))


def _on_cpu(work: Work) -> None:
    if work.device.type != "cpu":
        raise Skip("runs on the CPU here")
