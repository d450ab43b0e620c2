"""Greedy merging of the boxes of many windows (Appendix A, after OverFeat 4.3).

All locations of all scales and nets predict a box of the same object. The two that match best are
replaced by their average, again and again, until the best match is worse than a threshold; a
box that is left has the sum of the class outputs of the windows that went into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat.errors import ParameterError
from vggfeat.localization.boxes import Floats, iou, overlap

Ints = NDArray[np.int64]
_PAIRS = 1 << 20  # compared at a time: 8 MB a number


class Match(NamedTuple):
    """How well two boxes match.

    Parameters
    ----------
    score : callable
        Of boxes (…, 4) and (…, 4): the higher, the better.
    threshold : float
        The worst match that is still merged, where no other is asked for.
    """

    score: Callable[[Floats, Floats], Floats]
    threshold: float


def printed(a: Floats, b: Floats) -> Floats:
    """Minus OverFeat's printed score: the distance of the centres plus the area of intersection.

    It is minimised there, in units that are not given; here in pixels and square pixels.

    Examples
    --------
    >>> a, near, far = np.array([0.0, 0, 4, 4]), np.array([0.0, 0, 4, 4]), np.array([3.0, 4, 7, 8])
    >>> float(printed(a, near)), float(printed(a, far))
    (-16.0, -5.0)
    """
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    score: Floats = -np.hypot(apart[..., 0], apart[..., 1]) - overlap(a, b)
    return score


MATCHES: Mapping[str, Match] = {"iou": Match(iou, 0.4), "overfeat": Match(printed, -50.0)}
"""Match scores by name."""
AVERAGES = ("count", "score", "pair")


class Merged(NamedTuple):
    """The boxes that are left, the best one first.

    Parameters
    ----------
    boxes : array, shape (M, 4)
        Edges.
    scores : array, shape (M,)
        Sums of the class outputs of the windows that went into each.
    counts : array, shape (M,)
        How many windows did.
    groups : array, shape (N,)
        Into which of them each window went.
    """

    boxes: Floats
    scores: Floats
    counts: Ints
    groups: Ints


def merge(
    boxes: Floats,
    scores: Floats,
    *,
    match: str = "iou",
    threshold: float | None = None,
    average: str = "count",
) -> Merged:
    """Merge the two boxes that match best until the best match is worse than a threshold.

    Parameters
    ----------
    boxes : array, shape (N, 4)
        Edges of the boxes that windows predict for a class.
    scores : array, shape (N,)
        Class output of each window, from 0 on.
    match : {"iou", "overfeat"}
        What matches best. Ours, ``"iou"``, is the highest intersection over union.
        ``"overfeat"`` is the score that OverFeat prints, the lowest sum of the distance between
        centres and the area of intersection.
    threshold : float, optional
        The worst match that is merged: the lowest IoU, 0.4 by default; of ``"overfeat"`` the
        highest score, by default 50.
    average : {"count", "score", "pair"}
        How coordinates are averaged: ``"count"``, over all windows that went into a box;
        ``"score"``, weighted by their class outputs; ``"pair"``, OverFeat's plain mean of the two
        boxes, however many windows each of them stands for.

    Returns
    -------
    Merged

    Raises
    ------
    ParameterError
        If `match` or `average` is none of its choices, or the threshold no IoU, or no score.

    Notes
    -----
    The paper refers to OverFeat, which publishes neither its threshold nor the unit of its score.
    Printed as it is, that score rewards boxes that overlap less, so that it cannot be what was
    meant: two equal boxes match worse than two that do not touch. IoU is the natural replacement,
    and what a box is judged by in the end. Its threshold is 0.4: lower than the 0.5 of being
    correct, since windows at the two ends of an image see different halves of an object and
    predict boxes that differ by as much as that, and of 0.2, 0.3, … 0.7 the one that left the
    lowest error on validation images of VOC 2007.

    The result is that of the set of windows, in whatever order they come: boxes are sorted
    by their coordinates, equal ones become one, and of equal matches the one that stands
    first is merged. What is merged once is not changed by merging again. Each step costs O(N):
    matches are kept with each box, and looked for anew only where the box they were with has
    changed and nothing better is at hand.

    Examples
    --------
    >>> boxes = np.array([[0.0, 0, 10, 10], [2.0, 0, 12, 10], [50.0, 50, 60, 60]])
    >>> merged = merge(boxes, np.array([0.5, 0.25, 0.5]))
    >>> merged.boxes.tolist(), merged.scores.tolist()
    ([[1.0, 0.0, 11.0, 10.0], [50.0, 50.0, 60.0, 60.0]], [0.75, 0.5])
    """
    if match not in MATCHES:
        raise ParameterError.not_one_of("match", "merge", MATCHES, match)
    if average not in AVERAGES:
        raise ParameterError.not_one_of("average", "merge", AVERAGES, average)
    how = MATCHES[match]
    worst = how.threshold
    if threshold is not None:
        check_threshold(match, threshold)
        worst = -threshold if match == "overfeat" else threshold
    order = np.lexsort((scores, *boxes.T[::-1]))
    pool = _Pool(boxes[order], scores[order], how.score, average)
    pool.merge(worst)
    return pool.result(order)


def check_threshold(match: str, threshold: float) -> None:
    """Refuse a threshold that no match has, or every one: of 0, boxes far apart would be merged.

    Raises
    ------
    ParameterError
    """
    highest = 1.0 if match == "iou" else math.inf
    if not 0 < threshold <= highest:
        expected = "an IoU above 0, at most 1" if match == "iou" else "a number above 0"
        raise ParameterError.of("threshold", "merge", expected, threshold)


class _Pool:
    """Boxes on their way to be merged: of each the best match among those after it is known."""

    def __init__(
        self,
        boxes: Floats,
        scores: Floats,
        score: Callable[[Floats, Floats], Floats],
        average: str,
    ) -> None:
        """Make equal boxes one; they are sorted, so that sums do not depend on the order."""
        self.score, self.average = score, average
        self.boxes, members = np.unique(boxes, axis=0, return_inverse=True)
        self.members = members.reshape(-1)
        n = len(self.boxes)
        self.scores: Floats = np.bincount(self.members, scores, n).astype(np.float64)
        self.counts: Ints = np.bincount(self.members, minlength=n).astype(np.int64)
        self.names = np.arange(n)
        self.into = np.arange(n)
        self.alive = np.ones(n, dtype=bool)
        self.match = np.full(n, -np.inf)
        self.partner = np.zeros(n, dtype=np.int64)
        self.stale = np.zeros(n, dtype=bool)
        rows = max(1, _PAIRS // max(1, n))
        for start in range(0, n, rows):
            self._look(slice(start, min(start + rows, n)))

    def merge(self, worst: float) -> None:
        """Merge while the best match is not worse than this."""
        left = len(self.match)
        while left > 1:
            one = int(self.match.argmax())
            if self.match[one] < worst or self.match[one] == -np.inf:
                break
            if self.stale[one]:
                self._look(slice(one, one + 1))
                continue
            self._join(one, int(self.partner[one]))
            left -= 1
            if 2 * left < len(self.match):
                self._forget()
        self._forget()

    def result(self, order: Ints) -> Merged:
        """Gather what is left, the highest score first, then by coordinates."""
        best = np.lexsort((*self.boxes.T[::-1], -self.scores))
        place = np.zeros(len(self.into), dtype=np.int64)
        place[self.names[best]] = np.arange(len(best))
        groups = np.empty(len(order), dtype=np.int64)
        groups[order] = place[self._ends()][self.members]
        return Merged(self.boxes[best], self.scores[best], self.counts[best], groups)

    def _look(self, rows: slice) -> None:
        """Find the best matches of some boxes among those after them."""
        later = slice(rows.start, None)
        found = self.score(self.boxes[rows, None], self.boxes[None, later])
        after = np.arange(found.shape[1]) > np.arange(found.shape[0])[:, None]
        found = np.where(after & self.alive[later], found, -np.inf)
        self.partner[rows] = found.argmax(axis=1) + rows.start
        self.match[rows] = found.max(axis=1)
        self.stale[rows] = False

    def _join(self, one: int, other: int) -> None:
        """Put the average of two boxes into the place of the first."""
        mine, theirs = self._weights(one, other)
        self.boxes[one] = (mine * self.boxes[one] + theirs * self.boxes[other]) / (mine + theirs)
        self.scores[one] += self.scores[other]
        self.counts[one] += self.counts[other]
        self.into[self.names[other]] = self.names[one]
        self.alive[other] = False
        self.match[other] = -np.inf
        found = np.where(self.alive, self.score(self.boxes[one], self.boxes), -np.inf)
        # A box before it whose best match was one of the two matches nothing that is left better
        # than that: its match is a bound, and is looked for when its turn comes. Where the new
        # box is better than that, it is the best.
        before = slice(0, one)
        partners = self.partner[:other]
        self.stale[:other] |= (partners == one) | (partners == other)
        better = found[before] > self.match[before]
        self.match[before][better] = found[before][better]
        self.partner[before][better] = one
        self.stale[before][better] = False
        self.partner[one] = found[one + 1 :].argmax() + one + 1  # `other` at least is after it
        self.match[one] = found[self.partner[one]]
        self.stale[one] = False

    def _weights(self, one: int, other: int) -> tuple[float, float]:
        if self.average == "count":
            return float(self.counts[one]), float(self.counts[other])
        mine, theirs = float(self.scores[one]), float(self.scores[other])
        if self.average == "pair" or mine + theirs <= 0:  # of windows that say nothing
            return 1.0, 1.0
        return mine, theirs

    def _forget(self) -> None:
        """Leave out boxes that went into others, so that steps cost as much as what is left."""
        kept = np.flatnonzero(self.alive)
        place = np.zeros(len(self.alive), dtype=np.int64)
        place[kept] = np.arange(len(kept))
        self.partner = place[self.partner[kept]]  # of one that is stale it means nothing
        for name in ("boxes", "scores", "counts", "names", "match", "stale", "alive"):
            setattr(self, name, getattr(self, name)[kept])

    def _ends(self) -> Ints:
        """Follow each box to the one that it ended in, which stands before it."""
        ends = self.into.copy()
        for k in range(len(ends)):
            ends[k] = ends[ends[k]]
        return ends
