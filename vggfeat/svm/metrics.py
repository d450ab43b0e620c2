"""How good decisions are.

Labels are compared as they are (strings or integers). A class without an image in ``y_true`` has
no recall: it is NaN, and left out of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat.errors import DataError

Floats = NDArray[np.float64]


def confusion_matrix(
    y_true: ArrayLike, y_pred: ArrayLike, classes: Sequence[Any] | NDArray[Any]
) -> NDArray[np.int64]:
    """Count how often each class was taken for each.

    Parameters
    ----------
    y_true, y_pred : array, shape (N,)
        Labels.
    classes : sequence of length C
        Order of rows and columns.

    Returns
    -------
    array, shape (C, C)
        Rows are the true classes, columns the predicted ones.

    Raises
    ------
    DataError
        If the lengths differ, or a label is not among ``classes``.

    Examples
    --------
    >>> confusion_matrix(["cat", "cat", "dog"], ["cat", "dog", "dog"], ["cat", "dog"])
    array([[1, 1],
           [0, 1]])
    """
    true, predicted = _positions(y_true, classes), _positions(y_pred, classes)
    if len(true) != len(predicted):
        raise DataError(f"{len(true)} true labels cannot be compared with {len(predicted)}.")
    C = len(classes)
    return np.bincount(true * C + predicted, minlength=C * C).reshape(C, C)


def recall_per_class(
    y_true: ArrayLike, y_pred: ArrayLike, classes: Sequence[Any] | NDArray[Any]
) -> Floats:
    """Share of each class's images that were recognised, shape (C,), in [0, 1] or NaN.

    Examples
    --------
    >>> recall_per_class([0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 2]).round(3)
    array([0.667, 1.   ,   nan])
    """
    return recall_of(confusion_matrix(y_true, y_pred, classes))


def recall_of(confusion: NDArray[np.int64]) -> Floats:
    """Recall of each class, shape (C,), from a confusion matrix, shape (C, C)."""
    images = confusion.sum(axis=1)
    recalls = np.full(len(confusion), np.nan)
    np.divide(confusion.diagonal(), images, out=recalls, where=images > 0)
    return recalls


def mean_class_recall(
    y_true: ArrayLike, y_pred: ArrayLike, classes: Sequence[Any] | NDArray[Any]
) -> float:
    """Mean over classes of their recall, the metric of Caltech-101 and -256 (Appendix B).

    Every class weighs the same, however many images it has.

    Raises
    ------
    DataError
        If there is no image, or a label is not among ``classes``.

    Examples
    --------
    >>> mean_class_recall([0, 0, 0, 1], [0, 0, 1, 1], [0, 1])
    0.8333333333333333
    """
    recalls = recall_per_class(y_true, y_pred, classes)
    if np.isnan(recalls).all():
        raise DataError("Mean class recall needs at least one image. Got none.")
    return float(np.nanmean(recalls))


def _positions(labels: ArrayLike, classes: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
    labels, known = np.asarray(labels), np.asarray(classes)
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known[order], labels), len(known) - 1)
    positions = order[place]
    unknown = labels[known[positions] != labels]
    if len(unknown):
        raise DataError(f"The label {unknown[0]} is not among the {len(known)} classes.")
    return positions
