"""Stores of any size, whose every number follows from its row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggfeat.features.store import FeatureStore
from vggfeat.settings import Extraction

Q = 384
EXTRACTION = Extraction("D", "made by benchmarks/large_made.py", ("fc7",), flip=False)


def name_of(row: int) -> str:
    """Name a picture as data sets do: a folder of a thousand, a number."""
    return f"{row // 1000:06}/{row:012}.jpg"


def names(rows: int) -> list[str]:
    """Name all pictures."""
    return [name_of(row) for row in range(rows)]


def stats(rows: int) -> list[tuple[int, int]]:
    """Make up what tells the files."""
    return [(row * 2654435761 % 2**62 + 1, 10**18 + row) for row in range(rows)]


def descriptors(rows: NDArray[np.int64], width: int) -> NDArray[np.float16]:
    """Return what rows hold, (n, width); exact in float16."""
    mixed = (rows[:, None] * 7919 + np.arange(width) * 31) % 1021
    return (mixed.astype(np.float32) / 1024).astype(np.float16)


def write(folder: Path, rows: int, width: int, dtype: str, per_shard: int) -> FeatureStore:
    """Write a store as an extraction does, shard by shard."""
    store = FeatureStore(folder, EXTRACTION, names(rows), stats=stats(rows), dtype=dtype)
    [part] = EXTRACTION.parts([Q])
    for first in range(0, rows, per_shard):
        some = np.arange(first, min(first + per_shard, rows))
        store.write(some.tolist(), {part: descriptors(some, width)})
    store.finish()
    return store
