"""Texts and arrays of an HDF5 file, also of a file that a stranger made.

HDF5 keeps texts of any length, and what virtual arrays show, in lists of their own, and goes for
ever round a list one of whose entries takes no room: as it reads such a text, or opens such an
array. So these texts are avoided on writing, and the lists are looked through before either. An
array's header tells whether it is virtual; HDF5 does not, before it has opened it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

HEADER, MORE = b"OHDR\2", b"OCHK"  # how headers of arrays begin, and their continuations
CONTINUATION, LAYOUT = 16, 8  # kinds of messages in them; where a layout says how it lies:
PLAIN = (b"\3\0", b"\3\1", b"\3\2", b"\4\0", b"\4\1", b"\4\2")  # not virtual
LONGEST = 1 << 20  # bytes of a header that are looked at; ours have a thousand
HEAP = b"GCOL\1"  # how a list begins, a global heap of the HDF5 format; its version
HEAD = 16  # bytes before its first entry, and before the content of every entry
COMPACT = 60_000  # bytes that an attribute may have, unless it lies in a list


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
    if any(kind.hasobject for kind in kinds) and not _in_memory(holder.file):
        check_lists(holder.file)
    found = [holder.attrs[name] for name in names]
    for name, text in zip(names, found, strict=True):
        if not isinstance(text, str | bytes):
            raise ValueError(f"its attribute {name} is no text")
    return [text.decode() if isinstance(text, bytes) else text for text in found]


def opened(source: Path | str | BinaryIO) -> h5py.File:
    """Open a file for reading, and look through it at once if it is in memory or unusual.

    Raises
    ------
    OSError
        If it cannot be read, or is no HDF5 file.
    ValueError
        If a list in it has no end, as far as it was looked through.
    """
    on_disk = isinstance(source, str | Path)
    file = h5py.File(source, "r", **({"locking": False} if on_disk else {}))
    plan = file.id.get_create_plist()
    if not on_disk or plan.get_userblock() or plan.get_sizes() != (8, 8):
        check_lists(file)
    return file


def item(file: h5py.File, path: str) -> Any:
    """Open an array or a group, when it is known that this ends.

    Raises
    ------
    KeyError
        If there is none.
    ValueError
        If it is, or lies in, another file, or opening it would never end.
    """
    found: Any = file
    for name in map(_encoded, path.strip("/").split("/")):
        links = found.id.links if isinstance(found, h5py.Group) else None
        if links is None or not links.exists(name):
            raise KeyError(f"it has no {path}")
        if (link := links.get_info(name)).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{path} is in another file or by another name")
        _check_header(file, link.u)
        found = found[name]
    return found


def arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Return all arrays that lie in a file by their paths, in alphabetical order."""
    found: dict[str, h5py.Dataset] = {}
    groups: list[h5py.Group] = [file]
    seen: set[int] = set()  # by one name of each: links may go round
    looked = False
    while groups:
        group = groups.pop()
        for name in group:
            link = group.id.links.get_info(_encoded(name))
            if link.type == h5py.h5l.TYPE_HARD and link.u not in seen:
                seen.add(link.u)
                looked = looked or _check_header(file, link.u)
                member = group[name]
                if isinstance(member, h5py.Group):
                    groups.append(member)
                elif isinstance(member, h5py.Dataset):
                    found[str(member.name)] = member
    return dict(sorted(found.items()))


def _encoded(name: str) -> bytes:
    if "/" in name:
        raise ValueError(f"it has the name {name!r}, which leads elsewhere")
    return name.encode("utf-8", "surrogateescape")


def _check_header(file: h5py.File, at: int) -> bool:
    """Look through all lists of a file, unless the header there has none; tell whether it did."""
    if _in_memory(file) or _plain(file.id.get_vfd_handle(), at):
        return False
    check_lists(file)
    return True


def _in_memory(file: h5py.File) -> bool:
    """Tell whether a file was looked through as it was opened."""
    return bool(file.id.get_access_plist().get_driver() == h5py.h5fd.fileobj_driver)


def _plain(handle: int, at: int) -> bool:
    """Tell whether a header, of the one kind that we write, is of no virtual array."""
    start = os.pread(handle, 34, at)
    if not start.startswith(HEADER):
        return False
    flags = start[5]
    head = 6 + 16 * bool(flags & 32) + 4 * bool(flags & 16)
    width = 1 << (flags & 3)
    chunks = [(at + head + width, int.from_bytes(start[head : head + width], "little"))]
    left = LONGEST
    for at, size in chunks:
        if not 0 <= size <= left:
            return False
        left -= size + HEAD
        for kind, content in _messages(os.pread(handle, size, at), 6 if flags & 4 else 4):
            if kind == LAYOUT and content[:2] not in PLAIN:
                return False
            if kind == CONTINUATION:
                address, length = (int.from_bytes(content[i : i + 8], "little") for i in (0, 8))
                # It begins with a mark and ends with a checksum; the first chunk is without.
                chunks.append((address + len(MORE), length - len(MORE) - 4))
    return True


def _messages(chunk: bytes, head: int) -> Iterator[tuple[int, bytes]]:
    """Give the kind and the content of each message of a header."""
    at = 0
    while at + head <= len(chunk):
        size = int.from_bytes(chunk[at + 1 : at + 3], "little")
        yield chunk[at], chunk[at + head : at + head + size]
        at += head + size


def check_lists(file: h5py.File) -> None:
    """Look through a whole file for a list that has no end.

    Raises
    ------
    ValueError
        If there is one.
    """
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("it counts with other integers than any known writer")
    content: bytes | Any = (
        file.id.get_file_image() if _in_memory(file) else np.memmap(file.filename, np.uint8, "r")
    )
    # Lists do not overlap. A file that pretends so would take the square of its size to walk.
    left = len(content) // HEAD
    for place in re.finditer(re.escape(HEAP), content):
        for step in _steps(content, place.start()):
            left -= 1
            if step < HEAD or not left:
                raise ValueError("a list in it has no end")


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
