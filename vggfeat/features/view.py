"""What a run leaves at the top of a store: ``features.h5`` and ``failed.csv``.

``features.h5`` shows all shards as one array per net, layer, pooling and scale. Its arrays are
virtual datasets of HDF5: they hold no numbers, only which rows of which shard go where, by paths
relative to the file. Any HDF5 reader follows them from any working directory.

HDF5 keeps every shard open that it has read through one array, and takes a file that it cannot
open, because the process has too many open, for one that is not there: its rows read as NaN, with
no error. A view over more shards than ``OPEN`` therefore has names and no arrays.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import h5py
import numpy as np
from numpy.typing import NDArray

from vggfeat._io.checksums import append_checksum, strip_checksum
from vggfeat.errors import StoreDamaged
from vggfeat.features.catalogue import Header, Rows
from vggfeat.features.files import held, opened
from vggfeat.features.index import Index, View
from vggfeat.features.manifest import Manifest
from vggfeat.features.place import Place
from vggfeat.features.sharding import Shard
from vggfeat.features.shards import (
    datasets_of,
    encode,
    generation_of,
    in_memory,
    write_names,
)
from vggfeat.hdf5 import texts, write_text

VIEW = "features.h5"
SHARDS = "shards"  # an attribute
FAILED = "failed.csv"
_LISTS = r"failed(-\d+-of-\d+)?\.csv"
OPEN = 800  # shards; Linux lets a process have 1,024 files open unless told otherwise


def write_view(
    place: Place, index: Index, names: Sequence[bytes], rows: Rows, manifest: Manifest
) -> None:
    """Write ``features.h5`` over some pictures of an index.

    Parameters
    ----------
    place : Place
        The store.
    index : Index
        Where all pictures lie.
    names : sequence of bytes
        Names of all pictures of the index.
    rows : ndarray (n,)
        The pictures of the view, in its order. An array lacks those that its net or scale was
        not asked for: their rows read as NaN.
    manifest : Manifest
        Kept in the attribute ``manifest``.
    """
    with in_memory() as file:
        storage = {"chunks": True, "compression": "gzip"} if len(rows) else {}
        write_names(file, [names[row] for row in rows], index.stats[rows], **storage)
        # What the view was made of, also where it shows nothing of it.
        write_text(file, SHARDS, "\n".join(index.keys))
        file.attrs["manifest"] = manifest.to_json()
        file.attrs["generation"] = index.generation
        shown = {path: where[rows] for path, where in sorted(index.where.items())}
        if (shards := _shards_of(shown.values())) > OPEN:
            file.attrs["note"] = note(shards, place)
            shown = {}
        for path, where in shown.items():
            if (where[:, 0] >= 0).any():
                _write_virtual(file, path, where, index, np.dtype(manifest.dtype))
        file.flush()
        image = bytes(file.id.get_file_image())
    # HDF5 passes over what follows the file, and may crash on a damaged one.
    place.write(VIEW, append_checksum(image))


def note(shards: int, place: object) -> str:
    """Say why a view over too many shards has no arrays, and what to do."""
    return (
        f"{VIEW} shows names only: its arrays would be spread over {shards:,} shards, more files "
        "than a process may have open, and HDF5 reads what it cannot open as NaN. Make few large "
        f"shards of them with: vggfeat store merge {place} --out OTHER. FeatureStore.open reads "
        "all as it is."
    )


def _shards_of(where: Iterable[NDArray[np.int32]]) -> int:
    """Count the shards that arrays are spread over."""
    used: set[int] = set()
    for array in where:
        used.update(np.unique(array[:, 0]).tolist())
    return len(used - {-1})


@contextmanager
def _opened(place: Place, content: bytes) -> Iterator[h5py.File]:
    """Open the view if its bytes are those that were written."""
    path = f"{place}/{VIEW}"
    if strip_checksum(content) is None:
        raise StoreDamaged(
            f"{path} is damaged: its bytes are not those that were written. It is written "
            f"anew, and nothing is computed twice, by: vggfeat store repair {place}."
        )
    with opened(path, io.BytesIO(content)) as file:
        yield file


def _write_virtual(
    file: h5py.File, path: str, where: NDArray[np.int32], index: Index, dtype: np.dtype[np.generic]
) -> None:
    # h5py's VirtualLayout makes one mapping of each run of rows; one per shard reads far faster
    shape = (len(where), index.dimensions[path])
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_fill_value(np.full(1, np.nan, dtype))
    for shard, targets, sources in _monotone(where):
        source = f"shards/{index.keys[shard]}".encode()
        height = int(sources[-1]) + 1
        plist.set_virtual(
            _selection(targets, shape),
            source,
            path.encode(),
            _selection(sources, (height, shape[1])),
        )
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(
        file.id, path.encode(), h5py.h5t.py_create(dtype), space, dcpl=plist, lcpl=links
    )


def _monotone(where: NDArray[np.int32]) -> Iterator[tuple[int, Rows, Rows]]:
    """Split into (shard, view rows, shard rows), both ascending, as a virtual mapping needs."""
    shard, source = where.T.astype(np.intp)
    order = np.argsort(shard, kind="stable")
    order = order[shard[order] >= 0]
    breaks = (np.diff(shard[order]) != 0) | (np.diff(source[order]) <= 0)
    for some in np.split(order, np.flatnonzero(breaks) + 1):
        yield int(shard[some[0]]), some, source[some]


def _selection(rows: Rows, shape: tuple[int, int]) -> h5py.h5s.SpaceID:
    space = h5py.h5s.create_simple(shape)
    space.select_none()
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        start, count = (int(run[0]), 0), (len(run), shape[1])
        space.select_hyperslab(start, count, op=h5py.h5s.SELECT_OR)
    return space


def read_view(place: Place) -> View | None:
    """Return what ``features.h5`` says of its pictures, if it has been written."""
    content = place.read(VIEW)
    if content is None:
        return None
    with _opened(place, content) as file:
        names, stats = held(file, "names")[:].tolist(), held(file, "stat")[:]
        if stats.shape != (len(names), 2) or not all(type(name) is bytes for name in names):
            raise ValueError("its names and stats do not fit each other")
        return View(names, stats, generation_of(file), _shards_behind(file))


def _shards_behind(file: h5py.File) -> frozenset[str] | None:
    """Return the shards that the view was made of; None where an earlier version wrote it."""
    return frozenset(texts(file, SHARDS)[0].splitlines()) if SHARDS in file.attrs else None


def sound_view(place: Place) -> View | None:
    """Return the view likewise; None where it is damaged: whoever asks writes it anew."""
    try:
        return read_view(place)
    except StoreDamaged:
        return None


def check_view(place: Place, headers: Iterable[Header]) -> list[str]:
    """List where ``features.h5``, if it is there, disagrees with the shards that it shows."""
    content, shards = place.read(VIEW), {header.key: header for header in headers}
    there = set(place.names("shards"))
    if content is None:
        return []
    try:
        with _opened(place, content) as file:
            names = np.array(held(file, "names")[:].tolist(), object)
            stats = held(file, "stat")[:]
            if len(names) != len(stats):
                return [f"{VIEW} has {len(names)} names and {len(stats)} stats"]
            problems = []
            for name, dataset in datasets_of(file).items():
                if len(dataset) != len(names):
                    problems.append(
                        f"{VIEW} has {len(names)} names, but {name} {len(dataset)} rows"
                    )
                    continue
                for key, targets, sources in _mappings(dataset):
                    if key in shards:
                        if not _agree(shards[key], sources, names[targets], stats[targets]):
                            problems.append(f"{name} of {VIEW} does not agree with the shard {key}")
                    elif key not in there:  # or it is damaged, and told to be
                        problems.append(f"{name} of {VIEW} needs the shard {key}, which is missing")
            return problems
    except StoreDamaged as error:
        return [str(error)]


def _agree(
    header: Header, rows: Rows, names: NDArray[np.object_], stats: NDArray[np.int64]
) -> bool:
    """Compare names and stats of a view with those of a shard's rows."""
    if rows[-1] >= len(header.names):
        return False
    held = [header.names[row] for row in rows]
    return held == names.tolist() and np.array_equal(header.stats[rows], stats)


def _mappings(dataset: h5py.Dataset) -> Iterator[tuple[str, Rows, Rows]]:
    plist = dataset.id.get_create_plist()
    for number in range(plist.get_virtual_count()):
        key = plist.get_virtual_filename(number).removeprefix("shards/")
        targets = _selected(plist.get_virtual_vspace(number))
        yield key, targets, _selected(plist.get_virtual_srcspace(number))


def _selected(space: h5py.h5s.SpaceID) -> Rows:
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return np.arange(space.shape[0])
    blocks = np.asarray(space.get_select_hyper_blocklist()).astype(int)  # of unsigned integers
    return np.concatenate([np.arange(first, last + 1) for first, last in blocks[:, :, 0]])


def failed_of(shard: Shard) -> str:
    """Name the list of what one shard of the pictures could not use: the whole's, or its own."""
    return FAILED if shard.parts == 1 else f"failed-{shard.part}-of-{shard.parts}.csv"


def write_failed(place: Place, failed: Mapping[str, str], shard: Shard) -> None:
    """Write a list of failed pictures, or remove that of an earlier run if nothing failed.

    A run over the whole list removes those of the shards: it has tried again what they name.
    """
    mine = failed_of(shard)
    if failed:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("name", "reason"), *failed.items()])
        place.write(mine, b"".join(encode([text.getvalue()])))
    for name in lists_of_failed(place) if shard.parts == 1 else [mine]:
        if name != mine or not failed:
            place.remove(name)


def read_failed(place: Place) -> dict[str, str]:
    """Return by name the reasons of all lists of failed pictures."""
    failed: dict[str, str] = {}
    for name in lists_of_failed(place):
        text = (place.read(name) or b"").decode("utf-8", "surrogateescape")
        try:
            rows = csv.DictReader(io.StringIO(text, newline=""))
            failed.update({row["name"]: row["reason"] or "" for row in rows})
        except (csv.Error, KeyError) as error:
            raise StoreDamaged(
                f"{place}/{name} is no list of failed pictures: {error}. Delete it."
            ) from error
    return failed


def lists_of_failed(place: Place) -> list[str]:
    """Name the lists of failed pictures."""
    return sorted(name for name in place.names() if re.fullmatch(_LISTS, name))
