"""The one checksum: SHA-256, in a file's name, in its last line, or in its header."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

_TRAILER = "\nsha256 {}\n"
_LENGTH = len(_TRAILER.format("0" * 64))


def sha256(*content: bytes | memoryview) -> str:
    """Return the digest of some bytes, one after the other.

    Examples
    --------
    >>> sha256(b"ab", b"c") == sha256(b"abc")
    True
    """
    digest = hashlib.sha256()
    for piece in content:
        digest.update(piece)
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """Return the digest of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_array(kind: str, shape: Sequence[int], content: bytes | memoryview) -> str:
    """Return the digest of an array: of its type, its shape and its bytes."""
    return sha256(f"{kind} {tuple(shape)}".encode(), content)


def append_checksum(content: bytes) -> bytes:
    """Append a line with the digest of all before it.

    Examples
    --------
    >>> strip_checksum(append_checksum(b"abc")), strip_checksum(b"abc")
    (b'abc', None)
    """
    return content + _TRAILER.format(sha256(content)).encode()


def strip_checksum(content: bytes) -> bytes | None:
    """Return the content before that line; None if a byte is not what was written."""
    line = _TRAILER.format(sha256(memoryview(content)[:-_LENGTH])).encode()
    return content[:-_LENGTH] if content.endswith(line) else None


def append_checksum_to(path: Path) -> None:
    """Append that line to a file of any size."""
    line = _TRAILER.format(sha256_file(path))
    with path.open("ab") as file:
        file.write(line.encode())


def has_valid_checksum(path: Path) -> bool:
    """Tell whether a file of any size ends in the digest of all before it."""
    left = path.stat().st_size - _LENGTH
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        return file.read() == _TRAILER.format(digest.hexdigest()).encode()
