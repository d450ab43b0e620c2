"""The pictures on the page: thumbnails as data addresses, and the geometry of charts."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from vggfeat.data.images import decode
from vggfeat.errors import PictureError
from vggfeat.learn.results import SVMResult

SIDE = 176  # pixels: shown at half that, so that it is crisp on dense screens
Thumbnail = Callable[[str], str | None]


def thumbnails(pictures: Mapping[str, Path]) -> Thumbnail:
    """Make a function from a picture's name to its thumbnail, made once and only if shown.

    The thumbnail is a JPEG in a ``data:`` address, or None if there is no such picture or it
    cannot be read.
    """

    @cache
    def thumbnail(name: str) -> str | None:
        if name not in pictures:
            return None
        try:
            image = decode(pictures[name])
        except PictureError:
            return None
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

    return thumbnail


@dataclass(frozen=True)
class Line:
    """One split's scores: the points of a polyline, and where its choice stands."""

    points: str
    choices: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curve:
    """Validation score against C, in the units of the drawing."""

    width: int
    height: int
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def validation_curve(result: SVMResult, width: int = 460, height: int = 250) -> Curve:
    """Place validation scores (linear, in percent) against C (logarithmic)."""
    left, right, top, bottom = 44, 18, 14, 44
    grid = result.splits[0].search.grid
    scores = [split.search.overall for split in result.splits]
    low, high, step = _range(min(s.min() for s in scores), max(s.max() for s in scores))
    first, last = math.log10(grid[0]), math.log10(grid[-1])

    def x(C: float) -> float:
        share = (math.log10(C) - first) / (last - first) if last > first else 0.5
        return round(left + share * (width - left - right), 1)

    def y(score: float) -> float:
        return round(top + (high - score) / (high - low) * (height - top - bottom), 1)

    lines = tuple(
        Line(
            " ".join(f"{x(C)},{y(s)}" for C, s in zip(grid, score, strict=True)),
            tuple((x(C), y(score[grid.index(C)])) for C in sorted(set(split.search.best))),
        )
        for split, score in zip(result.splits, scores, strict=True)
    )
    decades = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
    values = [10.0**power for power in decades] if len(decades) > 1 else [grid[0], grid[-1]]
    x_ticks = tuple((x(C), f"{C:g}") for C in dict.fromkeys(values))
    count = round((high - low) / step)
    heights = [low + i * step for i in range(count + 1)]
    return Curve(width, height, lines, x_ticks, tuple((y(h), f"{100 * h:.0f}") for h in heights))


def _range(lowest: float, highest: float) -> tuple[float, float, float]:
    """Round limits outwards to a step of whole percents: (low, high, step)."""
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if (highest - lowest) / s <= 5 or s == 0.2)
    low = math.floor(lowest / step + 1e-9) * step
    high = min(1.0, math.ceil(highest / step - 1e-9) * step)
    return (low, high, step) if high > low else (max(0.0, high - step), high, step)
