"""Evidence maps as images: red where an image speaks for a class, blue where against."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from vggfeat._io.text import printable
from vggfeat.attribution import Explanation
from vggfeat.svm.solvers import Floats

FOR, AGAINST = (196, 22, 42), (24, 92, 180)
OPACITY = 0.85  # of the strongest evidence; the image stays visible below it
PANEL = 480  # pixels: width of one class's map in a figure
BLUR = 1.5  # steps of the map's grid, of which pool5's stride has four
TEXT = 17  # pixels
GAP = 16
_INK, _SOFT = (27, 29, 34), (96, 100, 111)


def draw(image: Image.Image, found: Explanation) -> bytes:
    """Draw the maps of all classes of an explanation side by side, with their figures.

    Parameters
    ----------
    image : PIL.Image.Image
        The upright image.
    found : Explanation
        Of that image. Each class has a colour scale of its own, symmetric around 0 and printed:
        classes with a C of their own have weights of quite different size.

    Returns
    -------
    bytes
        A PNG file.

    Examples
    --------
    >>> shares = np.array([[[1.0, -1.0]], [[0.5, 0.0]]])
    >>> scores, bias = np.array([0.5, 0.0]), np.array([0.5, -0.5])
    >>> found = Explanation(("cat", "dog"), scores, bias, shares, (), 1.0, "", (40, 30))
    >>> drawn = Image.open(io.BytesIO(draw(Image.new("RGB", (40, 30)), found)))
    >>> drawn.format, drawn.width == 2 * PANEL + 3 * GAP
    ('PNG', True)
    """
    panels = [_panel(image, found, c) for c in range(len(found.classes))]
    width = (PANEL + GAP) * len(panels) + GAP
    foot = _text(
        "Red speaks for the class, blue against it, by so much for each 1 % of the image; the "
        f"ring is where most speaks for it. {exactness(found)}",
        _SOFT,
        width - 2 * GAP,
    )
    height = max(panel.height for panel in panels)
    figure = Image.new("RGB", (width, height + foot.height + 3 * GAP), "white")
    for number, panel in enumerate(panels):
        figure.paste(panel, (GAP + (PANEL + GAP) * number, GAP))
    figure.paste(foot, (GAP, height + 2 * GAP))
    out = io.BytesIO()
    figure.save(out, "PNG", optimize=True)
    return out.getvalue()


def overlay(image: Image.Image, found: Explanation, c: int, width: int) -> Image.Image:
    """Lay the map of a class over its image in grey, and ring the strongest location.

    Parameters
    ----------
    image : PIL.Image.Image
        The upright image.
    found : Explanation
        Of that image.
    c : int
        Which of its classes.
    width : int
        Pixels of the result.

    Returns
    -------
    PIL.Image.Image
        The colour is strongest where :func:`strength` is.
    """
    size = (width, max(1, round(image.height * width / image.width)))
    grey = image.convert("L").resize(size, Image.Resampling.LANCZOS)
    faded = 96 + 0.62 * np.asarray(grey, np.float64)[:, :, None]
    steps = Image.fromarray((_smooth(found, c) / strength(found, c)).astype(np.float32))
    shades = np.asarray(steps.resize(size, Image.Resampling.BILINEAR), np.float64)
    drawn = Image.fromarray(_tinted(faded, shades))
    x, y = found.strongest[c] * (np.array(size) / found.size)
    pen = ImageDraw.Draw(drawn)
    for radius, thick, colour in ((11, 4, "white"), (10, 2, _INK)):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=thick)
    return drawn


def strength(found: Explanation, c: int) -> float:
    """Strongest evidence that is drawn for or against a class, for each 1 % of the image."""
    return float(np.abs(_smooth(found, c)).max()) or 1.0


def told(found: Explanation, c: int) -> str:
    """Say what a map adds up to.

    Examples
    --------
    >>> scores, bias, shares = np.array([-0.5]), np.array([-1.75]), np.array([[[1.0, 0.25]]])
    >>> print(told(Explanation(("cat",), scores, bias, shares, (), 1.0, "", (40, 30)), 0))
    Sum of all locations +1.250, bias −1.750: score −0.500
    """
    parts = (found.sums[c], found.bias[c], found.scores[c])
    total, bias, score = (signed(float(value)) for value in parts)
    return f"Sum of all locations {total}, bias {bias}: score {score}"


def signed(value: float) -> str:
    """Write a number with its sign, to three digits after the point.

    Examples
    --------
    >>> signed(-0.2564), signed(2.0)
    ('−0.256', '+2.000')
    """
    return f"{value:+.3f}".replace("-", "−")


def exactness(found: Explanation) -> str:
    """Say whether a map is exact, and if not, why.

    Examples
    --------
    >>> scores, bias, shares = np.array([-0.5]), np.array([-1.75]), np.array([[[1.0, 0.25]]])
    >>> exactness(Explanation(("cat",), scores, bias, shares, (), 1.0, "", (40, 30)))
    'Exact: the score is linear in the locations.'
    """
    if found.exact:
        return "Exact: the score is linear in the locations."
    sums = "though it adds up" if found.adds_up else "and it does not add up"
    return f"Not exact, {sums}: {found.why}."


def _smooth(found: Explanation, c: int) -> Floats:
    """Evidence for each 1 % of the image, however fine the grid is, without hard edges.

    The network sees more of the image than a location's own cell, so that an edge of the cell
    is none of the evidence. Reflected at the border, smoothing keeps the sum.
    """
    per_cent = found.evidence[c] * (found.evidence[c].size / 100)
    smooth: Floats = gaussian_filter(per_cent, BLUR, mode="reflect")
    return smooth


def _tinted(grey: Floats, shades: Floats) -> NDArray[np.uint8]:
    """Tint grey levels (H, W, 1) by shades (H, W) from −1, blue, to 1, red."""
    opacity = OPACITY * np.minimum(np.abs(shades), 1)[:, :, None]
    colour = np.where(shades[:, :, None] > 0, FOR, AGAINST)
    return np.rint((1 - opacity) * grey + opacity * colour).astype(np.uint8)


def _panel(image: Image.Image, found: Explanation, c: int) -> Image.Image:
    title = f"{printable(found.classes[c])}  {signed(float(found.scores[c]))}"
    parts = [
        _text(title, _INK, PANEL, 1.3),
        overlay(image, found, c, PANEL),
        _scale(strength(found, c)),
        _text(told(found, c), _SOFT, PANEL),
    ]
    gap = GAP // 2
    whole = Image.new("RGB", (PANEL, sum(part.height + gap for part in parts) - gap), "white")
    y = 0
    for part in parts:
        whole.paste(part, (0, y))
        y += part.height + gap
    return whole


def _scale(limit: float) -> Image.Image:
    """Draw the colours with what they stand for."""
    ends = [f"−{limit:.2g}", f"+{limit:.2g}"]
    font = letters(TEXT)
    left, right = (round(font.getlength(end)) + GAP // 2 for end in ends)
    shades = np.linspace(-1, 1, PANEL - left - right)[None].repeat(TEXT, 0)
    bar = Image.fromarray(_tinted(np.full((*shades.shape, 1), 225.0), shades))
    block = Image.new("RGB", (PANEL, round(1.35 * TEXT)), "white")
    block.paste(bar, (left, 2))
    pen = ImageDraw.Draw(block)
    pen.text((0, 0), ends[0], fill=_SOFT, font=font)
    pen.text((PANEL - right + GAP // 2, 0), ends[1], fill=_SOFT, font=font)
    return block


def _text(text: str, colour: tuple[int, int, int], width: int, size: float = 1) -> Image.Image:
    """Write a text, broken between words where it is wider than that."""
    font = letters(round(TEXT * size))
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    step = round(1.35 * font.size)
    block = Image.new("RGB", (width, step * len(lines)), "white")
    pen = ImageDraw.Draw(block)
    for number, line in enumerate(lines):
        pen.text((0, step * number), line, fill=colour, font=font)
    return block


@cache
def letters(size: int) -> ImageFont.FreeTypeFont:
    """Open DejaVu Sans, which has more letters than Pillow's own font, out of matplotlib."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)
