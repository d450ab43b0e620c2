"""A long run over many small images, of which one in a hundred is bad: nothing grows.

``make soak`` sets VGGFEAT_SOAK, the number of images; without it there are few. Once it is
without a network, a minute for 100,000, and once with the shipped one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from campaigns import Campaign
from helpers.extraction import SCALES, content
from helpers.networks import FakeExtractor, pixel_sums
from helpers.seams import shard_due
from PIL import Image

from vggfeat.data.imageset import find_images
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import Summary, extract
from vggfeat.store.maintenance import verify
from vggfeat.store.store import FeatureStore

KINDS = 100  # different images; each has many names
SHAPES = ((24, 20), (20, 24), (22, 22), (32, 20))
WARM = 0.2  # of the run, after which nothing may grow


def drawn(folder: Path, count: int) -> Path:
    """Give names to a hundred images until there are as many as asked for; the last is bad."""
    kinds = folder / "kinds"
    kinds.mkdir()
    rng = np.random.default_rng(0)
    for kind in range(KINDS):
        path = kinds / f"{kind}.jpg"
        Image.fromarray(rng.integers(0, 256, (*SHAPES[kind % 4], 3), np.uint8)).save(path)
    bad = kinds / f"{KINDS - 1}.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    for number in range(count):
        within = folder / "many" / f"{number // 1000:04}"
        within.mkdir(parents=True, exist_ok=True)
        (within / f"{number % 1000:03}.jpg").hardlink_to(kinds / f"{number % KINDS}.jpg")
    return folder / "many"


def used() -> tuple[int, int]:
    """Return the bytes in memory and the handles of this process."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return resident, len(list(Path("/proc/self/fd").iterdir()))


def numbers() -> Any:
    """Give whole numbers that cost nothing: what is tested is all but the network."""
    return FakeExtractor(pixel_sums)


def embedded() -> Any:
    """Give the shipped net itself."""
    return DenseExtractor("D", "pool5", weights="embedded", device="cpu")


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("describer", "scales", "usual", "grown"),
    # The descriptors of 80,000 images would be 10 MB, or 160.
    [
        pytest.param(numbers, SCALES, 500, 8_000_000, id="numbers"),
        pytest.param(embedded, (32,), 400, 40_000_000, id="embedded", marks=pytest.mark.slow),
    ],
)
def test_soak(
    describer: Callable[[], Any], scales: tuple[int, ...], usual: int, grown: int, tmp_path: Path
) -> None:
    """Memory and handles stay flat, each good image has its row, each bad one its reason."""
    count = int(os.environ.get("VGGFEAT_SOAK", usual))
    images = find_images([str(drawn(tmp_path, count))])
    extractor = describer()
    store = FeatureStore(tmp_path / "store", "a")
    memory: list[int] = []
    handles: list[int] = []

    def watch(done: Summary) -> None:
        if done.computed + done.failed >= WARM * count:
            resident, open_files = used()
            memory.append(resident)
            handles.append(open_files)

    with shard_due(seconds=1):  # what waits to be written would hide what grows
        summary = extract(images, extractor, scales, store, workers=2, progress=watch)
    bad = count // KINDS
    with Campaign(f"soak, {describer.__name__}") as counted:
        with counted.trial("counts", faults=count):
            assert (summary.computed, summary.failed) == (count - bad, bad)
            assert len(store.failed) == bad
            assert verify(tmp_path / "store") == []
        found = content(tmp_path / "store")
        assert len(found["names"]) == count - bad
        assert set(found["failed"]) == set(images.names[KINDS - 1 :: KINDS])
    print(
        f"soak: memory {memory[0] / 1e6:.0f} to {max(memory) / 1e6:.0f} MB, handles "
        f"{min(handles)} to {max(handles)}, {summary.images_per_s:.0f} images/s"
    )
    assert max(memory) <= memory[0] + grown
    assert max(handles) - min(handles) <= 4  # what decoding threads and a shard have open
