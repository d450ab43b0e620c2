"""Texts beside the arrays of an HDF5 file, also of a file that a stranger made."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import h5py
import numpy as np

HEAP = b"GCOL"  # how a list of texts of any length begins, a global heap of the HDF5 format
HEAD = 16  # bytes before its first entry, and before the content of every entry
COMPACT = 60_000  # bytes that an attribute may have, unless it lies in a heap


def write_text(holder: h5py.HLObject, name: str, text: str) -> None:
    """Write a text as an attribute, of fixed length where HDF5 can hold it so."""
    content = text.encode()
    fixed = 0 < len(content) <= COMPACT
    holder.attrs[name] = (
        np.array(content, h5py.string_dtype("utf-8", len(content))) if fixed else text
    )


def attribute(holder: h5py.HLObject, name: str) -> Any:
    """Read an attribute, texts as str.

    Raises
    ------
    KeyError
        If there is none.
    ValueError
        If reading it would never end: HDF5 goes round in circles in a list of texts one of whose
        entries takes no room.
    """
    if holder.attrs.get_id(name).dtype.kind == "O":
        _check_heaps(holder.file)
    value = holder.attrs[name]
    return value.decode() if isinstance(value, bytes) else value


def _check_heaps(file: h5py.File) -> None:
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("it counts with other integers than any known writer")
    if file.driver == "fileobj":
        endless = _has_endless(file.id.get_file_image())
    else:
        with (
            Path(file.filename).open("rb") as raw,
            mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            endless = _has_endless(content)
    if endless:
        raise ValueError("a list of texts in it has no end")


def _has_endless(content: bytes | mmap.mmap) -> bool:
    at = content.find(HEAP)
    while at >= 0:
        if content[at + 4 : at + 8] == b"\1\0\0\0" and _is_endless(content, at):
            return True
        at = content.find(HEAP, at + 1)
    return False


def _is_endless(content: bytes | mmap.mmap, heap: int) -> bool:
    """Tell whether an entry of the list that begins here takes no room."""
    end = min(len(content), heap + _number(content, heap + 8))
    at = heap + HEAD
    while at + HEAD <= end:
        size = _number(content, at + 8)
        # What is left free is an entry of number 0, whose size counts its head.
        number = int.from_bytes(content[at : at + 2], "little")
        step = HEAD + -(-size // 8) * 8 if number else size
        if step % 2**64 < HEAD:
            return True
        at += step
    return False


def _number(content: bytes | mmap.mmap, at: int) -> int:
    return int.from_bytes(content[at : at + 8], "little")
