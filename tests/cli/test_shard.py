"""``--shard``, as a cluster's job array or a person starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run

from vggfeat.store.maintenance import verify
from vggfeat.store.store import FeatureStore

EXTRACT = ("extract", "p", "--layer", "pool2", "--Q", "32")


def extract(*more: str, **environment: str) -> subprocess.Popen[str]:
    """Start a run over the images, up to a layer that takes milliseconds."""
    return subprocess.Popen(
        [sys.executable, "-m", "vggfeat", *EXTRACT, *more],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(run: subprocess.Popen[str]) -> str:
    """Wait for a run, and return what it said."""
    said, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    return said


def check_equal(joined: str, one: str) -> None:
    """Compare stores: an image's batch is another one in a share, so the last bits may differ."""
    assert FeatureStore(joined).names == FeatureStore(one).names
    [found], [expected] = FeatureStore(joined).read().values(), FeatureStore(one).read().values()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_four_at_once_equal_one_run(
    tmp_path: Path, draw: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job array of three in a folder, and one of torchrun's into another: joined, all is there.

    One of the images is torn: the share that has it says so, and the joined store does.
    """
    for number in range(21):
        draw(f"p/{number % 3}/{number:02}.png", 40 + 8 * (number % 2), 40, seed=number)
    (tmp_path / "p" / "0" / "torn.png").write_bytes(b"\x89PNG")
    monkeypatch.chdir(tmp_path)
    array = {"COUNT": "4", "MIN": "5", "MAX": "8"}
    array = {f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()}
    runs = [
        extract("--shard", "auto", "--out", "a", SLURM_ARRAY_TASK_ID=task, **array)
        for task in "567"
    ]
    runs.append(extract("--shard", "auto", "--out", "b", RANK="3", WORLD_SIZE="4"))
    said = [finish(run) for run in runs]
    assert all(
        f"{number}/4 of 22 images" in " ".join(one.split()) for number, one in enumerate(said, 1)
    )
    assert "all holds 21 images" in run("store", "merge", "a", "b", "--out", "all").out
    finish(extract("--out", "one"))
    assert verify("all") == []
    check_equal("all", "one")
    for name in ("all", "one"):
        assert FeatureStore(name).failed.keys() == {"p/0/torn.png"}
    assert "0 computed, 21 already there" in finish(extract("--out", "all"))


def test_shares_in_folders_of_their_own(
    draw: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two shares are joined into what one run makes; one too many has nothing to do."""
    for number in range(5):
        draw(f"p/{number}.png", 40, 40, seed=number)
    monkeypatch.chdir(tmp_path)
    for part in ("1", "2"):
        done = run(*EXTRACT, "--shard", f"{part}/2", "--out", part)
        assert f"{part}/2 of 5 images" in done.out
    assert "0 of 0" in run(*EXTRACT, "--shard", "9/9", "--out", "2").out
    assert "all holds 5 images" in run("store", "merge", "1", "2", "--out", "all").out
    run(*EXTRACT, "--out", "one")
    check_equal("all", "one")
