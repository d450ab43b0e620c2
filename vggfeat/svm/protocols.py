"""Draw random splits, train and test over them, as the paper does on Caltech (Appendix B)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat.errors import DataError, ParameterError
from vggfeat.settings import GRID
from vggfeat.svm.metrics import confusion_matrix
from vggfeat.svm.results import Mistake, Ranked, SplitResult, SVMResult
from vggfeat.svm.rows import Rows
from vggfeat.svm.search import fit_best
from vggfeat.svm.solvers import Floats, Loss
from vggfeat.svm.splits import Split, generator, held_out_part, members

Progress = Callable[[int, int], None]
"""Called with the number of splits done and of all splits."""


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
            f"{_named(single)} one image only, which cannot both train and test. "
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


def evaluate(
    X: NDArray[Any],
    labels: ArrayLike,
    class_names: Sequence[str],
    splits: Sequence[Split],
    *,
    names: Sequence[str] | None = None,
    grid: Sequence[float] = GRID,
    folds: int = 5,
    validation: float | None = None,
    loss: Loss = "hinge",
    solver: str = "auto",
    tol: float = 1e-3,
    random_state: int = 0,
    n_jobs: int | None = -1,
    ranked: int = 12,
    progress: Progress | None = None,
) -> SVMResult:
    """Train on each split's training part, C chosen within it, and count on its test part.

    Parameters
    ----------
    X : array, shape (N, D)
        Descriptors, L2-normalised.
    labels : array, shape (N,)
        Positions in ``class_names``.
    class_names : sequence of str
        The classes.
    splits : sequence of Split
        As from :func:`random_splits`.
    names : sequence of str, optional
        Name of each row's image; row numbers by default.
    grid, folds, loss, solver, tol, random_state, n_jobs
        As for :func:`~vggfeat.svm.search.search_C`.
    validation : float in (0, 1), optional
        Share of each class's training images that choose C, instead of cross-validation among
        all of them; 0.2 in the paper. Either way all of them train the classifier that is tested.
    ranked : int
        How many of the highest-scored test images to keep for each class.
    progress : callable, optional
        Called with splits done and all splits.

    Returns
    -------
    SVMResult

    Raises
    ------
    DataError
        If rows, labels and names do not agree, or a class lacks training images in a split.

    Examples
    --------
    >>> X, labels = np.repeat(np.eye(2), 8, axis=0), np.repeat([0, 1], 8)
    >>> result = evaluate(X, labels, ["cat", "dog"], random_splits(labels))
    >>> result.mean_class_recall, result.std
    (1.0, 0.0)
    """
    labels = np.asarray(labels)
    names = [str(row) for row in range(len(X))] if names is None else list(names)
    _check(X, labels, class_names, names, splits)
    search: dict[str, Any] = {
        "loss": loss,
        "solver": solver,
        "grid": [float(C) for C in grid],
        "tol": tol,
        "random_state": random_state,
    }
    chosen = {"folds": folds if validation is None else None, "validation": validation}
    settings = {**search, **chosen}
    results = []
    for done, split in enumerate(splits, 1):
        search["folds"] = folds
        if validation is not None:
            search["folds"] = [held_out_part(labels[split.train], validation, random_state)]
        results.append(_one_split(X, labels, len(class_names), split, search, n_jobs, ranked))
        if progress is not None:
            progress(done, len(splits))
    return SVMResult(tuple(class_names), tuple(names), tuple(results), settings)


def _one_split(
    X: NDArray[Any],
    labels: NDArray[Any],
    n_classes: int,
    split: Split,
    search: dict[str, Any],
    n_jobs: int | None,
    ranked: int,
) -> SplitResult:
    """Fit on the training rows alone; the test rows are read only afterwards."""
    start = perf_counter()
    svm, found = fit_best(Rows(X, split.train), labels[split.train], n_jobs=n_jobs, **search)
    fitted = perf_counter()
    scores, true = svm.class_scores(Rows(X, split.test)), labels[split.test]
    predicted = scores.argmax(axis=1)
    confusion = confusion_matrix(true, predicted, range(n_classes))
    mistakes = _mistakes(scores, true, predicted, split.test)
    best = _ranked(scores, true, split.test, ranked)
    seconds = {
        "choose C": found.seconds,
        "fit": fitted - start - found.seconds,
        "test": perf_counter() - fitted,
    }
    n_train, n_test = len(split.train), len(split.test)
    return SplitResult(n_train, n_test, found, confusion, mistakes, best, seconds, svm)


def _mistakes(
    scores: Floats, true: NDArray[Any], predicted: NDArray[Any], rows: NDArray[np.int64]
) -> tuple[Mistake, ...]:
    wrong = np.flatnonzero(predicted != true)
    margins = scores[wrong, predicted[wrong]] - scores[wrong, true[wrong]]
    return tuple(
        Mistake(int(rows[i]), int(true[i]), int(predicted[i]), float(margin))
        for i, margin in sorted(zip(wrong, margins, strict=True), key=lambda pair: -pair[1])
    )


def _ranked(
    scores: Floats, true: NDArray[Any], rows: NDArray[np.int64], n: int
) -> tuple[tuple[Ranked, ...], ...]:
    order = np.argsort(-scores, axis=0, kind="stable")[:n]
    return tuple(
        tuple(Ranked(int(rows[i]), int(true[i]), float(scores[i, c])) for i in order[:, c])
        for c in range(scores.shape[1])
    )


def _check(
    X: NDArray[Any],
    labels: NDArray[Any],
    class_names: Sequence[str],
    names: Sequence[str],
    splits: Sequence[Split],
) -> None:
    if not len(X) == len(labels) == len(names):
        raise DataError(
            f"There are {len(X)} descriptors, {len(labels)} labels and {len(names)} names; "
            "they must be as many. Leave out the labels of images that could not be read."
        )
    if not splits:
        raise DataError("There is no split to train on. Draw some with random_splits.")
    every = np.arange(len(class_names))
    if not np.isin(labels, every).all():
        raise DataError(f"Labels must be whole numbers from 0 to {len(class_names) - 1}.")
    for number, split in enumerate(splits, 1):
        absent = np.setdiff1d(every, labels[split.train])
        if len(absent):
            listed = ", ".join(repr(class_names[c]) for c in absent)
            raise DataError(f"Split {number} has no training image of {listed}.")
        if not len(split.test):
            raise DataError(f"Split {number} has no test image.")


def _named(labels: list[str]) -> str:
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
