"""Test rows in the order of a class's scores: the first, the mistakes and the missed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat.svm.ap import Floats, PRCurve, precision_recall
from vggfeat.svm.solvers import Ints


class Scored(NamedTuple):
    """A test row in a class's ranking: its truth (-1, 0, +1), score and rank, from 1 on."""

    row: int
    truth: int
    score: float
    rank: int


class Rankings(NamedTuple):
    """Three lists for each class, empty for a class without scores.

    ``ranked`` holds the rows of highest score, ``worst`` the negatives of highest score, and
    ``missed`` the positives of lowest score, the lowest first.
    """

    ranked: tuple[tuple[Scored, ...], ...]
    worst: tuple[tuple[Scored, ...], ...]
    missed: tuple[tuple[Scored, ...], ...]


def rankings(truth: NDArray[np.int8], scores: Floats, rows: Ints, n: int) -> Rankings:
    """Rank rows for each class, equal scores in the order given, as average precision does.

    Parameters
    ----------
    truth : array, shape (N, C), of -1, 0 and +1
    scores : array, shape (N, C)
        A column of NaN has no ranking.
    rows : array, shape (N,)
        Numbers by which the rows are told.
    n : int
        Length of each list.

    Examples
    --------
    >>> truth, scores = np.array([[1], [-1], [1]]), np.array([[0.9], [0.8], [0.7]])
    >>> found = rankings(truth, scores, np.arange(3), n=1)
    >>> found.worst[0], found.missed[0]
    ((Scored(row=1, truth=-1, score=0.8, rank=2),), (Scored(row=2, truth=1, score=0.7, rank=3),))
    """
    lists = []
    for s, t in zip(scores.T, truth.T, strict=True):
        order = np.empty(0, dtype=int) if np.isnan(s).any() else np.argsort(-s, kind="stable")
        every = [
            Scored(int(rows[i]), int(t[i]), float(s[i]), rank) for rank, i in enumerate(order, 1)
        ]
        negatives = [one for one in every if one.truth < 0]
        positives = [one for one in reversed(every) if one.truth > 0]
        lists.append((tuple(every[:n]), tuple(negatives[:n]), tuple(positives[:n])))
    ranked, worst, missed = zip(*lists, strict=True)
    return Rankings(ranked, worst, missed)


def curves(truth: NDArray[np.int8], scores: Floats) -> tuple[PRCurve, ...]:
    """Precision and recall of each class; an empty curve for a column of NaN."""
    nothing = PRCurve(np.empty(0), np.empty(0))
    return tuple(
        nothing if np.isnan(s).any() else precision_recall(s, t)
        for s, t in zip(scores.T, truth.T, strict=True)
    )
