"""One-vs-rest linear SVM: in memory by the dual on one Gram matrix or by the primal, or streamed.

All minimise ``½‖w‖² + Σ Cᵢ loss(yᵢ (w·xᵢ + b))``. The primal (liblinear) and the streamed one also
penalise ``b``, as one more weight on a constant feature; the dual (libsvm) leaves it free.

libsvm and liblinear stop when no row's score violates the optimality conditions by more than a
number that knows nothing of the scores. Where C is small all scores lie closer together than that
number, and their order, and with it average precision, would depend on where the solver stopped.
Here ``tol`` is therefore relative to the spread of the class's own training scores; see
:func:`_solve_finely`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, cast

import joblib
import numpy as np
import torch
from joblib.parallel import get_active_backend
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.svm import SVC, LinearSVC
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from vggfeat.errors import DataError, ParameterError
from vggfeat.nets.runtimes import resolve_device
from vggfeat.svm.rows import Floats, Ints, Rows, check_finite, in_blocks, linear_scores
from vggfeat.svm.streaming import class_weights, fit_stream

Loss = Literal["auto", "hinge", "squared_hinge"]
ClassWeight = Literal["balanced"]
Task = TypeVar("Task")
Result = TypeVar("Result")

LOSSES = ("auto", "hinge", "squared_hinge")
CLASS_WEIGHTS = (None, "balanced")
SOLVERS = ("auto", "gram", "primal", "stream")
GRAM_ROWS = 16_000  # 2 GiB as float64
MEMORY = 8 << 30  # bytes that a solver may take for its matrices, of the 16 GB of a common machine
GRAM_BYTES = 16  # per entry of the Gram matrix: float64, and the part of it that one fit copies
PRIMAL_BYTES = 24  # per entry of X: liblinear's float64 copy, and an index and a value beside it
FINEST = 0.01  # share of the spread expected; a smaller one is of classes that nothing tells apart
ROUNDING = 1e-8  # of a dual coefficient's bound
POOL_COST = 2e9  # fits × rows²; below it one process is done by the time that workers have started
BLOCK = 4096  # columns at a time: NumPy would make a float64 copy of all descriptors


class Problem(NamedTuple):
    """How one class is separated from the rest."""

    C: float
    loss: str = "hinge"
    tol: float = 1e-3
    class_weight: str | None = None
    random_state: int = 0


class LinearSVM(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """One-vs-rest linear SVM for descriptors (Appendix B).

    Parameters
    ----------
    C : float in (0, inf), or array of shape (n_classes,)
        Weight of the loss against ``½‖w‖²``; one for all classes, or one for each.
    loss : {"auto", "hinge", "squared_hinge"}
        Loss of a row inside the margin; ``"auto"`` is the hinge, and for ``"stream"``, which has no
        other, the squared hinge.
    solver : {"auto", "gram", "primal", "stream"}
        ``"gram"`` solves the dual on the Gram matrix, computed once for all classes, and equals
        ``SVC(kernel="linear")`` one-vs-rest. ``"primal"`` is liblinear: it equals ``LinearSVC``,
        which also penalises the bias. ``"stream"`` has the primal's optimum, and reads the
        descriptors block by block without ever holding them: they may be a memory map or an HDF5
        data set. ``"auto"`` takes the first of the three whose matrices fit; see
        :func:`choose_solver`.
    tol : float
        Where the solver stops. For ``"gram"`` and ``"primal"``, the largest violation of the
        optimality conditions, as a share of the spread of the class's own training scores (the
        root of their variance where both classes weigh the same, at most 1), and twice that at
        most: the ranking at a small C, where all scores lie close together, is as sure as at a
        large one. For ``"stream"``, see :func:`~vggfeat.svm.streaming.fit_stream`.
    class_weight : {None, "balanced"}
        ``"balanced"`` multiplies C, class by class, by rows / (2 × rows of the sign), so that the
        positives weigh as much as the rest.
    random_state : int
        Seed of liblinear's order of rows.
    n_jobs : int or None
        Processes for large problems, as in joblib; small ones are solved in this one.
    device : str
        Where the Gram matrix is computed: ``"auto"``, the GPU where there is one, or a device.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
        Labels, ascending; column numbers where ``y`` held targets.
    coef_ : array, shape (n_classes, D)
        One row per class, also when there are two.
    intercept_ : array, shape (n_classes,)
        Bias of each class.
    solver_ : str
        The solver that was used.
    loss_ : str
        The loss that was used.
    readings_ : int
        How often ``"stream"`` read all rows; 0 for the others.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> svm = LinearSVM(C=10.0).fit(X, ["cat", "cat", "dog", "dog"])
    >>> svm.predict([[0.8, 0.3]]), svm.coef_.shape, svm.solver_
    (array(['cat'], dtype='<U3'), (2, 2), 'gram')
    """

    classes_: NDArray[Any]
    coef_: Floats
    intercept_: Floats
    solver_: str
    loss_: str
    readings_: int

    def __init__(
        self,
        C: float | ArrayLike = 1.0,
        loss: Loss = "auto",
        solver: str = "auto",
        tol: float = 1e-3,
        class_weight: ClassWeight | None = None,
        random_state: int | None = 0,
        n_jobs: int | None = -1,
        device: str = "auto",
    ) -> None:
        self.C = C
        self.loss = loss
        self.solver = solver
        self.tol = tol
        self.class_weight = class_weight
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.device = device

    def fit(self, X: ArrayLike, y: ArrayLike, gram: Floats | None = None) -> LinearSVM:
        """Separate each class from the rest.

        Parameters
        ----------
        X : array, shape (N, D)
            Descriptors; for ``"stream"`` anything that slices by rows, read in blocks. Those of
            :class:`~vggfeat.svm.rows.Rows` are read in blocks by ``"gram"`` as well.
        y : array, shape (N,), or (N, n_classes) in {-1, 0, +1}
            Labels, or a column of targets per class, where 0 leaves the row out of that class
            (VOC's difficult objects).
        gram : array, shape (N, N), optional
            ``X Xᵀ``, where the caller has it already.

        Returns
        -------
        LinearSVM
            Itself.

        Raises
        ------
        DataError
            If there is a single class, or a class lacks positive or negative rows.
        ParameterError
            If a parameter is out of its range.
        """
        self.solver_ = choose_solver(self.solver, *shape_of(X))
        self.loss_ = choose_loss(self.loss, self.solver_)
        check_class_weight(self.class_weight)
        checked, labels = self._validated(X, y)
        self.classes_, targets = targets_of(labels)
        self._multi_label = labels.ndim == 2
        _refuse_untrainable(self.classes_, targets)
        per_class = self._C_per_class(len(self.classes_))
        mirrored = targets.shape[1] == 2 and not self._multi_label
        columns = np.array([1]) if mirrored else np.arange(targets.shape[1])
        if self.solver_ == "stream":
            coef, biases, self.readings_ = fit_stream(
                checked, targets, columns, per_class[columns], self.tol, self.class_weight
            )
        else:
            self.readings_ = 0
            coef, biases = self._fit_in_memory(checked, targets, columns, per_class, gram)
        if mirrored:  # the rest of one class is the other: the same boundary, seen from behind
            coef, biases = np.concatenate([-coef, coef]), np.concatenate([-biases, biases])
        self.coef_, self.intercept_ = np.asarray(coef, dtype=np.float64), biases
        return self

    def _fit_in_memory(
        self,
        X: NDArray[Any],
        targets: NDArray[np.int8],
        columns: Ints,
        per_class: Floats,
        gram: Floats | None,
    ) -> tuple[Floats, Floats]:
        """Solve for one class after the other, or for several in processes."""
        data = X
        if self.solver_ == "gram":
            data = gram_matrix(X, device=self.device) if gram is None else gram
        work = partial(_fit_column, data, targets, self.problem(), per_class, self.solver_)
        cost = float(len(columns)) * len(X) * min(X.shape)
        fits = in_processes(work, list(columns), cost, self.n_jobs)
        solutions, biases = np.stack([fit[0] for fit in fits]), np.array([fit[1] for fit in fits])
        return (_weighted_sum(solutions, X) if self.solver_ == "gram" else solutions), biases

    def problem(self, C: float = 1.0) -> Problem:
        """Return the settings with which a class is separated; those of a fit, once fitted."""
        loss = getattr(self, "loss_", self.loss)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return Problem(C, loss, self.tol, self.class_weight, seed)

    def class_scores(self, X: ArrayLike) -> Floats:
        """Score every class, shape (N, n_classes), also when there are two."""
        check_is_fitted(self)
        if self._left_in_place(X):
            validate_data(self, X, skip_check_array=True, reset=False)
            check_finite(X)
            return linear_scores(X, self.coef_, self.intercept_)
        checked = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return linear_scores(checked, self.coef_, self.intercept_)

    def decision_function(self, X: ArrayLike) -> Floats:
        """Score every class, shape (N, n_classes); of two classes the second alone, shape (N,).

        The exception for two classes is scikit-learn's convention; :meth:`class_scores` has none.
        """
        scores = self.class_scores(X)
        return scores[:, 1] if len(self.classes_) == 2 and not self._multi_label else scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Name the class of highest score, shape (N,); for targets the sign, shape (N, C)."""
        scores = self.class_scores(X)
        if self._multi_label:
            return np.where(scores > 0, 1, -1)
        return cast("NDArray[Any]", self.classes_[scores.argmax(axis=1)])

    def _left_in_place(self, X: Any) -> bool:
        """Tell whether X is read by rows where it is, not checked and copied as a whole."""
        by_rows = self.solver_ == "stream" or (self.solver_ == "gram" and isinstance(X, Rows))
        return by_rows and in_blocks(X)

    def _validated(self, X: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        checked: Any = X
        if self._left_in_place(X):
            labels = validate_data(self, "no_validation", y, multi_output=True)
            validate_data(self, X, skip_check_array=True)
            check_consistent_length(X, labels)
            if self.solver_ != "stream":  # which does so in its first reading
                check_finite(X)
        else:
            checked, labels = validate_data(
                self, X, y, dtype=[np.float64, np.float32], multi_output=True
            )
        if labels.ndim == 2 and not np.isin(labels, (-1, 0, 1)).all() and labels.shape[1] == 1:
            labels = column_or_1d(labels, warn=True)
        if labels.ndim == 1:
            check_classification_targets(labels)
        return checked, labels

    def _C_per_class(self, n_classes: int) -> Floats:
        C = np.asarray(self.C, dtype=np.float64)
        positive = bool((np.isfinite(C) & (C > 0)).all())
        if not positive or C.shape not in ((), (n_classes,)):
            raise ParameterError.of("C", "LinearSVM", "a float in (0, inf)", self.C)
        return np.broadcast_to(C, n_classes)


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
            "many for it. Use the squared hinge, which loss='auto' takes here."
        )
    if loss == "auto":
        return "squared_hinge" if solver == "stream" else "hinge"
    return loss


def check_class_weight(class_weight: str | None) -> None:
    """Refuse weights of classes that there are not.

    Raises
    ------
    ParameterError
        If it is neither ``"balanced"`` nor None.
    """
    if class_weight not in CLASS_WEIGHTS:
        raise ParameterError.not_one_of("class_weight", "LinearSVM", CLASS_WEIGHTS, class_weight)


def shape_of(X: Any) -> tuple[int, int]:
    """Rows and dimensions, without reading X where it tells its shape; of no matrix, one row."""
    shape = X.shape if hasattr(X, "shape") else np.asarray(X).shape
    return (int(shape[0]), int(shape[1])) if len(shape) == 2 else (1, 1)


def gram_matrix(X: Any, rows: int = 2048, columns: int = 4096, device: str = "auto") -> Floats:
    """Compute X Xᵀ in blocks, each block pair once, on the GPU where there is one.

    Products are taken in the precision of ``X`` (at least float32) and summed over column blocks
    in float64. Finer products would be lost: libsvm itself keeps its kernel rows as float32. The
    result is float64 because scikit-learn would otherwise convert it at every single fit.

    Parameters
    ----------
    X : array, shape (N, D)
        Descriptors; anything that slices by rows and columns, such as a memory map.
    rows, columns : int
        Size of a block.
    device : str
        Where products are taken: ``"auto"``, the GPU where there is one, or a device of torch.

    Returns
    -------
    array, shape (N, N), float64

    Examples
    --------
    >>> gram_matrix(np.array([[1.0, 0.0], [1.0, 2.0]]))
    array([[1., 1.],
           [1., 5.]])
    """
    n, D = X.shape
    precision: type[np.floating[Any]] = np.float64 if X.dtype == np.float64 else np.float32
    on = resolve_device(device)
    K = np.zeros((n, n))
    for column in range(0, D, columns):
        part = np.array(X[:, column : column + columns], dtype=precision, order="C")
        block = torch.from_numpy(part).to(on if on.type == "cuda" else "cpu")
        for i in range(0, n, rows):
            products = block[i : i + rows] @ block[: i + rows].T
            K[i : i + rows, : i + rows] += products.cpu().numpy()
    for i in range(0, n, rows):
        K[:i, i : i + rows] = K[i : i + rows, :i].T
        corner = K[i : i + rows, i : i + rows]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T  # symmetric to the last bit
    return K


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


def _refuse_untrainable(classes: NDArray[Any], targets: NDArray[np.int8]) -> None:
    missing = [str(name) for name in classes[~trainable(targets)]]
    if missing:
        raise DataError(
            f"No positive or no negative rows for class {', '.join(missing)}. Leave the class "
            "out, or give it both; targets are -1 and +1, and 0 leaves a row out."
        )


def _fit_column(
    data: NDArray[Any],
    targets: NDArray[np.int8],
    problem: Problem,
    C: Floats,
    solver: str,
    column: int,
) -> tuple[Floats, float]:
    """Fit one class on its rows; the dual coefficients of rows left out are 0."""
    y = targets[:, column]
    rows = np.flatnonzero(y)
    problem = problem._replace(C=float(C[column]))
    whole = len(rows) == len(y)
    if solver == "primal":
        return fit_primal(data if whole else data[rows], y[rows], problem)
    part, bias = fit_gram(data if whole else data[np.ix_(rows, rows)], y[rows], problem)
    signed = np.zeros(len(y))
    signed[rows] = part
    return signed, bias


def _weighted_sum(weights: Floats, X: NDArray[Any]) -> Floats:
    """Compute weights (C, N) @ X (N, D)."""
    total = np.empty((len(weights), X.shape[1]))
    for column in range(0, X.shape[1], BLOCK):
        total[:, column : column + BLOCK] = weights @ X[:, column : column + BLOCK]
    return total


def fit_gram(K: Floats, y: NDArray[Any], problem: Problem) -> tuple[Floats, float]:
    """Solve the dual on a Gram matrix.

    With the squared hinge the dual is that of a hard margin on ``K + I / 2C`` (Cortes & Vapnik
    1995), so that the same solver serves both losses.

    Parameters
    ----------
    K : array, shape (m, m)
    y : array, shape (m,), of -1 and +1
    problem : Problem

    Returns
    -------
    signed : array, shape (m,)
        yᵢ αᵢ, so that ``w = signed @ X``.
    bias : float
    """
    bound = problem.C * _weights(y, problem.class_weight)
    if problem.loss == "squared_hinge":
        K = K.copy()
        np.fill_diagonal(K, K.diagonal() + 1 / (2 * bound))
        bound = np.full(len(y), 1e6 * max(1.0, problem.C))  # as infinity: α = 2C·slack is far below

    def solve(tol: float) -> tuple[Floats, float]:
        with config_context(assume_finite=True, skip_parameter_validation=True):
            svc = SVC(kernel="precomputed", tol=tol).fit(K, y, sample_weight=bound)
        signed = np.zeros(len(y))
        signed[svc.support_] = svc.dual_coef_[0]
        if (middle := _middle_bias(K @ signed, y, signed * y / bound)) is not None:
            return signed, middle
        return signed, float(svc.intercept_[0])

    return _solve_finely(solve, lambda signed: K @ signed, lambda signed: K @ signed, y, problem)


def _middle_bias(scores: Floats, y: NDArray[Any], share: Floats) -> float | None:
    """Return the middle of all biases that are as good, where no row is at its margin.

    So it is where both classes weigh the same and C is small: every row is at its bound, and which
    end of the interval a solver reports, rounding decides.

    Parameters
    ----------
    scores : array, shape (m,)
        Without a bias.
    y : array, shape (m,), of -1 and +1
    share : array, shape (m,)
        Of its bound that each dual coefficient has.
    """
    inside = share > 1 - ROUNDING  # at most at the margin; all others are beyond it
    if ((share > ROUNDING) & ~inside).any():
        return None
    limits = y - scores
    below, above = limits[(y > 0) != inside], limits[(y > 0) == inside]
    return float(below.max() + above.min()) / 2 if len(below) and len(above) else None


def fit_primal(X: NDArray[Any], y: NDArray[Any], problem: Problem) -> tuple[Floats, float]:
    """Solve with liblinear; its bias is penalised as one more weight.

    Parameters
    ----------
    X : array, shape (m, D)
    y : array, shape (m,), of -1 and +1
    problem : Problem

    Returns
    -------
    w : array, shape (D,)
    bias : float
    """

    def solve(tol: float) -> tuple[Floats, float]:
        svc = LinearSVC(
            C=problem.C,
            loss=problem.loss,
            dual=True if problem.loss == "hinge" else "auto",
            tol=tol,
            class_weight=problem.class_weight,
            random_state=problem.random_state,
            max_iter=10_000,
        ).fit(X, y)
        return svc.coef_[0], float(svc.intercept_[0])

    return _solve_finely(solve, lambda w: X @ w, lambda signed: X @ (signed @ X), y, problem)


def _solve_finely(
    solve: Callable[[float], tuple[Floats, float]],
    scores: Callable[[Floats], Floats],
    dual_scores: Callable[[Floats], Floats],
    y: NDArray[Any],
    problem: Problem,
) -> tuple[Floats, float]:
    """Solve until the violation allowed is small beside the spread of the scores.

    The spread is guessed from the difference of the class means, which all weights would be made
    of if every row of the smaller class reached its bound C. Where the solution's own spread turns
    out to be less than half of that, it is solved again. No spread counts for more than 1, that of
    two classes at their margins.
    """
    positive, weights = y > 0, _weights(y, problem.class_weight)
    smaller = min(weights[positive].sum(), weights[~positive].sum())
    means = np.where(positive, smaller / positive.sum(), -smaller / (~positive).sum())
    expected = max(_spread(dual_scores(problem.C * means), positive), np.finfo(np.float64).eps)
    allowed, finest = problem.tol * expected, problem.tol * expected * FINEST
    while True:
        solution = solve(allowed)
        finer = max(problem.tol * _spread(scores(solution[0]), positive), finest)
        if allowed <= 2 * finer:
            return solution
        allowed = finer


def _spread(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Root of the scores' variance where both classes weigh the same, at most 1."""
    inside, outside = scores[positive], scores[~positive]
    between = (inside.mean() - outside.mean()) / 2
    return float(min(1.0, np.sqrt((inside.var() + outside.var()) / 2 + between**2)))


def _weights(y: NDArray[Any], class_weight: str | None) -> Floats:
    negative, positive = class_weights(y, class_weight)
    return np.where(y > 0, positive, negative)


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
