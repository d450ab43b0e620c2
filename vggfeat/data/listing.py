"""What lies below an address: folders of buckets and of web servers."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from vggfeat._io.remote import (
    HTTP,
    Info,
    Unreachable,
    list_folder,
    open_filesystem,
    retry,
    split,
)
from vggfeat.data.images import EXTENSIONS
from vggfeat.data.manifests import Entry
from vggfeat.data.names import name_on_web, prefix_of
from vggfeat.data.remote import Remote, stamp_of

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
        for address, path, info in _walk(source, "", DEEPEST):
            size = info.get("size")
            image = Remote(address, stamp_of(info), -1 if size is None else size)
            yield Entry(image, prefix + (name_on_web(path) if on_web else path))
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
        fs, path = open_filesystem(source)
        root = open_filesystem(base)[1].strip("/") + "/"
        below = [name.strip("/").removeprefix(root) for name in fs.glob(path)]
        return sorted(_inside(base, name) for name in below if "/." not in f"/{name}")

    try:
        return retry(ask)
    except Unreachable as error:
        raise error.of(source) from None


def _walk(address: str, above: str, depth: int) -> Iterator[tuple[str, str, Info]]:
    """Yield the address, the path below the source and the listing of each image."""
    folders = []
    for name, info in sorted(list_folder(address).items()):
        if posixpath.basename(name).startswith("."):
            continue
        if info["type"] == "directory":
            folders.append(name)
        elif posixpath.splitext(name.partition("?")[0])[1].lower() in EXTENSIONS:
            yield _inside(address, name), above + name, info
    if depth:
        for name in folders:
            yield from _walk(_inside(address, name), f"{above}{name}/", depth - 1)


def _inside(source: str, path: str) -> str:
    """Return the address of a path below a source; a query belongs to the source alone."""
    whole, mark, rest = source.partition("::")
    if split(source).scheme in HTTP:
        whole = whole.partition("?")[0]
    front = whole if whole.endswith("://") else whole.rstrip("/") + "/"
    return f"{front}{path}{mark}{rest}" if path else source
