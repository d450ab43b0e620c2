"""The solver that reads rows in blocks: against liblinear, and how much it holds in memory."""

from __future__ import annotations

import tracemalloc

import h5py
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from vggfeat.errors import DataError, ParameterError
from vggfeat.settings import GRID
from vggfeat.svm import rows as reading
from vggfeat.svm import streaming
from vggfeat.svm.linear import LinearSVM
from vggfeat.svm.rows import Rows, linear_scores
from vggfeat.svm.search import fit_best, select_C
from vggfeat.svm.streaming import fit_stream


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Blocks of 10 rows of 40 dimensions, which divide nothing."""
    monkeypatch.setattr(reading, "BLOCK_BYTES", 10 * 40 * 8)


def descriptors(n=183, D=40, classes=3, seed=0):
    """Overlapping classes of unit length, so that no solver has an easy optimum."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = rng.random((n, D)) + 0.25 * rng.random((classes, D))[y]
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X, np.where(y[:, None] == np.arange(classes), 1, -1).astype(np.int8)


def objective(w, b, X, y, C):
    """Write out what liblinear minimises."""
    return (w @ w + b * b) / 2 + C * np.sum(np.maximum(0, 1 - y * (X @ w + b)) ** 2)


def liblinear(X, y, C, **more):
    svc = LinearSVC(C=C, dual=True, tol=1e-8, max_iter=200_000, random_state=0, **more)
    return svc.fit(X, y)


@pytest.mark.parametrize("C", [0.01, 1.0, 30.0, 1000.0])
def test_optimum_is_that_of_liblinear(tiny_blocks, C):
    """Objectives agree to a thousandth, and to C of it where C is below 1; scores follow."""
    X, targets = descriptors()
    fit = fit_stream(X, targets, [0, 1, 2], [C] * 3, tol=5e-4)
    for k in range(3):
        svc = liblinear(X, targets[:, k], C)
        best = objective(svc.coef_[0], svc.intercept_[0], X, targets[:, k], C)
        ours = objective(fit.coef[k], fit.intercept[k], X, targets[:, k], C)
        assert best * (1 - 1e-6) < ours < best * (1 + 1e-3 * min(1, C))
        scores = svc.decision_function(X)
        np.testing.assert_allclose(
            X @ fit.coef[k] + fit.intercept[k], scores, atol=0.1 * scores.std() + 1e-3
        )


def test_a_finer_tolerance_comes_closer(tiny_blocks):
    """Scores approach liblinear's as the tolerance falls."""
    X, targets = descriptors()
    fit = fit_stream(X, targets, [1], [2.0], tol=1e-9)
    scores = liblinear(X, targets[:, 1], 2.0).decision_function(X)
    np.testing.assert_allclose(X @ fit.coef[0] + fit.intercept[0], scores, atol=1e-4)


def test_every_problem_shares_every_reading(tiny_blocks):
    """All classes and a decade of C on both sides of 1 take few readings, which are counted."""
    X, targets = descriptors(n=600)
    read = np.zeros(len(X), int)

    class Counted(np.ndarray):
        def __getitem__(self, rows):
            read[rows] += 1
            return np.asarray(self)[rows]

    columns, C = np.tile([0, 1, 2], 3), np.repeat([0.1, 1.0, 10.0], 3)
    fit = fit_stream(X.view(Counted), targets, columns, C)
    assert set(read) == {fit.readings}
    assert fit.readings <= 20
    assert LinearSVM(solver="stream").fit(X, targets).readings_ <= fit.readings


def test_groups_of_problems_equal_problems_alone(tiny_blocks, monkeypatch):
    """Classes and values of C that share readings have the optimum that they have alone."""
    X, targets = descriptors()
    columns, C = [0, 1, 2, 0, 1], [0.1, 0.1, 0.1, 5.0, 5.0]
    together = fit_stream(X, targets, columns, C, 1e-9)
    monkeypatch.setattr(streaming, "STATE_BYTES", 2 * 8 * streaming.VECTORS * 41)
    apart = fit_stream(X, targets, columns, C, 1e-9)
    np.testing.assert_allclose(together.coef, apart.coef, atol=1e-3)
    np.testing.assert_allclose(together.intercept, apart.intercept, atol=1e-3)


def test_rows_of_target_0_and_one_C_per_class(tiny_blocks):
    """A row of 0 is out of that class alone, and each class has the C it was given."""
    X, targets = descriptors()
    targets[:40, 0] = 0
    C = [0.1, 0.5, 2.0]
    svm = LinearSVM(C, solver="stream", tol=1e-9).fit(X, targets)
    for k, rows in enumerate([slice(40, None), slice(None), slice(None)]):
        svc = liblinear(X[rows], targets[rows, k], C[k])
        np.testing.assert_allclose(
            svm.class_scores(X)[rows, k], svc.decision_function(X[rows]), atol=1e-3
        )


@pytest.mark.parametrize(("rows", "vectors"), [(50, 256), (8192, 3), (20, 3)])
def test_any_sample_leads_to_the_optimum(tiny_blocks, monkeypatch, rows, vectors):
    """Where the sample tells little of the rows, there are more readings, and the same weights."""
    monkeypatch.setattr(streaming, "SAMPLE_ROWS", rows)
    monkeypatch.setattr(streaming, "EIGENVECTORS", vectors)
    X, targets = descriptors()
    X *= np.geomspace(0.01, 3, X.shape[1])
    fit = fit_stream(X, targets, [0], [10.0], 1e-9)
    scores = liblinear(X, targets[:, 0], 10.0).decision_function(X)
    np.testing.assert_allclose(X @ fit.coef[0] + fit.intercept[0], scores, atol=1e-3)


def test_the_hinge_is_refused_in_a_sentence():
    """Typed for rows that are streamed, it is an error; unsaid, the result names the other."""
    X, targets = descriptors()
    with pytest.raises(ParameterError, match="squared hinge"):
        LinearSVM(loss="hinge", solver="stream").fit(X, targets)
    with pytest.raises(ParameterError, match="squared hinge"):
        select_C(LinearSVM(loss="hinge", solver="stream"), X, targets, score=precisions)
    assert LinearSVM(solver="stream").fit(X, targets).loss_ == "squared_hinge"
    assert LinearSVM().fit(X, targets).loss_ == "hinge"


def test_files_need_not_be_arrays(tmp_path, tiny_blocks):
    """A memory map and an HDF5 data set are fitted and scored as the array in memory is."""
    X, targets = descriptors()
    X = X.astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    whole = LinearSVM(C=2.0, solver="stream").fit(X, targets)
    with h5py.File(tmp_path / "X.h5", "w") as file:
        file.create_dataset("X", data=X, chunks=(16, 40))
        for rows in (np.load(tmp_path / "X.npy", mmap_mode="r"), file["X"]):
            svm = LinearSVM(C=2.0, solver="stream").fit(rows, targets)
            assert svm.n_features_in_ == 40
            np.testing.assert_array_equal(svm.coef_, whole.coef_)
            np.testing.assert_array_equal(svm.class_scores(rows), whole.class_scores(X))
        some = np.array([100, 3, 57])
        np.testing.assert_allclose(
            linear_scores(Rows(file["X"], some), whole.coef_, whole.intercept_),
            whole.class_scores(X)[some],
            rtol=1e-12,
        )


def precisions(targets, scores):
    return np.array(
        [
            average_precision_score(t[t != 0] > 0, s[t != 0])
            for t, s in zip(targets.T, scores.T, strict=True)
        ]
    )


def test_the_choice_of_C_is_that_of_liblinear(tiny_blocks):
    """Every validation score, of each C, fold and class, is what the primal's search finds."""
    X, targets = descriptors()
    targets[::7, 1] = 0
    how = {"grid": (0.1, 1.0, 10.0), "score": precisions, "per_class": True, "folds": 3}
    found = select_C(LinearSVM(solver="stream", tol=1e-6), X, targets, **how)
    other = select_C(LinearSVM(loss="squared_hinge", solver="primal", tol=1e-6), X, targets, **how)
    assert found.solver == "stream"
    np.testing.assert_allclose(found.scores, other.scores, atol=0.01)
    svm, chosen = fit_best(LinearSVM(solver="stream", tol=1e-6), X, targets, **how)
    assert chosen.best == found.best
    assert svm.solver_ == "stream"


def test_a_class_that_a_fold_cannot_train_has_no_scores_there(tiny_blocks):
    """Without positives in a fold's training part a class is NaN, and the others are scored."""
    X, targets = descriptors(n=60)
    targets[:, 2] = np.where(np.arange(60) < 40, -1, targets[:, 2])
    seen = []
    select_C(
        LinearSVM(solver="stream"),
        X,
        targets,
        grid=[1.0],
        folds=[(np.arange(40), np.arange(40, 60))],
        score=lambda t, s: seen.append(s) or np.zeros(3),
    )
    assert np.isnan(seen[0][:, 2]).all()
    assert np.isfinite(seen[0][:, :2]).all()


def test_validation_rows_never_reach_the_fit(tiny_blocks):
    """Whatever a validation row holds, the other rows' decisions stay as they are."""
    X, targets = descriptors(n=60)
    folds = [(np.arange(40), np.arange(40, 60))]
    seen = []

    def keep(_, scores):
        seen.append(scores[1:].copy())
        return np.zeros(3)

    for value in (0.0, 100.0):
        changed = X.copy()
        changed[40] = value
        select_C(LinearSVM(solver="stream"), changed, targets, grid=[1.0], folds=folds, score=keep)
    np.testing.assert_array_equal(*seen)


def test_memory_is_that_of_a_block(tmp_path, monkeypatch):
    """Fit, search and scores of a 64 MiB memory map take less than 12 MiB."""
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr(streaming, "SAMPLE_BYTES", 1 << 20)
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (16_384, 1024))
    targets = np.where(rng.random((len(X), 2)) < 0.2, 1, -1).astype(np.int8)
    for start in range(0, len(X), 1024):
        block = rng.random((1024, 1024), dtype=np.float32)
        block[:, :2] += targets[start : start + 1024]
        X[start : start + 1024] = block / np.linalg.norm(block, axis=1, keepdims=True)
    folds = [(np.arange(8192), np.arange(8192, 16_384))]
    svm = LinearSVM(solver="stream")
    tracemalloc.start()
    svm, _ = fit_best(svm, X, targets, grid=[0.01, 0.1], score=precisions, folds=folds)
    scores = svm.class_scores(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20
    assert precisions(targets, scores).min() > 0.9


def test_memory_has_a_block_of_a_file_for_each_thread(tmp_path, monkeypatch):
    """Eight threads over an HDF5 data set hold less than 16 blocks, beside the sample."""
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 20)  # of float64; these are float32
    monkeypatch.setattr(streaming, "SAMPLE_ROWS", 64)
    X, targets = descriptors(n=8192, D=1024)
    with h5py.File(tmp_path / "X.h5", "w") as file, threadpool_limits(8, user_api="blas"):
        rows = file.create_dataset("X", data=X.astype(np.float32))
        tracemalloc.start()
        fit_stream(rows, targets, [0], [1.0])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 * (1 << 19)


def test_memory_does_not_grow_with_the_grid(monkeypatch):
    """Of 13 values of C, only the scores of one at a time are held, whatever the rows."""
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 16)
    X, targets = descriptors(n=42_000, D=4)
    folds = [(np.arange(2000), np.arange(2000, len(X)))]
    svm = LinearSVM(solver="stream", tol=0.1)
    tracemalloc.start()
    search = select_C(svm, X, targets, grid=GRID, score=mean_of_positives, folds=folds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert search.scores.shape == (13, 1, 3)
    assert peak < 5 * 40_000 * 3 * 8


def mean_of_positives(targets, scores):
    return np.array([s[t > 0].mean() for t, s in zip(targets.T, scores.T, strict=True)])


def test_a_fit_can_be_repeated_with_any_number_of_threads(tiny_blocks):
    """Fits are equal to the last bit: blocks are summed in their order, whoever is done first."""
    X, targets = descriptors(n=2000)
    fits = []
    for threads in (1, 2, 5, 5):
        with threadpool_limits(threads, user_api="blas"):
            fits.append(fit_stream(X, targets, [0, 1], [1.0, 9.0]))
    for fit in fits[1:]:
        np.testing.assert_array_equal(fit.coef, fits[0].coef)


def test_problems_that_are_not_solved_are_named(tiny_blocks, monkeypatch):
    """After too many readings the weights come with a warning that says what to do."""
    monkeypatch.setattr(streaming, "MAX_READINGS", 2)
    X, targets = descriptors()
    with pytest.warns(ConvergenceWarning, match=r"1 of 1 linear SVMs .* Take a smaller C"):
        fit_stream(X, targets, [0], [1000.0])


def test_descriptors_must_be_finite(tiny_blocks):
    """A NaN is refused with the rows to look at, by fit and by scores."""
    X, targets = descriptors()
    svm = LinearSVM(solver="stream").fit(X, targets)
    X[25, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        LinearSVM(solver="stream").fit(X, targets)
    with pytest.raises(DataError, match="Rows 20 to 29 hold a NaN"):
        svm.class_scores(X)
