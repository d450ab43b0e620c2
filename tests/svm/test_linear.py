"""The linear SVM against scikit-learn's own, and where its work is done."""

from __future__ import annotations

import os

import joblib
import numpy as np
import pytest
from helpers.mistakes import refuses
from helpers.processes import own_pid
from sklearn.metrics import average_precision_score
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from vggfeat.errors import DataError, ParameterError
from vggfeat.settings import GRID
from vggfeat.svm import linear
from vggfeat.svm.linear import LinearSVM, choose_solver, gram_matrix, in_processes


def descriptors(n=90, D=40, classes=3, seed=0, dtype=np.float64):
    """Overlapping classes of unit length, so that no solver has an easy optimum."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = rng.random((n, D)) + 0.25 * rng.random((classes, D))[y]
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(dtype), y


# Its problems are one class against the rest, each of two sides, so that weights by class have no
# meaning of their own.
NOT_OURS = {"check_class_weight_classifiers": "class_weight is 'balanced' or None, no mapping"}


@parametrize_with_checks(
    [LinearSVM(), LinearSVM(solver="stream")], expected_failed_checks=lambda estimator: NOT_OURS
)
def test_scikit_learns_own_checks(estimator, check):
    """All checks that scikit-learn has for classifiers pass."""
    check(estimator)


def reference(solver, loss, **settings):
    """SVC, or LinearSVC with a bias that costs nothing where ours is free."""
    if (solver, loss) == ("gram", "hinge"):
        return SVC(kernel="linear", tol=1e-7, **settings)
    scaling = 300.0 if solver == "gram" else 1.0
    return LinearSVC(
        loss=loss, dual=loss == "hinge", tol=1e-9, intercept_scaling=scaling, max_iter=1_000_000,
        **settings,
    )  # fmt: skip


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize(
    ("solver", "loss", "tol", "atol"),
    [
        ("gram", "hinge", 1e-7, 1e-4),
        ("gram", "squared_hinge", 1e-7, 2e-3),
        ("primal", "hinge", 1e-8, 1e-4),
        ("primal", "squared_hinge", 1e-8, 1e-4),
        ("stream", "squared_hinge", 1e-9, 1e-4),
    ],
)
def test_every_solver_equals_scikit_learns(solver, loss, tol, atol, class_weight):
    """Class by class, at a C of its own, without the rows of target 0."""
    X, y = descriptors()
    targets = np.where(y[:, None] == np.arange(3), 1, -1)
    targets[::7, 0] = 0
    grid = [1.0, 2.0, 10.0]  # at a smaller one, balanced, any bias is as good
    svm = LinearSVM(grid, loss, solver, tol, class_weight).fit(X, targets)
    scores = svm.class_scores(X)
    for k, C in enumerate(grid):
        rows = targets[:, k] != 0
        other = reference(solver, loss, C=C, class_weight=class_weight)
        other.fit(X[rows], targets[rows, k])
        np.testing.assert_allclose(scores[:, k], other.decision_function(X), atol=atol)
        if solver != "gram":
            np.testing.assert_allclose(svm.intercept_[k], other.intercept_[0], atol=atol)
    np.testing.assert_array_equal(svm.predict(X), np.where(scores > 0, 1, -1))


def weak(rng, n=1200, D=200):
    """Noise of unit length, a little off in one direction for one image in ten."""
    y = np.where(rng.random(n) < 0.1, 1, -1)
    X = rng.standard_normal((n, D)) + 2 + 0.24 * (y > 0)[:, None] * rng.standard_normal(D)
    return X, y


def clustered(rng, n=2400, D=256):
    """Clusters that a rare class prefers without ever filling one."""
    centres, cluster = rng.random((12, D)) * (rng.random((12, D)) < 0.2), rng.integers(0, 12, n)
    share = np.minimum(0.96 * rng.dirichlet(np.full(12, 0.6)), 0.9)
    y = np.where(rng.random(n) < share[cluster], 1, -1)
    return np.maximum(centres[cluster] + 0.25 * rng.standard_normal((n, D)), 0), y


@pytest.mark.parametrize("make", [weak, clustered])
def test_rankings_do_not_depend_on_where_the_solver_stopped(make):
    """At every C of the grid, scores and AP of new rows are those of a 1000 times finer tol."""
    X, y = make(np.random.default_rng(0))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    known, new = slice(None, None, 2), slice(1, None, 2)
    K = gram_matrix(X[known])
    for C in GRID:
        usual, fine = (
            LinearSVM(C, "hinge", "gram", tol)
            .fit(X[known], np.column_stack([y, -y])[known], gram=K)
            .class_scores(X[new])[:, 0]
            for tol in (1e-3, 1e-6)
        )
        moved = usual - fine - np.median(usual - fine)
        assert np.abs(moved).max() < 0.02 * fine.std()
        precisions = (average_precision_score(y[new] > 0, scores) for scores in (usual, fine))
        assert abs(np.subtract(*precisions)) < 0.002


def test_two_classes_have_a_row_each():
    """coef_ has two rows of opposite sign, and the decisions equal SVC's."""
    X, y = descriptors(classes=2)
    names = np.array(["cat", "dog"])[y]
    svm = LinearSVM(tol=1e-6).fit(X, names)
    svc = SVC(kernel="linear", tol=1e-6).fit(X, names)
    assert svm.coef_.shape == (2, X.shape[1])
    np.testing.assert_array_equal(svm.coef_[0], -svm.coef_[1])
    np.testing.assert_allclose(svm.decision_function(X), svc.decision_function(X), atol=1e-4)
    np.testing.assert_array_equal(svm.predict(X), svc.predict(X))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_gram_in_blocks_equals_the_product(dtype):
    """Blocks that do not divide the matrix give the product in float64, to the input's rounding."""
    X, _ = descriptors(n=53, D=37, dtype=dtype)
    K = gram_matrix(X, rows=16, columns=10)
    exact = X.astype(np.float64) @ X.astype(np.float64).T
    np.testing.assert_allclose(K, exact, atol=1e-12 if dtype is np.float64 else 1e-6)
    np.testing.assert_array_equal(K, K.T)


def test_a_gram_matrix_at_hand_is_used_as_it_is():
    """Giving the Gram matrix changes no coefficient, and leaves the matrix alone."""
    X, y = descriptors()
    K = gram_matrix(X)
    before = K.copy()
    given = LinearSVM(loss="squared_hinge").fit(X, y, gram=K)
    np.testing.assert_array_equal(K, before)
    np.testing.assert_array_equal(given.coef_, LinearSVM(loss="squared_hinge").fit(X, y).coef_)


@pytest.mark.parametrize(
    ("solver", "n", "D", "expected"),
    [
        ("auto", 16_000, 512, "gram"),
        ("auto", 16_001, 512, "primal"),
        ("auto", 20_000, 24_576, "gram"),  # more dimensions than rows
        ("auto", 80_000, 4_096, "primal"),
        ("auto", 100_000, 4_096, "stream"),
        ("auto", 30_000, 100_000, "stream"),
        ("primal", 10, 10, "primal"),
    ],
)
def test_the_solver_is_the_first_whose_matrices_fit(solver, n, D, expected):
    assert choose_solver(solver, n, D) == expected


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"C": -1}, ["'C'"]),
        ({"C": [1.0, 2.0]}, ["'C'"]),
        ({"loss": "logistic"}, ["'hinge'", "'squared_hinge'"]),
        ({"solver": "sgd"}, ["'gram'", "'primal'", "'stream'"]),
        ({"class_weight": {0: 2}}, ["class_weight"]),
    ],
)
def test_wrong_settings_are_refused(settings, named):
    refuses(lambda: LinearSVM(**settings).fit(*descriptors()), ParameterError, named)


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        (lambda y: np.zeros(len(y)), "2 classes"),
        (lambda y: np.column_stack([2 * (y > 0) - 1, np.ones(len(y), int)]), "class 1"),
        (lambda y: np.column_stack([y, y]), "+1"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(targets, named):
    X, y = descriptors()
    refuses(lambda: LinearSVM().fit(X, targets(y)), DataError, [named])


def test_small_work_stays_in_this_process():
    """Little work starts no processes, and a backend of threads is never used."""
    assert set(in_processes(own_pid, [1, 2, 3], linear.POOL_COST / 2, 2)) == {os.getpid()}
    with joblib.parallel_config("threading", n_jobs=2):
        assert set(in_processes(own_pid, [1, 2, 3], linear.POOL_COST, 2)) == {os.getpid()}


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_large_work_goes_to_processes(backend):
    """Much work is done elsewhere, in joblib's active backend."""
    with joblib.parallel_config(backend):
        assert os.getpid() not in in_processes(own_pid, [1, 2, 3], linear.POOL_COST, 2)


@pytest.mark.parametrize(
    "backend",
    [
        "multiprocessing",
        pytest.param("loky", marks=pytest.mark.slow),  # each process loads scikit-learn and torch
    ],
)
def test_processes_change_no_coefficient(backend, monkeypatch):
    """Coefficients from worker processes are those of a single one, to the last bit."""
    X, y = descriptors()
    alone = LinearSVM(loss="squared_hinge").fit(X, y)
    monkeypatch.setattr(linear, "POOL_COST", 0.0)
    with joblib.parallel_config(backend):
        pooled = LinearSVM(loss="squared_hinge", n_jobs=2).fit(X, y)
    np.testing.assert_array_equal(alone.coef_, pooled.coef_)


@pytest.mark.parametrize("C", [0.001, 0.01, 0.1])
def test_the_bias_is_the_middle_of_all_that_are_as_good(C: float) -> None:
    """Where every row is at its bound the objective is flat; rounding chooses no end of it."""
    rng = np.random.default_rng(0)
    y = np.repeat([1, -1], [30, 8])
    X = rng.standard_normal((38, 50))
    X = (X + y[:, None] * 0.3) / 10
    svm = LinearSVM(C, class_weight="balanced", solver="gram").fit(X, y)
    weight = 38 / (2 * np.where(y > 0, 30, 8))
    biases = np.linspace(-2, 2, 40_001)
    slack = np.maximum(0, 1 - y[:, None] * ((X @ svm.coef_[1])[:, None] + biases))
    loss = weight @ slack
    best = biases[loss <= loss.min() * (1 + 1e-9)]
    assert best[-1] - best[0] > 0.1
    assert svm.intercept_[1] == pytest.approx((best[0] + best[-1]) / 2, abs=1e-3)
    recalls = [(svm.predict(X)[y == k] == k).mean() for k in (1, -1)]
    assert min(recalls) > 0.7
