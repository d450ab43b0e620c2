"""Images at addresses."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from vggfeat._io.remote import LARGEST, Info, Unreachable, read_bytes, redact
from vggfeat.data.stored import Stamp, Stored, digest, nanoseconds
from vggfeat.errors import PictureError

_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "checksum", "crc32c", "created")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "created")


@dataclass(frozen=True, slots=True)
class Remote(Stored):
    """An image at an address.

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
    >>> image = Remote("https://host/a.jpg?sig=secret")
    >>> image, str(image)
    (Remote('https://host/a.jpg'), 'https://host/a.jpg')
    """

    address: str
    known: Stamp | None = field(default=None, compare=False)
    size: int = field(default=-1, compare=False)

    def read(self) -> bytes:
        """Read the file of the image, whole."""
        _check_size(self.size)
        try:
            content = read_bytes(self.address)
        except Unreachable as error:
            raise PictureError(str(error)) from None
        _check_size(len(content))
        return content

    def stamp(self) -> Stamp:
        """Tell it from what else has, or had, its name, without reading it."""
        return self.known or (digest(redact(self.address)), 0)

    def __str__(self) -> str:
        return redact(self.address)

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"


def stamp_of(info: Info) -> Stamp | None:
    """Make a stamp of what a listing says of an object; None if it says too little.

    Returns
    -------
    (int, int)
        A digest of its ETag, or of its time of change where it has none; its size.

    Examples
    --------
    >>> stamp_of({"name": "a.jpg", "size": None})
    >>> stamp_of({"ETag": '"ab"', "size": 3})[1]
    3
    """
    tag = next((info[key] for key in _TAGS if info.get(key)), None)
    changed = changed_at(info)
    if tag is None and changed is None:
        return None
    return digest(changed if tag is None else tag), info.get("size") or 0


def changed_at(info: Info) -> int | None:
    """Return when an object was changed, in ns; None where its listing does not say it."""
    changed = next((info[key] for key in _TIMES if info.get(key)), None)
    return None if changed is None else _nanoseconds(changed)


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise PictureError(f"its {size:,} bytes are more than the {LARGEST:,} allowed")


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
