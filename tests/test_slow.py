"""What takes minutes: many kills on genuine pictures, and ten thousand pictures."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import noise, random_weights

from vggfeat import DenseExtractor, FeatureStore, extract, find_pictures
from vggfeat.features.check import verify
from vggfeat.features.extract import Summary

pytestmark = pytest.mark.slow
SHAPES = [(50, 40), (40, 50), (44, 44), (64, 40), (40, 61), (48, 40), (40, 57), (90, 40)]


def command(pictures: Path, out: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "vggfeat", "extract", str(pictures), "--out", str(out)),
        *("--net", "D", "--layer", "pool5", "--Q", "256", "--Q", "384", "--json", *more),
    ]


def test_twenty_kills_change_nothing(real_pictures: Path, tmp_path: Path) -> None:
    """Killed at 20 random moments and resumed, a run ends as one that was never killed."""
    crab = real_pictures / "caltech101" / "101_ObjectCategories" / "crab"
    start = time.monotonic()
    subprocess.run(command(crab, tmp_path / "whole"), check=True, capture_output=True)
    whole = time.monotonic() - start
    second = subprocess.run(
        command(crab, tmp_path / "whole"), check=True, capture_output=True, text=True
    )
    assert json.loads(second.stdout)["computed"] == 0

    seed = random.randrange(10**6)
    rng = random.Random(seed)
    kills = 0
    for _ in range(20):
        running = subprocess.Popen(
            command(crab, tmp_path / "killed"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Start-up takes seconds, a shard at most half a minute: kills fall before, in and after.
        time.sleep(rng.uniform(2, min(whole, 40)))
        kills += running.poll() is None
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        if (tmp_path / "killed" / "manifest.json").exists():
            problems = [p for p in verify(tmp_path / "killed") if "left" not in p]
            assert not problems, (seed, problems)
    assert kills >= 1, seed
    subprocess.run(command(crab, tmp_path / "killed"), check=True, capture_output=True)
    expected, found = (FeatureStore.open(tmp_path / name) for name in ("whole", "killed"))
    assert found.view_names() == expected.view_names()
    for part, values in expected.read().items():
        assert np.array_equal(found.read()[part], values), (seed, part)


def test_ten_thousand_pictures_in_flat_memory(tmp_path: Path) -> None:
    """After the first 1,000 of 10,000 pictures of mixed shapes, peak memory stays flat."""
    psutil = pytest.importorskip("psutil")
    for i in range(100):
        Image.fromarray(noise(*SHAPES[i % len(SHAPES)], i)).save(tmp_path / f"{i}.jpg")
    (tmp_path / "many").mkdir()
    for i in range(10_000):
        (tmp_path / "many" / f"{i:05}.jpg").hardlink_to(tmp_path / f"{i % 100}.jpg")
    images = find_pictures([str(tmp_path / "many")])
    extractor = DenseExtractor("A", "pool3", weights=random_weights("A", ["pool3"]))
    store = FeatureStore(tmp_path / "f", extractor.extraction, images.names)
    process = psutil.Process()
    used: dict[int, int] = {}

    def watch(summary: Summary) -> None:
        thousands = summary.computed // 1000
        used[thousands] = max(used.get(thousands, 0), process.memory_info().rss)

    summary = extract(images, extractor, (40, 64), store, progress=watch)
    assert summary.computed == 10_000
    assert summary.failed == 0
    # 2 % for what an allocator keeps; ten thousand descriptors alone would be 20 MB a scale.
    assert max(used[k] for k in range(1, 10)) <= 1.02 * used[1], used
    assert not verify(tmp_path / "f")
