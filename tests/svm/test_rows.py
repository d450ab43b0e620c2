"""Rows that stay where they are: the same results as in memory, and no more memory than a block."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.rows import labelled, targeted

from vggfeat.settings import SVM
from vggfeat.svm import rows as module
from vggfeat.svm import streaming
from vggfeat.svm.linear import LinearSVM, gram_matrix
from vggfeat.svm.protocols import Evaluation
from vggfeat.svm.protocols.random_splits import RandomSplits
from vggfeat.svm.protocols.voc import VOC
from vggfeat.svm.rows import Rows, linear_scores

N, D = 12_288, 1024


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and samples of a megabyte."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr(streaming, "SAMPLE_BYTES", 1 << 20)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Write 48 MiB of descriptors of two classes; return them as a memory map, and the labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, N)
    path = tmp_path_factory.mktemp("rows") / "X.npy"
    X = np.lib.format.open_memmap(path, "w+", np.float32, (N, D))
    for start in range(0, N, 1024):
        block = rng.random((1024, D), dtype=np.float32)
        block[:, 0] += labels[start : start + 1024]
        X[start : start + 1024] = block / np.linalg.norm(block, axis=1, keepdims=True)
    X.flush()
    return np.load(path, mmap_mode="r"), labels


@pytest.mark.parametrize("kind", ["array", "map", "file"])
def test_slices_are_those_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind) -> None:
    """Rows in any order, rows of rows, and columns of them, from memory and from both files."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 7 * 8 * 6)
    X = np.random.default_rng(0).random((40, 6)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    chosen = np.random.default_rng(1).permutation(40)[:25]
    with h5py.File(tmp_path / "X.h5", "w") as file:
        dataset = file.create_dataset("X", data=X, chunks=(4, 6))
        mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
        source = {"array": X, "map": mapped, "file": dataset}[kind]
        some = Rows(source, chosen)
        fewer = Rows(some, [20, 3, 3])
        assert some.shape == (25, 6)
        np.testing.assert_array_equal(some[4:19], X[chosen][4:19])
        np.testing.assert_array_equal(some[4:19, 2:5], X[chosen][4:19, 2:5])
        np.testing.assert_array_equal(fewer, X[chosen[[20, 3, 3]]])
        np.testing.assert_array_equal(gram_matrix(some, 8, 4), gram_matrix(X[chosen], 8, 4))
        weights, bias = np.ones((2, 6)), np.array([0.0, 1.0])
        np.testing.assert_allclose(
            linear_scores(some, weights, bias), X[chosen] @ weights.T + bias, rtol=1e-6
        )


@pytest.mark.parametrize("solver", ["gram", "primal", "stream"])
def test_a_fit_of_rows_is_that_of_their_copy(solver: str) -> None:
    """Every solver takes them."""
    rng = np.random.default_rng(0)
    X, y = rng.random((60, 5)), rng.integers(0, 3, 60)
    chosen = np.flatnonzero(rng.random(60) < 0.7)
    one = LinearSVM(solver=solver).fit(Rows(X, chosen), y[chosen])
    other = LinearSVM(solver=solver).fit(X[chosen], y[chosen])
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-9)
    np.testing.assert_allclose(one.class_scores(Rows(X, [1, 2])), other.class_scores(X[[1, 2]]))


STREAMED = SVM(C=(0.1, 1.0), solver="stream", loss="squared_hinge")


def by_voc(X: np.ndarray, labels: np.ndarray) -> Evaluation:
    parts = np.array_split(np.random.default_rng(1).permutation(N), 3)
    targets = np.where(labels[:, None] == [0, 1], 1, -1)
    return VOC(ap="ap11").evaluate(*targeted(targets, ["a", "b"], parts), X, STREAMED)


def by_caltech(X: np.ndarray, labels: np.ndarray) -> Evaluation:
    protocol = RandomSplits(splits=1, train_per_class=4096, validation_fraction=0.2)
    return protocol.evaluate(*labelled(labels, ["a", "b"]), X, STREAMED)


def traced(compute: Callable[[], Any]) -> tuple[Any, int]:
    """Return what is computed, and the bytes that it took at most."""
    tracemalloc.start()
    result = compute()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


@pytest.mark.parametrize("protocol", [by_voc, by_caltech])
def test_a_protocol_holds_a_block_of_a_memory_map(
    small_blocks: None,
    on_disk: tuple[np.ndarray, np.ndarray],
    protocol: Callable[[np.ndarray, np.ndarray], Evaluation],
) -> None:
    """Search, fit and test of 48 MiB take less than 12 MiB, and come out well."""
    found, peak = traced(lambda: protocol(*on_disk))
    assert peak < 12 << 20
    assert found.result.headline[0].value > 0.9


def test_a_gram_matrix_reads_a_few_columns_at_a_time(
    on_disk: tuple[np.ndarray, np.ndarray],
) -> None:
    """Beside the matrix itself there are the columns of one block."""
    chosen = np.arange(0, N, 12)
    K, peak = traced(lambda: gram_matrix(Rows(on_disk[0], chosen), rows=128, columns=128))
    assert peak < K.nbytes + (3 << 20)
    np.testing.assert_allclose(K[:50], on_disk[0][chosen[:50]] @ on_disk[0][chosen].T, rtol=1e-5)
