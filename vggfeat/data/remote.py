"""Reading objects at addresses: patiently, bounded, and with reasons that hold no credentials."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO

from vggfeat.data.addresses import public, split
from vggfeat.data.filesystems import HTTP, PATIENCE, opened
from vggfeat.data.patience import Unreachable, is_past_the_end, patiently
from vggfeat.data.stored import Stamp, Stored, digest, nanoseconds
from vggfeat.errors import PictureError

Info = dict[str, Any]

LARGEST = 1 << 29  # bytes of a picture's file; more is a mistake, or an attack
CHUNK = 1 << 18
NO_PARTS = "its server sends no parts of files (HTTP ranges): use one that does, or download it"
BLOCK = 1 << 20  # bytes of one request where a file is read from its beginning to its end
_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "checksum", "crc32c", "created")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "created")


@dataclass(frozen=True, slots=True)
class Remote(Stored):
    """A picture at an address.

    Parameters
    ----------
    address : str
        Where it is, with whatever credentials are in it.
    known : (int, int), optional
        Its stamp, from a listing; without it, an address is one image for ever.
    size : int
        Bytes, from a listing; −1 if unknown.

    Examples
    --------
    >>> picture = Remote("https://host/a.jpg?sig=secret")
    >>> picture, str(picture)
    (Remote('https://host/a.jpg'), 'https://host/a.jpg')
    """

    address: str
    known: Stamp | None = field(default=None, compare=False)
    size: int = field(default=-1, compare=False)

    def read(self) -> bytes:
        """Read the file of the picture, whole."""
        try:
            return read(self.address, size=self.size if self.size >= 0 else None, most=LARGEST)
        except Unreachable as error:
            raise PictureError(str(error)) from None

    def stamp(self) -> Stamp:
        """Tell it from what else has, or had, its name, without reading it."""
        return self.known or (digest(public(self.address)), 0)

    def __str__(self) -> str:
        return public(self.address)

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"


def read(address: str, start: int = 0, size: int | None = None, *, most: int = LARGEST) -> bytes:
    """Read an object, or a part of it.

    Parameters
    ----------
    address : str
        Where it is.
    start : int
        First byte.
    size : int, optional
        Number of bytes; without it, all there are.
    most : int
        More is not read.

    Raises
    ------
    Unreachable
        With the reason, after several attempts where that may help.
    """
    limit = most if size is None else size
    if limit > most:
        raise Unreachable(f"its {limit:,} bytes are more than the {most:,} allowed")
    whole = size is None
    content = patiently(lambda: _once(address, start, limit, whole=whole)) if limit else b""
    if size is None and len(content) > most:
        raise Unreachable(f"it has more than the {most:,} bytes allowed")
    if size is not None and len(content) != size:
        raise Unreachable(f"{len(content):,} bytes came where {size:,} were expected")
    return content


def info(address: str) -> Info:
    """Return what is known of an object: its ``size`` and whatever else.

    Raises
    ------
    Unreachable
        If nothing is.
    """

    def ask() -> Info:
        fs, path = opened(address)
        return dict(fs.info(path))

    return patiently(ask)


def stat_of(found: Info) -> Stamp | None:
    """Make a stat of what a listing says of an object; None if it says too little.

    Examples
    --------
    >>> stat_of({"name": "a.jpg", "size": None})
    >>> stat_of({"ETag": '"ab"', "size": 3, "mtime": 1.5})[1]
    1500000000
    """
    tags = [found[tag] for tag in _TAGS if found.get(tag)]
    changed = next((found[key] for key in _TIMES if found.get(key)), None)
    if not tags and changed is None:
        return None
    return digest(tags[0] if tags else "", found.get("size")), _nanoseconds(changed)


def opened_file(address: str, *, whole: bool = False) -> BinaryIO:
    """Open an object to be read in order, with seeks forward, by requests of :data:`BLOCK` bytes.

    Parameters
    ----------
    address : str
        Where it is.
    whole : bool
        Whether it may be fetched at once where its server does not say that it sends parts.

    Raises
    ------
    Unreachable
        If it cannot be read.
    """
    found = info(address)
    size = found.get("size")
    parts = found.get("partial", split(address).scheme not in HTTP)
    if size is None or (whole and not parts and size <= LARGEST):
        return io.BytesIO(read(address))
    return io.BufferedReader(_Ranges(address, int(size)), BLOCK)


class _Ranges(io.RawIOBase):
    """An object whose parts are fetched as they are read."""

    def __init__(self, address: str, size: int) -> None:
        self._address, self._size, self._at = address, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        some = max(0, min(len(buffer), self._size - self._at))
        content = read(self._address, self._at, some)
        buffer[:some] = content
        self._at += some
        return some


def _once(address: str, start: int, limit: int, *, whole: bool) -> bytes:
    """Fetch at most `limit` bytes, and one more that shows that the whole object is larger."""
    from fsspec.asyn import AsyncFileSystem, sync

    fs, path = opened(address)
    if whole:
        limit += 1
    if split(address).scheme in HTTP:
        return bytes(sync(fs.loop, _get, fs, path, start, limit, whole, timeout=PATIENCE))
    end = start + limit
    try:
        if isinstance(fs, AsyncFileSystem):
            return bytes(sync(fs.loop, fs._cat_file, path, start=start, end=end, timeout=PATIENCE))
        return _bounded(fs, path, start, limit)
    except Exception as error:
        if whole and is_past_the_end(error):  # there is no first byte
            return b""
        raise


def _bounded(fs: Any, path: str, start: int, limit: int) -> bytes:
    """Read in pieces: one read of all that is allowed would claim as much memory."""
    content = bytearray()
    with fs.open(path, "rb") as file:
        file.seek(start)
        while some := file.read(min(BLOCK, limit - len(content))):
            content += some
    return bytes(content)


async def _get(fs: Any, address: str, start: int, limit: int, whole: bool) -> bytes:
    """Fetch by HTTP, and stop where enough has come, however much the server sends."""
    session = await fs.set_session()
    wanted = {} if whole else {"Range": f"bytes={start}-{start + limit - 1}"}
    options = {**fs.kwargs, "headers": {**fs.kwargs.get("headers", {}), **wanted}}
    async with session.get(fs.encode_url(address), **options) as answer:
        if answer.status in (404, 410):
            raise FileNotFoundError
        answer.raise_for_status()
        if wanted and answer.status != 206:
            raise ValueError(NO_PARTS)
        content = bytearray()
        async for chunk in answer.content.iter_chunked(CHUNK):
            content += chunk
            if len(content) >= limit:
                break
        return bytes(content[:limit])


def _nanoseconds(changed: object) -> int:
    if isinstance(changed, str):
        changed = _date(changed)
    if isinstance(changed, datetime):
        changed = (changed.replace(tzinfo=changed.tzinfo or UTC) - _EPOCH).total_seconds()
    return nanoseconds(changed) if isinstance(changed, int | float) else 0


def _date(text: str) -> datetime | None:
    for read_date in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError, OverflowError):
            return read_date(text)
    return None
