"""What was tried for C, and which value is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vggfeat.errors import DataError
from vggfeat.svm.solvers import Floats


@dataclass(frozen=True)
class CSearch:
    """What was tried for C, and what was chosen.

    Parameters
    ----------
    grid : tuple of float
        The values tried, ascending.
    scores : array, shape (n_C, n_folds, n_classes)
        Validation score; NaN where a fold has nothing to say about a class.
    best : tuple of float
        The chosen C; one, or one per class.
    at_edge : tuple of bool
        For each choice, whether it is the grid's first or last value and better than the value
        beside it, so that a wider grid may do better still.
    solver : str
        The solver used.
    seconds : float
        Time taken.
    """

    grid: tuple[float, ...]
    scores: Floats
    best: tuple[float, ...]
    at_edge: tuple[bool, ...]
    solver: str
    seconds: float

    @property
    def per_class(self) -> Floats:
        """Mean score over the folds, shape (n_C, n_classes)."""
        return _nanmean(self.scores, axis=1)

    @property
    def overall(self) -> Floats:
        """Mean score over folds, then classes, shape (n_C,)."""
        return _nanmean(self.per_class, axis=1)

    @property
    def best_score(self) -> float:
        """Mean validation score of the choice."""
        best = [self.grid.index(C) for C in self.best]
        each = self.per_class[best[0]] if len(best) == 1 else self.per_class[best, range(len(best))]
        return float(np.nanmean(each))

    @property
    def C(self) -> float | Floats:
        """The choice, in the form that :class:`LinearSVM` takes."""
        return self.best[0] if len(self.best) == 1 else np.array(self.best)

    @property
    def warning(self) -> str | None:
        """Advice where a choice lies at the grid's edge, else None."""
        if not any(self.at_edge):
            return None
        values = sorted({C for C, edge in zip(self.best, self.at_edge, strict=True) if edge})
        chosen = " and ".join(f"{C:g}" for C in values)
        return (
            f"The best C, {chosen}, lies at the edge of the grid {self.grid[0]:g} … "
            f"{self.grid[-1]:g}: a wider grid may do better."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return grid, choice and mean validation scores as plain JSON types."""
        return {
            "grid": list(self.grid),
            "scores": [None if np.isnan(score) else float(score) for score in self.overall],
            "best": list(self.best),
            "at_edge": list(self.at_edge),
            "warning": self.warning,
            "solver": self.solver,
            "seconds": self.seconds,
        }


def choose(
    grid: tuple[float, ...], scores: Floats, per_class: bool
) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    """Choose the best C, or that of each class, and tell whether it is at the grid's edge.

    Parameters
    ----------
    grid : tuple of float
        Values of C, ascending.
    scores : array, shape (n_C, n_folds, n_classes)
        Validation scores, NaN where there is none.
    per_class : bool
        Whether each class has its own.

    Raises
    ------
    DataError
        If a class has no score at all.
    """
    means = _nanmean(scores, axis=1)
    columns = means if per_class else _nanmean(means, axis=1)[:, None]
    if np.isnan(columns).any():
        raise DataError(
            "C cannot be chosen: a class has no image in any validation part. "
            "Give it more images, or leave the class out."
        )
    # Equal means may differ in the last bit, by the order of their sums.
    tied = columns >= columns.max(axis=0) - 1e-12
    best = np.array([nearest_to_one(grid, column) for column in tied.T])
    beside = np.where(best == 0, 1, len(grid) - 2)  # the one neighbour of an edge
    edge = (best == 0) | (best == len(grid) - 1)
    if len(grid) > 1:
        edge &= ~np.take_along_axis(tied, beside[None], axis=0)[0]
    return tuple(grid[i] for i in best), tuple(bool(e) and len(grid) > 1 for e in edge)


def nearest_to_one(grid: Sequence[float], tied: NDArray[np.bool_]) -> int:
    """Choose among values of C that are as good: the position of the one nearest to 1.

    At the grid's lower end all multipliers are at their bound, so that every C ranks alike and
    only shrinks the scores, down to where nothing can be read from them; at its upper end the
    margin is hard, and no C changes anything. Descriptors of length 1 have margins of order 1.

    Examples
    --------
    >>> nearest_to_one((0.01, 0.1, 1.0, 10.0), np.array([True, True, False, False]))
    1
    >>> nearest_to_one((0.01, 0.1, 1.0, 10.0), np.array([False, False, True, True]))
    2
    """
    candidates = np.flatnonzero(tied)
    return int(min(candidates, key=lambda at: abs(np.log(grid[int(at)]))))


def _nanmean(values: Floats, axis: int) -> Floats:
    """Mean over what is there; NaN, without a warning, where nothing is."""
    there = (~np.isnan(values)).sum(axis=axis)
    total = np.nansum(values, axis=axis)
    mean = np.divide(total, there, out=np.full(total.shape, np.nan), where=there > 0)
    return cast("Floats", mean)
