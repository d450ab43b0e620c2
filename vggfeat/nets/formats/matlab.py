"""Matlab's ``.mat`` files of level 5 (``-v6``, ``-v7``), as far as MatConvNet's models need it.

A file is a row of elements: a tag with type and length, then the bytes; arrays hold elements in
turn. Every length is checked, so that a damaged file is an error: scipy's reader may crash on one.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np

from vggfeat.errors import WeightsError
from vggfeat.nets.formats.wire import mapped

HEADER = 128  # bytes before the first element
NESTING = 8  # a model has 4: structs in a cell in a struct, and their arrays
LARGEST = 2 << 30  # bytes that compressed variables may have; no net of Table 1 has 0.6 GB
HARMLESS = 64 << 20  # bytes to which any file may be decompressed
RATIO = 20  # of bytes decompressed to bytes of the file above that; weights hardly compress
SIDES = 32  # of an array; a filter has 4
FIELDS = 1000  # of a struct; a layer has 10
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHAR = 1, 2, 4
STORED = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"} | {
    12: "<i8",
    13: "<u8",
    16: "<u1",
    17: "<u2",
}
CLASSES = dict(enumerate(("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), start=6))

Value: TypeAlias = "Numbers | str | list[Value] | dict[str, Value] | None"


@dataclass(frozen=True)
class Numbers:
    """A numeric array in the file, column-major."""

    shape: tuple[int, ...]
    dtype: np.dtype
    stored: np.dtype
    data: memoryview

    def array(self) -> np.ndarray:
        """Return the numbers, copied out of the file."""
        numbers = np.frombuffer(self.data, self.stored).astype(self.dtype)
        return numbers.reshape(self.shape, order="F")


def variables(path: Path) -> dict[str, Value]:
    """Read the variables of a file.

    Cells are lists, structs dictionaries, and arrays of several structs lists of those.
    Whatever else there is (sparse matrices, objects, functions) is None.

    Raises
    ------
    WeightsError
        If it is damaged.
    """
    file = mapped(path)
    if bytes(file[126:HEADER]) != b"IM":
        raise WeightsError("it is damaged, or was written by a big-endian machine")
    found: dict[str, Value] = {}
    left = min(LARGEST, max(HARMLESS, RATIO * len(file)))
    for kind, data in _elements(file[HEADER:]):
        if kind == COMPRESSED:
            inflated = _inflated(data, left)
            left -= len(inflated)
            kind, data = _only(inflated)
        if kind == MATRIX and data:
            name, value = _array(data, NESTING)
            found[name] = value
    return found


def _inflated(data: memoryview, left: int) -> memoryview:
    try:
        found = zlib.decompressobj().decompress(data, left + 1)
    except zlib.error as error:
        raise WeightsError(f"it is damaged: {error}") from error
    if len(found) > left:
        raise WeightsError("it unpacks to far more bytes than it has")
    return memoryview(found)


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Walk elements: their types and their bytes."""
    at = 0
    while at < len(data):
        if len(data) - at < 8:
            raise WeightsError("it is damaged or cut off")
        tag = int.from_bytes(data[at : at + 4], "little")
        kind, length, start = tag & 0xFFFF, tag >> 16, at + 4
        if not length:  # else a small element: 4 bytes or less within the tag
            length, start = int.from_bytes(data[at + 4 : at + 8], "little"), at + 8
        elif length > 4:
            raise WeightsError(f"it is damaged: a small element of {length} bytes")
        if length > len(data) - start:
            raise WeightsError(f"it is damaged or cut off: an element of {length:,} bytes")
        yield kind, data[start : start + length]
        at = start + length
        at += 0 if kind == COMPRESSED else -at % 8


def _only(data: memoryview) -> tuple[int, memoryview]:
    return next(_elements(data), (0, data))


def _array(data: memoryview, nesting: int) -> tuple[str, Value]:
    """Read an array: its name and its value."""
    if not nesting:
        raise WeightsError("its structs are nested too deeply for a model of MatConvNet")
    elements = _elements(data)
    head = [content for _, content in islice(elements, 3)]  # flags, sides, name
    if len(head) < 3 or not head[0]:
        raise WeightsError("it is damaged: an array without a head")
    kind = head[0][0]
    if len(head[1]) % 4 or len(head[1]) > 4 * SIDES:
        raise WeightsError(f"it is damaged: the sides of an array in {len(head[1]):,} bytes")
    shape = tuple(np.frombuffer(head[1], "<i4").tolist())
    if min(shape, default=-1) < 0:
        raise WeightsError(f"it is damaged: an array of shape {shape[:4]}")
    return bytes(head[2]).decode("latin-1"), _value(kind, shape, elements, nesting)


def _value(
    kind: int, shape: tuple[int, ...], rest: Iterator[tuple[int, memoryview]], nesting: int
) -> Value:
    if kind == CELL:
        return [_matrix(element, nesting) for element in rest]
    if kind == STRUCT:
        structs = _structs(rest, nesting)
        return structs if math.prod(shape) > 1 else next(iter(structs), {})
    if kind != CHAR and kind not in CLASSES:
        return None
    stored, data = next(rest, (0, memoryview(b"")))
    if stored not in STORED:
        raise WeightsError(f"it is damaged: numbers of type {stored}")
    number = np.dtype(STORED[stored])
    if len(data) != math.prod(shape) * number.itemsize:
        raise WeightsError(f"it is damaged: {len(data):,} bytes for an array of shape {shape[:4]}")
    if kind == CHAR:
        return "".join(map(chr, np.frombuffer(data, number).tolist()))
    return Numbers(shape, np.dtype(CLASSES[kind]), number, data)


def _structs(rest: Iterator[tuple[int, memoryview]], nesting: int) -> list[Value]:
    """Read the structs of an array, each of which has all its fields in turn."""
    width = int.from_bytes(next(rest, (0, memoryview(b"")))[1], "little")
    names = bytes(next(rest, (0, memoryview(b"")))[1])
    if not width >= 1 or len(names) > width * FIELDS:
        raise WeightsError("it is damaged: a struct without fields, or with thousands of them")
    fields = [
        names[at : at + width].split(b"\0")[0].decode("latin-1")
        for at in range(0, len(names), width)
    ]
    values = [_matrix(element, nesting) for element in rest] if fields else []
    return [
        dict(zip(fields, values[at : at + len(fields)], strict=False))
        for at in range(0, len(values), len(fields) or 1)
    ]


def _matrix(element: tuple[int, memoryview], nesting: int) -> Value:
    kind, data = element
    if kind != MATRIX:
        raise WeightsError(f"it is damaged: an element of type {kind} in a cell or struct")
    return _array(data, nesting - 1)[1] if data else None
