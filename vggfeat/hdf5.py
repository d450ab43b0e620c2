"""Texts beside the arrays of an HDF5 file, also of a file that a stranger made.

HDF5 keeps texts of any length in lists of their own, and goes for ever round a list one of whose
entries takes no room. So such texts are avoided on writing, and looked through before reading.
"""

from __future__ import annotations

from collections.abc import Iterator

import h5py
import numpy as np

HEAP = b"GCOL\1"  # how a list begins, a global heap of the HDF5 format; its version
HEAD = 16  # bytes before its first entry, and before the content of every entry
COMPACT = 60_000  # bytes that an attribute may have, unless it lies in a list
BLOCK = 1 << 20  # bytes that are searched at a time


def write_text(holder: h5py.HLObject, name: str, text: str) -> None:
    """Write a text as an attribute, of fixed length where HDF5 can hold it so."""
    content = text.encode()
    if 0 < len(content) <= COMPACT:
        holder.attrs[name] = np.array(content, h5py.string_dtype("utf-8", len(content)))
    else:
        holder.attrs[name] = text


def texts(holder: h5py.HLObject, *names: str) -> list[str]:
    """Read attributes that hold texts.

    Raises
    ------
    KeyError
        If there is none of a name.
    ValueError
        If one is no text, or reading it would never end.
    """
    kinds = [holder.attrs.get_id(name).dtype for name in names]
    if any(kind.hasobject for kind in kinds):
        check_lists(holder.file)
    found = [holder.attrs[name] for name in names]
    for name, text in zip(names, found, strict=True):
        if not isinstance(text, str | bytes):
            raise ValueError(f"its attribute {name} is no text")
    return [text.decode() if isinstance(text, bytes) else text for text in found]


def check_lists(file: h5py.File) -> None:
    """Look through a whole file for a list of texts that has no end.

    Raises
    ------
    ValueError
        If there is one.
    """
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("it counts with other integers than any known writer")
    in_memory = file.driver == "fileobj"
    content = file.id.get_file_image() if in_memory else np.memmap(file.filename, np.uint8, "r")
    # Lists do not overlap. A file that pretends so would take the square of its size to walk.
    left = len(content) // HEAD
    for at in _places(content):
        for step in _steps(content, at):
            left -= 1
            if step < HEAD or not left:
                raise ValueError("a list of texts in it has no end")


def _places(content: bytes | np.memmap) -> Iterator[int]:
    """Find where lists begin."""
    for start in range(0, len(content), BLOCK):
        block = bytes(content[start : start + BLOCK + len(HEAP) - 1])
        at = block.find(HEAP)
        while at >= 0:
            yield start + at
            at = block.find(HEAP, at + 1)


def _steps(content: bytes | np.memmap, at: int) -> Iterator[int]:
    """Walk through a list as HDF5 does; give the bytes of each entry, 0 for those that lead out."""
    end = min(len(content), at + _number(content, at + 8))
    at += HEAD
    while at + HEAD <= end:
        size = _number(content, at + 8)
        # What is left free is an entry of number 0, whose size counts its head.
        if _number(content, at) & 0xFFFF:
            size = HEAD + -(-size // 8) * 8
        step = size if at + size <= end else 0
        yield step
        at += step or HEAD


def _number(content: bytes | np.memmap, at: int) -> int:
    return int.from_bytes(bytes(content[at : at + 8]), "little")
