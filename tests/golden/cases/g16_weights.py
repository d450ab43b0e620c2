"""G16: files of weights in six formats, each written by its own library, and conversions."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from weightfiles import WRITERS

from golden.adapter import networks as adapter
from golden.case import case
from golden.inputs import Inputs
from golden.making.whole import weights

SHAPES = {
    "conv1_1": (64, 3, 3, 3), "conv2_1": (128, 64, 3, 3),
    "fc6": (6, 512 * 7 * 7), "fc7": (5, 6), "fc8": (4, 5),
}  # fmt: skip
NEEDS = {"ONNX": "onnx", "Caffe": "google.protobuf"}


@case(
    "G16-weights",
    command="weights show and convert, net A of two convolutions and narrow full connections in "
    "six formats",
    tolerance={f"{name}/*": {"abs": 0, "optional": True} for name in NEEDS},
)
def formats(inputs: Inputs) -> dict[str, Any]:
    """Expect one digest of the numbers for all formats, and pixels of each file's own."""
    state = {}
    for seed, (name, shape) in enumerate(SHAPES.items()):
        state[f"{name}.weight"] = torch.from_numpy(weights(shape, 70 + seed))
        state[f"{name}.bias"] = torch.from_numpy(weights((shape[0], 24), 80 + seed)[:, 0] / 16)
    found: dict[str, Any] = {}
    for name, (file, write) in WRITERS.items():
        if not _installed(NEEDS.get(name, "")):
            continue
        path, ours, theirs = (inputs.work / f"{name}-{n}" for n in (file, "a.safetensors", "b.pth"))
        write(path, state)
        found[name] = {
            "shown": adapter.show_weights(path),
            "converted": adapter.convert_weights(path, ours),
            "and back": adapter.convert_weights(ours, theirs),
        }
    again = inputs.work / "safetensors-net.safetensors"
    stated = adapter.convert_weights(
        again, inputs.work / "c.safetensors", "--pixels", "torchvision", "--net", "A"
    )
    return found | {"pixels stated": stated}


def _installed(package: str) -> bool:
    top = package.partition(".")[0]
    return not package or (find_spec(top) is not None and find_spec(package) is not None)
