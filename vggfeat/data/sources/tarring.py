"""Tar files that a stranger may have made: read header by header, each of bounded size."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

LARGEST_HEADER = 1 << 20  # bytes that one header may take with all its extensions
DAMAGED = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)
"""What reading a damaged archive raises; OverflowError, of sizes beyond all files, is none."""
_ENDLESS = re.compile(rb"\d{256}")


class _Bounded:
    """A file of which tarfile reads headers, and no more, whatever sizes they promise."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def seekable(self) -> bool:
        return True  # whoever reads a tar file within a tar file asks

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LARGEST_HEADER:
            raise tarfile.ReadError("a header is larger than any is")
        content = self._file.read(size)
        # Python before 3.11.10 looks for a number in it in time that grows with its square.
        if size > tarfile.BLOCKSIZE and _ENDLESS.search(content):
            raise tarfile.ReadError("a header has a number of hundreds of digits")
        return content


@contextmanager
def opened(file: IO[bytes], *, packed: bool = False) -> Iterator[tarfile.TarFile]:
    """Open a tar file.

    Parameters
    ----------
    file : binary file
        From its beginning, or where a tar file in it begins.
    packed : bool
        Whether it may be compressed: by gzip, bzip2 or xz.

    Raises
    ------
    tarfile.TarError
        If it is none.
    """
    source = _unpacked(file) if packed else file
    with tarfile.open(fileobj=cast("Any", _Bounded(source)), mode="r:") as archive:
        yield archive


def members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Go through the members of an archive, and keep none of them in memory.

    Raises
    ------
    tarfile.ReadError
        If a header leads backwards, as it does in an archive without end.
    """
    last = -1
    try:
        while (member := archive.next()) is not None:
            if member.size < 0 or member.offset <= last:
                raise tarfile.ReadError("a header leads backwards")
            last = member.offset
            cast("Any", archive).members.clear()
            yield member
    except OverflowError as error:
        raise tarfile.ReadError(f"a header promises what no file has: {error}") from error


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    start = file.tell()
    head = file.read(6)
    file.seek(start)
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    return lzma.LZMAFile(file) if head == b"\xfd7zXZ\0" else file
