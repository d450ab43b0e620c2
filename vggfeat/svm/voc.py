"""Train and test by the protocol of PASCAL VOC: fixed parts, and a ranking for each class.

One Gram matrix of trainval serves every class, every C, every fold and the final fit (Appendix B;
PAPER Section 6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat.errors import DataError, ParameterError
from vggfeat.settings import GRID, CSplit
from vggfeat.svm.ap import AP_KINDS, APKind, Floats, average_precisions
from vggfeat.svm.choice import CSearch, nearest_to_one
from vggfeat.svm.gram import gram_matrix
from vggfeat.svm.linear import LinearSVM
from vggfeat.svm.rankings import curves, rankings
from vggfeat.svm.rows import Rows
from vggfeat.svm.search import search_C
from vggfeat.svm.solvers import Ints, Loss, choose_solver, trainable
from vggfeat.svm.splits import Split, stratified_folds
from vggfeat.svm.voc_results import APResult

Difficult = Literal["drop", "negative"]
Bools = NDArray[np.bool_]
_OWNER = "evaluate_voc"


class _Training(NamedTuple):
    """Rows of trainval, and what is known of them."""

    X: Rows
    fitted: NDArray[np.int8]
    truth: NDArray[np.int8]
    folds: list[Split]


def evaluate_voc(
    X: NDArray[Any],
    targets: ArrayLike,
    class_names: Sequence[str],
    train: ArrayLike,
    val: ArrayLike,
    test: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    ap: APKind = "ap11",
    difficult: Difficult = "drop",
    shared_C: bool = False,
    c_split: CSplit = "train-val",
    grid: Sequence[float] = GRID,
    loss: Loss = "hinge",
    solver: str = "auto",
    tol: float = 1e-3,
    random_state: int = 0,
    n_jobs: int | None = -1,
    ranked: int = 12,
    progress: Callable[[int, int], None] | None = None,
) -> APResult:
    """Choose C on train and val, fit both together with it, and rank the test part.

    Parameters
    ----------
    X : array, shape (N, D)
        Descriptors, L2-normalised.
    targets : array, shape (N, C), of -1, 0 and +1
        0 where an image has only difficult objects of the class. Test rows that are 0 throughout
        have no labels: they are scored, and there is no average precision.
    class_names : sequence of str
        The columns.
    train, val, test : array of int
        Row numbers of the parts. Without a test part there is nothing but the figures of
        validation.
    names : sequence of str, optional
        Name of each row's image; row numbers by default.
    groups : array, shape (N,), optional
        The image of each row, where several rows are of one: folds keep them together.
    ap : "ap11" or "area"
        The average precision of the headline, and of the choice of C: VOC 2007's, or that of 2010
        and later. The result holds both.
    difficult : "drop" or "negative"
        What 0 is in training. In evaluation, validation included, it never counts.
    shared_C : bool
        Take the one C that is best in the mean for all classes, instead of one for each.
    c_split : "train-val" or "cv3"
        Where C is chosen: fit on train and validate on val, as VGG's toolkit does, or validate in
        three folds of trainval, as VISSL does. Either way the final fit is on trainval.
    grid, loss, solver, tol, random_state, n_jobs
        As for :func:`~vggfeat.svm.search.search_C`. Of values of C that are as good, the
        one nearest to 1 is taken.
    ranked : int
        How many rows to keep of each class's ranking, of its mistakes and of its missed.
    progress : callable, optional
        Called with stages done and all stages.

    Returns
    -------
    APResult

    Raises
    ------
    ParameterError
        If a setting is none of its choices.
    DataError
        If rows, targets and names do not agree, parts overlap, or no class can be trained.

    Examples
    --------
    >>> X = np.tile(np.eye(2), (6, 1))
    >>> targets = np.where(X > 0, 1, -1)
    >>> rows = np.arange(12)
    >>> result = evaluate_voc(X, targets, ["cat", "dog"], rows[:4], rows[4:8], rows[8:])
    >>> result.mAP, result.C
    (1.0, array([1., 1.]))
    """
    _check_settings(ap=ap, difficult=difficult, c_split=c_split)
    truth, names = _checked(X, targets, class_names, names)
    parts = _checked_parts(len(X), train=train, val=val, test=test)
    settings = {
        "loss": loss,
        "solver": solver,
        "grid": [float(value) for value in grid],
        "tol": tol,
        "random_state": random_state,
    }
    stages = _Stages(progress)
    together = np.arange(len(X)) if groups is None else np.asarray(groups)
    known = _training(X, truth, parts, difficult, c_split, together, random_state)
    columns = trainable(known.fitted)
    solver = choose_solver(solver, *known.X.shape)
    gram = gram_matrix(known.X) if solver == "gram" else None
    stages.done("Gram matrix")
    how = {**settings, "solver": solver, "n_jobs": n_jobs, "gram": gram}
    searched, search = _choose_C(known, ap, not shared_C, how)
    chosen = _spread_C(search, searched, columns)
    stages.done("choose C")
    svm = LinearSVM(chosen[columns], loss, solver, tol, random_state, n_jobs)
    svm.fit(known.X, known.fitted[:, columns], gram=gram)
    stages.done("fit")
    tested = truth[parts["test"]]
    scores = np.full(tested.shape, np.nan)
    if len(tested):
        scores[:, columns] = svm.class_scores(Rows(X, parts["test"]))
    eleven, area = (average_precisions(tested, scores, kind) for kind in ("ap11", "area"))
    found = rankings(tested, scores, parts["test"], ranked)
    stages.done("test")
    return APResult(
        class_names=tuple(class_names),
        names=names,
        ap=ap,
        ap11=eleven,
        area=area,
        C=chosen,
        searched=searched,
        search=search,
        parts=parts,
        positives={part: (truth[rows] > 0).sum(axis=0) for part, rows in parts.items()},
        truth=tested,
        scores=scores,
        curves=curves(tested, scores),
        rankings=found,
        svm=svm,
        settings={**settings, "difficult": difficult, "shared_C": shared_C, "c_split": c_split},
        seconds=stages.seconds,
    )


class _Stages:
    """Time of each stage, told as it ends."""

    def __init__(self, progress: Callable[[int, int], None] | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._since = perf_counter()

    def done(self, stage: str) -> None:
        now = perf_counter()
        self.seconds[stage], self._since = now - self._since, now
        if self._progress is not None:
            self._progress(len(self.seconds), 4)


def _training(
    X: NDArray[Any],
    truth: NDArray[np.int8],
    parts: dict[str, Ints],
    difficult: Difficult,
    c_split: CSplit,
    groups: NDArray[Any],
    random_state: int,
) -> _Training:
    """Gather trainval; the test part is not looked at."""
    rows = np.union1d(parts["train"], parts["val"])
    known = truth[rows]
    fitted = np.where(known == 0, -1, known).astype(np.int8) if difficult == "negative" else known
    if not trainable(fitted).any():
        raise DataError(
            "No class has both positives and negatives in train and val, so none can be trained. "
            "Check that the labels belong to these images."
        )
    if c_split == "cv3":
        folds = _grouped_folds(known, groups[rows], random_state)
    else:
        folds = [Split(*(np.searchsorted(rows, np.sort(parts[p])) for p in ("train", "val")))]
    return _Training(Rows(X, rows), fitted, known, folds)


def _grouped_folds(known: NDArray[np.int8], groups: NDArray[Any], seed: int) -> list[Split]:
    """Deal whole groups over three folds, each by all that its rows have."""
    names, group_of = np.unique(groups, return_inverse=True)
    labels = np.full((len(names), known.shape[1]), -1, np.int8)
    np.maximum.at(labels, group_of, known)
    return [
        Split(*(np.flatnonzero(np.isin(group_of, part)) for part in fold))
        for fold in stratified_folds(labels, 3, seed)
    ]


def _choose_C(
    known: _Training, ap: APKind, per_class: bool, how: dict[str, Any]
) -> tuple[Bools, CSearch]:
    """Search C for the classes that some fold can both train and validate."""
    able = [
        trainable(known.fitted[train]) & (known.truth[val] > 0).any(axis=0)
        for train, val in known.folds
    ]
    searched: Bools = np.any(able, axis=0)
    if not searched.any():
        raise DataError(
            "C cannot be chosen: no class has positives both in train and in val. Give more "
            "images, or choose C by cross-validation on both together: c_split='cv3'."
        )
    search = search_C(
        known.X,
        known.fitted[:, searched],
        folds=known.folds,
        score=lambda targets, scores: average_precisions(targets, scores, ap),
        per_class=per_class,
        truth=known.truth[:, searched],
        **how,
    )
    return searched, search


def _spread_C(search: CSearch, searched: Bools, columns: Bools) -> Floats:
    """Give every class that is trained its C; one that was not searched, the best for all."""
    tied = search.overall >= np.max(search.overall) - 1e-12
    best = search.grid[nearest_to_one(search.grid, tied)]
    chosen = np.where(columns, best if len(search.best) > 1 else search.best[0], np.nan)
    chosen[searched] = search.C
    return chosen


def _check_settings(**given: str) -> None:
    choices: dict[str, Sequence[str]] = {
        "ap": tuple(AP_KINDS),
        "difficult": ("drop", "negative"),
        "c_split": get_args(CSplit),
    }
    for name, value in given.items():
        if value not in choices[name]:
            raise ParameterError.not_one_of(name, _OWNER, choices[name], value)


def _checked(
    X: NDArray[Any],
    targets: ArrayLike,
    class_names: Sequence[str],
    names: Sequence[str] | None,
) -> tuple[NDArray[np.int8], tuple[str, ...]]:
    told = tuple(map(str, range(len(X)))) if names is None else tuple(names)
    truth = np.asarray(targets)
    if truth.shape != (len(X), len(class_names)) or len(told) != len(X):
        raise DataError(
            f"There are {len(X)} descriptors, {len(told)} names, {len(class_names)} classes and "
            f"targets of shape {truth.shape}; targets must have a row for each descriptor and a "
            "column for each class."
        )
    if not np.isin(truth, (-1, 0, 1)).all():
        raise DataError("Targets must be -1, 0 (difficult only) and +1.")
    return truth.astype(np.int8), told


def _checked_parts(n: int, **parts: ArrayLike) -> dict[str, Ints]:
    given = {name: np.asarray(rows, dtype=np.int64) for name, rows in parts.items()}
    for name, rows in given.items():
        if not len(rows) and name != "test":
            raise DataError(f"The part {name} has no row: there is nothing to {_USE[name]} with.")
        if rows.min(initial=0) < 0 or rows.max(initial=-1) >= n or len(np.unique(rows)) < len(rows):
            raise DataError(f"The part {name} must hold row numbers below {n}, each once.")
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        if common := np.intersect1d(given[one], given[other]).size:
            raise DataError(f"The parts {one} and {other} have {common} rows in common.")
    return given


_USE = {"train": "train", "val": "choose C"}
