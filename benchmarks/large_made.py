"""Stores of any size, whose every number follows from its row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggfeat.store.column import Column, Descriptor
from vggfeat.store.store import FeatureStore

FC7 = Descriptor("D", "fc7", "average", 384)


def column(width: int) -> Column:
    """Return the one column of such a store."""
    return Column(FC7, {"weights": "made by benchmarks/large_made.py", "flip": False}, width)


def name_of(row: int) -> str:
    """Name an image as data sets do: a folder of a thousand, a number."""
    return f"{row // 1000:06}/{row:012}.jpg"


def ids(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Make up which images they are, (n, 2)."""
    return np.stack([rows * 2654435761 % 2**62 + 1, rows + 1], axis=1)


def stamps(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Make up what their files look like, (n, 2)."""
    return np.stack([rows * 7919 % 2**20 + 1000, rows + 10**18], axis=1)


def descriptors(rows: NDArray[np.int64], width: int) -> NDArray[np.float16]:
    """Return what rows hold, (n, width); exact in float16."""
    mixed = (rows[:, None] * 7919 + np.arange(width) * 31) % 1021
    return (mixed.astype(np.float32) / 1024).astype(np.float16)


def write(folder: Path, rows: int, width: int, dtype: str, per_shard: int) -> FeatureStore:
    """Write a store as an extraction does, shard by shard."""
    store = FeatureStore(folder, "a", dtype=dtype)
    store.add_columns([column(width)])
    names = [name_of(row) for row in range(rows)]
    store.begin(names)
    for first in range(0, rows, per_shard):
        some = np.arange(first, min(first + per_shard, rows))
        arrays = {FC7: descriptors(some, width)}
        store.write(names[first : first + per_shard], ids(some), stamps(some), arrays)
    store.finish(names, {})
    return store
