"""Matlab's ``.mat`` files of level 5 (``-v6``, ``-v7``), as far as MatConvNet's models need it.

A file is a row of elements: a tag with type and length, then the bytes; arrays hold elements in
turn. ``scipy.io.loadmat`` is not used: a type that it does not know is looked up beyond the end of
a table (scipy 1.17), so that a damaged file ends the process, and a crafted one may do worse.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from vggfeat.errors import WeightsError
from vggfeat.nets.formats.parameters import map_file

HEADER = 128  # bytes before the first element
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
Elements: TypeAlias = Iterator[tuple[int, memoryview]]


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


def read_variables(path: Path) -> dict[str, Value]:
    """Read the variables of a file.

    Cells are lists, structs dictionaries, and arrays of several structs lists of those.
    Whatever else there is (sparse matrices, objects, functions) is None.

    Raises
    ------
    WeightsError
        If it is damaged.
    """
    file = map_file(path)
    if bytes(file[126:HEADER]) != b"IM":
        raise WeightsError("it is damaged, or was written by a big-endian machine")
    variables: dict[str, Value] = {}
    for kind, data in _elements(file[HEADER:]):
        if kind == COMPRESSED:
            try:
                kind, data = next(_elements(memoryview(zlib.decompress(data))), (0, data))
            except zlib.error as error:
                raise WeightsError(f"it is damaged: {error}") from error
        if kind == MATRIX and data:
            name, value = _array(data)
            variables[name] = value
    return variables


def _elements(data: memoryview) -> Elements:
    """Walk elements: their types and their bytes."""
    at = 0
    while at < len(data):
        tag, length = np.frombuffer(data[at : at + 8].tobytes().ljust(8, b"\0"), "<u4").tolist()
        kind, start = tag, at + 8
        if tag >> 16:  # a small element: its bytes are within the tag
            kind, length, start = tag & 0xFFFF, tag >> 16, at + 4
        if length > len(data) - start or (start == at + 4 and length > 4):
            raise WeightsError(f"it is damaged or cut off: an element of {length:,} bytes")
        yield kind, data[start : start + length]
        at = start + length
        at += 0 if kind == COMPRESSED else -at % 8


def _array(data: memoryview) -> tuple[str, Value]:
    """Read an array: its name and its value."""
    elements = _elements(data)
    (_, flags), (_, sides), (_, name) = (next(elements, (0, data[:0])) for _ in range(3))
    shape = tuple(np.frombuffer(sides, "<i4").tolist())
    if not flags or min(shape, default=-1) < 0:
        raise WeightsError(f"it is damaged: an array of shape {shape[:4]}")
    return bytes(name).decode("latin-1"), _value(flags[0], shape, elements)


def _value(kind: int, shape: tuple[int, ...], rest: Elements) -> Value:
    if kind == CELL:
        return [_matrix(*element) for element in rest]
    if kind == STRUCT:
        structs = _structs(rest)
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


def _structs(rest: Elements) -> list[Value]:
    """Read the structs of an array, each of which has all its fields in turn."""
    (_, width), (_, names) = (next(rest, (0, memoryview(b""))) for _ in range(2))
    step = int.from_bytes(width, "little")
    if not 0 < step <= len(names):
        raise WeightsError("it is damaged: a struct without fields")
    fields = [
        bytes(names[at : at + step]).split(b"\0")[0].decode("latin-1")
        for at in range(0, len(names), step)
    ]
    values = [_matrix(*element) for element in rest]
    return [
        dict(zip(fields, values[at : at + len(fields)], strict=False))
        for at in range(0, len(values), len(fields))
    ]


def _matrix(kind: int, data: memoryview) -> Value:
    if kind != MATRIX:
        raise WeightsError(f"it is damaged: an element of type {kind} in a cell or struct")
    return _array(data)[1] if data else None
