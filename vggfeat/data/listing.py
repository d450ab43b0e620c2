"""What lies below an address: folders of buckets and of web servers."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from vggfeat.data.addresses import public, split
from vggfeat.data.filesystems import HTTP, opened
from vggfeat.data.images import EXTENSIONS
from vggfeat.data.manifests import Entry
from vggfeat.data.names import name_on_web, prefix_of
from vggfeat.data.patience import Unreachable, patiently
from vggfeat.data.remote import Info, Remote, stat_of
from vggfeat.errors import DataError

DEEPEST = 32  # folders below one another; a web server may link them in circles


def below(source: str) -> Iterator[Entry]:
    """Go through the pictures below an address, sorted, without hidden ones.

    Parameters
    ----------
    source : str
        Address of a folder.

    Raises
    ------
    DataNotFound, DownloadError
        If it cannot be listed.
    """
    prefix = prefix_of(source)
    on_web = split(source).scheme in HTTP
    try:
        for path, found in _walk(source, "", DEEPEST):
            size = found.get("size")
            picture = Remote(_inside(source, path), stat_of(found), -1 if size is None else size)
            yield Entry(picture, prefix + (name_on_web(path) if on_web else path))
    except Unreachable as error:
        raise error.of(source) from None


def is_glob(source: str) -> bool:
    """Tell a pattern from an address; a question mark in a web address begins a query.

    Examples
    --------
    >>> [is_glob(one) for one in ("s3://b/*.jpg", "s3://b/?.jpg", "https://host/a.jpg?b=c")]
    [True, True, False]
    """
    link = split(source)
    if link.scheme in HTTP:
        return "*" in link.path
    return any(sign in link.host + link.path + link.query for sign in "*[") or bool(link.query)


def matches(source: str) -> list[str]:
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
        fs, path = opened(source)
        root = _root(base)
        found = [_relative(name, root) for name in fs.glob(path)]
        return sorted(_inside(base, one) for one in found if "/." not in f"/{one}")

    try:
        return patiently(ask)
    except Unreachable as error:
        raise error.of(source) from None


def _walk(source: str, folder: str, depth: int) -> Iterator[tuple[str, Info]]:
    """Yield paths below a source, with what the listing says of each, one folder at a time."""
    folders = []
    for path, found in sorted(_listed(source, folder).items()):
        if posixpath.basename(path).startswith("."):
            continue
        if found["type"] == "directory":
            folders.append(path)
        elif posixpath.splitext(path.partition("?")[0])[1].lower() in EXTENSIONS:
            yield path, found
    if depth:
        for path in folders:
            yield from _walk(source, path, depth - 1)


def _listed(source: str, folder: str) -> dict[str, Info]:
    address = _inside(source, folder) if folder else source

    def ask() -> list[Any]:
        fs, path = opened(address)
        return list(fs.ls(path, detail=True))

    root = _root(source)
    found = {_relative(one["name"], root): one for one in patiently(ask)}
    inside = folder + "/" if folder else ""
    return {path: one for path, one in found.items() if path.startswith(inside) and path != folder}


def _root(source: str) -> str:
    """Return the path of a source as the names of its file system begin."""
    return opened(source)[1].strip("/")


def _relative(name: str, root: str) -> str:
    """Return a path below the source; empty for what is not below it."""
    name = name.strip("/")
    front = root + "/" if root else ""
    path = name[len(front) :].strip("/") if name.startswith(front) else ""
    if ".." in path.split("/"):
        raise DataError(f"A listing leads out of its folder, by {public(path)!r}.")
    return path


def _inside(source: str, path: str) -> str:
    """Return the address of a path below a source; a query belongs to the source alone."""
    whole, mark, rest = source.partition("::")
    if split(source).scheme in HTTP:
        whole = whole.partition("?")[0]
    front = whole if whole.endswith("://") else whole.rstrip("/") + "/"
    return f"{front}{path}{mark}{rest}" if path else source
