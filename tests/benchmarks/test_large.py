"""Large stores and SVMs: the scripts at a small size, and what the page says of any size."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vggfeat.features.aggregate import Aggregation, aggregate
from vggfeat.features.matrix import StoreRows
from vggfeat.store.store import FeatureStore
from vggfeat.svm.linear import LinearSVM
from vggfeat.svm.rows import Rows

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Load the script, which is no part of the package."""
    monkeypatch.syspath_prepend(FOLDER)
    return import_module("large_costs")


def test_the_page_has_what_the_formulas_say(costs: ModuleType) -> None:
    """The computed tables of docs/scale.md are those that the script prints."""
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert costs.time_table() in page
    assert costs.space_table() in page


def test_costs_by_hand(costs: ModuleType) -> None:
    """A million images through E, and one of fc7 at three scales, worked out by hand."""
    cost = costs.time_of(1_000_000)
    assert cost.gpu_hours == pytest.approx(1e6 * 2 * 152.9e9 / (989e12 * 0.5) / 3600, rel=0.01)
    assert cost.cpu_hours == pytest.approx(1e6 * 0.69 / 3600)
    assert costs.image_bytes(4096, "float16", 3) - costs.NAME_BYTES == 24_576
    assert costs.merged_shards(1_000_000, 4096, "float16", 1) == 62  # 16,384 rows of 8 kB
    assert costs.shards_of(1_000_000, 600) == 31  # 32,768 rows of 2 kB
    assert costs.shards_of(1_000_000, 690_000) == 23_000  # one every 30 s


@pytest.mark.slow
def test_large_store_script(tmp_path: Path) -> None:
    """All its stages go through, and compare what they read with what was written."""
    command = [sys.executable, FOLDER / "large_store.py", "--rows", "900", "--width", "8"]
    more = ["--per-shard", "10", "--folder", tmp_path]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=True)
    assert "90 shards" in done.stdout
    assert "all rows, by h5py alone" in done.stdout


@pytest.mark.slow
def test_large_svm_script(tmp_path: Path) -> None:
    """It checks itself that streaming comes within 1 % of the exact solver's AP."""
    small = ["--rows", "900", "--subset", "600", "--test", "600", "--width", "64"]
    command = [sys.executable, FOLDER / "large_svm.py", *small, "--signal", "0.3"]
    done = subprocess.run(
        [*command, "--folder", tmp_path, "--tol", "1e-3"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "stream / gram on the subset" in done.stdout


def test_rows_of_a_store_are_those_in_memory(tmp_path: Path, costs: ModuleType) -> None:
    """Whole, in slices, or some, rows read from the store are what aggregate makes of it."""
    made = import_module("large_made")
    store = made.write(tmp_path / "s", 300, 24, "float16", 32)
    expected = aggregate(store.read(), power=0.5)
    X = StoreRows(FeatureStore(tmp_path / "s"), Aggregation(power=0.5))
    np.testing.assert_array_equal(X[:], expected)
    np.testing.assert_array_equal(X[31:70:3, 2:5], expected[31:70:3, 2:5])
    chosen = [7, 3, 299, 3]
    np.testing.assert_array_equal(Rows(X, chosen)[:], expected[chosen])
    named = StoreRows(X.store, Aggregation(power=0.5), names=[made.name_of(row) for row in chosen])
    np.testing.assert_array_equal(named[:], expected[chosen])
    labels = np.where(expected[:, 0] > np.median(expected[:, 0]), "high", "low")
    streamed = LinearSVM(C=1.0, solver="stream").fit(X, labels)
    exact = LinearSVM(C=1.0, solver="stream").fit(expected, labels)
    np.testing.assert_allclose(streamed.coef_, exact.coef_, rtol=1e-6, atol=1e-9)
