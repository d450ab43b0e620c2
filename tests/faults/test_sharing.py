"""Several processes at one store, forked or spawned: writers, and readers while one appends."""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
from campaigns import Campaign, times
from helpers.extraction import SCALES, draw_small, extract_sums, rows
from helpers.killing import ended, forked
from helpers.networks import FakeExtractor, pixel_sums
from helpers.seams import shard_rows
from storing import column, ids_of, stamps_of

from vggfeat.data.imageset import find_images
from vggfeat.data.partition import Partition
from vggfeat.errors import StoreError
from vggfeat.features.pipeline import extract
from vggfeat.store.column import Column
from vggfeat.store.maintenance import verify
from vggfeat.store.store import FeatureStore

METHODS = [name for name in ("fork", "spawn") if name in mp.get_all_start_methods()]
D = 12
COLUMNS = [Column(column(Q=Q).descriptor, {"weights": "ab12"}, D) for Q in (8, 10)]
WANTED = [one.descriptor for one in COLUMNS]
IMAGES = 60


def names(numbers: Sequence[int]) -> list[str]:
    return [f"{number:03}.jpg" for number in numbers]


def vectors(numbers: Sequence[int], Q: int) -> np.ndarray:
    """Return what stands for the descriptors of images: it tells image, scale and place."""
    return np.add.outer(np.array(numbers) * 1000.0 + Q, np.arange(D) / 16).astype(np.float32)


def write(folder: str, first: int, last: int, size: int, pause: float) -> None:
    """Compute what a part of the images lacks, a few at a time."""
    store, part = FeatureStore(folder, "a"), names(range(first, last))
    store.add_columns(COLUMNS)
    store.begin(part, share=(1 + first, IMAGES))
    lacking = np.flatnonzero(~store.has(WANTED, part, ids_of(part)).all(axis=1)) + first
    for start in range(0, len(lacking), size):
        some = lacking[start : start + size].tolist()
        mine = names(some)
        arrays = {one: vectors(some, one.Q) for one in WANTED}
        store.write(mine, ids_of(mine), stamps_of(mine), arrays)
        store.refresh()
        time.sleep(pause)
    store.finish(part, {}, (1 + first, IMAGES))


def finish(folder: str) -> None:
    """Write the view, as a run over all images does; there may be much, or nothing, to do."""
    store = FeatureStore(folder, "a")
    store.begin(names(range(IMAGES)))
    store.finish(names(range(IMAGES)), {})


def look(folder: str, stop: Event, told: mp.SimpleQueue) -> None:  # type: ignore[type-arg]  # of its contents
    """Read all that is there, again and again; tell how often, and what was wrong."""
    looks = before = 0
    try:
        while not stop.is_set() or not looks:
            try:
                store = FeatureStore(folder)
                found = store.read(verify=True)
            except StoreError as error:
                if "no feature store" in str(error):
                    continue
                raise
            if not found:
                continue
            shown = [int(name[:3]) for name in store.complete()]
            for descriptor, values in found.items():
                np.testing.assert_array_equal(values, vectors(shown, descriptor.Q))
            assert len(shown) >= before, "fewer images than before"
            before = len(shown)
            looks += 1
    except Exception as error:
        told.put(f"{type(error).__name__}: {error}")
    else:
        told.put(looks)


def works(rng: random.Random, writers: int) -> list[tuple[int, int, int, float]]:
    """Draw parts of the images, which overlap and are all together, and how they are written."""
    drawn = [(0, IMAGES, rng.randint(2, 9), rng.uniform(0, 0.003))]
    for _ in range(writers - 1):
        first = rng.randrange(IMAGES - 1)
        last = rng.randint(first + 1, IMAGES)
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
                store = FeatureStore(folder)
                assert store.complete() == store.names == names(range(IMAGES))
                for one, values in store.read(verify=True).items():
                    np.testing.assert_array_equal(values, vectors(range(IMAGES), one.Q))


def run(images: str, folder: str, part: int, parts: int) -> None:
    """Extract one share of a list of images, or all of it."""
    share = Partition(part, parts)
    some = find_images([images])
    some, fake = some.take(share.rows(len(some))), FakeExtractor(pixel_sums)
    with shard_rows(4):
        store = FeatureStore(folder, "a")
        extract(some, fake, SCALES, store, share=share.share, workers=2)  # type: ignore[arg-type]  # it stands in


@pytest.mark.skipif("fork" not in METHODS, reason="needs fork")
@pytest.mark.parametrize("shares", [(), (3,)])
def test_runs_of_one_list(tmp_path: Path, shares: tuple[int, ...]) -> None:
    """Two runs of one list, and shares of it beside them, in one folder: nothing is lost."""
    images = draw_small(tmp_path / "images")
    extract_sums(images, tmp_path / "alone")
    expected = rows(tmp_path / "alone")
    tasks = [(1, 1), (1, 1), *((part, parts) for parts in shares for part in range(1, parts + 1))]
    with Campaign(f"{len(tasks)} runs of one list") as counted:
        for number in range(times(1, 0.05)):
            folder = tmp_path / str(number)
            with counted.trial(number):
                running = [forked(partial(run, str(images), str(folder), *task)) for task in tasks]
                assert [ended(pid) for pid in running] == [0] * len(tasks)
                assert rows(folder) == expected
                again = extract_sums(images, folder)
                assert (again.computed, again.present, again.failed) == (0, 40, 2)
                assert verify(folder) == []
                assert list(FeatureStore(folder).failed) == ["images/bad0.png", "images/bad1.png"]


@pytest.mark.skipif("fork" not in METHODS, reason="needs fork")
def test_store_that_was_opened_before_a_fork(tmp_path: Path) -> None:
    """An open store goes along into processes that are forked, and each reads the same."""
    folder = str(tmp_path / "s")
    write(folder, 0, IMAGES, 7, 0)
    finish(folder)
    store = FeatureStore(folder)
    expected = {part: values.tobytes() for part, values in store.read().items()}
    with Campaign("a store opened before a fork") as counted:
        for number in range(times(4, 0.1)):
            pid = os.fork()
            if not pid:
                found = store.read(verify=True)
                os._exit(any(found[part].tobytes() != expected[part] for part in expected))
            with counted.trial(number):
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
