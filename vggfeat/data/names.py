"""The name of an image. It depends on its own source alone, whatever else is given beside it."""

from __future__ import annotations

import os
import posixpath
import re
from itertools import dropwhile
from pathlib import Path
from urllib.parse import unquote

from vggfeat._io.remote import is_address, redact
from vggfeat.errors import DataError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def name_of(source: str) -> str:
    """Name a file, a tar, an entry of a list or an object by its path or address as written.

    A path is normalised, and loses a leading ``./``, ``../``, ``/`` or drive. An address becomes
    its bucket or host and the path there, without what is secret in it (see
    :func:`~vggfeat._io.remote.redact`).

    Examples
    --------
    >>> name_of("a/../b/1.jpg"), name_of("../photos/1.jpg"), name_of("/data/000.tar")
    ('b/1.jpg', 'photos/1.jpg', 'data/000.tar')
    >>> name_of("s3://bucket/photos/1.jpg"), name_of("https://me:secret@host/1.jpg?sig=ab")
    ('bucket/photos/1.jpg', 'host/1.jpg')
    >>> name_of("zip://1.jpg::s3://bucket/all.zip")
    'bucket/all.zip/1.jpg'
    """
    if is_address(source):
        links = redact(source).split("::")
        source = "/".join(_SCHEME.sub("", link) for link in reversed(links))
    path = os.path.splitdrive(os.path.normpath(source))[1].replace(os.sep, "/")
    return "/".join(dropwhile(("", ".", "..").__contains__, path.split("/")))


def prefix_of(folder: str) -> str:
    """Return what the names of a folder's images begin with: its last component.

    Examples
    --------
    >>> prefix_of("x/photos"), prefix_of("./photos/"), prefix_of("s3://bucket/x/photos")
    ('photos/', 'photos/', 'photos/')
    >>> prefix_of("."), prefix_of("../.."), prefix_of("/")
    ('', '', '')
    """
    last = posixpath.basename(name_of(folder))
    return last + "/" if last else ""


def name_on_web(path: str) -> str:
    """Write a path of a web server's listing as it is read rather than as it is sent.

    Raises
    ------
    DataError
        If it leads out of the folder that was listed.

    Examples
    --------
    >>> name_on_web("my%20cat/1.jpg")
    'my cat/1.jpg'
    """
    path, mark, query = path.partition("?")
    name = posixpath.normpath(unquote(path))
    if name.startswith(("/", "../")):
        raise DataError(f"A listing leads out of its folder, by {name!r}.")
    return name + redact(f"http://host/{mark}{query}").removeprefix("http://host/")


def relative_name(path: Path | str, folder: Path | str) -> str:
    """Name a file by its path from a folder.

    Raises
    ------
    DataError
        If it does not lie in that folder.

    Examples
    --------
    >>> relative_name("data/photos/1.jpg", "data")
    'photos/1.jpg'
    """
    try:
        name = os.path.relpath(path, folder).replace(os.sep, "/")
    except ValueError:  # on another drive
        name = ".."
    if name.split("/")[0] == "..":
        raise DataError(
            f"{path} does not lie in {folder}, and relative_to=DIR names what does. Name a folder "
            "above all images."
        )
    return name


def is_hidden(name: str) -> bool:
    """Tell files and folders that systems leave beside a user's own, by their names.

    macOS leaves a ``._x.jpg`` beside every ``x.jpg``, and a folder of them in zip files; a
    Synology NAS leaves a folder ``@eaDir`` with thumbnails, Windows a file of them.

    Examples
    --------
    >>> [is_hidden(name) for name in ("._cat.jpg", "@eaDir", "__MACOSX", "cat.jpg")]
    [True, True, True, False]
    """
    return name.startswith(".") or name in ("@eaDir", "__MACOSX", "Thumbs.db", "desktop.ini")
