"""What a run leaves at the top of a store: ``features.h5`` and ``failed.csv``.

``features.h5`` shows all shards as one array per net, layer, pooling and scale. Its arrays are
virtual datasets of HDF5: they hold no numbers, only which rows of which shard go where, by paths
relative to the file. Any HDF5 reader follows them from any working directory.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from vggfeat.errors import StoreDamaged
from vggfeat.features.files import opened, refusals, write_whole
from vggfeat.features.index import Index
from vggfeat.features.manifest import Manifest
from vggfeat.features.shards import (
    Header,
    Rows,
    datasets_of,
    decode,
    encode,
    in_memory,
    write_names,
)

VIEW = "features.h5"
FAILED = "failed.csv"


def write_view(
    folder: Path, index: Index, names: Sequence[bytes], rows: Rows, manifest: Manifest
) -> None:
    """Write ``features.h5`` over some pictures of an index.

    Parameters
    ----------
    folder : Path
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
        file.attrs["manifest"] = manifest.to_json()
        for path in sorted(index.where):
            where = index.where[path][rows]
            if (where[:, 0] >= 0).any():
                _write_virtual(file, path, where, index, np.dtype(manifest.dtype))
        file.flush()
        image = bytes(file.id.get_file_image())
    write_whole(folder / VIEW, image + _seal(image))


def _seal(image: bytes) -> bytes:
    """Return what is appended to the file: HDF5 ignores it, and may crash on a damaged file."""
    return f"\nsha256 {hashlib.sha256(image).hexdigest()}\n".encode()


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open the view if its bytes are those that were written."""
    with refusals(path, "read"):
        content = path.read_bytes()
    length = len(content) - len(_seal(b""))
    if length < 0 or content[length:] != _seal(content[:length]):
        raise StoreDamaged(
            f"{path} is damaged: its bytes are not those that were written. Delete it and run the "
            "same extraction again: it is written anew, and nothing is computed twice."
        )
    with opened(path) as file:
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


def read_view(folder: Path) -> tuple[list[bytes], list[tuple[int, int]]] | None:
    """Return the names and stats of ``features.h5``, if it has been written."""
    path = folder / VIEW
    if not path.exists():
        return None
    with _opened(path) as file:
        return file["names"][:].tolist(), [(a, b) for a, b in file["stat"][:].tolist()]


def check_view(folder: Path, headers: Iterable[Header]) -> list[str]:
    """List where ``features.h5`` disagrees with the shards that it is a view over."""
    path, shards = folder / VIEW, {header.key: header for header in headers}
    try:
        with _opened(path) as file:
            names, stats = np.array(file["names"][:].tolist(), object), file["stat"][:]
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
                    if key not in shards:
                        problems.append(f"{name} of {VIEW} needs the shard {key}, which is missing")
                    elif not _agree(shards[key], sources, names[targets], stats[targets]):
                        problems.append(f"{name} of {VIEW} does not agree with the shard {key}")
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


def write_failed(folder: Path, failed: Mapping[str, str]) -> None:
    """Write ``failed.csv``, or remove that of an earlier run if nothing failed."""
    if failed:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("name", "reason"), *failed.items()])
        write_whole(folder / FAILED, b"".join(encode([text.getvalue()])))
    else:
        with refusals(folder / FAILED, "removed"):
            (folder / FAILED).unlink(missing_ok=True)


def read_failed(folder: Path) -> dict[str, str]:
    """Return the reasons of ``failed.csv`` by name, if there is one."""
    path = folder / FAILED
    if not path.is_file():
        return {}
    [text] = decode([path.read_bytes()])
    return {row["name"]: row["reason"] for row in csv.DictReader(io.StringIO(text, newline=""))}
