"""The geometry of the page's charts, in the units of their drawings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vggfeat.svm.ap import Floats, PRCurve

POINTS = 120  # of a precision/recall curve: more than its drawing has pixels
SIDE = 100


@dataclass(frozen=True)
class Series:
    """Scores of all values of C, shape (n_C,), and the values that were chosen by them."""

    scores: Floats
    chosen: Iterable[float]
    name: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Line:
    """The points of a polyline, where its choices stand, its name, and how it is drawn."""

    points: str
    choices: tuple[tuple[float, float], ...]
    name: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Curve:
    """Validation score against C."""

    width: int
    height: int
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def validation_curve(
    grid: Sequence[float], series: Sequence[Series], width: int = 460, height: int = 250
) -> Curve:
    """Place validation scores (linear, in percent) against C (logarithmic)."""
    left, right, top, bottom = 44, 18, 14, 44
    every = np.concatenate([one.scores for one in series])
    low, high, step = _range(float(np.nanmin(every)), float(np.nanmax(every)))
    first, last = math.log10(grid[0]), math.log10(grid[-1])

    def x(C: float) -> float:
        share = (math.log10(C) - first) / (last - first) if last > first else 0.5
        return round(left + share * (width - left - right), 1)

    def y(score: float) -> float:
        return round(top + (high - score) / (high - low) * (height - top - bottom), 1)

    lines = tuple(
        Line(
            " ".join(f"{x(C)},{y(s)}" for C, s in zip(grid, one.scores, strict=True)),
            tuple((x(C), y(one.scores[grid.index(C)])) for C in sorted(set(one.chosen))),
            one.name,
            one.kind,
        )
        for one in series
    )
    decades = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
    values = [10.0**power for power in decades] if len(decades) > 1 else [grid[0], grid[-1]]
    x_ticks = tuple((x(C), f"{C:g}") for C in dict.fromkeys(values))
    count = round((high - low) / step)
    heights = [low + i * step for i in range(count + 1)]
    return Curve(width, height, lines, x_ticks, tuple((y(h), f"{100 * h:.0f}") for h in heights))


@dataclass(frozen=True)
class PRDrawing:
    """Precision against recall: the curve, and the outline of the area under its envelope."""

    line: str
    area: str


def pr_drawing(curve: PRCurve) -> PRDrawing | None:
    """Draw a curve in a square of 100 units, precision upwards; None where there is none.

    Examples
    --------
    >>> print(pr_drawing(PRCurve(np.array([0.5, 1.0]), np.array([1.0, 0.5]))))
    PRDrawing(line='0,0 50,0 100,50', area='0,100 0,0 50,0 50,50 100,50 100,100')
    """
    n = len(curve.recall)
    if not n:
        return None
    highest = np.maximum.accumulate(curve.precision[::-1])[::-1]
    kept = np.unique(np.linspace(0, n - 1, min(n, POINTS)).round().astype(int))
    recall = np.concatenate([[0.0], curve.recall[kept]])
    line = zip(recall, [curve.precision[0], *curve.precision[kept]], strict=True)
    steps = [
        corner
        for before, after, height in zip(recall[:-1], recall[1:], highest[kept], strict=True)
        for corner in ((before, height), (after, height))
    ]
    return PRDrawing(_points(line), _points([(0.0, 0.0), *steps, (recall[-1], 0.0)]))


def _points(corners: Iterable[tuple[float, float]]) -> str:
    placed = (f"{SIDE * x:.4g},{SIDE * (1 - y):.4g}" for x, y in corners)
    return " ".join(dict.fromkeys(placed))


def _range(lowest: float, highest: float) -> tuple[float, float, float]:
    """Round limits outwards to a step of whole percents: (low, high, step)."""
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if (highest - lowest) / s <= 5 or s == 0.2)
    low = math.floor(lowest / step + 1e-9) * step
    high = min(1.0, math.ceil(highest / step - 1e-9) * step)
    return (low, high, step) if high > low else (max(0.0, high - step), high, step)
