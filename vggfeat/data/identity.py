"""Which image it is: an id by its bytes; a stamp by which an unchanged file is known unopened."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggfeat.data.image import Crop, ImageLike, ImageRef, Stamp, decode, orientation_of
from vggfeat.settings import Decoding

Id = tuple[int, int]
NOWHERE = (0, 0)  # the stamp of what is no file, which is read to be known
AT_ONCE = 16  # threads that wait for a network drive
MANY = 1000  # files that each asks for at a time
# What changed less than so many ns ago may change again, and its time, by its clock, stay as it is.
SETTLED = 2 * 10**9


def id_of(image: ImageLike, encoded: bytes | None) -> Id:
    """Return the first 16 bytes of the SHA-256 of an image, of which `encoded` is the file.

    It is that of a file's bytes; of a box, of that digest and the box; of an array, of its shape,
    type and bytes.

    Examples
    --------
    >>> id_of("a.jpg", b"abc") == id_of("b.jpg", b"abc") != id_of("b.jpg", b"abd")
    True
    """
    if encoded is None:
        return _first_bytes(_hash_pixels(image))
    content = hashlib.sha256(encoded)
    if isinstance(image, Crop):
        box = ",".join(str(float(x)) for x in image.box)
        content = hashlib.sha256(content.digest() + box.encode())
    return _first_bytes(content.digest())


def stamps_of(images: Sequence[ImageLike]) -> NDArray[np.int64]:
    """Return the stamps (N, 2) of images, none of which is opened."""
    if len(images) <= MANY:
        stamps = list(map(stamp_of, images))
    else:
        groups = (images[start : start + MANY] for start in range(0, len(images), MANY))
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="vggfeat-stamp") as pool:
            done = pool.map(lambda group: list(map(stamp_of, group)), groups)
            stamps = [stamp for group in done for stamp in group]
    return np.array(stamps, np.int64).reshape(-1, 2)


def stamp_of(image: ImageLike) -> Stamp:
    """Return what tells a file from another that has, or had, its name.

    It is size and time of change in ns of a file, the latter with the box of a box; what its
    listing says of an object or a member of a tar; (0, 0) of what is no file.

    Examples
    --------
    >>> stamp_of("no such file")
    (0, 0)
    """
    if isinstance(image, Crop):
        size, changed = stamp_of(image.path)
        return (size, digest(changed, image.box)) if size else NOWHERE
    if isinstance(image, ImageRef):
        return image.stamp()
    if not isinstance(image, str | Path):
        return NOWHERE
    try:
        status = os.stat(image)  # noqa: PTH116  # a million of them: twice as fast as Path's
    except (OSError, ValueError):
        return NOWHERE  # reading will say what is wrong with it
    return status.st_size, in_64_bits(status.st_mtime_ns)


def digest(*known: object) -> int:
    """Make one number of 64 bits of what is known of a file."""
    content = "\0".join(map(str, known)).encode("utf-8", "surrogateescape")
    whole = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(whole, "big", signed=True)


def in_64_bits(nanoseconds: int) -> int:
    """Bring a time into 64 bits: one before 1678 or after 2262 becomes another, always the same.

    Examples
    --------
    >>> in_64_bits(-(2**63)), in_64_bits(2**63 + 5) == 5 - 2**63
    (-9223372036854775808, True)
    """
    return (nanoseconds + 2**63) % 2**64 - 2**63


def nanoseconds(seconds: float) -> int:
    """Turn a time as an archive or a server says it into ns of 64 bits; 0 if it is none.

    Examples
    --------
    >>> nanoseconds(1.5), nanoseconds(float("nan"))
    (1500000000, 0)
    """
    return in_64_bits(round(seconds * 1e9)) if math.isfinite(seconds * 1e9) else 0


def is_settled(*times: int) -> bool:
    """Tell whether these times, in ns, will change if what they are of does."""
    now = time.time_ns()
    return all(abs(now - time_ns) > SETTLED for time_ns in times)


def _hash_pixels(image: ImageLike) -> bytes:
    kind = ""
    if isinstance(image, Image.Image):  # as RGB: a palette belongs to its image
        turned = orientation_of(image)
        kind, image = f"turned {turned}" if turned != 1 else "", decode(image, Decoding(exif=False))
    values = np.ascontiguousarray(image)
    content = hashlib.sha256(f"{kind} {values.shape} {values.dtype}".encode())
    content.update(values.tobytes())
    return content.digest()


def _first_bytes(content: bytes) -> Id:
    first, second = struct.unpack(">qq", content[:16])
    return first, second
