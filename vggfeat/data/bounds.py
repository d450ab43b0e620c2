"""How large a picture may be, and how long its decoding may take."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import IO, Any

from PIL import Image

from vggfeat.errors import PictureError

# Largest picture that rescaling makes. Net D takes 12 s of two cores for a million pixels; this
# still admits pictures 64 times as long as wide at Q = 512, and squares at Q = 4096.
MOST_RESCALED = 1 << 24
SCANS = 20  # that the largest picture may be drawn in; progressive JPEGs have about ten
_SCAN = b"\xff\xda"
_OURS = ContextVar("_OURS", default=False)  # whether this thread is decoding for us


class _Ours:
    """Stands in a filter of warnings where a pattern of modules does: matches in our calls alone.

    Pillow's warning names Pillow, whoever calls it. A filter that came and went with each call
    would do so in all threads.
    """

    pattern = "(?!)"  # matches nothing: scikit-learn repeats filters by their patterns in workers

    def match(self, _: str) -> bool:
        return _OURS.get()


# This filter is the last one: another of such warnings that a program has made comes before it.
UNWARNED: Any = ("ignore", None, Image.DecompressionBombWarning, _Ours(), 0)
_FILTERS: Any = warnings.filters
_FILTERS.append(UNWARNED)


@contextmanager
def unwarned() -> Iterator[None]:
    """Keep Pillow from warning of half of what :func:`max_pixels` allows, in this thread.

    Examples
    --------
    >>> with unwarned():
    ...     image = Image.new("L", (30, 20)).crop((0, 0, 30, 20))
    """
    token = _OURS.set(True)
    try:
        yield
    finally:
        _OURS.reset(token)


def max_pixels() -> int:
    """Largest picture that is decoded: Pillow's limit for its error."""
    return 2 * (Image.MAX_IMAGE_PIXELS or 2**31)


def check_size(width: int, height: int) -> None:
    """Refuse a picture without pixels, or with more than :func:`max_pixels`.

    Raises
    ------
    PictureError
        With its size.
    """
    if width * height > max_pixels():
        raise PictureError(f"{width}×{height} pixels are more than the {max_pixels():,} allowed")
    if width * height == 0:
        raise PictureError(f"it has no pixels: {width}×{height}")


def check_rescaled(size: tuple[int, int], rescaled: tuple[int, int], Q: int) -> None:
    """Refuse what rescaling would make larger than :data:`MOST_RESCALED`, as it does a line.

    Raises
    ------
    PictureError
        With both sizes.

    Examples
    --------
    >>> check_rescaled((2000, 20), (25600, 256), 256)
    >>> check_rescaled((1, 9000), (64, 576000), 64)
    Traceback (most recent call last):
        ...
    vggfeat.errors.PictureError: 1×9000 pixels become 64×576000 at Q = 64, more than the ...
    """
    if rescaled[0] * rescaled[1] > MOST_RESCALED:
        raise PictureError(
            f"{size[0]}×{size[1]} pixels become {rescaled[0]}×{rescaled[1]} at Q = {Q}, "
            f"more than the {MOST_RESCALED:,} that are allowed"
        )


def check_scans(image: Image.Image) -> None:
    """Refuse a progressive JPEG of thousands of scans, each of which goes over all its pixels.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened, and not yet loaded.

    Raises
    ------
    PictureError
        With their number.
    """
    file: IO[bytes] | None = getattr(image, "fp", None)
    if file is None or not image.info.get("progressive"):
        return
    at, scans, last = file.tell(), 0, b""
    file.seek(0)
    while block := file.read(1 << 20):
        scans += (last + block).count(_SCAN)
        last = block[-1:] if block.endswith(_SCAN[:1]) else b""
    file.seek(at)
    if scans * image.width * image.height > SCANS * max_pixels():
        raise PictureError(f"it is drawn in {scans:,} scans, as no camera or program does")
