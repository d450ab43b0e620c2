"""Stores whose descriptors depend on the names of images and columns alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.store.column import Column, Descriptor
from vggfeat.store.store import FeatureStore

WIDTH = 5
NAMES = [f"{number:02}.jpg" for number in range(12)]


def column(
    layer: str = "fc7", pool: str = "average", Q: int = 256, *, net: str = "D", **settings: Any
) -> Column:
    """Make a column of five numbers; settings come on top of two that all have."""
    given = {"weights": f"{net}-{layer}", "flip": True, **settings}
    return Column(Descriptor(net, layer, pool, Q), given, WIDTH)


FC7 = column()
LARGE = column(Q=384)
POOL5 = column("pool5")


def ids_of(names: Sequence[str], version: int = 0) -> np.ndarray:
    """Make ids (n, 2) of images; those of another version are other images."""
    seeds = [list(name.encode("utf-8", "surrogateescape")) for name in names]
    rows = [np.random.default_rng([version, *seed]).integers(1, 2**62, 2) for seed in seeds]
    return np.array(rows, np.int64).reshape(-1, 2)


def stamps_of(names: Sequence[str], version: int = 0) -> np.ndarray:
    """Make stamps (n, 2) of images."""
    return ids_of(names, 1000 + version)


def vectors(names: Sequence[str], name: Descriptor, version: int = 0) -> np.ndarray:
    """Make descriptors (n, 5) that depend on nothing but image, version and column."""
    seeds = [list(f"{version}{image}{name}".encode("utf-8", "surrogateescape")) for image in names]
    rows = [np.random.default_rng(seed).random(WIDTH, np.float32) for seed in seeds]
    return np.array(rows, np.float32).reshape(-1, WIDTH)


def write(store: FeatureStore, names: Sequence[str]) -> None:
    """Write a shard of some images."""
    arrays = {FC7.descriptor: vectors(names, FC7.descriptor)}
    store.write(names, ids_of(names), stamps_of(names), arrays)


def fill(
    store: FeatureStore,
    columns: Sequence[Column] = (FC7,),
    names: Sequence[str] = NAMES,
    *,
    size: int = 5,
    version: int = 0,
    order: Callable[[list[str]], list[str]] = list,
) -> int:
    """Write what is missing, in shards of `size` images; return how many images that were."""
    store.add_columns(columns)
    wanted = [one.descriptor for one in columns]
    lacking = ~store.has(wanted, names, ids_of(names, version))
    left = order([name for name, lacks in zip(names, lacking, strict=True) if lacks.any()])
    masks = dict(zip(names, map(tuple, lacking.tolist()), strict=True))
    for start in range(0, len(left), size):
        some = left[start : start + size]
        for mask in dict.fromkeys(masks[name] for name in some):
            mine = [name for name in some if masks[name] == mask]
            these = [one for one, lacks in zip(wanted, mask, strict=True) if lacks]
            arrays = {one: vectors(mine, one, version) for one in these}
            store.write(mine, ids_of(mine, version), stamps_of(mine, version), arrays)
    return len(left)


def make_store(
    folder: Path | str | None,
    columns: Sequence[Column] = (FC7,),
    names: Sequence[str] = NAMES,
    *,
    failed: dict[str, str] | None = None,
    size: int = 5,
    dtype: str = "float32",
    provenance: dict[str, Any] | None = None,
) -> FeatureStore:
    """Make a finished store, or finish one with what it lacks."""
    store = FeatureStore(folder, "a", dtype=dtype)
    store.begin(names, provenance)
    fill(store, columns, [name for name in names if name not in (failed or {})], size=size)
    store.finish(names, failed or {})
    return store


def check(store: FeatureStore, columns: Sequence[Column], names: Sequence[str]) -> None:
    """Compare every number of these images with what was to be computed."""
    found = store.read([one.descriptor for one in columns], names)
    for one in columns:
        expected = vectors(names, one.descriptor).astype(store.dtype)
        np.testing.assert_array_equal(found[one.descriptor], expected)
