"""Which image it is: an id by its bytes; a stamp by which an unchanged file is known unopened."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggfeat.data.images import Crop, Picture, decode, orientation_of
from vggfeat.data.stored import Stamp, Stored, digest, in_64_bits

Id = tuple[int, int]
NOWHERE = (0, 0)  # the stamp of what is no file, which is read to be known
AT_ONCE = 16  # threads that wait for a network drive
MANY = 1000  # files for which they are started


def id_of(image: Picture, encoded: bytes | None) -> Id:
    """Return the first 16 bytes of the SHA-256 of an image.

    Parameters
    ----------
    image : Picture
    encoded : bytes or None
        Its file, as :func:`~vggfeat.data.images.read_encoded` gives it.

    Returns
    -------
    (int, int)
        Of a file's bytes; of a box, of that digest and the box; of an array, of its shape, type
        and bytes.

    Examples
    --------
    >>> id_of("a.jpg", b"abc") == id_of("b.jpg", b"abc") != id_of("b.jpg", b"abd")
    True
    """
    if encoded is None:
        return _first_bytes(_hash_pixels(image))
    content = hashlib.sha256(encoded).digest()
    if isinstance(image, Crop):
        content = hashlib.sha256(
            content + ",".join(str(float(x)) for x in image.box).encode()
        ).digest()
    return _first_bytes(content)


def stamps_of(images: Sequence[Picture]) -> NDArray[np.int64]:
    """Return the stamps (N, 2) of images, none of which is opened."""
    if len(images) < MANY:
        stamps = list(map(stamp_of, images))
    else:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="vggfeat-stamp") as pool:
            some = (images[start : start + MANY] for start in range(0, len(images), MANY))
            groups = pool.map(lambda group: list(map(stamp_of, group)), some)
            stamps = [stamp for group in groups for stamp in group]
    return np.array(stamps, np.int64).reshape(-1, 2)


def stamp_of(image: Picture) -> Stamp:
    """Return what tells a file from another that has, or had, its name.

    Returns
    -------
    (int, int)
        Size and time of change in ns of a file, the latter with the box of a box; what its listing
        says of an object or a member of a tar; (0, 0) of what is no file.

    Examples
    --------
    >>> stamp_of("no such file")
    (0, 0)
    """
    if isinstance(image, Crop):
        size, changed = stamp_of(image.path)
        return (size, digest(changed, image.box)) if size else NOWHERE
    if isinstance(image, Stored):
        return image.stamp()
    if not isinstance(image, str | Path):
        return NOWHERE
    try:
        found = os.stat(image)  # noqa: PTH116  # a million of them: twice as fast as Path's
    except (OSError, ValueError):
        return NOWHERE  # reading will say what is wrong with it
    return found.st_size, in_64_bits(found.st_mtime_ns)


def _hash_pixels(image: Picture) -> bytes:
    kind = ""
    if isinstance(image, Image.Image):  # as RGB: a palette belongs to its image
        turned = orientation_of(image)
        kind, image = f"turned {turned}" if turned != 1 else "", decode(image, exif=False)
    values = np.ascontiguousarray(image)
    content = hashlib.sha256(f"{kind} {values.shape} {values.dtype}".encode())
    content.update(values.tobytes())
    return content.digest()


def _first_bytes(content: bytes) -> Id:
    first, second = struct.unpack(">qq", content[:16])
    return first, second
