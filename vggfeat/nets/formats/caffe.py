"""Caffe's ``.caffemodel``: a NetParameter message, read without Caffe.

Field numbers are those of ``caffe.proto``. The authors' files have the older layers (V1), whose
blobs have the sides num, channels, height and width; newer files have a list of sides.

A message of protocol buffers is a row of fields: a varint with field number and wire type, then a
varint (type 0), 8 bytes (1), a length and as many bytes (2), or 4 bytes (5). Bytes are handed out
as views of the file, never copied, and every length is checked against what is there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vggfeat.errors import WeightsError
from vggfeat.nets.formats import Format, register
from vggfeat.nets.formats.parameters import Contents, Parameter, map_file, pair

OURS = re.compile(r"conv[1-5]_[1-4]|fc[678]")
# NetParameter: number of the field that holds a layer → within it, its name and its blobs
LAYERS = {2: (4, 6), 100: (1, 7)}
DATA, DOUBLES, SHAPE = 5, 8, 7  # BlobProto; 1 to 4 are num, channels, height, width
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
ONNX = b"\x08"  # with which its files begin: field 1 is a number there, and a name in Caffe's
_EMPTY = memoryview(b"")


class Field(NamedTuple):
    """One field: its number, its wire type, and its number or bytes."""

    number: int
    wire: int
    integer: int
    data: memoryview


def _sniff(path: Path, head: bytes) -> bool:
    """Tell Caffe's messages, which have no magic number, by their fields."""
    if not head or head.startswith(ONNX):
        return False
    try:
        numbers = {field.number for field in _fields(map_file(path))}
        return not numbers.isdisjoint(LAYERS)
    except WeightsError:
        return False


def _read(path: Path) -> Contents:
    layers: dict[str, dict[str, Parameter]] = {}
    ignored = []
    for field in _fields(map_file(path)):
        if field.number not in LAYERS or field.wire != BYTES:
            continue
        name, blobs = _layer(field.data, *LAYERS[field.number])
        if blobs and not OURS.fullmatch(name):
            ignored.append(name)
        elif blobs:
            if name in layers:
                raise WeightsError(f"it has two layers of the name {name}")
            parts = zip(("weight", "bias"), blobs, strict=False)
            layers[name] = {part: _blob(name, blob) for part, blob in parts}
    return Contents(pair(layers), ignored)


def _layer(message: memoryview, name_field: int, blob_field: int) -> tuple[str, list[memoryview]]:
    name, blobs = "", []
    for field in _fields(message):
        if field.wire == BYTES and field.number == name_field:
            name = bytes(field.data[:1000]).decode("utf-8", "backslashreplace")
        elif field.wire == BYTES and field.number == blob_field:
            blobs.append(field.data)
    return name, blobs


def _blob(layer: str, message: memoryview) -> Parameter:
    sides: list[int] = []
    legacy = {1: 1, 2: 1, 3: 1, 4: 1}
    numbers: dict[int, list[memoryview]] = {DATA: [], DOUBLES: []}
    for field in _fields(message):
        if field.number in legacy:
            legacy[field.number] = field.integer
        elif field.number in numbers:
            numbers[field.number].append(field.data)
        elif field.number == SHAPE:
            sides = [n for f in _fields(field.data) if f.number == 1 for n in _integers(f)]
    shape = tuple(sides) or tuple(legacy.values())
    if layer.startswith("fc") and len(shape) == 4 and shape[:2] == (1, 1):
        shape = shape[2:]
    kind = DATA if numbers[DATA] else DOUBLES
    pieces, number = numbers[kind], np.dtype("<f4" if kind == DATA else "<f8")
    size = sum(map(len, pieces))
    if len(shape) > 4 or min(shape) < 1 or size != math.prod(shape) * number.itemsize:
        raise WeightsError(
            f"layer {layer} has {size // number.itemsize:,} numbers for a blob of shape {shape[:4]}"
        )

    def read() -> torch.Tensor:
        # Copied only when wanted: in the file numbers lie at any byte, not at multiples of 4.
        joined = bytearray().join(pieces)
        return torch.from_numpy(np.frombuffer(joined, number)).reshape(shape)

    return Parameter(shape, number.name, read)


def _fields(message: memoryview) -> Iterator[Field]:
    """Walk the fields of a message.

    >>> message = bytes([0x08, 0x96, 0x01, 0x12, 0x02]) + b"hi"
    >>> [(f.number, f.integer, bytes(f.data)) for f in _fields(memoryview(message))]
    [(1, 150, b''), (2, 0, b'hi')]
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        integer, length = 0, 0
        if wire == VARINT:
            integer, at = _varint(message, at)
        elif wire == BYTES:
            length, at = _varint(message, at)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise WeightsError(f"it is damaged: wire type {wire} at byte {at}")
        if number == 0 or length > end - at:
            raise WeightsError(f"it is damaged or cut off: a field of {length:,} bytes at {at:,}")
        yield Field(number, wire, integer, message[at : at + length] if length else _EMPTY)
        at += length


def _integers(field: Field) -> list[int]:
    """Numbers of one occurrence of a repeated integer field, packed or not."""
    if field.wire == VARINT:
        return [field.integer]
    values, at = [], 0
    while at < len(field.data):
        value, at = _varint(field.data, at)
        values.append(value)
    return values


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise WeightsError(f"it is damaged or cut off at byte {at:,}")


register(Format("Caffe", (".caffemodel",), _sniff, _read))
