"""The view ``features.h5``, which shows all shards of a store as one array for each column.

Its arrays are virtual datasets of HDF5, which hold no numbers, only which rows of which shard go
where, by paths relative to the file.

HDF5 keeps every shard open that it has read through one array, and takes a file that it cannot
open, because the process has too many open, for one that is not there: its rows read as NaN, with
no error. A view over more shards than ``OPEN`` therefore has names and no arrays.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from vggfeat._io.checksums import append_checksum, strip_checksum
from vggfeat._io.text import counted
from vggfeat.errors import StoreDamaged
from vggfeat.store.column import Column
from vggfeat.store.index import Index, Places
from vggfeat.store.shard import (
    VERSION,
    Rows,
    create_in_memory,
    open_hdf5,
    write_column,
    write_rows,
    write_text,
)
from vggfeat.store.storage import VIEW, Storage, list_shards

NEEDS = (
    "The numbers are in shards/, beside this file: without that folder every one of them reads as "
    "NaN. A file that needs no other is made by: vggfeat store pack STORE FILE"
)
OPEN = 800  # shards; Linux lets a process have 1,024 files open unless told otherwise


def write_view(storage: Storage, index: Index, dtype: str, provenance: Mapping[str, Any]) -> None:
    """Write ``features.h5`` over all images of an index that have a row, in its order.

    Where an image lacks a column its row reads as NaN. The provenance is that of the last run.
    """
    rows = index.counted
    shown = {name: index.where[name][rows] for name in index.held}
    used = np.unique(np.concatenate([np.array([-1]), *(p[:, 0] for p in shown.values())])) >= 0
    with create_in_memory() as file:
        compact = {"chunks": True, "compression": "gzip"} if len(rows) else {}
        names = [index.names[row] for row in rows]
        write_rows(file, names, index.ids[rows], index.stamps[rows], **compact)
        file.attrs["version"] = VERSION
        file.attrs["generation"] = index.generation
        write_text(file, "provenance", json.dumps(dict(provenance), default=str))
        too_many = used.sum() > OPEN
        write_text(file, "note", _note(int(used.sum()), storage) if too_many else NEEDS)
        if too_many:
            shown = {}
        for name, places in shown.items():
            _write_virtual(file, index.columns[name], places, index, np.dtype(dtype))
        file.flush()
        image = bytes(file.id.get_file_image())
    storage.write(VIEW, append_checksum(image))  # HDF5 passes over what follows the file


def check_view(storage: Storage) -> list[str]:
    """Say if ``features.h5``, where it is there, is not what was written, or lacks shards."""
    content = storage.read(VIEW)
    if content is not None and strip_checksum(content) is None:
        return [f"{VIEW} is not what was written; repairing makes it anew"]
    return [
        f"{VIEW} needs {key}, which is missing; repairing makes it anew without that shard"
        for key in find_missing_shards(storage)
    ]


def find_missing_shards(storage: Storage) -> list[str]:
    """Name the shards that a sound ``features.h5`` shows and that are not there."""
    content = storage.read(VIEW)
    image = None if content is None else strip_checksum(content)
    if image is None:
        return []
    shown: set[str] = set()

    def add(_: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset) and item.is_virtual:
            shown.update(source.file_name for source in item.virtual_sources())

    with open_hdf5(f"{storage}/{VIEW}", io.BytesIO(image)) as file:
        file.visititems(add)
    return sorted(shown.difference(list_shards(storage)))


def refuse_incomplete(storage: Storage) -> None:
    """Refuse to pass a store on that lacks some of its shards, as a copy that was cut short does.

    Raises
    ------
    StoreDamaged
        Naming one of them.
    """
    if absent := find_missing_shards(storage):
        raise StoreDamaged(
            f"{storage} lacks {counted(len(absent), 'shard')} that its {VIEW} shows: "
            f"{absent[0]}. If it is a copy, copy the rest; to go on with what is there, run: "
            f"vggfeat store repair {storage}"
        )


def _note(shards: int, storage: Storage) -> str:
    return (
        f"{VIEW} shows names only: its arrays would be spread over {shards:,} shards, more files "
        "than a process may have open, and HDF5 reads what it cannot open as NaN. Make few large "
        f"shards of them with: vggfeat store merge {storage} --out OTHER. FeatureStore reads all "
        "as it is."
    )


def _write_virtual(
    file: h5py.File, column: Column, places: Places, index: Index, dtype: np.dtype[Any]
) -> None:
    # h5py's VirtualLayout makes one mapping of each run of rows; one per shard reads far faster.
    shape = (len(places), column.width)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_fill_value(np.full(1, np.nan, dtype))
    plist.set_obj_track_times(False)  # the same view has the same bytes
    path = column.descriptor.path.encode()
    for shard, targets, sources in _ascending(places):
        height = int(sources[-1]) + 1
        selected = _select(sources, (height, column.width))
        key = index.headers[shard].key.encode()
        plist.set_virtual(_select(targets, shape), key, path, selected)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, path, h5py.h5t.py_create(dtype), space, dcpl=plist, lcpl=links)
    write_column(file[column.descriptor.path], column)


def _ascending(places: Places) -> Iterator[tuple[int, Rows, Rows]]:
    """Split into (shard, view rows, shard rows), both ascending, as a virtual mapping needs."""
    shard, source = places.T.astype(np.intp)
    order = np.argsort(shard, kind="stable")
    order = order[shard[order] >= 0]
    breaks = (np.diff(shard[order]) != 0) | (np.diff(source[order]) <= 0)
    for some in np.split(order, np.flatnonzero(breaks) + 1):
        yield int(shard[some[0]]), some, source[some]


def _select(rows: Rows, shape: tuple[int, int]) -> h5py.h5s.SpaceID:
    space = h5py.h5s.create_simple(shape)
    space.select_none()
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        start, count = (int(run[0]), 0), (len(run), shape[1])
        space.select_hyperslab(start, count, op=h5py.h5s.SELECT_OR)
    return space
