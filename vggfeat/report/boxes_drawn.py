"""Boxes drawn on copies of images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from vggfeat._io.text import printable
from vggfeat.localization.boxes import Floats
from vggfeat.report.evidence import letters

TRUE, FOUND, SINGLE, WINDOW = (28, 148, 80), (206, 32, 48), (226, 140, 20), (40, 110, 210)
COLOURS = (FOUND, WINDOW, SINGLE, TRUE, (130, 60, 170))
"""Of an image's labels, the likeliest first."""
_LETTERS = 15  # pixels, on an image of 440
_DASH = 6


class Drawn(NamedTuple):
    """A box to draw.

    Parameters
    ----------
    box : array, shape (4,)
        Edges in the image.
    colour : (int, int, int)
    label : str
        Written at its upper left corner.
    thick : float
        Of its line, in 1/440 of the image's longer side.
    dashed : bool
    """

    box: Floats
    colour: tuple[int, int, int]
    label: str = ""
    thick: float = 3.0
    dashed: bool = False


def draw_boxes(image: Image.Image, boxes: Sequence[Drawn], side: int | None = None) -> Image.Image:
    """Draw boxes on a copy of an image, the first ones lowest.

    Parameters
    ----------
    image : PIL.Image.Image
        Upright, in mode RGB.
    boxes : sequence of Drawn
    side : int, optional
        Pixels of the copy's longer side; the image's own by default.

    Returns
    -------
    PIL.Image.Image

    Examples
    --------
    >>> import numpy as np
    >>> sheet = Image.new("RGB", (440, 200), "white")
    >>> drawn = draw_boxes(sheet, [Drawn(np.array([10.0, 10, 100, 90]), TRUE)])
    >>> drawn.getpixel((10, 50)) == TRUE, drawn.getpixel((50, 50)), sheet.getpixel((10, 50))
    (True, (255, 255, 255), (255, 255, 255))
    """
    scale = side / max(image.size) if side else 1.0
    size = tuple(max(1, round(extent * scale)) for extent in image.size)
    copy = image.resize((size[0], size[1]), Image.Resampling.LANCZOS) if side else image.copy()
    pen = ImageDraw.Draw(copy)
    unit = max(copy.size) / 440
    for one in boxes:
        left, top, right, bottom = (one.box * scale).tolist()
        corners = (left, top, max(right - 1, left), max(bottom - 1, top))
        thick = max(1, round(one.thick * unit))
        if one.dashed:
            _dashed(pen, corners, one.colour, thick, _DASH * unit)
        else:
            pen.rectangle(corners, outline=one.colour, width=thick)
    for one in boxes:
        if one.label:
            _write(pen, one, scale, max(9, round(_LETTERS * unit)))
    return copy


def jpeg(image: Image.Image, quality: int = 82) -> bytes:
    """Write an image as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def _write(pen: ImageDraw.ImageDraw, one: Drawn, scale: float, size: int) -> None:
    face, text = letters(size), printable(one.label)
    left, top = max(0.0, one.box[0] * scale), max(0.0, one.box[1] * scale)
    area = pen.textbbox((left + size / 4, top + size / 8), text, font=face)
    pen.rectangle((left, top, area[2] + size / 4, area[3] + size / 6), fill=one.colour)
    pen.text((left + size / 4, top + size / 8), text, fill="white", font=face)


def _dashed(
    pen: ImageDraw.ImageDraw,
    corners: tuple[float, float, float, float],
    colour: tuple[int, int, int],
    thick: int,
    dash: float,
) -> None:
    left, top, right, bottom = corners
    for start, end, across in ((left, right, True), (top, bottom, False)):
        place = start
        while place < end:
            stop = min(place + dash, end)
            for side in (top, bottom) if across else (left, right):
                line = (place, side, stop, side) if across else (side, place, side, stop)
                pen.line(line, fill=colour, width=thick)
            place += 2 * dash
