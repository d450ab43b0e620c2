"""What tells a picture's file from another that has, or had, its name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vggfeat.data.images import LACKING, Crop, Picture
from vggfeat.data.stored import Stat, Stored, identity


def stat_of(picture: Picture) -> Stat:
    """Tell a picture's file from others.

    Parameters
    ----------
    picture : Picture
        A file, a box of one, or an object in a tar or at an address, where it is not read for it.

    Returns
    -------
    (int, int)
        Of a file the first 16 bytes of the SHA-256 of its content, and of the box, if there is
        one; of an object or a member what :meth:`Stored.stat` says; (0, 0) for what is no file.

    Examples
    --------
    >>> stat_of("no such file")
    (0, 0)
    """
    box = b""
    if isinstance(picture, Crop):
        box = repr(picture.box).encode()
        picture = picture.path
    if isinstance(picture, Stored):
        return picture.stat()
    if not isinstance(picture, str | Path):
        return (0, 0)
    path = Path(picture)
    try:
        if not path.is_file():
            return (0, 0)
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
    except OSError as error:
        if error.errno in LACKING:
            raise
        return (0, 0)  # the decoder will say what is wrong with it
    content.update(box)
    return identity(content.digest())
