"""One-vs-rest linear SVM, and the choice of its C."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from vggfeat.errors import DataError, ParameterError
from vggfeat.svm.gram import gram_matrix
from vggfeat.svm.rows import Rows, check_finite, in_blocks, linear_scores
from vggfeat.svm.solvers import (
    Binary,
    Floats,
    Ints,
    Loss,
    choose_loss,
    choose_solver,
    fit_gram,
    fit_primal,
    in_processes,
    shape_of,
    targets_of,
    trainable,
)
from vggfeat.svm.streaming import fit_stream

BLOCK = 4096  # columns at a time: NumPy would make a float64 copy of all descriptors


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
        :func:`~vggfeat.svm.solvers.choose_solver`.
    tol : float
        Where the solver stops. For ``"gram"`` and ``"primal"``, the largest violation of the
        optimality conditions, as a share of the spread of the class's own training scores (the
        root of their variance where both classes weigh the same, at most 1), and twice that at
        most: the ranking at a small C, where all scores lie close together, is as sure as at a
        large one. For ``"stream"``, see :func:`~vggfeat.svm.streaming.fit_stream`.
    random_state : int
        Seed of liblinear's order of rows.
    n_jobs : int or None
        Processes for large problems, as in joblib; small ones are solved in this one.

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
        random_state: int | None = 0,
        n_jobs: int | None = -1,
    ) -> None:
        self.C = C
        self.loss = loss
        self.solver = solver
        self.tol = tol
        self.random_state = random_state
        self.n_jobs = n_jobs

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
        checked, labels = self._validated(X, y)
        self.classes_, targets = targets_of(labels)
        self._multi_label = labels.ndim == 2
        _refuse_untrainable(self.classes_, targets)
        per_class = self._C_per_class(len(self.classes_))
        mirrored = targets.shape[1] == 2 and not self._multi_label
        columns = np.array([1]) if mirrored else np.arange(targets.shape[1])
        if self.solver_ == "stream":
            fit = fit_stream(checked, targets, columns, per_class[columns], self.tol)
            coef, biases, self.readings_ = fit
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
        how = Binary(1.0, self.loss_, self.tol, _seed(self.random_state))
        data = X
        if self.solver_ == "gram":
            data = gram_matrix(X) if gram is None else gram
        work = partial(_fit_column, data, targets, how, per_class, self.solver_)
        cost = float(len(columns)) * len(X) * min(X.shape)
        fits = in_processes(work, list(columns), cost, self.n_jobs)
        solutions, biases = np.stack([fit[0] for fit in fits]), np.array([fit[1] for fit in fits])
        return (_weighted_sum(solutions, X) if self.solver_ == "gram" else solutions), biases

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
        wanted = self.solver_ == "stream" or (self.solver_ == "gram" and isinstance(X, Rows))
        return wanted and in_blocks(X)

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
        right = C.shape in ((), (n_classes,)) and bool((np.isfinite(C) & (C > 0)).all())
        if not right:
            raise ParameterError.of("C", "LinearSVM", "a float in (0, inf)", self.C)
        return np.broadcast_to(C, n_classes)


def _fit_column(
    data: NDArray[Any],
    targets: NDArray[np.int8],
    how: Binary,
    C: Floats,
    solver: str,
    column: int,
) -> tuple[Floats, float]:
    """Fit one class on its rows; the dual coefficients of rows left out are 0."""
    y = targets[:, column]
    rows = np.flatnonzero(y)
    how = how._replace(C=float(C[column]))
    whole = len(rows) == len(y)
    if solver == "primal":
        return fit_primal(data if whole else data[rows], y[rows], how)
    part, bias = fit_gram(data if whole else data[np.ix_(rows, rows)], y[rows], how)
    signed = np.zeros(len(y))
    signed[rows] = part
    return signed, bias


def _weighted_sum(weights: Floats, X: NDArray[Any]) -> Floats:
    """Compute weights (C, N) @ X (N, D)."""
    total = np.empty((len(weights), X.shape[1]))
    for column in range(0, X.shape[1], BLOCK):
        total[:, column : column + BLOCK] = weights @ X[:, column : column + BLOCK]
    return total


def _refuse_untrainable(classes: NDArray[Any], targets: NDArray[np.int8]) -> None:
    missing = [str(name) for name in classes[~trainable(targets)]]
    if missing:
        raise DataError(
            f"No positive or no negative rows for class {', '.join(missing)}. Leave the class "
            "out, or give it both; targets are -1 and +1, and 0 leaves a row out."
        )


def _seed(random_state: int | None) -> int:
    return int(check_random_state(random_state).randint(2**31 - 1))
