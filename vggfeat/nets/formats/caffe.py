"""Caffe's ``.caffemodel``: a NetParameter message, read without Caffe.

Field numbers are those of ``caffe.proto``. The authors' files have the older layers (V1), whose
blobs have the sides num, channels, height and width; newer files have a list of sides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from vggfeat.errors import WeightsError
from vggfeat.nets.formats.parameters import Contents, Parameter, pairs_of
from vggfeat.nets.formats.wire import BYTES, Field, fields, integers, mapped, text

OURS = re.compile(r"conv[1-5]_[1-4]|fc[678]")
# NetParameter: number of the field that holds a layer → within it, its name and its blobs
LAYERS = {2: (4, 6), 100: (1, 7)}
DATA, DOUBLES, SHAPE = 5, 8, 7  # BlobProto; 1 to 4 are num, channels, height, width


def contents(path: Path) -> Contents:
    """Read the layers of a ``.caffemodel`` that are named as in the paper.

    Raises
    ------
    WeightsError
        If the file is damaged or has no such layer.
    """
    found: dict[str, dict[str, Parameter]] = {}
    ignored = []
    for field in fields(mapped(path)):
        if field.number not in LAYERS or field.wire != BYTES:
            continue
        name, blobs = _layer(field.data, *LAYERS[field.number])
        if blobs and not OURS.fullmatch(name):
            ignored.append(name)
        elif blobs:
            if name in found:
                raise WeightsError(f"it has two layers of the name {name}")
            parts = zip(("weight", "bias"), blobs, strict=False)
            found[name] = {part: _blob(name, blob) for part, blob in parts}
    return Contents(pairs_of(found), ignored)


def _layer(message: memoryview, name_field: int, blob_field: int) -> tuple[str, list[memoryview]]:
    name, blobs = "", []
    for field in fields(message):
        if field.wire == BYTES and field.number == name_field:
            name = text(field)
        elif field.wire == BYTES and field.number == blob_field:
            blobs.append(field.data)
    return name, blobs


def _blob(layer: str, message: memoryview) -> Parameter:
    sides: list[int] = []
    legacy = {1: 1, 2: 1, 3: 1, 4: 1}
    numbers: dict[int, list[Field]] = {DATA: [], DOUBLES: []}
    for field in fields(message):
        if field.number in legacy:
            legacy[field.number] = field.integer
        elif field.number in numbers:
            numbers[field.number].append(field)
        elif field.number == SHAPE:
            sides = [n for f in fields(field.data) if f.number == 1 for n in integers(f)]
    shape = tuple(sides) or tuple(legacy.values())
    if layer.startswith("fc") and len(shape) == 4 and shape[:2] == (1, 1):
        shape = shape[2:]
    kind = DATA if numbers[DATA] else DOUBLES
    number = np.dtype("<f4" if kind == DATA else "<f8")
    return _parameter(layer, shape, number, [field.data for field in numbers[kind]])


def _parameter(
    layer: str, shape: tuple[int, ...], number: np.dtype, pieces: list[memoryview]
) -> Parameter:
    size = sum(map(len, pieces))
    if len(shape) > 4 or min(shape) < 1 or size != math.prod(shape) * number.itemsize:
        raise WeightsError(
            f"layer {layer} has {size // number.itemsize:,} numbers for a blob of shape {shape[:4]}"
        )
    return Parameter(shape, number.name, lambda: _joined(pieces, number).reshape(shape))


def _joined(pieces: Iterable[memoryview], number: np.dtype) -> torch.Tensor:
    # A copy of what is wanted only: in the file the numbers lie at any byte, not at multiples of 4.
    return torch.from_numpy(np.frombuffer(bytearray().join(pieces), number))
