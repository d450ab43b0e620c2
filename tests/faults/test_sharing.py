"""Several processes at one store, forked or spawned: writers, and readers while one appends."""

from __future__ import annotations

import multiprocessing as mp
import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from campaigns import Campaign, times
from helpers.extraction import SCALES, draw_small, extract_sums, rows
from helpers.killing import ended, forked
from helpers.networks import FakeExtractor, pixel_sums
from helpers.seams import shard_rows
from shared_store import IMAGES, finish, look, names, vectors, write

from vggfeat.data.imageset import find_images
from vggfeat.data.partition import Partition
from vggfeat.features.pipeline import extract
from vggfeat.store.maintenance import verify
from vggfeat.store.store import FeatureStore

METHODS = [name for name in ("fork", "spawn") if name in mp.get_all_start_methods()]


def works(rng: random.Random, writers: int) -> list[tuple[int, int, int, float]]:
    """Draw parts of the images, which overlap and are all together, and how they are written."""
    drawn = [(0, IMAGES, rng.randint(2, 9), rng.uniform(0, 0.003))]
    for _ in range(writers - 1):
        first = rng.randrange(IMAGES - 1)
        last = rng.randint(first + 1, IMAGES)
        drawn.append((first, last, rng.randint(2, 9), rng.uniform(0, 0.003)))
    return drawn


def sharings() -> Iterator[object]:
    """Give ways to begin processes, writers and readers; most spawned ones are slow."""
    for method in METHODS:
        for writers, readers in ((2, 0), (1, 2), (2, 2)):
            slow = method == "spawn" and (writers, readers) != (1, 2)
            yield pytest.param(method, writers, readers, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(("method", "writers", "readers"), [*sharings()])
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
