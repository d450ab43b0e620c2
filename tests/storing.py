"""Feature stores with descriptors that depend on names alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vggfeat.features.store import FeatureStore
from vggfeat.settings import Extraction
from vggfeat.store.column import Descriptor

ONE = Extraction("D", "ab12", ("fc7",))
NAMES = [f"{number:02}.jpg" for number in range(12)]
STATS = [(100 + number, 10**18 + number) for number in range(12)]
PART = Descriptor("D", "fc7", "average", 256)
LARGE = Descriptor("D", "fc7", "average", 384)


def vectors(names: list[str], part: Descriptor, dimension: int = 5) -> np.ndarray:
    """Descriptors that depend on nothing but the picture's name and the part."""
    rows = [
        np.random.default_rng(list(f"{name}{part}".encode("utf-8", "surrogateescape")))
        for name in names
    ]
    return np.array([row.random(dimension, np.float32) for row in rows]).reshape(-1, dimension)


def fill(store: FeatureStore, scales: list[int], size: int = 5, order=lambda rows: rows) -> int:
    """Compute what is missing, in shards of ``size``; return how many pictures that were."""
    missing = order(store.missing(scales))
    for some in (missing[start : start + size] for start in range(0, len(missing), size)):
        for wanted in {lacks for _, lacks in some}:
            rows = [row for row, lacks in some if lacks == wanted]
            names = [store.names[row] for row in rows]
            parts = store.extraction.parts(wanted)
            store.write(rows, {part: vectors(names, part) for part in parts})
    return len(missing)


def filled(folder: Path | None, names=NAMES, extraction=ONE, scales=(256,), **options):
    """Make a finished store."""
    options = {"stats": STATS[: len(names)], **options}
    store = FeatureStore(folder, extraction, names, **options)
    fill(store, list(scales))
    store.finish()
    return store
