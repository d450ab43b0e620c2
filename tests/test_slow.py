"""What takes minutes: many kills on genuine images, and ten thousand images."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.extraction import rows
from PIL import Image
from support import noise, random_weights

from vggfeat import DenseExtractor, FeatureStore, extract, find_images
from vggfeat.features.pipeline import Summary
from vggfeat.store.maintenance import verify

pytestmark = pytest.mark.slow
SHAPES = [(50, 40), (40, 50), (44, 44), (64, 40), (40, 61), (48, 40), (40, 57), (90, 40)]


FEW = ("--layer", "pool5", "--Q", "256")
ALL = ("--layer", "pool4", "--layer", "pool5", "--pool", "average+max", "--Q", "256", "--Q", "384")


def command(images: Path, out: Path, *columns: str) -> list[str]:
    return [
        *(sys.executable, "-m", "vggfeat", "extract", str(images), "--out", str(out)),
        *("--net", "D", "--json", *columns),
    ]


def test_twenty_kills_change_nothing(real_images: Path, tmp_path: Path) -> None:
    """Killed twenty times while columns are added, a run ends as one that was never killed."""
    crab = real_images / "caltech101" / "101_ObjectCategories" / "crab"
    for columns in (FEW, ALL):
        start = time.monotonic()
        subprocess.run(command(crab, tmp_path / "whole", *columns), check=True, capture_output=True)
        whole = time.monotonic() - start
    second = subprocess.run(
        command(crab, tmp_path / "whole", *ALL), check=True, capture_output=True, text=True
    )
    assert json.loads(second.stdout)["computed"] == 0
    expected = rows(tmp_path / "whole")

    seed = random.randrange(10**6)
    rng = random.Random(seed)
    out = tmp_path / "killed"
    subprocess.run(command(crab, out, *FEW), check=True, capture_output=True)
    kills = 0
    for _ in range(20):
        running = subprocess.Popen(
            command(crab, out, *ALL),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Start-up takes seconds, a shard at most half a minute: kills fall before, in and after.
        time.sleep(rng.uniform(2, min(whole, 40)))
        kills += running.poll() is None
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        problems = [problem for problem in verify(out) if "left" not in problem]
        assert not problems, (seed, problems)
        wrong = rows(out).items() - expected.items()
        assert not wrong, (seed, [key for key, _ in wrong][:5])
    assert kills >= 1, seed
    subprocess.run(command(crab, out, *ALL), check=True, capture_output=True)
    assert FeatureStore(out).names == FeatureStore(tmp_path / "whole").names
    assert rows(out) == expected, seed


def test_ten_thousand_images_in_flat_memory(tmp_path: Path) -> None:
    """After the first 1,000 of 10,000 images of mixed shapes, peak memory stays flat."""
    psutil = pytest.importorskip("psutil")
    for i in range(100):
        Image.fromarray(noise(*SHAPES[i % len(SHAPES)], i)).save(tmp_path / f"{i}.jpg")
    (tmp_path / "many").mkdir()
    for i in range(10_000):
        (tmp_path / "many" / f"{i:05}.jpg").hardlink_to(tmp_path / f"{i % 100}.jpg")
    images = find_images([str(tmp_path / "many")])
    extractor = DenseExtractor("A", "pool3", weights=random_weights("A", ["pool3"]))
    store = FeatureStore(tmp_path / "f", "a")
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
