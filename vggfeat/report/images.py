"""Images for pages and files: thumbnails, boxes drawn on them, maps of what a score comes from."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vggfeat._io.text import printable, signed
from vggfeat.data.image import DRAWN
from vggfeat.errors import ImageError
from vggfeat.report.figures import write_figure
from vggfeat.result import BoxMark, GalleryImage

if TYPE_CHECKING:
    from vggfeat.attribution import Explanation

Floats = NDArray[np.float64]
OpenImage = Callable[[str], Image.Image]
"""Opens an image by its name, upright and in RGB; ImageError or KeyError if it cannot."""
Colour = tuple[int, int, int]

BOX_COLOURS: dict[str, Colour] = {
    "true": (28, 148, 80),
    "predicted": (206, 32, 48),
    "single": (226, 140, 20),
    "window": (40, 110, 210),
}
OTHERS: tuple[Colour, ...] = ((40, 110, 210), (226, 140, 20), (28, 148, 80), (130, 60, 170))
"""Of the second predicted box of an image, and so on."""
_THICK = {"window": 1.8, "single": 6.0}  # 3 for others, where the image's longer side is 440
_LETTERS, _DASH = 15, 6  # likewise

FOR, AGAINST = (196, 22, 42), (24, 92, 180)
OPACITY = 0.85  # of the strongest evidence; the image stays visible below it
PANEL = 480  # pixels: width of one class's map in a figure
BLUR = 1.5  # steps of the map's grid, of which pool5's stride has four
NAME = 40  # characters of a class that are drawn
_INK = (27, 29, 34)


def tile_address(tile: GalleryImage, images: OpenImage | None, side: int) -> str | None:
    """Write what a tile shows as an address that holds it.

    Parameters
    ----------
    tile : GalleryImage
    images : callable, optional
        Opens the image, if the tile has no drawing of its own.
    side : int
        Pixels of the longer side, at most.

    Returns
    -------
    str or None
        A JPEG in a ``data:`` address; None where the image cannot be had.
    """
    if tile.jpeg is not None:
        return data_address(tile.jpeg)
    if images is None:
        return None
    try:
        image = images(tile.image)
    except (ImageError, KeyError):
        return None
    if tile.boxes:
        image = draw_boxes(image, tile.boxes, side)
    elif max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return data_address(write_jpeg(image))


def data_address(jpeg: bytes) -> str:
    """Write a JPEG as an address that holds it."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def write_jpeg(image: Image.Image, quality: int = 82) -> bytes:
    """Write an image that was drawn as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True, comment=DRAWN)
    return buffer.getvalue()


def draw_boxes(
    image: Image.Image, boxes: Sequence[BoxMark], side: int | None = None
) -> Image.Image:
    """Draw boxes on a copy of an image, the first ones lowest; true ones are dashed.

    Parameters
    ----------
    image : PIL.Image.Image
        Upright, in mode RGB.
    boxes : sequence of BoxMark
    side : int, optional
        Pixels of the copy's longer side; the image's own by default.

    Returns
    -------
    PIL.Image.Image

    Examples
    --------
    >>> marked = draw_boxes(Image.new("RGB", (80, 60)), [BoxMark((10, 10, 30, 40), "true")], 440)
    >>> marked.size, marked.getpixel((55, 60))
    ((440, 330), (28, 148, 80))
    """
    scale = 1.0 if side is None else side / max(image.size)
    size = [max(1, round(scale * edge)) for edge in image.size]
    copy = image.resize((size[0], size[1]), Image.Resampling.LANCZOS) if side else image.copy()
    pen, unit = ImageDraw.Draw(copy), max(copy.size) / 440
    colours = _box_colours(boxes)
    for mark, colour in zip(boxes, colours, strict=True):
        left, top, right, bottom = (scale * edge for edge in mark.box)
        corners = (left, top, max(right - 1, left), max(bottom - 1, top))
        thick = max(1, round(_THICK.get(mark.kind, 3.0) * unit))
        if mark.kind == "true":
            _dashed(pen, corners, colour, thick, _DASH * unit)
        else:
            pen.rectangle(corners, outline=colour, width=thick)
    for mark, colour in zip(boxes, colours, strict=True):
        if mark.label:
            font = _letters(max(9, round(_LETTERS * unit)))
            place = (max(0.0, mark.box[0] * scale) + 4 * unit, max(0.0, mark.box[1] * scale))
            _, _, right, bottom = pen.textbbox(place, printable(mark.label), font=font)
            pen.rectangle((place[0] - 4 * unit, place[1], right + 4 * unit, bottom + 3), colour)
            pen.text(place, printable(mark.label), fill="white", font=font)
    return copy


def _box_colours(boxes: Sequence[BoxMark]) -> list[Colour]:
    """Give the predicted boxes of several labels colours of their own, the last one red."""
    predicted = sum(mark.kind == "predicted" for mark in boxes)
    colours = []
    for mark in boxes:
        predicted -= mark.kind == "predicted"
        other = mark.kind == "predicted" and predicted > 0
        colours.append(OTHERS[(predicted - 1) % 4] if other else BOX_COLOURS[mark.kind])
    return colours


def _dashed(
    pen: ImageDraw.ImageDraw,
    corners: tuple[float, float, float, float],
    colour: Colour,
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


def draw_explanation(image: Image.Image, explanation: Explanation) -> bytes:
    """Draw the maps of all classes of an explanation side by side, with their figures.

    Parameters
    ----------
    image : PIL.Image.Image
        The upright image.
    explanation : Explanation
        Of that image. Each class has a colour scale of its own, symmetric around 0 and printed:
        classes with a C of their own have weights of quite different size.

    Returns
    -------
    bytes
        A PNG file.

    Examples
    --------
    >>> from vggfeat.attribution import Explanation
    >>> shares = np.array([[[1.0, -1.0]], [[0.5, 0.0]]])
    >>> scores, bias = np.array([0.5, 0.0]), np.array([0.5, -0.5])
    >>> explanation = Explanation(("cat", "dog"), scores, bias, shares, (), 1.0, "", (40, 30))
    >>> png = draw_explanation(Image.new("RGB", (40, 30)), explanation)
    >>> sheet = Image.open(io.BytesIO(png))
    >>> sheet.format, sheet.width == 2 * PANEL
    ('PNG', True)
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure

    n = len(explanation.classes)
    height = PANEL * image.height / image.width + 140
    figure = Figure((n * PANEL / 100, height / 100), layout="constrained")
    ends = [[(1 - OPACITY) * 225 + OPACITY * tint for tint in colour] for colour in (AGAINST, FOR)]
    shades = np.array([ends[0], [225, 225, 225], ends[1]]) / 255
    colours = LinearSegmentedColormap.from_list("evidence", shades.tolist())
    for c, axes in enumerate(figure.subplots(1, n, squeeze=False)[0]):
        axes.imshow(draw_map(image, explanation, c, PANEL))
        axes.set_axis_off()
        name = textwrap.shorten(printable(explanation.classes[c]), NAME, placeholder="…")
        title = f"{name}  {signed(float(explanation.scores[c]), 3)}"
        axes.set_title(title, loc="left", parse_math=False)
        limit = strength(explanation, c)
        scale = ScalarMappable(Normalize(-limit, limit), colours)
        bar = figure.colorbar(
            scale, ax=axes, location="bottom", aspect=30, ticks=[-limit, 0, limit]
        )
        bar.ax.set_xticklabels([f"−{limit:.2g}", "0", f"+{limit:.2g}"])
        bar.set_label(describe_sum(explanation, c))
    about = (
        "Red speaks for the class, blue against it, by so much for each 1 % of the image; the "
        f"ring is where most speaks for it. {describe_exactness(explanation)}"
    )
    figure.supxlabel(textwrap.fill(about, 60 * n), fontsize="medium")
    return write_figure(figure, "png", dpi=100, metadata={"Comment": DRAWN.decode()})


def draw_map(
    image: Image.Image, explanation: Explanation, c: int, width: int, limit: float | None = None
) -> Image.Image:
    """Lay the map of a class over its image in grey, and ring the strongest location.

    Parameters
    ----------
    image : PIL.Image.Image
        The upright image.
    explanation : Explanation
        Of that image.
    c : int
        Which of its classes.
    width : int
        Pixels of the result.
    limit : float, optional
        Evidence, for each 1 % of the image, of which the colour is strongest; :func:`strength` by
        default.

    Returns
    -------
    PIL.Image.Image
    """
    size = (width, max(1, round(image.height * width / image.width)))
    grey = image.convert("L").resize(size, Image.Resampling.LANCZOS)
    faded = 96 + 0.62 * np.asarray(grey, np.float64)[:, :, None]
    limit = limit or strength(explanation, c)
    steps = Image.fromarray((_smooth(explanation, c) / limit).astype(np.float32))
    shades = np.asarray(steps.resize(size, Image.Resampling.BILINEAR), np.float64)
    drawn = Image.fromarray(_tinted(faded, shades))
    x, y = explanation.strongest[c] * (np.array(size) / explanation.size)
    pen = ImageDraw.Draw(drawn)
    for radius, thick, colour in ((11, 4, "white"), (10, 2, _INK)):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=thick)
    return drawn


def draw_scale(width: int, height: int) -> Image.Image:
    """Draw the colours of maps, from what speaks most against a class to what speaks most for it.

    Examples
    --------
    >>> scale = draw_scale(21, 4)
    >>> [scale.getpixel((x, 0)) for x in (0, 10, 20)]
    [(54, 112, 187), (225, 225, 225), (200, 52, 69)]
    """
    shades = np.tile(np.linspace(-1, 1, width), (height, 1))
    return Image.fromarray(_tinted(np.full((height, width, 1), 225.0), shades))


def strength(explanation: Explanation, c: int) -> float:
    """Strongest evidence that is drawn for or against a class, for each 1 % of the image."""
    return float(np.abs(_smooth(explanation, c)).max()) or 1.0


def describe_sum(explanation: Explanation, c: int) -> str:
    """Say what a map adds up to.

    Examples
    --------
    >>> from vggfeat.attribution import Explanation
    >>> scores, bias, shares = np.array([-0.5]), np.array([-1.75]), np.array([[[1.0, 0.25]]])
    >>> print(describe_sum(Explanation(("cat",), scores, bias, shares, (), 1.0, "", (40, 30)), 0))
    Sum of all locations +1.250, bias −1.750: score −0.500
    """
    parts = (explanation.sums[c], explanation.bias[c], explanation.scores[c])
    total, bias, score = (signed(float(value), 3) for value in parts)
    return f"Sum of all locations {total}, bias {bias}: score {score}"


def describe_exactness(explanation: Explanation) -> str:
    """Say whether a map is exact, and if not, why.

    Examples
    --------
    >>> from vggfeat.attribution import Explanation
    >>> scores, bias, shares = np.array([-0.5]), np.array([-1.75]), np.array([[[1.0, 0.25]]])
    >>> describe_exactness(Explanation(("cat",), scores, bias, shares, (), 1.0, "", (40, 30)))
    'Exact: the score is linear in the locations.'
    """
    if explanation.exact:
        return "Exact: the score is linear in the locations."
    sums = "though it adds up" if explanation.adds_up else "and it does not add up"
    return f"Not exact, {sums}: {explanation.why}."


def _smooth(explanation: Explanation, c: int) -> Floats:
    """Evidence for each 1 % of the image, however fine the grid is, without hard edges.

    The network sees more of the image than a location's own cell, so that an edge of the cell
    is none of the evidence. Reflected at the border, smoothing keeps the sum.
    """
    from scipy.ndimage import gaussian_filter  # takes long, and no other drawing needs it

    per_cent = explanation.evidence[c] * (explanation.evidence[c].size / 100)
    smooth: Floats = gaussian_filter(per_cent, BLUR, mode="reflect")
    return smooth


def _tinted(grey: Floats, shades: Floats) -> NDArray[np.uint8]:
    """Tint grey levels (H, W, 1) by shades (H, W) from −1, blue, to 1, red."""
    opacity = OPACITY * np.minimum(np.abs(shades), 1)[:, :, None]
    colour = np.where(shades[:, :, None] > 0, FOR, AGAINST)
    return np.rint((1 - opacity) * grey + opacity * colour).astype(np.uint8)


@cache
def _letters(size: int) -> ImageFont.FreeTypeFont:
    """Open a font of many letters where the machine has one, else Pillow's own of few."""
    with suppress(OSError):
        return ImageFont.truetype("DejaVuSans.ttf", size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
