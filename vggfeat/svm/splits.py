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


def random_splits(
    y: ArrayLike,
    n_splits: int = 3,
    train_per_class: int = 30,
    max_test_per_class: int | None = None,
    random_state: int = 0,
    train_fraction: float | None = 0.5,
) -> list[Split]:
    """Draw random splits class by class.

    The defaults are the rule of ``vggfeat svm`` on a folder of classes: half of each class,
    rounded down but at least one image, at most 30, to train; the rest to test. Caltech-101 is
    ``train_fraction=None, max_test_per_class=50``; Caltech-256 ``train_fraction=None,
    train_per_class=60`` (Appendix B).

    A class's draw depends on the seed, the split, the class's label and its own images alone,
    so another class, or another order of classes, changes nothing. Give names rather than
    numbers as labels to keep that when classes are added.

    Parameters
    ----------
    y : array, shape (N,)
        Labels.
    n_splits : int
        Number of splits.
    train_per_class : int
        Most training images of a class.
    max_test_per_class : int or None
        Most test images of a class; None for all the rest.
    random_state : int
        Seed of PCG64.
    train_fraction : float in (0, 1) or None
        Largest share of a class to train with; None for all but one image.

    Returns
    -------
    list of Split

    Raises
    ------
    DataError
        If a class has a single image: it cannot both train and test.

    Examples
    --------
    >>> split = random_splits(["cat"] * 4 + ["dog"] * 5, n_splits=1)[0]
    >>> len(split.train), len(split.test)
    (4, 5)
    """
    _check_numbers(n_splits, train_per_class, max_test_per_class, train_fraction)
    classes = list(members(np.asarray(y)))
    if single := [str(label) for label, rows in classes if len(rows) < 2]:
        raise DataError(
            f"{_has(single)} one image only, which cannot both train and test. "
            "Add images to it, or leave the class out."
        )
    splits = []
    for number in range(n_splits):
        train, test = [], []
        for label, rows in classes:
            drawn = generator(random_state, number, label).permutation(rows)
            share = len(rows) - 1 if train_fraction is None else int(len(rows) * train_fraction)
            n_train = max(1, min(train_per_class, share))
            n_test = len(rows) if max_test_per_class is None else max_test_per_class
            train.append(drawn[:n_train])
            test.append(drawn[n_train : n_train + n_test])
        splits.append(Split(np.sort(np.concatenate(train)), np.sort(np.concatenate(test))))
    return splits


def stratified_folds(y: ArrayLike, n_folds: int = 5, random_state: int = 0) -> list[Split]:
    """Deal each class's images, shuffled, over the folds.

    Every image validates once. A class with fewer images than folds validates in that many
    folds; one with a single image always trains, for it could not be recognised unseen. The
    columns of multi-label targets overlap, so their rows are dealt by their rarest class: it is
    the one that a fold could lack.

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
        If no class has two images.

    Examples
    --------
    >>> [fold.test.size for fold in stratified_folds(["a"] * 5 + ["b"] * 3 + ["c"])]
    [2, 2, 2, 1, 1]
    """
    if n_folds < 2:
        raise ParameterError.of("n_folds", "stratified_folds", "an int of at least 2", n_folds)
    y = rarest_class(np.asarray(y))
    fold_of = np.full(len(y), -1)
    for label, rows in members(y):
        if len(rows) > 1:
            drawn = generator(random_state, n_folds, label).permutation(rows)
            fold_of[drawn] = np.arange(len(rows)) % n_folds
    if (fold_of < 0).all():
        raise DataError("C cannot be chosen by cross-validation: every class has one image only.")
    every = np.arange(len(y))
    return [Split(every[fold_of != k], every[fold_of == k]) for k in range(fold_of.max() + 1)]


def held_out_part(y: ArrayLike, share: float, random_state: int = 0) -> Split:
    """Put a share of each class's images aside, to choose C with (Appendix B, Caltech: 20 %).

    At least one image of a class is put aside and at least one trains; one with a single image
    trains.

    Parameters
    ----------
    y : array, shape (N,)
        Labels.
    share : float in (0, 1)
        Rounded, class by class, to whole images.
    random_state : int
        Seed of PCG64.

    Returns
    -------
    Split

    Raises
    ------
    ParameterError
        If the share is not between 0 and 1.
    DataError
        If no class has two images.

    Examples
    --------
    >>> part = held_out_part(["cat"] * 30 + ["dog"] * 3 + ["owl"], 0.2)
    >>> len(part.train), len(part.test)
    (27, 7)
    """
    if not 0 < share < 1:
        raise ParameterError.of("share", "held_out_part", "a float in (0, 1)", share)
    y = np.asarray(y)
    aside = np.zeros(len(y), dtype=bool)
    for label, rows in members(y):
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        aside[generator(random_state, 1, label).permutation(rows)[:count]] = True
    if not aside.any():
        raise DataError("No image can choose C: every class has one image only.")
    return Split(np.flatnonzero(~aside), np.flatnonzero(aside))


def members(y: NDArray[Any]) -> Iterator[tuple[Any, Ints]]:
    """Go through the labels, ascending, each with its row numbers."""
    labels, counts = np.unique(y, return_counts=True)
    rows = np.split(np.argsort(y, kind="stable"), np.cumsum(counts)[:-1])
    yield from zip(labels, rows, strict=True)


def generator(random_state: int, number: int, label: object) -> np.random.Generator:
    """Make a generator of a class's own, whatever other classes there are."""
    digest = hashlib.sha256(str(label).encode("utf-8", "surrogateescape")).digest()
    entropy = [random_state, number, int.from_bytes(digest[:8], "little")]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def rarest_class(y: NDArray[Any]) -> NDArray[Any]:
    """Label each row of targets (N, C) by its positive class of fewest images, -1 for none."""
    if y.ndim == 1:
        return y
    counts = (y > 0).sum(axis=0)
    rarity = np.where(y > 0, counts, len(y) + 1)
    return np.where((y > 0).any(axis=1), rarity.argmin(axis=1), -1)


def _has(labels: list[str]) -> str:
    if len(labels) == 1:
        return f"The class {labels[0]!r} has"
    return f"The {len(labels)} classes {', '.join(map(repr, labels))} have"


def _check_numbers(n_splits: int, train: int, test: int | None, fraction: float | None) -> None:
    owner = "random_splits"
    if n_splits < 1:
        raise ParameterError.of("n_splits", owner, "an int of at least 1", n_splits)
    if train < 1:
        raise ParameterError.of("train_per_class", owner, "an int of at least 1", train)
    if test is not None and test < 1:
        raise ParameterError.of("max_test_per_class", owner, "an int of at least 1, or None", test)
    if fraction is not None and not 0 < fraction < 1:
        raise ParameterError.of("train_fraction", owner, "a float in (0, 1), or None", fraction)
