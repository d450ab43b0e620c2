"""Objects at addresses such as s3://bucket/a.tar: named without secrets, read and listed by fsspec.

What fails for a moment is tried again, here and by :mod:`vggfeat._io.download`.
"""

from __future__ import annotations

import io
import os
import posixpath
import random
import re
import socket
import time
import urllib.error
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import unquote_plus

from vggfeat._io.assets import offline
from vggfeat.errors import DataError, DataNotFound, DownloadError, MissingExtra, VggfeatError

T = TypeVar("T")
Info = dict[str, Any]

HTTP = ("http", "https")
ATTEMPTS = 4
BACKOFF = 0.5  # seconds before the second attempt, doubled each time
TIMEOUT, CONNECT, STALL = 120.0, 10.0, 30.0  # seconds: of a request, to connect, without a byte
BLOCK = 1 << 20  # bytes of one request where an object is read in order
LARGEST = 1 << 29  # bytes of an object that is read at once
NO_RANGES = "its server sends no parts of files (HTTP ranges): use one that does, or download it"

# Two letters at least: C:// is a drive.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")
_ONE_SLASH = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/(?=[^/])")
_LINK = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<host>[^/?#]*)(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?(?:#.*)?",
    re.DOTALL,
)
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")  # container@account, and no password
# Parameters of a query that are secret, and those that are only part of a signature beside one.
_SECRET = re.compile(
    r"x-(amz|goog|oss|cos|obs)-(?!process).*|.*(token|secret|passw|signature|credential|auth).*|"
    r"sig|(.*[-_])?key|.*(access|api).?(key|id)(id)?"
)
_SIGNATURE = ("sig", "signature")
_SIGNED = re.compile(
    r"s[eiprstv]|sip|spr|srt|sdd|ses|sk[estv]|skoid|sktid|s[au]oid|scid|"
    r"expires|key-pair-id|policy|hash-algorithm"
)
_PASSING = (408, 425, 429)  # statuses of HTTP that may pass, beside all from 500 on
_LASTING = (  # what another attempt would meet again
    FileExistsError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NotImplementedError,
    ImportError,
)


class Unreachable(Exception):
    """An object could not be reached, or is absent; the message is the reason, without secrets."""

    def __init__(self, reason: str, *, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent

    def of(self, address: str) -> DataNotFound | DownloadError:
        """Make an error of it that names the address."""
        if self.absent:
            return DataNotFound(f"There is nothing at {redact(address)}. Check the spelling.")
        return DownloadError(f"{redact(address)} cannot be read: {self}.")


class Link(NamedTuple):
    """The parts of an address; `rest` is what it is chained to."""

    scheme: str
    host: str
    path: str
    query: str
    rest: str


def is_address(text: str) -> bool:
    """Tell an address from a path.

    Examples
    --------
    >>> [is_address(text) for text in ("s3://bucket/a.jpg", "a.jpg", "/data/a:b.jpg", "C://a.jpg")]
    [True, False, False, False]
    """
    return bool(_ADDRESS.match(text))


def address_of(where: PurePath | str) -> str | None:
    """Return an address that was named, also as a path, in which two slashes have become one.

    Examples
    --------
    >>> address_of("s3://bucket/features"), address_of(PurePath("features"))
    ('s3://bucket/features', None)
    >>> address_of(PurePath("s3://bucket/features"))
    's3://bucket/features'
    """
    text = str(where)
    if isinstance(where, PurePath):
        text = _ONE_SLASH.sub(r"\1://", text)
    return text if is_address(text) else None


def split(address: str) -> Link:
    """Take an address apart.

    Examples
    --------
    >>> split("https://me:secret@host/a.jpg?size=2")
    Link(scheme='https', host='me:secret@host', path='/a.jpg', query='size=2', rest='')
    >>> split("zip://a.jpg::s3://bucket/all.zip").rest
    '::s3://bucket/all.zip'
    """
    first, mark, rest = address.partition("::")
    parts = _LINK.fullmatch(first)
    if parts is None:
        raise DataError(
            f"An address that begins with {first.partition(':')[0]}: cannot be used. "
            "Write s3://bucket/folder, https://host/image.jpg, or zip://::s3://bucket/all.zip."
        )
    scheme, host, path, query = parts.groups("")
    return Link(scheme.lower(), host, path, query, mark + rest)


def join(address: str, path: str) -> str:
    """Find what a path leads to from the folder at an address.

    Examples
    --------
    >>> join("s3://bucket/lists", "../images/a.jpg")
    's3://bucket/images/a.jpg'
    """
    link = split(address)
    # A scheme without a host, such as memory:// or zip://, has its first folder there.
    below = posixpath.normpath(posixpath.join(link.path.lstrip("/"), path))
    if path.startswith("/") or below.startswith("../") or below == "..":
        raise DataError(
            f"{path!r} leads out of {redact(address)}. Write paths that are relative to it, or "
            "whole addresses."
        )
    return f"{link.scheme}://{link.host}/{below}{link.rest}"


def parent(address: str) -> str:
    """Return the address of the folder that holds an object.

    Examples
    --------
    >>> parent("https://host/lists/all.csv?sig=ab12")
    'https://host/lists'
    """
    link = split(address)
    return f"{link.scheme}://{link.host}{posixpath.dirname(link.path)}{link.rest}"


def suffix(address: str) -> str:
    """Return the suffix of an object's name, in lower case.

    Examples
    --------
    >>> suffix("https://host/A.JPG?size=2.5")
    '.jpg'
    """
    link = split(address)
    return posixpath.splitext(link.path or link.host)[1].lower()


def redact(address: str) -> str:
    """Write an address without user, password, and what is secret in its query or signs it.

    Examples
    --------
    >>> redact("https://me:secret@host/a.jpg?X-Amz-Signature=ab12&X-Amz-Date=20260102T030405Z")
    'https://host/a.jpg'
    >>> redact("https://host/image?token=ab12&id=7")
    'https://host/image?id=7'
    """
    return "::".join(map(_redact_link, address.split("::")))


def redact_message(message: str) -> str:
    """Remove from a message what may be secret in the addresses in it."""
    message = re.sub(r"([A-Za-z][A-Za-z0-9+.-]+://)[^\s/@'\"]+@", r"\1", message)
    return re.sub(r"\?[^\s'\")>]*=[^\s'\")>]*", "?…", message)


def _redact_link(link: str) -> str:
    parts = _LINK.fullmatch(link)
    if parts is None:  # simplecache, or another link without a path
        return link
    scheme, host, path, query = parts.groups("")
    user, _, server = host.rpartition("@")
    if user and scheme.lower() in _CONTAINERS and ":" not in user:
        server = host
    ordinary = "&".join(_ordinary(query))
    return f"{scheme}://{server}{path}" + (f"?{ordinary}" if ordinary else "")


def _ordinary(query: str) -> list[str]:
    """Return the parameters of a query that are no secret, sorted by their keys."""
    parameters = [(unquote_plus(p.partition("=")[0]).lower(), p) for p in query.split("&") if p]
    signed = any(key in _SIGNATURE for key, _ in parameters)
    return [
        parameter
        for key, parameter in sorted(parameters, key=lambda pair: pair[0])
        if not (_SECRET.fullmatch(key) or (signed and _SIGNED.fullmatch(key)))
    ]


# fsspec makes a file system for each thread, and with it connections and clients of their own. One
# that works in a loop serves all threads of a process.
_shared: dict[tuple[int, str, str], Any] = {}


def open_filesystem(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the path of the object in it."""
    link = split(address)
    if offline() and not _is_here(address):
        raise DownloadError(
            f"{redact(address)} is not on this machine and VGGFEAT_OFFLINE forbids the network. "
            "Unset it, or name what is here."
        )
    # A connection belongs to a host, or to an account; on the web it is found by each address.
    place = (os.getpid(), link.scheme, "" if link.scheme in HTTP else link.host)
    if not link.rest and place in _shared:
        fs = _shared[place]
        return fs, str(fs._strip_protocol(address))
    try:
        from fsspec.asyn import AsyncFileSystem
        from fsspec.core import url_to_fs

        # No listing is kept: one of a million objects would fill the memory.
        fs, path = url_to_fs(address, use_listings_cache=False, **_options(link.scheme))
    except ImportError as error:
        raise _missing(link.scheme, error) from None
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{redact(address)} is no address that can be read: {redact_message(str(error))}"
        ) from None
    if isinstance(fs, AsyncFileSystem) and not link.rest:
        _shared[place] = fs
    return fs, str(path)


def _is_here(address: str) -> bool:
    last = address.split("::")[-1]
    return not is_address(last) or split(last).scheme in ("memory", "file", "local")


def _options(scheme: str) -> dict[str, Any]:
    """Bound the time of a request where the file system does not do so itself."""
    if scheme not in HTTP:
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=TIMEOUT, sock_connect=CONNECT, sock_read=STALL)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}


def _missing(scheme: str, error: ImportError) -> MissingExtra:
    what = f"Reading from {scheme}:// addresses"
    if scheme in ("gs", "gcs"):
        return MissingExtra.of(what, "gcsfs", "gcs")
    if scheme in ("s3", "s3a", *HTTP):
        return MissingExtra.of(what, "aiohttp and s3fs", "remote")
    return MissingExtra(f"{what} needs another package: {error}")


def read_bytes(address: str, start: int | None = None, end: int | None = None) -> bytes:
    """Read an object, or its bytes from `start` up to `end`; several times where that may help."""
    if start is not None and start == end:
        return b""

    content = with_filesystem(
        address, lambda fs, path: bytes(fs.cat_file(path, start=start, end=end))
    )
    if end is not None and len(content) != end - (start or 0):
        if len(content) > end - (start or 0):
            raise Unreachable(NO_RANGES)
        raise Unreachable(f"it ends after {(start or 0) + len(content):,} of {end:,} bytes")
    return content


def stat(address: str) -> Info:
    """Return what is known of an object: its ``size``, and whatever else its server says."""
    return with_filesystem(address, lambda fs, path: dict(fs.info(path)))


def list_folder(address: str) -> dict[str, Info]:
    """Return what lies directly in a folder, by name.

    Examples
    --------
    >>> open_filesystem("memory://doctest")[0].pipe_file("/doctest/list/a.txt", b"a")
    >>> list_folder("memory://doctest/list")["a.txt"]["size"]
    1
    """

    def ask(fs: Any, path: str) -> dict[str, Info]:
        front = path.strip("/") + "/" if path.strip("/") else ""
        paths = {info["name"].strip("/"): info for info in fs.ls(path, detail=True)}
        return {p[len(front) :]: info for p, info in paths.items() if p.startswith(front)}

    listed = with_filesystem(address, ask)
    if outside := next((name for name in listed if ".." in name.split("/")), None):
        raise DataError(f"A listing leads out of its folder, by {redact(outside)!r}.")
    return {name: info for name, info in listed.items() if name}


def open_file(address: str, *, whole: bool = False) -> BinaryIO:
    """Open an object to be read in order, by requests of :data:`BLOCK` bytes.

    With `whole`, it may be read at once where its server sends no parts.
    """
    info = stat(address)
    size = info.get("size")
    ranges = info.get("partial", split(address).scheme not in HTTP)
    if size is None or (whole and not ranges and size <= LARGEST):
        return io.BytesIO(read_bytes(address))
    return io.BufferedReader(_Blocks(address, int(size)), BLOCK)


class _Blocks(io.RawIOBase):
    """An object whose bytes are requested as they are read."""

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
        end = min(self._at + len(buffer), self._size)
        content = read_bytes(self._address, self._at, end) if end > self._at else b""
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def with_filesystem(address: str, action: Callable[[Any, str], T]) -> T:
    """Do something with the file system of an address and the path in it, again if it may help."""
    return retry(lambda: action(*open_filesystem(address)))


def retry(action: Callable[[], T]) -> T:
    """Do what needs a network, and again if the reason of a failure may pass; or Unreachable."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except (VggfeatError, Unreachable):
            raise
        except Exception as raised:  # fsspec's file systems raise whatever their libraries do
            error = _cause(raised)
            if attempt == ATTEMPTS or not _may_pass(error):
                absent = isinstance(error, FileNotFoundError)
                raise Unreachable(_reason(error), absent=absent) from None
        time.sleep(BACKOFF * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
    raise AssertionError  # the last attempt returns or raises


def _may_pass(error: Exception) -> bool:
    # A host that is not found stays so: to wait for each of its objects would only hide it.
    if isinstance(error, socket.gaierror):
        return False
    if (status := _status(error)) is not None:
        return status in _PASSING or status >= 500
    return not isinstance(error, _LASTING)


def _reason(error: Exception) -> str:
    """Say in one line, without addresses and secrets, why an object could not be reached."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "access denied"
    if isinstance(error, socket.gaierror):
        return "its host is not found"
    if (status := _status(error)) is not None:
        return f"HTTP status {status}"
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "no answer in time"
    return " ".join(f"{type(error).__name__}: {redact_message(str(error))}".split())


def _cause(error: Exception) -> Exception:
    """Return what the system said, where urllib or aiohttp wrapped it."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else None
    inner = getattr(error, "os_error", inner)
    return inner if isinstance(inner, OSError) else error


def _status(error: Exception) -> int | None:
    """Find the HTTP status in an error of urllib, aiohttp, gcsfs or botocore."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        answer = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return answer if isinstance(answer, int) else None
    for name in ("status", "code"):
        if isinstance(status := getattr(error, name, None), int):
            return status
    return None
