"""The wire format of protocol buffers, as far as Caffe's and ONNX's files need it.

A message is a row of fields: a varint with field number and wire type, then a varint (type 0),
8 bytes (1), a length and as many bytes (2), or 4 bytes (5). Bytes are handed out as views of the
file, never copied, and every length is checked against what is there.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vggfeat.errors import WeightsError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_EMPTY = memoryview(b"")


class Field(NamedTuple):
    """One field: its number, its wire type, and its number or bytes."""

    number: int
    wire: int
    integer: int
    data: memoryview


def mapped(path: Path) -> memoryview:
    """Map a file into memory; its pages are read when they are touched.

    Raises
    ------
    WeightsError
        If it is empty.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise WeightsError("it is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def fields(message: memoryview) -> Iterator[Field]:
    """Walk the fields of a message.

    Raises
    ------
    WeightsError
        If the bytes are no message, or end within a field.

    Examples
    --------
    >>> message = bytes([0x08, 0x96, 0x01, 0x12, 0x02]) + b"hi"
    >>> [(f.number, f.integer, bytes(f.data)) for f in fields(memoryview(message))]
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


def integers(found: Field) -> list[int]:
    """Numbers of one occurrence of a repeated integer field, packed or not; int64."""
    if found.wire == VARINT:
        return [_signed(found.integer)]
    values, at = [], 0
    while at < len(found.data):
        value, at = _varint(found.data, at)
        values.append(_signed(value))
    return values


def text(found: Field) -> str:
    """Text of a string field; bytes that are no UTF-8 are shown as escapes."""
    return bytes(found.data[:1000]).decode("utf-8", "backslashreplace")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise WeightsError(f"it is damaged or cut off at byte {at:,}")
