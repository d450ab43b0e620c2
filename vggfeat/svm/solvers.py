"""One binary linear SVM, by its dual on a shared Gram matrix or by its primal on the rows.

Both minimise ``½‖w‖² + C Σ loss(yᵢ (w·xᵢ + b))``. The primal (liblinear) also penalises ``b``, as
one more weight on a constant feature; the dual (libsvm) leaves it free.

Both libraries stop when no row's score violates the optimality conditions by more than a number
that knows nothing of the scores. Where C is small all scores lie closer together than that number,
and their order, and with it average precision, would depend on where the solver stopped. Here
``tol`` is therefore relative to the spread of the class's own training scores; see :func:`_fine`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, cast

import joblib
import numpy as np
from joblib.parallel import get_active_backend
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context
from sklearn.svm import SVC, LinearSVC

from vggfeat.errors import DataError, ParameterError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Loss = Literal["auto", "hinge", "squared_hinge"]
Task = TypeVar("Task")
Result = TypeVar("Result")

LOSSES = ("auto", "hinge", "squared_hinge")
SOLVERS = ("auto", "gram", "primal", "stream")
GRAM_ROWS = 16_000  # 2 GiB as float64
MEMORY = 8 << 30  # bytes that a solver may take for its matrices, of the 16 GB of a common machine
GRAM_BYTES = 16  # per entry of the Gram matrix: float64, and the part of it that one fit copies
PRIMAL_BYTES = 24  # per entry of X: liblinear's float64 copy, and an index and a value beside it
FINEST = 0.01  # share of the spread expected; a smaller one is of classes that nothing tells apart
POOL_COST = 2e9  # fits × rows²; below it one process is done by the time that workers have started


class Binary(NamedTuple):
    """How hard and by which loss one class is separated from the rest."""

    C: float
    loss: str = "hinge"
    tol: float = 1e-3
    random_state: int = 0


class Fits(NamedTuple):
    """Work for one process: some classes of one fold, at all values of C."""

    train: Ints
    validation: Ints
    columns: Ints


def choose_solver(solver: str, n: int, D: int) -> str:
    """Resolve ``"auto"``: the Gram matrix where it is no burden, then the primal, then streaming.

    ``"gram"`` up to 16,000 rows (2 GiB), or as many as there are dimensions: there the Gram matrix
    is smaller than the copy of the descriptors that liblinear would make. Either matrix must fit
    into ``MEMORY``; ``"primal"`` where liblinear's copy does, at 24 bytes per entry; else
    ``"stream"``. So many entries as fit are also fewer than liblinear's 32-bit counters hold.

    Examples
    --------
    >>> choose_solver("auto", 5_011, 4_096), choose_solver("auto", 100_000, 512)
    ('gram', 'primal')
    >>> choose_solver("auto", 1_000_000, 4_096)
    'stream'
    """
    if solver not in SOLVERS:
        raise ParameterError.not_one_of("solver", "LinearSVM", SOLVERS, solver)
    if solver != "auto":
        return solver
    if n <= GRAM_ROWS or (n <= D and n * n * GRAM_BYTES <= MEMORY):
        return "gram"
    return "primal" if n * D * PRIMAL_BYTES <= MEMORY else "stream"


def choose_loss(loss: str, solver: str) -> str:
    """Resolve ``"auto"``: the hinge; the squared hinge where rows are streamed.

    Raises
    ------
    ParameterError
        If rows that are streamed are to be judged by the hinge.

    Examples
    --------
    >>> choose_loss("auto", "gram"), choose_loss("auto", "stream")
    ('hinge', 'squared_hinge')
    """
    if loss not in LOSSES:
        raise ParameterError.not_one_of("loss", "LinearSVM", LOSSES, loss)
    if loss == "hinge" and solver == "stream":
        raise ParameterError(
            "The hinge loss needs all rows in memory, and these are streamed because they are too "
            "many for it. Use the squared hinge, which loss='auto' (--loss auto) takes here."
        )
    if loss == "auto":
        return "squared_hinge" if solver == "stream" else "hinge"
    return loss


def shape_of(X: Any) -> tuple[int, int]:
    """Rows and dimensions, without reading X where it tells its shape; of no matrix, one row."""
    shape = X.shape if hasattr(X, "shape") else np.asarray(X).shape
    return (int(shape[0]), int(shape[1])) if len(shape) == 2 else (1, 1)


def fit_gram(K: Floats, y: NDArray[Any], how: Binary) -> tuple[Floats, float]:
    """Solve the dual on a Gram matrix.

    With the squared hinge the dual is that of a hard margin on ``K + I / 2C`` (Cortes & Vapnik
    1995), so that the same solver serves both losses.

    Parameters
    ----------
    K : array, shape (m, m)
    y : array, shape (m,), of -1 and +1
    how : Binary

    Returns
    -------
    signed : array, shape (m,)
        yᵢ αᵢ, so that ``w = signed @ X``.
    bias : float
    """
    upper = how.C
    if how.loss == "squared_hinge":
        K = K.copy()
        np.fill_diagonal(K, K.diagonal() + 1 / (2 * how.C))
        upper = 1e6 * max(1.0, how.C)  # stands for infinity: α = 2C·slack stays far below

    def solve(tol: float) -> tuple[Floats, float]:
        with config_context(assume_finite=True, skip_parameter_validation=True):
            svc = SVC(C=upper, kernel="precomputed", tol=tol).fit(K, y)
        signed = np.zeros(len(y))
        signed[svc.support_] = svc.dual_coef_[0]
        return signed, float(svc.intercept_[0])

    return _fine(solve, lambda signed: K @ signed, lambda signed: K @ signed, y, how)


def fit_primal(X: NDArray[Any], y: NDArray[Any], how: Binary) -> tuple[Floats, float]:
    """Solve with liblinear; its bias is penalised as one more weight.

    Parameters
    ----------
    X : array, shape (m, D)
    y : array, shape (m,), of -1 and +1
    how : Binary

    Returns
    -------
    w : array, shape (D,)
    bias : float
    """

    def solve(tol: float) -> tuple[Floats, float]:
        svc = LinearSVC(
            C=how.C,
            loss=how.loss,
            dual=True if how.loss == "hinge" else "auto",
            tol=tol,
            random_state=how.random_state,
            max_iter=10_000,
        ).fit(X, y)
        return svc.coef_[0], float(svc.intercept_[0])

    return _fine(solve, lambda w: X @ w, lambda signed: X @ (signed @ X), y, how)


def _fine(
    solve: Callable[[float], tuple[Floats, float]],
    scores: Callable[[Floats], Floats],
    dual_scores: Callable[[Floats], Floats],
    y: NDArray[Any],
    how: Binary,
) -> tuple[Floats, float]:
    """Solve until the violation allowed is small beside the spread of the scores.

    The spread is guessed from the difference of the class means, which all weights would be made
    of if every row of the smaller class reached its bound C. Where the solution's own spread turns
    out to be less than half of that, it is solved again. No spread counts for more than 1, that of
    two classes at their margins.
    """
    positive = y > 0
    smaller = min(positive.sum(), (~positive).sum())
    means = np.where(positive, smaller / positive.sum(), -smaller / (~positive).sum())
    expected = max(_spread(dual_scores(how.C * means), positive), np.finfo(np.float64).eps)
    allowed, finest = how.tol * expected, how.tol * expected * FINEST
    while True:
        solution = solve(allowed)
        finer = max(how.tol * _spread(scores(solution[0]), positive), finest)
        if allowed <= 2 * finer:
            return solution
        allowed = finer


def _spread(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Root of the scores' variance where both classes weigh the same, at most 1."""
    one, other = scores[positive], scores[~positive]
    between = (one.mean() - other.mean()) / 2
    return float(min(1.0, np.sqrt((one.var() + other.var()) / 2 + between**2)))


def targets_of(y: ArrayLike) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """Turn labels into one column of -1, 0, +1 per class.

    Parameters
    ----------
    y : array, shape (N,) or (N, C)
        One label per row, or targets already: +1, -1, or 0 for a row left out of the class.

    Returns
    -------
    classes : array, shape (C,)
    targets : array, shape (N, C), int8

    Raises
    ------
    DataError
        If there is one class only, or targets hold anything but -1, 0 and +1.

    Examples
    --------
    >>> targets_of(["cat", "dog", "cat"])[1].tolist()
    [[1, -1], [-1, 1], [1, -1]]
    """
    y = np.asarray(y)
    if y.ndim == 2:
        if not np.isin(y, (-1, 0, 1)).all():
            raise DataError("Targets (N, C) must hold -1, 0 (left out of the class) and +1 only.")
        return np.arange(y.shape[1]), y.astype(np.int8)
    classes = np.unique(y)
    if len(classes) < 2:
        raise DataError(
            f"A classifier needs images of at least 2 classes. Got {len(classes)} class."
        )
    return classes, np.where(y[:, None] == classes, 1, -1).astype(np.int8)


def trainable(targets: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Tell for which classes, shape (C,), there are both positive and negative rows."""
    return cast("NDArray[np.bool_]", (targets > 0).any(axis=0) & (targets < 0).any(axis=0))


def class_weights(y: NDArray[Any], class_weight: str | None) -> tuple[float, float]:
    """Return the weights of C for negatives and positives.

    ``"balanced"`` is scikit-learn's: rows / (2 × rows of the sign).

    Examples
    --------
    >>> class_weights(np.array([1, -1, -1, -1, 0]), "balanced")
    (0.6666666666666666, 2.0)
    """
    if class_weight is None:
        return 1.0, 1.0
    negatives, positives = int((y < 0).sum()), int((y > 0).sum())
    rows = negatives + positives
    return rows / (2 * max(negatives, 1)), rows / (2 * max(positives, 1))


def held_out(
    data: NDArray[Any],
    targets: NDArray[np.int8],
    grid: Sequence[float],
    how: Binary,
    solver: str,
    task: Fits,
) -> Floats:
    """Score validation rows without having fitted them: shape (n_C, m, n_columns)."""
    gram = solver == "gram"
    seen = data[np.ix_(task.train, task.train)] if gram else data[task.train]
    unseen = data[np.ix_(task.validation, task.train)] if gram else data[task.validation]
    out = np.full((len(grid), len(task.validation), len(task.columns)), np.nan)
    for k, column in enumerate(task.columns):
        y = targets[task.train, column]
        if not trainable(y[:, None])[0]:
            continue
        rows = np.flatnonzero(y)
        whole = len(rows) == len(y)
        fold = seen if whole else seen[np.ix_(rows, rows)] if gram else seen[rows]
        fits = _along_grid(fold, y[rows], grid, how, gram)
        weights = np.array([weight for weight, _ in fits])
        if gram and not whole:
            spread = np.zeros((len(grid), len(y)))
            spread[:, rows] = weights
            weights = spread
        out[:, :, k] = weights @ unseen.T + np.array([bias for _, bias in fits])[:, None]
    return out


def _along_grid(
    part: NDArray[Any], y: NDArray[Any], grid: Sequence[float], how: Binary, gram: bool
) -> list[tuple[Floats, float]]:
    """Fit one class at every C of an ascending grid.

    Where no multiplier of the hinge's dual reaches its bound C, a looser bound changes nothing:
    the same solution meets the same conditions, and is taken without solving again.
    """
    solve = fit_gram if gram else fit_primal
    fits: list[tuple[Floats, float]] = []
    settled = False
    for C in grid:
        fits.append(fits[-1] if settled else solve(part, y, how._replace(C=C)))
        settled = gram and how.loss == "hinge" and bool(np.abs(fits[-1][0]).max() < C)
    return fits


def in_processes(
    work: Callable[[Task], Result], tasks: Sequence[Task], cost: float, n_jobs: int | None
) -> list[Result]:
    """Map ``work`` over tasks: here when they are small, else by joblib, never in threads.

    liblinear draws from one global generator and is not safe in threads, so where joblib's active
    backend shares memory (as it does inside another joblib worker) the tasks run here too. Any
    other backend set with :func:`joblib.parallel_config` is used as it is.
    """
    if cost < POOL_COST or len(tasks) < 2:
        return [work(task) for task in tasks]
    if getattr(get_active_backend()[0], "supports_sharedmem", False):
        return [work(task) for task in tasks]
    return list(joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(work)(task) for task in tasks))
