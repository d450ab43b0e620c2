"""The choice of C on held-out training images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat.errors import ParameterError
from vggfeat.settings import GRID
from vggfeat.svm.choice import CSearch, choose
from vggfeat.svm.gram import gram_matrix
from vggfeat.svm.linear import LinearSVM
from vggfeat.svm.metrics import recall_per_class
from vggfeat.svm.rows import Rows, in_blocks, linear_scores
from vggfeat.svm.solvers import (
    Binary,
    Fits,
    Floats,
    Ints,
    Loss,
    choose_loss,
    choose_solver,
    held_out,
    in_processes,
    shape_of,
    targets_of,
    trainable,
)
from vggfeat.svm.splits import stratified_folds
from vggfeat.svm.streaming import fit_stream

Score = Callable[[NDArray[np.int8], Floats], Floats]
"""(targets (m, C), scores (m, C)) → one figure per class, shape (C,), NaN where undefined."""


def recall_score(targets: NDArray[np.int8], scores: Floats) -> Floats:
    """Recall of each class, shape (C,), when the class of highest score is chosen.

    Examples
    --------
    >>> recall_score(np.array([[1, -1], [-1, 1]]), np.array([[0.2, -0.1], [0.5, 0.3]]))
    array([1., 0.])
    """
    chosen = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    return recall_per_class(targets.argmax(axis=1), chosen, range(targets.shape[1]))


JOINT_SCORES: Mapping[str, Score] = {"recall": recall_score}
"""Scores of a class that depend on the other classes' decisions, so one C must serve all."""


def search_C(
    X: ArrayLike,
    y: ArrayLike,
    *,
    grid: Sequence[float] = GRID,
    folds: int | Sequence[tuple[Ints, Ints]] = 5,
    score: str | Score = "recall",
    per_class: bool = False,
    truth: NDArray[np.int8] | None = None,
    loss: Loss = "auto",
    solver: str = "auto",
    tol: float = 1e-3,
    random_state: int = 0,
    n_jobs: int | None = -1,
    gram: Floats | None = None,
) -> CSearch:
    """Score every C on rows that the fit has not seen, and choose the best.

    The Gram matrix is computed once for all classes, values of C and folds. Of values that score
    the same, the one nearest to 1 wins: see
    :func:`~vggfeat.svm.choice.nearest_to_one`.

    Parameters
    ----------
    X : array, shape (N, D)
        Descriptors, of training images only; anything that slices by rows, as
        :class:`~vggfeat.svm.rows.Rows` do.
    y : array, shape (N,), or (N, n_classes) in {-1, 0, +1}
        Labels or targets, as in :meth:`LinearSVM.fit`.
    grid : sequence of float
        Values of C.
    folds : int, or sequence of (train, validation) row numbers
        Number of stratified folds, or the parts themselves; one pair is the protocol of a fixed
        validation part.
    score : "recall" or callable
        ``"recall"`` gives mean class recall. A callable takes targets and scores, both (m, C),
        and returns a figure per class.
    per_class : bool
        Choose one C per class; needs a score that judges a class by its own scores.
    truth : array, shape (N, n_classes) in {-1, 0, +1}, optional
        Targets to validate against, where they are not those to fit: difficult objects may be
        negatives in training, yet count as nothing in evaluation.
    loss, solver, tol, random_state, n_jobs
        As for :class:`LinearSVM`.
    gram : array, shape (N, N), optional
        ``X Xᵀ``, where the caller has it already.

    Returns
    -------
    CSearch

    Raises
    ------
    ParameterError
        If the grid or the score cannot be used.
    DataError
        If no fold can score any class.

    Examples
    --------
    >>> X = np.repeat(np.eye(2), 4, axis=0)
    >>> found = search_C(X, ["cat"] * 4 + ["dog"] * 4, grid=[0.1, 1, 10], folds=2)
    >>> found.best, found.at_edge, found.overall
    ((1.0,), (False,), array([1., 1., 1.]))
    """
    start = perf_counter()
    values = _checked_grid(grid)
    judge = _checked_score(score, per_class)
    _, targets = targets_of(y)
    parts = stratified_folds(y, folds, random_state) if isinstance(folds, int) else folds
    solver = choose_solver(solver, *shape_of(X))
    loss_used = choose_loss(loss, solver)
    how = Binary(1.0, loss_used, tol, random_state)
    truth = targets if truth is None else truth
    if solver == "stream":
        data = X if hasattr(X, "shape") else np.asarray(X)
        scores = _streamed_scores(data, targets, truth, parts, values, how, judge)
    else:
        if solver == "gram":
            data = gram_matrix(X if in_blocks(X) else np.asarray(X)) if gram is None else gram
        else:
            data = np.asarray(X)
        scores = _all_scores(data, targets, truth, parts, values, how, solver, judge, n_jobs)
    best, at_edge = choose(values, scores, per_class)
    return CSearch(values, scores, best, at_edge, solver, perf_counter() - start)


def fit_best(
    X: Any, y: ArrayLike, *, gram: Floats | None = None, **search: Any
) -> tuple[LinearSVM, CSearch]:
    """Choose C on the training images, then fit all of them with it.

    Parameters
    ----------
    X : array, shape (N, D)
    y : array, shape (N,), or (N, n_classes) in {-1, 0, +1}
    gram : array, shape (N, N), optional
    **search
        As for :func:`search_C`.

    Returns
    -------
    LinearSVM, fitted
    CSearch

    Examples
    --------
    >>> X = np.repeat(np.eye(2), 4, axis=0)
    >>> svm, found = fit_best(X, ["cat"] * 4 + ["dog"] * 4, grid=[0.1, 1], folds=2)
    >>> svm.C, svm.predict([[0.0, 1.0]])
    (1.0, array(['dog'], dtype='<U3'))
    """
    solver = choose_solver(search.get("solver", "auto"), *shape_of(X))
    if solver == "gram" and gram is None:
        gram = gram_matrix(X)
    found = search_C(X, y, gram=gram, **search)
    same = ("loss", "solver", "tol", "random_state", "n_jobs")
    svm = LinearSVM(C=found.C, **{name: search[name] for name in same if name in search})
    return svm.fit(X, y, gram=gram), found


def _all_scores(
    data: NDArray[Any],
    targets: NDArray[np.int8],
    truth: NDArray[np.int8],
    parts: Sequence[tuple[Ints, Ints]],
    grid: Sequence[float],
    how: Binary,
    solver: str,
    judge: Score,
    n_jobs: int | None,
) -> Floats:
    """Score every C, fold and class: shape (n_C, n_folds, n_classes)."""
    classes = np.arange(targets.shape[1])
    width = min(8, len(classes))  # as many pieces of a fold as can share one slice of the Gram
    tasks = [
        Fits(train, validation, columns)
        for train, validation in parts
        for columns in np.array_split(classes, -(-len(classes) // width))
    ]
    work = partial(held_out, data, targets, grid, how, solver)
    rows = max(len(train) for train, _ in parts)
    cost = float(len(parts)) * len(grid) * len(classes) * rows * min(rows, data.shape[1])
    pieces = iter(in_processes(work, tasks, cost, n_jobs))
    per_fold = len(tasks) // len(parts)
    scores = np.empty((len(grid), len(parts), len(classes)))
    for fold, (_, validation) in enumerate(parts):
        decisions = np.concatenate([next(pieces) for _ in range(per_fold)], axis=2)
        for c, decision in enumerate(decisions):
            scores[c, fold] = judge(truth[validation], decision)
    return scores


def _streamed_scores(
    X: Any,
    targets: NDArray[np.int8],
    truth: NDArray[np.int8],
    parts: Sequence[tuple[Ints, Ints]],
    grid: Sequence[float],
    how: Binary,
    judge: Score,
) -> Floats:
    """Score as :func:`_all_scores` does: all classes and C of a fold in the same readings."""
    n_classes = targets.shape[1]
    scores = np.empty((len(grid), len(parts), n_classes))
    for fold, (train, validation) in enumerate(parts):
        seen = targets[train]
        able = np.flatnonzero(trainable(seen))
        columns, bounds = np.tile(able, len(grid)), np.repeat(grid, len(able))
        coef, bias, _ = fit_stream(Rows(X, train), seen, columns, bounds, how.tol)
        for c in range(len(grid)):
            mine = slice(c * len(able), (c + 1) * len(able))
            decision = np.full((len(validation), n_classes), np.nan)
            decision[:, able] = linear_scores(Rows(X, validation), coef[mine], bias[mine])
            scores[c, fold] = judge(truth[validation], decision)
    return scores


def _checked_grid(grid: Sequence[float]) -> tuple[float, ...]:
    values = tuple(sorted(float(C) for C in grid))
    unique = all(a < b for a, b in pairwise(values))
    if not values or not unique or values[0] <= 0 or not np.isfinite(values).all():
        raise ParameterError.of(
            "grid", "search_C", "one or more different floats in (0, inf)", list(grid)
        )
    return values


def _checked_score(score: str | Score, per_class: bool) -> Score:
    if callable(score):
        return score
    if score not in JOINT_SCORES:
        raise ParameterError.not_one_of("score", "search_C", [*JOINT_SCORES, "a function"], score)
    if per_class:
        raise ParameterError(
            f"{score!r} of a class depends on the other classes' scores, so it cannot choose "
            "one C per class. Give a score that judges each class alone, or per_class=False."
        )
    return JOINT_SCORES[score]
