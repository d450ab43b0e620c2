"""Greedy merging of the boxes of many windows (Appendix A, after OverFeat 4.3).

All locations of all scales and nets predict a box of the same object. The two that match best are
replaced by their average, again and again, until the best match is worse than a threshold; a
box that is left has the sum of the class outputs of the windows that went into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat.localization.boxes import Floats, iou, overlap
from vggfeat.settings import Merging

Ints = NDArray[np.int64]


class Match(NamedTuple):
    """How well two boxes match.

    Parameters
    ----------
    score : callable
        Of boxes (N, 4) and (M, 4), for each pair (N, M): the higher, the better.
    threshold : float
        The worst match that is still merged, where no other is asked for.
    """

    score: Callable[[Floats, Floats], Floats]
    threshold: float


def overfeat_score(a: Floats, b: Floats) -> Floats:
    """Minus OverFeat's printed score: the distance of the centres plus the area of intersection.

    It is minimised there, in units that are not given; here in pixels and square pixels.

    Examples
    --------
    >>> near, far = [0.0, 0, 4, 4], [3.0, 4, 7, 8]
    >>> overfeat_score(np.array([near]), np.array([near, far])).tolist()
    [[-16.0, -5.0]]
    """
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (a, b)]
    x, y = (centres[0][:, None, axis] - centres[1][:, axis] for axis in range(2))
    score: Floats = -np.hypot(x, y) - overlap(a, b)
    return score


MATCHES: Mapping[str, Match] = {"iou": Match(iou, 0.4), "overfeat": Match(overfeat_score, -50.0)}
"""Match scores by name."""


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


class BestMatches:
    """How well each box matches those after it, with the best of each, so that a step is O(n).

    A box whose best match is gone keeps its score as a bound, and looks for another only when
    none is better.

    Parameters
    ----------
    scores : array, shape (n, n)
        Of all pairs.
    """

    def __init__(self, scores: Floats) -> None:
        n = len(scores)
        self._scores = np.where(np.tri(n, dtype=bool), -np.inf, scores)
        self._partner = self._scores.argmax(axis=1)
        self._bound = self._scores[np.arange(n), self._partner]
        self._stale = np.zeros(n, dtype=bool)

    def find(self, worst: float) -> tuple[int, int] | None:
        """Find the first of the pairs that match best; None if it is worse than a threshold."""
        while True:
            i = int(self._bound.argmax())
            if self._bound[i] < worst:
                return None
            if not self._stale[i]:
                return i, int(self._partner[i])
            self._look(i)

    def replace(self, i: int, j: int, scores: Floats) -> None:
        """Put a box in the place of i, with its scores (n,) beside all; j, after it, is gone."""
        self._scores[:j, j] = -np.inf
        self._stale[:j] |= self._partner[:j] == j
        self._bound[j] = -np.inf
        self._scores[:i, i], self._scores[i, i + 1 :] = scores[:i], scores[i + 1 :]
        self._look(i)
        bound, partner, own = self._bound[:i], self._partner[:i], scores[:i]
        self._stale[:i] |= (partner == i) & (own < bound)
        # At an equal score the one that stands first is the partner.
        better = (own > bound) | ((own == bound) & (i < partner) & (own > -np.inf))
        bound[better], partner[better] = own[better], i
        self._stale[:i] &= ~better

    def _look(self, i: int) -> None:
        """Find the best match of a box anew."""
        self._partner[i] = self._scores[i].argmax()
        self._bound[i] = self._scores[i, self._partner[i]]
        self._stale[i] = False


def merge(boxes: Floats, scores: Floats, merging: Merging | None = None) -> Merged:
    """Merge the two boxes that match best until the best match is worse than a threshold.

    Parameters
    ----------
    boxes : array, shape (N, 4)
        Edges of the boxes that windows predict for a class.
    scores : array, shape (N,)
        Class output of each window, from 0 on.
    merging : Merging, optional
        What matches best: ours, ``match="iou"``, is the highest intersection over union;
        ``"overfeat"`` is the score that OverFeat prints, the lowest sum of the distance between
        centres and the area of intersection. The threshold is the worst match that is merged: the
        lowest IoU, 0.4 by default; of ``"overfeat"`` the highest score, by default 50. Coordinates
        are averaged over all windows that went into a box (``average="count"``), weighted by their
        class outputs (``"score"``), or as OverFeat does, as the plain mean of the two boxes,
        however many windows each stands for (``"pair"``).

    Returns
    -------
    Merged

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
    first is merged. What is merged once is not changed by merging again.

    Examples
    --------
    >>> boxes = np.array([[0.0, 0, 10, 10], [2.0, 0, 12, 10], [50.0, 50, 60, 60]])
    >>> merged = merge(boxes, np.array([0.5, 0.25, 0.5]))
    >>> merged.boxes.tolist(), merged.scores.tolist()
    ([[1.0, 0.0, 11.0, 10.0], [50.0, 50.0, 60.0, 60.0]], [0.75, 0.5])
    """
    merging = merging or Merging()
    score, worst = MATCHES[merging.match]
    if merging.threshold is not None:
        worst = -merging.threshold if merging.match == "overfeat" else merging.threshold
    order = np.lexsort((scores, *boxes.T[::-1]))
    pool, groups = np.unique(boxes[order], axis=0, return_inverse=True)  # (n, 4), (N,)
    groups, n = groups.reshape(-1), len(pool)
    outputs: Floats = np.bincount(groups, scores[order], n).astype(np.float64)
    counts: Ints = np.bincount(groups, minlength=n).astype(np.int64)
    alive = np.ones(n, dtype=bool)
    matches = BestMatches(score(pool, pool)) if n else None
    while matches and (found := matches.find(worst)):
        i, j = found
        mine, theirs = _weights(merging.average, (counts[i], counts[j]), (outputs[i], outputs[j]))
        pool[i] = (mine * pool[i] + theirs * pool[j]) / (mine + theirs)
        outputs[i] += outputs[j]
        counts[i] += counts[j]
        groups[groups == j] = i
        alive[j] = False
        matches.replace(i, j, np.where(alive, score(pool[i : i + 1], pool)[0], -np.inf))
    left = np.flatnonzero(alive)
    best = left[np.lexsort((*pool[left].T[::-1], -outputs[left]))]
    place = np.zeros(n, dtype=np.int64)
    place[best] = np.arange(len(best))
    groups_of_windows = np.empty(len(boxes), dtype=np.int64)
    groups_of_windows[order] = place[groups]
    return Merged(pool[best], outputs[best], counts[best], groups_of_windows)


def _weights(
    average: str, counts: tuple[int, int], outputs: tuple[float, float]
) -> tuple[float, float]:
    """Weigh the coordinates of two boxes."""
    if average == "count":
        return counts
    if average == "pair" or sum(outputs) <= 0:  # of windows that say nothing
        return 1.0, 1.0
    return outputs
