"""Texts and arrays of an HDF5 file, also of a file that a stranger made.

HDF5 keeps texts of any length, and what virtual arrays show, in lists of their own, and goes for
ever round a list one of whose entries takes no room: when it reads such a text, opens such an
array, or opens one whose fill value is such a text. So these texts are avoided on writing, and all
lists of a file are walked before HDF5 may come to one. Most files are spared that: the headers of
their objects tell that there is none. HDF5 would tell only after it has read the list.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

# What files of ours begin with: a superblock of version 2 or 3, integers of 8 bytes, nothing in
# front of it and nothing that extends it, such as a second copy of all headers.
SIGNATURE = b"\x89HDF\r\n\x1a\n"
VERSIONS = (b"\2\x08\x08", b"\3\x08\x08")
NO_EXTENSION = bytes(8) + b"\xff" * 8
HEADER, MORE = b"OHDR\2", b"OCHK"  # how the header of an object begins, and a continuation of it
CHECKSUM = 4  # bytes at its end
DATATYPE, LAYOUT, CONTINUATION = 3, 8, 16  # kinds of messages in it
NUMBERS = {bytes((16 * version + kind,)) for version in range(1, 6) for kind in (0, 1, 3)}
STORED = {bytes((version, kind)) for version in (3, 4) for kind in (0, 1, 2)}  # and not virtual
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


def opened(source: Path | str | BinaryIO, *, walk: bool = False) -> h5py.File:
    """Open a file for reading; walk its lists at once if so told, or if it is no file like ours.

    Raises
    ------
    OSError
        If it cannot be read, or is no HDF5 file.
    ValueError
        If a list that was walked has no end.
    """
    on_disk = isinstance(source, str | Path)
    file = h5py.File(source, "r", **({"locking": False} if on_disk else {}))
    try:
        if walk or not on_disk or not _usual(file.id.get_vfd_handle()):
            check_lists(file)
    except BaseException:
        file.close()
        raise
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
    while groups:
        group = groups.pop()
        for name in group:
            link = group.id.links.get_info(_encoded(name))
            if link.type == h5py.h5l.TYPE_HARD and link.u not in seen:
                seen.add(link.u)
                _check_header(file, link.u)
                member = group[name]
                if isinstance(member, h5py.Group):
                    groups.append(member)
                elif isinstance(member, h5py.Dataset):
                    found[str(member.name)] = member
    return dict(sorted(found.items()))


def _encoded(name: str | bytes) -> bytes:
    """Return a link's name as it is in the file; h5py leaves one that is no UTF-8 in bytes."""
    encoded = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    if b"/" in encoded:
        raise ValueError(f"it has the name {name!r}, which leads elsewhere")
    return encoded


def _check_header(file: h5py.File, at: int) -> None:
    """Walk all lists of a file, unless the header of the object there tells that it needs none."""
    if not _in_memory(file) and not _plain(file.id.get_vfd_handle(), at):
        check_lists(file)


def _in_memory(file: h5py.File) -> bool:
    """Tell whether the lists of a file were walked as it was opened."""
    return bool(file.id.get_access_plist().get_driver() == h5py.h5fd.fileobj_driver)


def _usual(handle: int) -> bool:
    """Tell whether a file begins as ours do, with a root that needs no list."""
    start = _read(handle, 44, 0)
    begins = start[:8] == SIGNATURE and start[8:11] in VERSIONS and start[12:28] == NO_EXTENSION
    return begins and _plain(handle, int.from_bytes(start[36:44], "little"))


def _plain(handle: int, header: int) -> bool:
    """Tell whether an object, by a header of the kind that we write, needs no list."""
    start = _read(handle, 34, header)
    if not start.startswith(HEADER) or len(start) < 34:
        return False
    flags = start[5]
    head = 6 + 16 * bool(flags & 32) + 4 * bool(flags & 16)
    width = 1 << (flags & 3)
    chunks = [(header + head + width, int.from_bytes(start[head : head + width], "little"))]
    left = LONGEST
    while chunks:
        at, size = chunks.pop()
        left -= max(0, size) + HEAD
        chunk = _read(handle, size, at) if left >= 0 else b""
        if len(chunk) != size or left < 0:
            return False
        for kind, content in _messages(chunk, 6 if flags & 4 else 4):
            if kind == CONTINUATION:
                place, length = (int.from_bytes(content[i : i + 8], "little") for i in (0, 8))
                chunks.append((place + len(MORE), length - len(MORE) - CHECKSUM))
            fits = {DATATYPE: content[:1] in NUMBERS, LAYOUT: content[:2] in STORED}
            if not fits.get(kind, True):
                return False
    return True


def _read(handle: int, size: int, at: int) -> bytes:
    """Read from an open file, if there is so much; nothing where a system cannot."""
    possible = hasattr(os, "pread") and size >= 0 and at >> 63 == 0
    return os.pread(handle, size, at) if possible else b""


def _messages(chunk: bytes, head: int) -> Iterator[tuple[int, bytes]]:
    """Give the kind and the content of each message of a header."""
    at = 0
    while at + head <= len(chunk):
        size = int.from_bytes(chunk[at + 1 : at + 3], "little")
        yield chunk[at], chunk[at + head : at + head + size]
        at += head + size


def check_lists(file: h5py.File) -> None:
    """Walk all lists of a file.

    Raises
    ------
    ValueError
        If one has no end.
    """
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("it counts with other integers than any known writer")
    if _in_memory(file):
        _walk(file.id.get_file_image())
    else:
        told = Path(file.filename).stat()
        _walk_once(file.filename, told.st_ino, told.st_size, told.st_mtime_ns)


@lru_cache(maxsize=1024)  # a packed file is opened for every thousand rows
def _walk_once(path: str, *_changed: int) -> None:
    _walk(np.memmap(path, np.uint8, "r"))


def _walk(content: Any) -> None:
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
