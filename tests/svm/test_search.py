"""The choice of C against scikit-learn's cross-validation, and its rules."""

from __future__ import annotations

import joblib
import numpy as np
import pytest
from helpers.mistakes import refuses
from sklearn.metrics import average_precision_score, recall_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from vggfeat.errors import DataError, ParameterError
from vggfeat.svm import linear
from vggfeat.svm import search as module
from vggfeat.svm.linear import LinearSVM
from vggfeat.svm.search import fit_best, select_C
from vggfeat.svm.splits import stratified_folds

GRID3 = (0.1, 1.0, 10.0)


def descriptors(n=60, D=30, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = rng.random((n, D)) + 0.4 * rng.random((classes, D))[y]
    return X / np.linalg.norm(X, axis=1, keepdims=True), y


def precisions(targets, scores):
    """Average precision of each class by scikit-learn, as a user would write it."""
    return np.array(
        [
            average_precision_score(t[t != 0] > 0, s[t != 0]) if (t > 0).any() else np.nan
            for t, s in zip(targets.T, scores.T, strict=True)
        ]
    )


def test_scores_equal_those_of_scikit_learn():
    """Every validation score is the macro recall of OneVsRestClassifier(SVC) on that fold."""
    X, y = descriptors()
    folds = stratified_folds(y, 3)
    found = select_C(LinearSVM(tol=1e-6), X, y, grid=GRID3, folds=folds)
    for c, C in enumerate(GRID3):
        for f, (train, test) in enumerate(folds):
            other = OneVsRestClassifier(SVC(kernel="linear", C=C, tol=1e-6))
            predicted = other.fit(X[train], y[train]).predict(X[test])
            expected = recall_score(y[test], predicted, average="macro")
            assert np.mean(found.scores[c, f]) == pytest.approx(expected, abs=1e-12)
    assert found.overall.max() == pytest.approx(found.best_score)


@pytest.mark.parametrize("solver", ["gram", "primal"])
def test_multi_label_with_one_C_per_class(solver):
    """With a score of each class alone, every class gets the C that is best for it."""
    X, y = descriptors(n=90)
    targets = np.where(y[:, None] == np.arange(3), 1, -1)
    targets[::7, 1] = 0
    how = {"grid": GRID3, "score": precisions, "per_class": True}
    found = select_C(LinearSVM(solver=solver), X, targets, **how)
    assert found.scores.shape == (3, 5, 3)
    for best, scores in zip(found.best, found.per_class.T, strict=True):
        assert scores[GRID3.index(best)] == scores.max()
    assert found.solver == solver
    svm, _ = fit_best(LinearSVM(solver=solver), X, targets, **how)
    np.testing.assert_array_equal(svm.C, found.best)


def test_a_class_weight_is_chosen_with_C():
    """Of both weights and all C the best by a loop over scikit-learn, on one Gram matrix."""
    X, y = descriptors(n=60)
    few = np.flatnonzero(y == 0)[:7]
    rows = np.sort(np.r_[few, np.flatnonzero(y == 1)])
    X, y = X[rows], y[rows]
    folds = stratified_folds(y, 5)

    def recall(C, weight):
        return np.mean(
            [
                recall_score(
                    y[test],
                    SVC(kernel="linear", C=C, class_weight=weight, tol=1e-6)
                    .fit(X[train], y[train])
                    .predict(X[test]),
                    average="macro",
                )
                for train, test in folds
            ]
        )

    best = {weight: max(recall(C, weight) for C in GRID3) for weight in (None, "balanced")}
    svm, search = fit_best(
        LinearSVM(tol=1e-6), X, y, grid=GRID3, folds=folds, class_weights=[*best]
    )
    assert search.best_score == pytest.approx(max(best.values()))
    assert best[search.class_weight] == pytest.approx(max(best.values()))
    assert svm.class_weight == search.class_weight


def test_equal_scores_give_the_C_nearest_to_one():
    """Classes that every C separates get C = 1, unwarned: a wider grid gains nothing."""
    X, y = np.repeat(np.eye(3), 5, axis=0), np.repeat([0, 1, 2], 5)
    found = select_C(LinearSVM(), X, y)
    assert found.best == (1.0,)
    assert found.at_edge == (False,)
    assert found.warning is None


@pytest.mark.parametrize(("best", "edge"), [(0, True), (1, False), (2, True)])
def test_a_choice_at_the_edge_is_told(best, edge):
    """The first or last C, better than its neighbour, comes with advice; one between does not."""
    X, y = descriptors()
    calls = iter(range(100))

    def score(targets, scores):
        return np.full(3, 1.0 if next(calls) % 3 == best else 0.5)

    found = select_C(LinearSVM(), X, y, grid=GRID3, score=score)
    assert found.best == (GRID3[best],)
    assert found.at_edge == (edge,)
    assert (found.warning is not None) == edge
    if edge:
        assert f"{GRID3[best]:g}" in found.warning


def test_processes_change_no_score(monkeypatch):
    """Scores from worker processes are those of a single one, to the last bit."""
    X, y = descriptors(n=90, classes=10)
    alone = select_C(LinearSVM(), X, y, grid=GRID3)
    monkeypatch.setattr(linear, "POOL_COST", 0.0)
    with joblib.parallel_config("multiprocessing"):  # whose processes need not load torch anew
        pair = select_C(LinearSVM(n_jobs=2), X, y, grid=GRID3)
    np.testing.assert_array_equal(alone.scores, pair.scores)


def test_a_class_without_images_in_a_fold_is_left_out_of_its_mean():
    """A class of two images validates in two folds; the others say nothing about it."""
    X, y = descriptors(n=30)
    y[:] = 0
    y[10:], y[28:] = 1, 2
    found = select_C(LinearSVM(), X, y, grid=[1.0])
    assert np.isnan(found.scores[0, :, 2]).sum() == 3
    assert np.isfinite(found.overall).all()


@pytest.mark.parametrize(
    ("search", "named"),
    [
        ({"grid": []}, "'grid'"),
        ({"grid": [1, 1]}, "different floats"),
        ({"grid": [0, 1]}, "'grid'"),
        ({"score": "accuracy"}, "'score'"),
        ({"per_class": True}, "per_class"),
    ],
)
def test_wrong_settings_are_refused(search, named):
    refuses(lambda: select_C(LinearSVM(), *descriptors(), **search), ParameterError, [named])


def test_a_class_that_nothing_validates_is_refused():
    X, y = descriptors()
    search = {"folds": [(np.arange(60), np.arange(0))], "score": lambda *_: np.full(3, np.nan)}
    refuses(lambda: select_C(LinearSVM(), X, y, **search), DataError, ["validation"])


@pytest.mark.parametrize("solver", ["gram", "primal", "stream"])
@pytest.mark.parametrize("choose", [select_C, fit_best])
def test_wrong_class_weights_are_refused_before_anything_is_fitted(monkeypatch, solver, choose):
    X, y = descriptors()
    for name in ("gram_matrix", "fit_gram", "fit_primal", "fit_stream"):
        monkeypatch.setattr(module, name, None)
    svm = LinearSVM(solver=solver, class_weight="equal")
    refuses(lambda: choose(svm, X, y, grid=GRID3), ParameterError, ["class_weight"])


def test_a_bound_that_is_not_reached_is_not_loosened(monkeypatch):
    """Once no multiplier meets its bound, larger C are not solved, and SVC agrees with them all."""
    X, y = descriptors(n=40, D=200)
    grid = [0.01, 0.1, 1, 10, 100, 1e3, 1e4]
    solved, seen = [], []
    fit = linear.fit_gram

    def spy(K, labels, problem):
        solved.append(problem.C)
        return fit(K, labels, problem)

    def keep(targets, scores):
        seen.append(scores)
        return np.zeros(3)

    monkeypatch.setattr(module, "fit_gram", spy)
    train, validation = np.arange(30), np.arange(30, 40)
    select_C(LinearSVM(tol=1e-8), X, y, grid=grid, folds=[(train, validation)], score=keep)
    assert len(solved) < 3 * len(grid) - 6
    for scores, C in zip(seen, grid, strict=True):
        for k in range(3):
            svc = SVC(kernel="linear", C=C, tol=1e-8).fit(X[train], y[train] == k)
            np.testing.assert_allclose(
                scores[:, k], svc.decision_function(X[validation]), atol=1e-5
            )
