"""Parts of a data set, drawn class by class from a recorded seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat.errors import DataError, ParameterError

Ints = NDArray[np.int64]


class Split(NamedTuple):
    """Row numbers, ascending, of the training and of the test (or validation) part."""

    train: Ints
    test: Ints


def stratified_folds(y: ArrayLike, n_folds: int = 5, random_state: int = 0) -> list[Split]:
    """Deal each class's pictures, shuffled, over the folds.

    Every picture validates once. A class with fewer pictures than folds validates in that many
    folds; one with a single picture always trains, for it could not be recognised unseen. The
    columns of multi-label targets overlap, so their rows are dealt without regard to class.

    Parameters
    ----------
    y : array, shape (N,) or (N, C)
        Labels, or targets of several labels.
    n_folds : int
        Number of folds; fewer are made where no class fills them.
    random_state : int
        Seed of PCG64.

    Returns
    -------
    list of Split

    Raises
    ------
    DataError
        If no class has two pictures.

    Examples
    --------
    >>> [fold.test.size for fold in stratified_folds(["a"] * 5 + ["b"] * 3 + ["c"])]
    [2, 2, 2, 1, 1]
    """
    if n_folds < 2:
        raise ParameterError.of("n_folds", "stratified_folds", "an int of at least 2", n_folds)
    y = np.asarray(y)
    fold_of = np.full(len(y), -1)
    for label, rows in members(np.zeros(len(y), dtype=int) if y.ndim == 2 else y):
        if len(rows) > 1:
            drawn = generator(random_state, n_folds, label).permutation(rows)
            fold_of[drawn] = np.arange(len(rows)) % n_folds
    if (fold_of < 0).all():
        raise DataError("C cannot be chosen by cross-validation: every class has one picture only.")
    every = np.arange(len(y))
    return [Split(every[fold_of != k], every[fold_of == k]) for k in range(fold_of.max() + 1)]


def members(y: NDArray[Any]) -> Iterator[tuple[Any, Ints]]:
    """Go through the labels, ascending, each with its row numbers."""
    for label in np.unique(y):
        yield label, np.flatnonzero(y == label)


def generator(random_state: int, number: int, label: object) -> np.random.Generator:
    """Make a generator of a class's own, whatever other classes there are."""
    digest = hashlib.sha256(str(label).encode("utf-8", "surrogateescape")).digest()
    entropy = [random_state, number, int.from_bytes(digest[:8], "little")]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
