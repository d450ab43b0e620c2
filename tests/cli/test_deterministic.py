"""``--deterministic`` in processes of their own: other threads, shares, jobs, the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggfeat.features.store import FeatureStore

FAST = ("--layer", "pool2", "--Q", "32", "--weights", "embedded", "-q")


def vggfeat(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "vggfeat", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_other_threads_and_shares_extract_the_same_bits(
    tmp_path: Path, draw: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run of two threads; two shares of one thread, joined."""
    for number in range(7):
        draw(f"p/{number}.png", 40 + 8 * (number % 2), 40, seed=number)
    monkeypatch.chdir(tmp_path)
    vggfeat("extract", "p", *FAST, "--deterministic", "-o", "a", "--workers", "1")
    for shard in ("1/2", "2/2"):
        one = ("--shard", shard, "--workers", "3")
        vggfeat("extract", "p", *FAST, "--deterministic", "-o", "b", *one, OMP_NUM_THREADS="1")
    stores = [FeatureStore.open(name) for name in "ab"]
    assert all(store.manifest.nets["D"]["provenance"]["deterministic"] for store in stores)
    assert stores[0].names == stores[1].names
    [first], [second] = (store.read().values() for store in stores)
    assert first.tobytes() == second.tobytes()


def test_an_svm_has_the_same_figures_whatever_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features described anew and SVMs trained in two processes give every figure of one."""
    rng = np.random.default_rng(0)
    for label, low in (("dark", 0), ("grey", 25), ("light", 50)):
        for number in range(8):
            path = tmp_path / "set" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(low, low + 80, (40, 48, 3), np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    results = []
    for jobs in ("1", "2"):
        said = vggfeat(
            "svm", "--dataset", "set", *FAST, "--deterministic", "--json", "--jobs", jobs,
            VGGFEAT_HOME=str(tmp_path / jobs),
        )  # fmt: skip
        result = json.loads(said)["result"]
        for timed in (result, *result["splits"], *(one["search"] for one in result["splits"])):
            timed.pop("seconds", None)
        results.append(result)
    assert results[0] == results[1]
