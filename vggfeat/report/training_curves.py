"""The geometry of curves over epochs, in the units of their drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 48, 18, 26, 44
STEPS = 5  # at most, between the lowest and the highest line of the grid
FEW = 12  # points that are also drawn one by one


@dataclass(frozen=True)
class Line:
    """A value for each epoch, its name, and how it is drawn."""

    name: str
    kind: str
    values: Sequence[float]


@dataclass(frozen=True)
class Placed:
    """The points of a line, and those that have a mark."""

    name: str
    kind: str
    points: str
    marks: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Plot:
    """Curves over epochs; the learning rate's drops as places with its new value."""

    width: int
    height: int
    lines: tuple[Placed, ...]
    drops: tuple[tuple[float, str], ...]
    best: tuple[float, float]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def plot(lines: Sequence[Line], best: int, drops: Sequence[tuple[int, float]] = ()) -> Plot:
    """Place curves over epochs, from zero up.

    Parameters
    ----------
    lines : sequence of Line
        All of one length; the second is the one on which the best epoch is marked.
    best : int
        That epoch, from 1 on.
    drops : sequence of (epoch, rate)
        After which epochs the learning rate changed, and to what.

    Examples
    --------
    >>> lines = [Line("training", "", [2.0, 1.0]), Line("validation", "", [4.0, 3.0])]
    >>> made = plot(lines, best=2, drops=[(1, 0.1)])
    >>> made.lines[1].points, made.drops, [text for _, text in made.y_ticks]
    ('48,26 502,83.5', ((275.0, '0.1'),), ['0', '1', '2', '3', '4'])
    """
    count = len(lines[0].values)
    step = nice_step(max(max(line.values) for line in lines))
    high = step * max(1, math.ceil(max(max(line.values) for line in lines) / step - 1e-9))

    def x(epoch: float) -> float:
        share = (epoch - 1) / (count - 1) if count > 1 else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(TOP + (1 - value / high) * (HEIGHT - TOP - BOTTOM), 1)

    placed = []
    for line in lines:
        at = [(x(epoch), y(value)) for epoch, value in enumerate(line.values, 1)]
        points = " ".join(f"{left:g},{top:g}" for left, top in at)
        placed.append(Placed(line.name, line.kind, points, tuple(at) if count <= FEW else ()))
    return Plot(
        WIDTH,
        HEIGHT,
        tuple(placed),
        tuple((x(after + 0.5), f"{rate:g}") for after, rate in drops),
        (x(best), y(lines[1].values[best - 1])),
        tuple((x(epoch), str(epoch)) for epoch in _epochs(count)),
        tuple((y(i * step), f"{i * step:g}") for i in range(round(high / step) + 1)),
    )


def nice_step(highest: float) -> float:
    """Choose 1, 2 or 5 times a power of ten, so that few of them reach a value from zero.

    Examples
    --------
    >>> nice_step(6.9), nice_step(100.0), nice_step(0.0)
    (2.0, 20.0, 1.0)
    """
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest / STEPS))
    return next(k * power for k in (1, 2, 5, 10) if highest / (k * power) <= STEPS + 1e-9)


def _epochs(count: int) -> list[int]:
    step = max(1, math.ceil(nice_step(count)))
    return sorted({1, *range(step, count + 1, step)})
