"""Images at addresses: one object, or all that lie below a folder."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from vggfeat._io.remote import (
    HTTP,
    LARGEST,
    Info,
    Unreachable,
    list_folder,
    open_filesystem,
    read_bytes,
    redact,
    retry,
    split,
)
from vggfeat.data.identity import digest, nanoseconds
from vggfeat.data.image import EXTENSIONS, ImageRef, Stamp
from vggfeat.data.left_out import LeftOut
from vggfeat.data.names import is_hidden, name_on_web, prefix_of
from vggfeat.errors import DataNotFound, ImageError, VggfeatError

_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "checksum", "crc32c", "created")
DEEPEST = 32  # folders below one another; a web server may link them in circles
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "created")


@dataclass(frozen=True, slots=True)
class RemoteImage(ImageRef):
    """An image at an address, with whatever credentials are in it.

    Examples
    --------
    >>> image = RemoteImage("https://host/a.jpg?sig=secret")
    >>> image, str(image)
    (RemoteImage('https://host/a.jpg'), 'https://host/a.jpg')
    """

    address: str
    # From a listing. Without a stamp, an address is one image for ever.
    known: Stamp | None = field(default=None, compare=False)
    size: int = field(default=-1, compare=False)

    def read(self) -> bytes:
        """Read the file of the image, whole."""
        _check_size(self.size)
        try:
            content = read_bytes(self.address)
        except Unreachable as error:
            raise ImageError(str(error)) from None
        _check_size(len(content))
        return content

    def stamp(self) -> Stamp:
        """Tell it from what else has, or had, its name, without reading it."""
        return self.known or (digest(redact(self.address)), 0)

    def __str__(self) -> str:
        return redact(self.address)

    def __repr__(self) -> str:
        return f"RemoteImage({str(self)!r})"


def stamp_of(info: Info) -> Stamp | None:
    """Make a stamp of what a listing says of an object; None if it says too little.

    It is a digest of the ETag, or of the time of change where there is none; and the size.

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
    changed: object = next((info[key] for key in _TIMES if info.get(key)), None)
    if changed is None:
        return None
    if isinstance(changed, str):
        changed = _date(changed)
    if isinstance(changed, datetime):
        changed = (changed.replace(tzinfo=changed.tzinfo or UTC) - _EPOCH).total_seconds()
    return nanoseconds(changed) if isinstance(changed, int | float) else 0


def list_below(source: str, left_out: LeftOut) -> Iterator[tuple[RemoteImage, str]]:
    """Go through the images below the address of a folder and their names, sorted.

    Images are known by their suffixes: what else is there is added to `left_out`.

    Raises
    ------
    DataNotFound, DownloadError
        If it cannot be listed.
    """
    prefix = prefix_of(source)
    on_web = split(source).scheme in HTTP
    with explain_unreadable(source):
        for address, path, info in _walk(source, "", DEEPEST, left_out):
            size = info.get("size")
            image = RemoteImage(address, stamp_of(info), -1 if size is None else size)
            yield image, prefix + (name_on_web(path) if on_web else path)


@contextmanager
def explain_unreadable(source: str, what: str = "source") -> Iterator[None]:
    """Name a source, at an address or here, in the error where it cannot be read."""
    try:
        yield
    except Unreachable as error:
        raise error.of(source) from None
    except VggfeatError:
        raise
    except OSError as error:
        raise DataNotFound(f"The {what} {source} cannot be read: {error.strerror}.") from error


def is_glob(source: str) -> bool:
    """Tell a pattern from an address; a question mark in a web address begins a query.

    Examples
    --------
    >>> [is_glob(text) for text in ("s3://b/*.jpg", "s3://b/?.jpg", "https://host/a.jpg?b=c")]
    [True, True, False]
    """
    link = split(source)
    if link.scheme in HTTP:
        return "*" in link.path
    return any(sign in link.host + link.path + link.query for sign in "*[") or bool(link.query)


def expand_glob(source: str) -> list[str]:
    """List the addresses that a pattern names, sorted.

    Raises
    ------
    DataNotFound, DownloadError
        If it cannot be listed.
    """
    whole = source.partition("::")[0]
    first = min(whole.find(sign) for sign in "*[?" if sign in whole)
    base = whole[: whole.rfind("/", 0, first)] + source[len(whole) :]

    def ask() -> list[str]:
        fs, path = open_filesystem(source)
        root = open_filesystem(base)[1].strip("/") + "/"
        below = [name.strip("/").removeprefix(root) for name in fs.glob(path)]
        return sorted(_inside(base, name) for name in below if "/." not in f"/{name}")

    with explain_unreadable(source):
        return retry(ask)


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise ImageError(f"its {size:,} bytes are more than the {LARGEST:,} allowed")


def _date(text: str) -> datetime | None:
    for read_date in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError, OverflowError):
            return read_date(text)
    return None


def _walk(
    address: str, above: str, depth: int, left_out: LeftOut
) -> Iterator[tuple[str, str, Info]]:
    """Yield the address, the path below the source and the listing of each image."""
    folders = []
    for name, info in sorted(list_folder(address).items()):
        if is_hidden(posixpath.basename(name)):
            continue
        if info["type"] == "directory":
            folders.append(name)
        elif posixpath.splitext(name.partition("?")[0])[1].lower() in EXTENSIONS:
            yield _inside(address, name), above + name, info
        elif plain := name.partition("?")[0]:  # a server's listing has links to itself, sorted
            left_out.add_file(above + plain)
    if depth:
        for name in folders:
            yield from _walk(_inside(address, name), f"{above}{name}/", depth - 1, left_out)


def _inside(source: str, path: str) -> str:
    """Return the address of a path below a source; a query belongs to the source alone."""
    whole, mark, rest = source.partition("::")
    if split(source).scheme in HTTP:
        whole = whole.partition("?")[0]
    front = whole if whole.endswith("://") else whole.rstrip("/") + "/"
    return f"{front}{path}{mark}{rest}" if path else source
