"""Files of weights in every format, each written by the library of its format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import scipy.io
import torch
import torchvision
from torch import Tensor, nn

from vggfeat.nets.config import layers_of

State = dict[str, Tensor]
FC_SHAPES = {"fc6": (6, 512 * 7 * 7), "fc7": (5, 6), "fc8": (4, 5)}
KERAS = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}


def random_state(net: str, convolutions: int | None = None, *, narrow: bool = True) -> State:
    """Draw a state dict: the first convolutions of a net, and narrow full connections."""
    torch.manual_seed(0)
    conv = [layer for layer in layers_of(net) if layer.kind == "conv"][:convolutions]
    shapes: dict[str, tuple[int, ...]] = {layer.name: layer.shape for layer in conv}
    state: State = {}
    for name, shape in {**shapes, **(FC_SHAPES if narrow else {})}.items():
        state[f"{name}.weight"] = torch.randn(shape) * 0.05
        state[f"{name}.bias"] = torch.randn(shape[0]) * 0.05
    return state


def layers(state: State) -> list[str]:
    return [name.removesuffix(".weight") for name in state if name.endswith(".weight")]


def same(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == torch.float32 and torch.equal(found[name], expected[name])
        for name in expected
    )


def write_safetensors(path: Path, state: State) -> None:
    safetensors.torch.save_file(state, path)


def write_pth(path: Path, state: State) -> None:
    torch.save(state, path)


def caffe_messages(*, packed: bool = True) -> dict[str, Any]:
    """Build Caffe's messages as caffe.proto declares the fields that are read here."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
    one, many = 1, 3
    double, float_, int64, int32, string, message = 1, 2, 3, 5, 9, 11
    declared: dict[str, list[tuple[Any, ...]]] = {
        "BlobShape": [("dim", 1, many, int64, "packed")],
        "BlobProto": [
            *((name, n, one, int32) for n, name in enumerate(("num", "channels", "height"), 1)),
            ("width", 4, one, int32),
            ("data", 5, many, float_, "packed"),
            ("diff", 6, many, float_, "packed"),
            ("shape", 7, one, message, "BlobShape"),
            ("double_data", 8, many, double, "packed"),
        ],
        "V1LayerParameter": [
            ("bottom", 2, many, string),
            ("name", 4, one, string),
            ("type", 5, one, int32),
            ("blobs", 6, many, message, "BlobProto"),
        ],
        "LayerParameter": [
            ("name", 1, one, string),
            ("type", 2, one, string),
            ("blobs", 7, many, message, "BlobProto"),
        ],
        "NetParameter": [
            ("name", 1, one, string),
            ("layers", 2, many, message, "V1LayerParameter"),
            ("input", 3, many, string),
            ("layer", 100, many, message, "LayerParameter"),
        ],
    }
    for name, entries in declared.items():
        kind = file.message_type.add(name=name)
        for field_name, number, label, type_, *extra in entries:
            entry = kind.field.add(name=field_name, number=number, label=label, type=type_)
            if extra == ["packed"]:
                entry.options.packed = packed
            elif extra:
                entry.type_name = f".caffe.{extra[0]}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))
        for name in declared
    }


def write_caffe(
    path: Path,
    state: State,
    *,
    legacy: bool = True,
    packed: bool = True,
    data: str = "data",
    rename: dict[str, str] | None = None,
) -> None:
    net = caffe_messages(packed=packed)["NetParameter"](name="VGG_ILSVRC_11_layers")
    (net.layers if legacy else net.layer).add(name="data")
    for name in layers(state):
        layer = (net.layers if legacy else net.layer).add(name=(rename or {}).get(name, name))
        for part in ("weight", "bias"):
            tensor = state[f"{name}.{part}"]
            blob = layer.blobs.add()
            if legacy:
                sides = (1,) * (4 - tensor.ndim) + tuple(tensor.shape)
                blob.num, blob.channels, blob.height, blob.width = sides
            else:
                blob.shape.dim.extend(tensor.shape)
            getattr(blob, data).extend(tensor.flatten().tolist())
    path.write_bytes(net.SerializeToString())


def write_matconvnet(
    path: Path,
    state: State,
    *,
    old: bool = False,
    mean: Any = (120.0, 110.0, 100.0),
    compressed: bool = False,
) -> None:
    cells = []
    for name in layers(state):
        weight = state[f"{name}.weight"]
        if name == "fc6":
            weight = weight.reshape(-1, 512, 7, 7)
        elif weight.ndim == 2:
            weight = weight[..., None, None]
        blobs = [weight.permute(2, 3, 1, 0).numpy(), state[f"{name}.bias"].numpy()[None]]
        if old:
            cells.append({"type": "conv", "name": name, "filters": blobs[0], "biases": blobs[1]})
        else:
            pair = np.empty(2, dtype=object)
            pair[:] = blobs
            cells.append({"type": "conv", "name": name, "weights": pair})
        cells.append({"type": "relu", "name": f"relu{name[-3:]}"})
    row = np.empty(len(cells), dtype=object)
    row[:] = cells
    normalization = {"averageImage": np.asarray(mean, dtype=np.float32).reshape(1, -1, 3)}
    net: dict[str, Any] = {"layers": row}
    net |= {"normalization": normalization} if old else {"meta": {"normalization": normalization}}
    scipy.io.savemat(path, net, do_compression=compressed)


def keras_kernel(name: str, weight: Tensor) -> np.ndarray:
    """Transpose as Keras keeps kernels; the flattened inputs of fc1 are (7, 7, 512)."""
    if weight.ndim == 4:
        return weight.permute(2, 3, 1, 0).numpy()
    if name == "fc6":
        weight = weight.reshape(-1, 512, 7, 7).permute(0, 2, 3, 1).flatten(1)
    return weight.T.numpy()


def keras_name(name: str) -> str:
    return KERAS.get(name) or f"block{name[4]}_conv{name[6]}"


def write_keras(path: Path, state: State, layout: str = "{0}/{0}/{part}:0") -> None:
    parts = {"weight": "kernel", "bias": "bias"} if "_{part}" not in layout else {}
    with h5py.File(path, "w") as file:
        for name in layers(state):
            for part, short in (("weight", "W"), ("bias", "b")):
                place = layout.format(keras_name(name), part=parts.get(part, short))
                value = state[f"{name}.{part}"]
                file[place] = keras_kernel(name, value) if part == "weight" else value.numpy()


def write_onnx(path: Path, state: State, *, how: str = "Gemm", external: bool = False) -> None:
    """Write a graph whose initialisers have names that say nothing."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    nodes, initializers, at = [], [], "input"
    for count, name in enumerate(layers(state)):
        weight, bias = state[f"{name}.weight"].numpy(), state[f"{name}.bias"].numpy()
        out, w, b = f"x{count}", f"onnx::W_{2 * count}", f"onnx::b_{2 * count + 1}"
        if weight.ndim == 4:
            nodes.append(helper.make_node("Conv", [at, w, b], [out], pads=[1, 1, 1, 1]))
        elif how == "MatMul":
            weight = weight.T
            nodes.append(helper.make_node("MatMul", [at, w], [f"{out}_product"]))
            nodes.append(helper.make_node("Add", [b, f"{out}_product"], [out]))
        else:
            transposed = how == "Gemm"
            weight = weight if transposed else weight.T
            attributes = {"transB": 1} if transposed else {}
            nodes.append(helper.make_node("Gemm", [at, w, b], [out], **attributes))
        initializers += [
            numpy_helper.from_array(np.ascontiguousarray(weight), w),
            numpy_helper.from_array(bias, b),
        ]
        at = out
    shape = numpy_helper.from_array(np.array([1, -1]), "shape")
    given = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, 224, 224])
    result = helper.make_tensor_value_info(at, onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", [given], [result], [shape, *initializers])
    onnx.save_model(
        helper.make_model(graph),
        path,
        save_as_external_data=external,
        location=f"{path.name}.data",
        size_threshold=0,
    )


WRITERS: dict[str, tuple[str, Callable[[Path, State], None]]] = {
    "safetensors": ("net.safetensors", write_safetensors),
    "PyTorch": ("net.pth", write_pth),
    "Caffe": ("net.caffemodel", write_caffe),
    "MatConvNet": ("net.mat", write_matconvnet),
    "Keras": ("net.h5", write_keras),
    "ONNX": ("net.onnx", write_onnx),
}


def torchvision_vgg11(whole: State) -> nn.Module:
    """Return torchvision's vgg11 with a narrow classifier, holding the state's numbers."""
    with torch.device("meta"):
        net = torchvision.models.vgg11(init_weights=False)
        net.classifier = nn.Sequential(
            *(nn.Linear(512 * 49, 6), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(6, 5), nn.ReLU(), nn.Dropout()),
            nn.Linear(5, 4),
        )
    net.to_empty(device="cpu")
    with torch.no_grad():
        for own, given in zip(net.state_dict().values(), whole.values(), strict=True):
            own.copy_(given)
    return net.eval()
