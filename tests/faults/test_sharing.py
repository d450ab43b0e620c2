"""Several processes at one store, forked or spawned: writers, and readers while one appends."""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
from campaigns import Campaign, times

from vggfeat.errors import StoreError
from vggfeat.features.check import verify
from vggfeat.features.store import FeatureStore
from vggfeat.settings import Extraction

METHODS = [name for name in ("fork", "spawn") if name in mp.get_all_start_methods()]
EXTRACTION = Extraction("D", "ab12", ("fc7",))
SCALES = (8, 10)
PICTURES = 60
D = 12


def names(rows: Sequence[int]) -> list[str]:
    return [f"{row:03}.jpg" for row in rows]


def numbers(rows: Sequence[int], Q: int) -> np.ndarray:
    """Return what stands for the descriptors of pictures: it tells picture, scale and place."""
    return np.add.outer(np.array(rows) * 1000.0 + Q, np.arange(D) / 16).astype(np.float32)


def opened(folder: str, first: int, last: int) -> FeatureStore:
    rows = range(first, last)
    return FeatureStore(
        folder, EXTRACTION, names(rows), stats=[(row, row) for row in rows], cache=True
    )


def write(folder: str, first: int, last: int, size: int, pause: float) -> None:
    """Compute what a part of the pictures lacks, a few at a time."""
    store = opened(folder, first, last)
    missing = [row for row, _ in store.missing(SCALES)]
    for start in range(0, len(missing), size):
        rows = missing[start : start + size]
        store.write(
            rows,
            {p: numbers([first + row for row in rows], p.Q) for p in EXTRACTION.parts(SCALES)},
        )
        time.sleep(pause)
    store.finish()


def finish(folder: str) -> None:
    """Write the view, as a run over all pictures does; there may be much, or nothing, to do."""
    rows = range(PICTURES)
    FeatureStore(folder, EXTRACTION, names(rows), stats=[(r, r) for r in rows]).finish()


def look(folder: str, stop: Event, told: mp.SimpleQueue) -> None:  # type: ignore[type-arg]  # of its contents
    """Read all that is there, again and again; tell how often, and what was wrong."""
    looks = before = 0
    try:
        while not stop.is_set() or not looks:
            try:
                store = FeatureStore.open(folder)
                found = store.names and store.scales and store.read(verify=True)
            except StoreError as error:
                if "no feature store" in str(error) or "No picture" in str(error):
                    continue
                raise
            if not found:
                continue
            shown = [int(name[:3]) for name in store.view_names()]
            for part, values in found.items():
                np.testing.assert_array_equal(values, numbers(shown, part.Q))
            assert len(shown) >= before or before == PICTURES, "fewer pictures than before"
            before = len(shown)
            looks += 1
    except Exception as error:
        told.put(f"{type(error).__name__}: {error}")
    else:
        told.put(looks)


def works(rng: random.Random, writers: int) -> list[tuple[int, int, int, float]]:
    """Draw parts of the pictures, which overlap and are all together, and how they are written."""
    drawn = [(0, PICTURES, rng.randint(2, 9), rng.uniform(0, 0.003))]
    for _ in range(writers - 1):
        first = rng.randrange(PICTURES - 1)
        last = rng.randint(first + 1, PICTURES)
        drawn.append((first, last, rng.randint(2, 9), rng.uniform(0, 0.003)))
    return drawn


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("writers", "readers"), [(2, 0), (1, 2), (2, 2)])
def test_processes_share_a_store(tmp_path: Path, method: str, writers: int, readers: int) -> None:
    """Writers of overlapping parts lose nothing, and no reader ever sees what is not so."""
    context = mp.get_context(method)
    rng = random.Random(writers * 10 + readers)
    with Campaign(f"{writers} writers, {readers} readers, by {method}") as counted:
        for number in range(times(1, 0.1 if method == "fork" else 0.01)):
            folder = str(tmp_path / str(number))
            with counted.trial(number):
                stop, told = context.Event(), context.SimpleQueue()
                reading = [
                    context.Process(target=look, args=(folder, stop, told)) for _ in range(readers)
                ]
                writing = [
                    context.Process(target=write, args=(folder, *one))
                    for one in works(rng, writers)
                ]
                for process in (*reading, *writing):
                    process.start()
                for process in writing:
                    process.join(60)
                stop.set()
                looks = [told.get() for _ in reading]
                for process in reading:
                    process.join(60)
                assert [process.exitcode for process in writing] == [0] * writers
                assert all(isinstance(one, int) and one > 0 for one in looks), looks
                finish(folder)
                assert verify(folder) == []
                store = FeatureStore.open(folder)
                assert store.names == names(range(PICTURES))
                for part, values in store.read(verify=True).items():
                    np.testing.assert_array_equal(values, numbers(range(PICTURES), part.Q))


@pytest.mark.skipif("fork" not in METHODS, reason="needs fork")
def test_store_that_was_opened_before_a_fork(tmp_path: Path) -> None:
    """An open store goes along into processes that are forked, and each reads the same."""
    folder = str(tmp_path / "s")
    write(folder, 0, PICTURES, 7, 0)
    finish(folder)
    store = FeatureStore.open(folder)
    expected = {part: values.tobytes() for part, values in store.read().items()}
    with Campaign("a store opened before a fork") as counted:
        for number in range(times(4, 0.1)):
            pid = os.fork()
            if not pid:
                found = store.read(verify=True)
                os._exit(any(found[part].tobytes() != expected[part] for part in expected))
            with counted.trial(number):
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
