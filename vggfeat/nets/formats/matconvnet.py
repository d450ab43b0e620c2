"""MatConvNet's ``.mat``: a cell of layer structs with filters (height, width, in, out)."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vggfeat.errors import WeightsError
from vggfeat.nets.formats import Format, register
from vggfeat.nets.formats.matlab import Numbers, Value, read_variables
from vggfeat.nets.formats.parameters import Contents, Pair, Parameter
from vggfeat.nets.preprocessing import CAFFE, PixelConvention

MATLAB = (b"MATLAB 5.0", b"MATLAB 7.3")
OURS = re.compile(r"conv[1-5]_[1-4]|fc[678]")
# Its models were made from Caffe's with the channels reversed: RGB, and pools that round up.
USUAL = replace(CAFFE, channels="RGB", mean=CAFFE.mean[::-1])


def _sniff(_: Path, head: bytes) -> bool:
    return head.startswith(MATLAB)


def _read(path: Path) -> Contents:
    """Read a SimpleNN model."""
    with path.open("rb") as opened:
        if opened.read(10) == MATLAB[1]:
            raise WeightsError(
                "it was saved by Matlab with -v7.3. Save it again with -v7, or use the original "
                "imagenet-vgg-verydeep-16.mat"
            )
    file = read_variables(path)
    layers = file.get("layers")
    if not isinstance(layers, list):
        kind = "a DagNN model" if "params" in file else "no model of MatConvNet"
        raise WeightsError(
            f"it is {kind}: it has no cell 'layers'. The files that are read are SimpleNN "
            "models such as imagenet-vgg-verydeep-16.mat"
        )
    pairs, ignored = {}, []
    for layer in layers:
        name, blobs = str(_entry(layer, "name")), _blobs(layer)
        if len(blobs) == 2 and OURS.fullmatch(name):
            pairs[name] = Pair(_filters(blobs[0]), _parameter(blobs[1], blobs[1].shape))
        elif blobs:
            ignored.append(name)
    return Contents(pairs, ignored, USUAL, _pixels(file))


def _blobs(layer: Value) -> list[Numbers]:
    """List filters and biases: newer files have them in one cell, older ones as two fields."""
    together = _entry(layer, "weights")
    if not isinstance(together, list):
        together = [_entry(layer, "filters"), _entry(layer, "biases")]
    return [blob for blob in together if isinstance(blob, Numbers) and blob.data]


def _filters(blob: Numbers) -> Parameter:
    """Return filters (out, in, k, k); Matlab drops the last sides where they are 1."""
    sides = (*blob.shape, *(1,) * (4 - len(blob.shape)))
    return _parameter(blob, sides).permuted(3, 2, 0, 1)


def _parameter(blob: Numbers, shape: tuple[int, ...]) -> Parameter:
    return Parameter(shape, blob.dtype.name, lambda: torch.from_numpy(blob.array()).reshape(shape))


def _pixels(file: dict[str, Value]) -> PixelConvention | None:
    stated = _entry(file.get("meta"), "normalization") or file.get("normalization")
    image = _entry(stated, "averageImage")
    if not isinstance(image, Numbers) or not image.data or math.prod(image.shape) % 3:
        return None
    # One colour, (1, 1, 3) or (3, 1), or a whole average image (224, 224, 3)
    colours = image.array().reshape(-1, 3, order="F").astype(np.float64)
    red, green, blue = colours.mean(axis=0).tolist()
    return replace(USUAL, mean=(red, green, blue))


def _entry(struct: Value, name: str) -> Value:
    return struct.get(name) if isinstance(struct, dict) else None


register(Format("MatConvNet", (".mat",), _sniff, _read))
