"""Reading rows of columns out of shards, each of which is opened once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vggfeat._io import checksums
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.index import Places
from vggfeat.store.shard import (
    FOLDER,
    Floats,
    Rows,
    ShardHeader,
    as_slice,
    damaged,
    read_rows,
    stored,
    to_float32,
)
from vggfeat.store.storage import LocalStorage, Storage, has_sound_bytes


def read_columns(
    storage: Storage,
    headers: Sequence[ShardHeader],
    columns: Mapping[Descriptor, Column],
    places: Mapping[Descriptor, Places],
    *,
    verify: bool = False,
) -> dict[Descriptor, Floats]:
    """Read the rows (n, D) of columns that lie at some places (n, 2); NaN where there is none."""
    result = {}
    for name, where in places.items():
        result[name] = np.empty((len(where), columns[name].width), np.float32)
        result[name][where[:, 0] < 0] = np.nan
    for shard, wanted in _plan(places):
        header = headers[shard]
        if verify:
            check_digest(storage, header.key)
        with storage.open(header.key) as file:
            for name, (rows, targets) in wanted.items():
                values = read_rows(stored(file, name.path), rows)
                if values.shape[1] != columns[name].width:
                    raise damaged(f"{storage}/{header.key}", f"{name.path} has another width")
                # Where the address of a block is gone, HDF5 gives NaN for what was there.
                if name in header.absent and not np.isfinite(values).all():
                    raise damaged(f"{storage}/{header.key}", f"{name.path} lacks numbers")
                if (together := as_slice(targets)) is not None:
                    to_float32(values, result[name][together])
                else:
                    result[name][targets] = values
    return result


def check_digest(storage: Storage, key: str) -> None:
    """Refuse a shard or a packed file that is not what was written."""
    if key.startswith(FOLDER):
        sound = has_sound_bytes(storage, key)
    else:
        assert isinstance(storage, LocalStorage)  # a packed file
        sound = checksums.has_valid_checksum(storage.path / key)
    if not sound:
        raise damaged(f"{storage}/{key}", "its bytes are not those that were written")


def _plan(
    places: Mapping[Descriptor, Places],
) -> Iterator[tuple[int, dict[Descriptor, tuple[Rows, Rows]]]]:
    """Say for each shard which of its rows to read of each column, and where they go."""
    plan: dict[int, dict[Descriptor, tuple[Rows, Rows]]] = {}
    for name, where in places.items():
        shard, row = where.T.astype(np.intp)
        order = np.argsort(shard, kind="stable")
        for some in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1):
            if len(some) and shard[some[0]] >= 0:
                plan.setdefault(int(shard[some[0]]), {})[name] = (row[some], some)
    yield from sorted(plan.items())
