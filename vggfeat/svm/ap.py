"""Average precision as the devkits of PASCAL VOC define it (PAPER Section 6).

Targets are -1, 0 and +1. A row of 0 shows only difficult objects of the class: it is removed before
anything is counted, and so is neither right nor wrong. Rows are ranked by descending score; rows of
equal score keep the order in which they are given, as in the devkit's ``sort(-scores)``, which is
stable. Precision changes direction only at positives, so a curve is told by them alone.

A class without positives has no average precision: it is NaN, and left out of the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat.errors import DataError, ParameterError

Floats = NDArray[np.float64]
APKind = Literal["ap11", "area"]


class PRCurve(NamedTuple):
    """Recall and precision, both shape (P,), at the rank of each of a class's P positives."""

    recall: Floats
    precision: Floats


def precision_recall(scores: ArrayLike, targets: ArrayLike) -> PRCurve:
    """Rank rows by score, and tell precision and recall at every positive.

    Parameters
    ----------
    scores : array, shape (N,)
        The higher, the surer that the row is positive; finite.
    targets : array, shape (N,), of -1, 0 and +1
        Rows of 0 are removed.

    Returns
    -------
    PRCurve
        Empty where there is no positive.

    Raises
    ------
    DataError
        If the lengths differ, a score is not finite, or targets hold another value.

    Examples
    --------
    >>> precision_recall([0.9, 0.8, 0.7], [1, -1, 1])
    PRCurve(recall=array([0.5, 1. ]), precision=array([1.        , 0.66666667]))
    """
    ranked = _ranked(np.asarray(scores, dtype=np.float64), np.asarray(targets))
    at = np.flatnonzero(ranked > 0)
    found = np.arange(1, len(at) + 1)
    return PRCurve(found / max(len(at), 1), found / (at + 1))


def average_precision_11point(scores: ArrayLike, targets: ArrayLike) -> float:
    """Mean, over recall 0, 0.1, …, 1, of the highest precision at that recall or more (VOC 2007).

    Recall is compared exactly, in whole numbers. In the devkit's floating point the threshold 0.3
    lies a hair above 3/10, so that its figure can differ where 3/10 of the positives are met
    exactly, by at most an eleventh of the fall in precision to the next positive.

    Parameters
    ----------
    scores : array, shape (N,)
    targets : array, shape (N,), of -1, 0 and +1
        As for :func:`precision_recall`.

    Returns
    -------
    float
        In [0, 1]; NaN where there is no positive.

    Raises
    ------
    DataError
        As :func:`precision_recall`.

    Examples
    --------
    Precision is 1 up to recall 0.5 (six thresholds) and 2/3 beyond (five): (6 + 5 · 2/3) / 11.

    >>> round(average_precision_11point([0.9, 0.8, 0.7], [1, -1, 1]), 4)
    0.8485
    """
    highest = _highest_from(precision_recall(scores, targets))
    if not len(highest):
        return float("nan")
    tenths = np.arange(11) * len(highest)
    first = np.maximum(-(-tenths // 10), 1) - 1  # the positive at which recall reaches k/10
    return float(highest[first].mean())


def average_precision_area(scores: ArrayLike, targets: ArrayLike) -> float:
    """Area under the precision/recall curve, made monotone from the right (VOC 2010 and later).

    Parameters
    ----------
    scores : array, shape (N,)
    targets : array, shape (N,), of -1, 0 and +1
        As for :func:`precision_recall`.

    Returns
    -------
    float
        In [0, 1]; NaN where there is no positive.

    Raises
    ------
    DataError
        As :func:`precision_recall`.

    Examples
    --------
    Half of the recall at precision 1, half at 2/3.

    >>> round(average_precision_area([0.9, 0.8, 0.7], [1, -1, 1]), 4)
    0.8333
    """
    highest = _highest_from(precision_recall(scores, targets))
    return float(highest.mean()) if len(highest) else float("nan")


AP_KINDS: Mapping[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "ap11": average_precision_11point,
    "area": average_precision_area,
}
"""Both average precisions, by the names that the cards of data sets use."""


def average_precisions(targets: ArrayLike, scores: ArrayLike, kind: APKind) -> Floats:
    """Average precision of each class.

    Parameters
    ----------
    targets : array, shape (N, C), of -1, 0 and +1
    scores : array, shape (N, C)
        A column that is NaN throughout, of a class that was not trained, has no average precision.
    kind : "ap11" or "area"

    Returns
    -------
    array, shape (C,)
        In [0, 1]; NaN for a class without positives or without scores.

    Raises
    ------
    ParameterError
        If there is no such average precision.
    DataError
        As :func:`precision_recall`.

    Examples
    --------
    >>> targets = np.array([[1, -1], [-1, -1], [1, 0]])
    >>> average_precisions(targets, np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]), "area").round(3)
    array([0.833,   nan])
    """
    if kind not in AP_KINDS:
        raise ParameterError.not_one_of("kind", "average_precisions", AP_KINDS, kind)
    targets, scores = np.asarray(targets), np.asarray(scores)
    if targets.shape != scores.shape or targets.ndim != 2:
        raise DataError(
            f"Targets and scores must both be of shape (N, C). Got {targets.shape} and "
            f"{scores.shape}."
        )
    return np.array(
        [
            np.nan if len(s) and np.isnan(s).all() else AP_KINDS[kind](s, t)
            for s, t in zip(scores.T, targets.T, strict=True)
        ]
    )


def mean_average_precision(precisions: ArrayLike) -> float:
    """Mean over the classes that have an average precision; NaN where none has.

    Examples
    --------
    >>> mean_average_precision([1.0, 0.5, float("nan")])
    0.75
    """
    known = np.asarray(precisions, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def _ranked(scores: Floats, targets: NDArray[Any]) -> NDArray[Any]:
    """Order the targets that count by descending score, equal ones as they come."""
    if scores.ndim != 1 or scores.shape != targets.shape:
        raise DataError(
            f"Scores and targets must be of one shape (N,). Got {scores.shape} and {targets.shape}."
        )
    if not np.isin(targets, (-1, 0, 1)).all():
        raise DataError("Targets must be -1, 0 (difficult only) and +1; use 2 y - 1 for 0 and 1.")
    if not np.isfinite(scores).all():
        raise DataError("Scores must be finite: a NaN or an infinity has no rank.")
    ranked = targets[np.argsort(-scores, kind="stable")]
    return cast("NDArray[Any]", ranked[ranked != 0])


def _highest_from(curve: PRCurve) -> Floats:
    """Highest precision at each positive or any later one, shape (P,)."""
    return np.maximum.accumulate(curve.precision[::-1])[::-1]
