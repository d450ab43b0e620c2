"""The choice of C on held-out training images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from vggfeat.errors import DataError, ParameterError
from vggfeat.settings import GRID
from vggfeat.svm.linear import (
    ClassWeight,
    LinearSVM,
    check_class_weight,
    choose_loss,
    choose_solver,
    fit_gram,
    fit_primal,
    gram_matrix,
    in_processes,
    shape_of,
    targets_of,
    trainable,
)
from vggfeat.svm.metrics import class_recalls
from vggfeat.svm.rows import Floats, Ints, Rows, in_blocks, linear_scores
from vggfeat.svm.splits import stratified_folds
from vggfeat.svm.streaming import class_weights, fit_stream

Score = Callable[[NDArray[np.int8], Floats], Floats]
"""(targets (m, C), scores (m, C)) → one figure per class, shape (C,), NaN where undefined."""


def score_recall(targets: NDArray[np.int8], scores: Floats) -> Floats:
    """Recall of each class, shape (C,), when the class of highest score is chosen.

    Examples
    --------
    >>> score_recall(np.array([[1, -1], [-1, 1]]), np.array([[0.2, -0.1], [0.5, 0.3]]))
    array([1., 0.])
    """
    predicted = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    return class_recalls(targets.argmax(axis=1), predicted, targets.shape[1])


JOINT_SCORES: Mapping[str, Score] = {"recall": score_recall}
"""Scores of a class that depend on the other classes' decisions, so one C must serve all."""


@dataclass(frozen=True)
class GridSearchResult:
    """The validation scores of every C, and the choice.

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
    solver, loss : str
        The solver and the loss used.
    seconds : float
        Time taken.
    class_weight : {None, "balanced"}
        The class weight that the scores were made with.
    weights_tried : int
        Of how many class weights it is the best.
    """

    grid: tuple[float, ...]
    scores: Floats
    best: tuple[float, ...]
    at_edge: tuple[bool, ...]
    solver: str
    loss: str
    seconds: float
    class_weight: ClassWeight | None = None
    weights_tried: int = 1

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


def select_C(
    svm: LinearSVM,
    X: ArrayLike,
    y: ArrayLike,
    *,
    grid: Sequence[float] = GRID,
    folds: int | Sequence[tuple[Ints, Ints]] = 5,
    score: str | Score = "recall",
    per_class: bool = False,
    truth: NDArray[np.int8] | None = None,
    gram: Floats | None = None,
) -> GridSearchResult:
    """Score every C on rows that the fit has not seen, and choose the best.

    The Gram matrix is computed once for all classes, values of C and folds. Of values that score
    the same, the one nearest to 1 wins: see :func:`nearest_to_one`.

    Parameters
    ----------
    svm : LinearSVM
        All settings but C.
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
    gram : array, shape (N, N), optional
        ``X Xᵀ``, where the caller has it already.

    Returns
    -------
    GridSearchResult

    Raises
    ------
    ParameterError
        If the grid, the score or a setting of the classifier cannot be used.
    DataError
        If no fold can score any class.

    Examples
    --------
    >>> X = np.repeat(np.eye(2), 4, axis=0)
    >>> search = select_C(LinearSVM(), X, ["cat"] * 4 + ["dog"] * 4, grid=[0.1, 1, 10], folds=2)
    >>> search.best, search.at_edge, search.overall
    ((1.0,), (False,), array([1., 1., 1.]))
    """
    start = perf_counter()
    values = _checked_grid(grid)
    judge = _checked_score(score, per_class)
    check_class_weight(svm.class_weight)
    _, targets = targets_of(y)
    seed = svm.random_state or 0
    parts = stratified_folds(y, folds, seed) if isinstance(folds, int) else folds
    solver = choose_solver(svm.solver, *shape_of(X))
    loss = choose_loss(svm.loss, solver)
    data: Any = X if in_blocks(X) else np.asarray(X)
    if solver == "gram":
        data = gram_matrix(data, device=svm.device) if gram is None else gram
    elif solver == "primal":
        data = np.asarray(X)
    search = _Search(svm, solver, loss, data, targets, values)
    decisions = search.stream(parts) if solver == "stream" else search.solve(parts)
    scores = np.empty((len(values), len(parts), targets.shape[1]))
    truth = targets if truth is None else truth
    for fold, (part, each) in enumerate(zip(parts, decisions, strict=True)):
        _, validation = part
        # Each C is judged before the next one's scores are made.
        scores[:, fold] = list(map(partial(judge, truth[validation]), each))
    best, at_edge = choose_best(values, scores, per_class)
    seconds = perf_counter() - start
    return GridSearchResult(values, scores, best, at_edge, solver, loss, seconds, svm.class_weight)


def fit_best(
    svm: LinearSVM,
    X: Any,
    y: ArrayLike,
    *,
    gram: Floats | None = None,
    class_weights: Sequence[ClassWeight | None] = (),
    **search: Any,
) -> tuple[LinearSVM, GridSearchResult]:
    """Choose C on the training images, then fit all of them with it.

    One Gram matrix serves all class weights, values of C and folds.

    Parameters
    ----------
    svm : LinearSVM
        All settings but C; it is left as it is.
    X : array, shape (N, D)
    y : array, shape (N,), or (N, n_classes) in {-1, 0, +1}
    gram : array, shape (N, N), optional
    class_weights : sequence of {None, "balanced"}
        Class weights that are tried, of which the best is taken, the last of those that are as
        good; that of `svm` by default.
    **search
        As for :func:`select_C`.

    Returns
    -------
    LinearSVM, fitted
    GridSearchResult

    Examples
    --------
    >>> X = np.repeat(np.eye(2), 4, axis=0)
    >>> svm, search = fit_best(LinearSVM(), X, ["cat"] * 4 + ["dog"] * 4, grid=[0.1, 1], folds=2)
    >>> svm.C, svm.predict([[0.0, 1.0]])
    (1.0, array(['dog'], dtype='<U3'))
    """
    tried = [clone(svm).set_params(class_weight=w) for w in class_weights] or [svm]
    for each in tried:
        check_class_weight(each.class_weight)
    if gram is None and choose_solver(svm.solver, *shape_of(X)) == "gram":
        gram = gram_matrix(X, device=svm.device)
    results = [select_C(each, X, y, gram=gram, **search) for each in tried]
    best = max(range(len(results)), key=lambda k: (round(results[k].best_score, 12), k))
    seconds = sum(result.seconds for result in results)
    result = replace(results[best], seconds=seconds, weights_tried=len(results))
    return clone(tried[best]).set_params(C=result.C).fit(X, y, gram=gram), result


class _Fits(NamedTuple):
    """Work for one process: some classes of one fold, at all values of C."""

    train: Ints
    validation: Ints
    columns: Ints


@dataclass(frozen=True)
class _Search:
    """Fits of all folds, classes and values of C; ``data`` is the Gram matrix or the rows."""

    svm: LinearSVM
    solver: str
    loss: str
    data: Any
    targets: NDArray[np.int8]
    grid: Sequence[float]

    def solve(self, parts: Sequence[tuple[Ints, Ints]]) -> Iterator[Iterable[Floats]]:
        """Yield for each fold the scores of its validation rows, shape (n_C, m, n_classes)."""
        classes = np.arange(self.targets.shape[1])
        pieces = -(-len(classes) // min(8, len(classes)))  # classes that share a slice of the Gram
        tasks = [
            _Fits(train, validation, columns)
            for train, validation in parts
            for columns in np.array_split(classes, pieces)
        ]
        rows = max(len(train) for train, _ in parts)
        fits = float(len(parts)) * len(self.grid) * len(classes)
        cost = fits * rows * min(rows, self.data.shape[1])
        scores = iter(in_processes(self.hold_out, tasks, cost, self.svm.n_jobs))
        for _ in parts:
            yield np.concatenate([next(scores) for _ in range(pieces)], axis=2)

    def stream(self, parts: Sequence[tuple[Ints, Ints]]) -> Iterator[Iterable[Floats]]:
        """Yield for each fold, one C after the other, the scores of its validation rows."""
        for train, validation in parts:
            yield self._stream_fold(Rows(self.data, train), self.targets[train], validation)

    def _stream_fold(
        self, rows: Rows, targets: NDArray[np.int8], validation: Ints
    ) -> Iterator[Floats]:
        """Fit all classes and C in the same readings; yield scores (m, n_classes) C by C."""
        able, unseen = np.flatnonzero(trainable(targets)), Rows(self.data, validation)
        columns, C = np.tile(able, len(self.grid)), np.repeat(self.grid, len(able))
        fit = fit_stream(rows, targets, columns, C, self.svm.tol, self.svm.class_weight)
        for c in range(len(self.grid)):
            each = slice(c * len(able), (c + 1) * len(able))
            yield self._score(unseen, able, fit.coef[each], fit.intercept[each])

    def _score(self, rows: Rows, able: Ints, coef: Floats, intercept: Floats) -> Floats:
        """Score the classes that could be trained, and NaN for the others: (m, n_classes)."""
        scores = np.full((len(rows), self.targets.shape[1]), np.nan)
        scores[:, able] = linear_scores(rows, coef, intercept)
        return scores

    def hold_out(self, task: _Fits) -> Floats:
        """Score validation rows without having fitted them: shape (n_C, m, n_columns)."""
        data, gram = self.data, self.solver == "gram"
        seen = data[np.ix_(task.train, task.train)] if gram else data[task.train]
        unseen = data[np.ix_(task.validation, task.train)] if gram else data[task.validation]
        scores = np.full((len(self.grid), len(task.validation), len(task.columns)), np.nan)
        for k, column in enumerate(task.columns):
            y = self.targets[task.train, column]
            if not trainable(y[:, None])[0]:
                continue
            rows = np.flatnonzero(y)
            whole = len(rows) == len(y)
            fold = seen if whole else seen[np.ix_(rows, rows)] if gram else seen[rows]
            fits = self._along_grid(fold, y[rows])
            weights = np.array([weight for weight, _ in fits])
            if gram and not whole:
                every = np.zeros((len(self.grid), len(y)))
                every[:, rows] = weights
                weights = every
            scores[:, :, k] = weights @ unseen.T + np.array([bias for _, bias in fits])[:, None]
        return scores

    def _along_grid(self, part: NDArray[Any], y: NDArray[Any]) -> list[tuple[Floats, float]]:
        """Fit one class at every C, ascending.

        Where no multiplier of the hinge's dual reaches its bound, a looser one changes nothing:
        the same solution meets the same conditions, and is taken without solving again.
        """
        bounded = self.solver == "gram" and self.loss == "hinge"
        solve = fit_gram if self.solver == "gram" else fit_primal
        negative, positive = class_weights(y, self.svm.class_weight)
        bounds = np.where(y > 0, positive, negative)
        fits: list[tuple[Floats, float]] = []
        settled = False
        for C in self.grid:
            problem = self.svm.problem(C)._replace(loss=self.loss)
            fits.append(fits[-1] if settled else solve(part, y, problem))
            settled = bounded and bool((np.abs(fits[-1][0]) < C * bounds).all())
        return fits


def choose_best(
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


def _checked_grid(grid: Sequence[float]) -> tuple[float, ...]:
    values = tuple(sorted(float(C) for C in grid))
    unique = all(a < b for a, b in pairwise(values))
    if not values or not unique or values[0] <= 0 or not np.isfinite(values).all():
        raise ParameterError.of(
            "grid", "select_C", "one or more different floats in (0, inf)", list(grid)
        )
    return values


def _checked_score(score: str | Score, per_class: bool) -> Score:
    if callable(score):
        return score
    if score not in JOINT_SCORES:
        raise ParameterError.not_one_of("score", "select_C", [*JOINT_SCORES, "a function"], score)
    if per_class:
        raise ParameterError(
            f"{score!r} of a class depends on the other classes' scores, so it cannot choose "
            "one C per class. Give a score that judges each class alone, or per_class=False."
        )
    return JOINT_SCORES[score]
