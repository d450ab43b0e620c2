"""Addresses such as s3://bucket/a.jpg: what they say, and what of them may be shown."""

from __future__ import annotations

import hashlib
import posixpath
import re
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import unquote_plus

from vggfeat.errors import DataError

# Two letters at least: C:// is a drive.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(://|::)")
_ONE_SLASH = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/(?=[^/])")
_LINK = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<host>[^/?#]*)(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?(?:#.*)?",
    re.DOTALL,
)
# An account that owns a container, as abfs://container@account/…, is no password.
_OWNED = ("abfs", "abfss", "wasb", "wasbs")
# Parameters that are secret, or new with every signature (of S3, Google, Azure, CloudFront)…
_SECRET = re.compile(
    r"x-(amz|goog|oss|cos|obs)-(?!process).*|(aws|oss)?accesskeyid|googleaccessid|sig|signature|"
    r".*token|api_?key|.*secret.*|.*passw.*"
)
# … and those that are so beside all of some others only, and otherwise say which picture is meant.
_SECRET_BESIDE = (
    ({"sig"}, re.compile(r"s[eiprstv]|sip|spr|srt|sdd|ses|sk[estv]|skoid|sktid|s[au]oid|scid")),
    ({"signature"}, re.compile(r"expires")),
    ({"signature", "key-pair-id"}, re.compile(r"key-pair-id|policy|hash-algorithm")),
)


class Link(NamedTuple):
    """The parts of an address, of which `rest` is what it is chained to."""

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

    Raises
    ------
    DataError
        If it is none, or chained to one through something without a path.

    Examples
    --------
    >>> split("https://me:secret@host/a.jpg?size=2")
    Link(scheme='https', host='me:secret@host', path='/a.jpg', query='size=2', rest='')
    >>> split("zip://a.jpg::s3://bucket/all.zip").rest
    '::s3://bucket/all.zip'
    """
    first, mark, rest = address.partition("::")
    found = _LINK.fullmatch(first)
    if found is None:
        raise DataError(
            f"An address that begins with {first.partition(':')[0]}: cannot be used for pictures. "
            "Write s3://bucket/folder, https://host/picture.jpg, or zip://::s3://bucket/all.zip."
        )
    scheme, host, path, query = found.groups("")
    return Link(scheme.lower(), host, path, query, mark + rest)


def join(address: str, path: str) -> str:
    """Find what a path leads to from the folder at an address.

    Raises
    ------
    DataError
        If it leads out of the host or bucket.

    Examples
    --------
    >>> join("s3://bucket/lists", "../pictures/a.jpg")
    's3://bucket/pictures/a.jpg'
    """
    link = split(address)
    # A scheme without a host, such as memory:// or zip://, has its first folder there.
    below = posixpath.normpath(posixpath.join(link.path.lstrip("/"), path))
    if path.startswith("/") or below.startswith("../") or below == "..":
        raise DataError(
            f"{path!r} leads out of {public(address)}. Write paths that are relative to it, or "
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


def public(address: str) -> str:
    """Write an address without credentials, so that it may be a name, or stand in a message.

    User and password are left out, and of a query what signs it. A digest stands for what else
    there is: it may say which picture is meant, or hide a password.

    Examples
    --------
    >>> public("https://me:secret@host/a.jpg?X-Amz-Signature=ab12&X-Amz-Date=20260102T030405Z")
    'https://host/a.jpg'
    >>> public("https://host/picture?id=7&token=ab12")
    'https://host/picture?bf218a88fb47fdb7bb93'
    """
    return "::".join(map(_shown, address.split("::")))


def without_secrets(message: str) -> str:
    """Clear a message of what may be secret in the addresses in it."""
    message = re.sub(r"([A-Za-z][A-Za-z0-9+.-]+://)[^\s/@'\"]+@", r"\1", message)
    return re.sub(r"\?[^\s'\")>]*=[^\s'\")>]*", "?…", message)


def _shown(part: str) -> str:
    found = _LINK.fullmatch(part)
    if found is None:  # simplecache, or another link without a path
        return part
    scheme, host, path, query = found.groups("")
    user, _, server = host.rpartition("@")
    if user and scheme.lower() in _OWNED and ":" not in user:
        server = host
    asked = _ordinary([one for one in query.split("&") if one])
    told = hashlib.blake2b("&".join(asked).encode(), digest_size=10).hexdigest()
    return f"{scheme}://{server}{path}" + (f"?{told}" if asked else "")


def _ordinary(parameters: list[str]) -> list[str]:
    """Return the parameters of a query, sorted by their keys, without what signs it."""
    keys = {one: unquote_plus(one.partition("=")[0]).lower() for one in parameters}
    there = set(keys.values())
    secret = [_SECRET, *(regex for marks, regex in _SECRET_BESIDE if marks <= there)]
    kept = [one for one in parameters if not any(regex.fullmatch(keys[one]) for regex in secret)]
    return sorted(kept, key=keys.__getitem__)
