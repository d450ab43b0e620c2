"""What processes at one store do: write a part of the images, or read all that is there.

A process that is spawned imports this module alone, and no torch.
"""

from __future__ import annotations

import multiprocessing as mp
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Event

import numpy as np
from storing import column, ids_of, stamps_of

from vggfeat.errors import StoreError
from vggfeat.store.column import Column
from vggfeat.store.store import FeatureStore

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
