"""The linear SVM against scikit-learn's own, and where its work is done."""

from __future__ import annotations

import os
import pickle
from itertools import product

import joblib
import numpy as np
import pytest
from helpers.processes import own_pid
from sklearn.base import clone
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV
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


@pytest.mark.parametrize("C", [0.1, 1.0, 30.0])
def test_gram_equals_svc_one_vs_rest(C):
    """The decisions on the shared Gram matrix are those of SVC(kernel="linear") on each class."""
    X, y = descriptors()
    svm = LinearSVM(C=C, solver="gram", tol=1e-6).fit(X, y)
    for k in range(3):
        svc = SVC(kernel="linear", C=C, tol=1e-6).fit(X, y == k)
        np.testing.assert_allclose(svm.class_scores(X)[:, k], svc.decision_function(X), atol=1e-4)
        np.testing.assert_allclose(svm.coef_[k], svc.coef_[0], atol=1e-4)


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_primal_equals_linear_svc(loss):
    """The primal solver is LinearSVC, its penalised bias included."""
    X, y = descriptors()
    svm = LinearSVM(C=2.0, loss=loss, solver="primal", tol=1e-8).fit(X, y)
    ours = svm.decision_function(X)
    theirs = LinearSVC(C=2.0, loss=loss, dual=True, tol=1e-8, max_iter=100_000).fit(X, y)
    np.testing.assert_allclose(ours, theirs.decision_function(X), atol=1e-4)


def test_squared_hinge_on_the_gram_equals_linear_svc_with_a_free_bias():
    """The raised diagonal gives the squared hinge: LinearSVC agrees once its bias costs nothing."""
    X, y = descriptors()
    ours = LinearSVM(C=2.0, loss="squared_hinge", solver="gram", tol=1e-7).fit(X, y)
    theirs = LinearSVC(C=2.0, dual=False, tol=1e-9, intercept_scaling=300.0, max_iter=100_000)
    scores = theirs.fit(X, y).decision_function(X)
    np.testing.assert_allclose(ours.decision_function(X), scores, atol=2e-3)


@pytest.mark.parametrize(
    ("solver", "loss"),
    [*product(["gram", "primal"], ["hinge", "squared_hinge"]), ("stream", "squared_hinge")],
)
def test_balanced_classes_are_those_of_scikit_learn(solver, loss):
    """In every solver class_weight="balanced" is SVC's or LinearSVC's, one class at a time."""
    X, y = descriptors()
    targets = np.where(y[:, None] == np.arange(3), 1, -1)
    targets[::7, 0] = 0
    tol = 1e-9 if solver == "stream" else 1e-7
    how = {"loss": loss, "solver": solver, "tol": tol, "class_weight": "balanced"}
    svm = LinearSVM(C=2.0, **how).fit(X, targets)
    plain = LinearSVM(C=2.0, **how | {"class_weight": None}).fit(X, targets)
    scores = svm.class_scores(X)
    assert np.abs(scores - plain.class_scores(X)).max() > 0.1
    for k in range(3):
        rows = targets[:, k] != 0
        if solver == "gram" and loss == "hinge":
            other = SVC(kernel="linear", C=2.0, tol=1e-7, class_weight="balanced")
        else:
            free = 300.0 if solver == "gram" else 1.0  # a bias that costs nothing
            other = LinearSVC(
                C=2.0, loss=loss, dual=loss == "hinge", tol=1e-9, intercept_scaling=free,
                max_iter=1_000_000, class_weight="balanced",
            )  # fmt: skip
        expected = other.fit(X[rows], targets[rows, k]).decision_function(X)
        np.testing.assert_allclose(scores[:, k], expected, atol=4e-3)


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


def test_solvers_agree_on_who_wins():
    """Dual and primal name nearly always the same class; only the bias is treated otherwise."""
    X, y = descriptors(n=120)
    gram = LinearSVM(solver="gram").fit(X, y).predict(X)
    primal = LinearSVM(solver="primal").fit(X, y).predict(X)
    assert np.mean(gram == primal) > 0.95


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


@pytest.mark.parametrize("solver", ["gram", "primal"])
def test_difficult_rows_are_left_out_of_their_class_alone(solver):
    """A row with target 0 has no influence on that class, and its usual one on the others."""
    X, y = descriptors()
    targets = np.where(y[:, None] == np.arange(3), 1, -1)
    targets[:10, 0] = 0
    svm = LinearSVM(solver=solver, tol=1e-6).fit(X, targets)
    without = LinearSVM(solver=solver, tol=1e-6).fit(X[10:], y[10:])
    whole = LinearSVM(solver=solver, tol=1e-6).fit(X, y)
    np.testing.assert_allclose(svm.coef_[0], without.coef_[0], atol=1e-4)
    np.testing.assert_allclose(svm.coef_[1:], whole.coef_[1:], atol=1e-4)
    assert set(np.unique(svm.predict(X))) <= {-1, 1}


def test_one_C_per_class_equals_fits_of_their_own():
    """An array of C gives each class what a single C would have given it."""
    X, y = descriptors()
    svm = LinearSVM(C=[0.1, 1.0, 10.0]).fit(X, y)
    for k, C in enumerate([0.1, 1.0, 10.0]):
        np.testing.assert_array_equal(svm.coef_[k], LinearSVM(C=C).fit(X, y).coef_[k])


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


def test_automatic_choice_of_solver():
    """What fits into memory as a Gram matrix, or else as it is, does so; the choice is told."""
    assert choose_solver("auto", 16_000, 512) == "gram"
    assert choose_solver("auto", 16_001, 512) == "primal"
    assert choose_solver("auto", 20_000, 24_576) == "gram"
    assert choose_solver("auto", 80_000, 4_096) == "primal"
    assert choose_solver("auto", 100_000, 4_096) == "stream"
    assert choose_solver("auto", 30_000, 100_000) == "stream"
    assert choose_solver("primal", 10, 10) == "primal"
    X, y = descriptors()
    assert LinearSVM().fit(X, y).solver_ == "gram"


def test_errors_say_what_is_wrong():
    """Wrong parameters and targets are refused in words."""
    X, y = descriptors()
    with pytest.raises(ParameterError, match=r"'C' parameter of LinearSVM must be a float in"):
        LinearSVM(C=-1).fit(X, y)
    with pytest.raises(ParameterError, match=r"'C' parameter"):
        LinearSVM(C=[1.0, 2.0]).fit(X, y)
    with pytest.raises(ParameterError, match="one of 'auto', 'hinge', 'squared_hinge'"):
        LinearSVM(loss="logistic").fit(X, y)
    with pytest.raises(ParameterError, match="one of 'auto', 'gram', 'primal'"):
        LinearSVM(solver="sgd").fit(X, y)
    with pytest.raises(ParameterError, match="class_weight"):
        LinearSVM(class_weight={0: 2}).fit(X, y)
    with pytest.raises(DataError, match="at least 2 classes"):
        LinearSVM().fit(X, np.zeros(len(X)))
    with pytest.raises(DataError, match="No positive or no negative rows for class 1"):
        LinearSVM().fit(X, np.column_stack([np.sign(y - 0.5), np.ones(len(X))]).astype(int))
    with pytest.raises(DataError, match=r"-1, 0 .* and \+1 only"):
        LinearSVM().fit(X, np.column_stack([y, y]))


def test_copies_and_pickles_behave():
    """Clones are unfitted with equal settings; a pickled classifier decides alike."""
    X, y = descriptors()
    svm = LinearSVM(C=3.0).fit(X, y)
    assert not hasattr(clone(svm), "coef_")
    assert clone(svm).C == 3.0
    copy = pickle.loads(pickle.dumps(svm))
    np.testing.assert_array_equal(copy.decision_function(X), svm.decision_function(X))


@pytest.mark.slow  # each process loads torch
def test_within_a_grid_search_in_processes():
    """scikit-learn's own search, in two processes, agrees with itself in one."""
    X, y = descriptors(n=60)
    grid = {"C": [0.1, 10.0]}
    alone, pair = (GridSearchCV(LinearSVM(), grid, cv=2, n_jobs=n).fit(X, y) for n in (1, 2))
    np.testing.assert_array_equal(
        alone.cv_results_["mean_test_score"], pair.cv_results_["mean_test_score"]
    )


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
