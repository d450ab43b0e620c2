"""Joining feature stores, or the many small shards of one, into one store of few large shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vggfeat._io.text import printable
from vggfeat.errors import FingerprintMismatch, ParameterError, StoreError
from vggfeat.store.column import Column, Descriptor, differences
from vggfeat.store.labels import read_labels, write_labels
from vggfeat.store.maintenance import count_asked
from vggfeat.store.runs import (
    digest_list,
    join_lists,
    join_shares,
    missing_shares,
    name_share,
    write_run,
)
from vggfeat.store.shard import Bools, Matrix, Pairs, Rows
from vggfeat.store.storage import MANIFEST, folder_of, open_storage
from vggfeat.store.store import FeatureStore
from vggfeat.store.view import refuse_incomplete

SHARD_BYTES = 128 << 20  # of descriptors in one shard, of which three copies are in memory
BLOCK = 4096  # rows that are read at a time
Progress = Callable[[int, int], None]
"""Called with the rows of arrays that are done, and all of them."""


@dataclass(frozen=True)
class MergeSummary:
    """What was joined.

    Parameters
    ----------
    images : int
        Images in the store that was made.
    twice : int
        Those that were in several parts, and are kept once.
    copied : int
        Rows of arrays that were copied; the rest was there.
    shards : int
        Shards that were written.
    finished : bool
        Whether all is there that the runs of the parts were asked for.
    missing : tuple of str
        Shares of a list, ``"3/16"``, of which others are there.
    """

    images: int
    twice: int
    copied: int
    shards: int
    finished: bool
    missing: tuple[str, ...]


def merge(
    parts: Sequence[Path | str], out: Path | str, *, progress: Progress | None = None
) -> MergeSummary:
    """Join stores into one, whose shards are of 128 MB.

    Images come in the order in which folders are searched, whatever the order of the parts. One
    that is in several parts is kept once, with all columns that any of them has. What `out` holds
    already stays, and is not copied again: a merge that was stopped goes on where it was. The
    parts are only read.

    While a part's run is not finished, and no other part has done the same, or shares of a list
    are missing, the store that is made is not finished either: the same run into it, without
    --shard, computes what no part has.

    Parameters
    ----------
    parts : sequence of path
        Stores, finished or not, or packed files.
    out : path
        Folder or address of the store to make, or to add to.
    progress : callable, optional

    Returns
    -------
    MergeSummary

    Raises
    ------
    FingerprintMismatch
        If two parts have a column that was made with different settings.
    StoreError
        If one name stands for different images, the types differ, the disk is full, or a part is
        no store. Where parts do not fit together, nothing has been written.
    StoreDamaged
        If something in a part is not what was written. Nothing has been written then either.

    Notes
    -----
    Memory holds all names, 0.8 kB an image, and three copies of a shard: 1.4 GB for a million.

    Examples
    --------
    >>> merge(["features-1", "features-2"], "features")  # doctest: +SKIP
    MergeSummary(images=1000000, twice=0, copied=1000000, shards=62, finished=True, missing=())
    """
    if not parts or isinstance(parts, str | Path):
        raise ParameterError.of("parts", "merge", "a list of stores", parts)
    opened, there = _open_parts(parts, out), {}
    if (storage := open_storage(folder_of(out))).read(MANIFEST) is not None:
        there = {str(storage): FeatureStore(out)}
    stores = _with_features(opened)
    every = _with_features(there) | stores
    columns = _join_columns(every)
    images = _join_images(every)
    for store in every.values():
        store.check_digests()  # or what is damaged would get a digest that is right
        if not store.packed:
            refuse_incomplete(store.storage)
    held = set(images.names)
    failed = {name: why for store in every.values() for name, why in store.failed.items()}
    failed = {name: why for name, why in failed.items() if name not in held}

    target = FeatureStore(out, "a", dtype=next(iter(every.values())).dtype)
    target.add_columns(list(columns.values()))
    order = sorted([*images.names, *failed], key=_as_searched) if failed else images.names
    whole = _complete_columns(every, images)
    covered = _covers(stores.values(), _with_features(there).values(), images)
    joined = _join_runs(opened.values(), there.values(), order, whole, covered)
    # What the merge adds to the store is not done before its end.
    runs = [run for store in there.values() for run in store.runs]
    held_before = {"done": join_lists(run["done"] for run in runs), "shares": join_shares(runs)}
    write_run(target.storage, {**joined, **held_before, "failed": 0, "finished": False})
    copy = _Copy(list(stores.values()), columns, images, target)
    copied = shards = 0
    for rows in copy.run():
        copied, shards = copied + rows, shards + 1
        if progress:
            progress(copied, copy.total)
    for store in every.values():
        write_labels(target.storage, {} if store.packed else read_labels(store.storage))
    target.finish(order, failed, record=joined)
    counts = Counter(name for store in stores.values() for name in store.names)
    twice = sum(number > 1 for number in counts.values())
    missing = tuple(map(name_share, missing_shares(join_shares([joined]))))
    return MergeSummary(len(held), twice, copied, shards, joined["finished"], missing)


class _Images(NamedTuple):
    """Images of several stores, in the order in which folders are searched."""

    names: list[str]
    ids: Pairs
    stamps: Pairs


class _Copy:
    """The way of rows from several stores into one that lacks them."""

    def __init__(
        self,
        parts: Sequence[FeatureStore],
        columns: Mapping[Descriptor, Column],
        images: _Images,
        target: FeatureStore,
    ) -> None:
        self.parts, self.columns, self.images, self.target = parts, columns, images, target
        self.order = list(columns)
        # Which part holds which column of which image, (N, C) for each part.
        self.held = [part.has(self.order, images.names) for part in parts]
        there = target.has(self.order, images.names)
        self.lacking: Bools = np.logical_or.reduce(self.held) & ~there
        self.total = int(self.lacking.sum())

    def run(self) -> Iterator[int]:
        """Write what is lacking, shard by shard; yield the rows of arrays in each."""
        itemsize = np.dtype(self.target.dtype).itemsize
        for net in sorted({name.net for name in self.order}):
            mine = [place for place, name in enumerate(self.order) if name.net == net]
            for pattern in np.unique(self.lacking[:, mine], axis=0):
                places = [place for place, lacks in zip(mine, pattern, strict=True) if lacks]
                if not places:
                    continue
                rows = np.flatnonzero((self.lacking[:, mine] == pattern).all(axis=1))
                width = sum(self.columns[self.order[place]].width for place in places)
                size = max(1, SHARD_BYTES // (width * itemsize))
                for start in range(0, len(rows), size):
                    some = rows[start : start + size]
                    self._write(some, places, net)
                    yield len(some) * len(places)

    def _write(self, rows: Rows, places: Sequence[int], net: str) -> None:
        has_first = [held[rows[0], places[0]] for held in self.held]
        self.target.write(
            self._names(rows),
            self.images.ids[rows],
            self.images.stamps[rows],
            {self.order[place]: self._read(rows, place) for place in places},
            self.parts[has_first.index(True)].provenance(net),
        )

    def _read(self, rows: Rows, place: int) -> Matrix:
        """Read a column's rows, each from the first part that has it, in the type on disk."""
        name = self.order[place]
        values = np.empty((len(rows), self.columns[name].width), self.target.dtype)
        first = np.argmax([held[rows, place] for held in self.held], axis=0)
        for number in np.unique(first):
            mine = np.flatnonzero(first == number)
            for start in range(0, len(mine), BLOCK):
                some = mine[start : start + BLOCK]
                values[some] = self.parts[number].read([name], self._names(rows[some]))[name]
        return values

    def _names(self, rows: Rows) -> list[str]:
        return [self.images.names[row] for row in rows]


def _open_parts(parts: Sequence[Path | str], out: Path | str) -> dict[str, FeatureStore]:
    """Open the parts, some of which hold something, by what a user calls them."""
    opened = {}
    for part in parts:
        store = FeatureStore(part)
        opened[str(store.packed or store.storage)] = store
    target = Path(str(open_storage(folder_of(out)))).resolve()
    if target in [Path(where).resolve() for where in opened]:
        raise StoreError(f"{out} is one of the parts. Name another --out.")
    if not any(store.columns for store in opened.values()):
        raise StoreError(f"{', '.join(map(str, parts))} hold no features. Extract some first.")
    # By their shards, so that the order in which they are named changes nothing.
    by_shards = sorted(opened.items(), key=lambda item: [h.key for h in item[1].index.headers])
    return dict(by_shards)


def _with_features(stores: Mapping[str, FeatureStore]) -> dict[str, FeatureStore]:
    return {where: store for where, store in stores.items() if store.columns}


def _join_runs(
    parts: Collection[FeatureStore],
    out: Collection[FeatureStore],
    names: Sequence[str],
    complete: Collection[str],
    covered: bool,
) -> dict[str, Any]:
    """Join the records of runs: what no part has done of all that they were asked for is left.

    What `out` was asked for it was perhaps by a merge of the same parts, and is not added again.
    Where the parts have all that `out` has, they also say anew what such a merge said was left: a
    part that has gone on with a longer list has no more left of the shorter one.
    """
    runs = [run for store in (*parts, *out) for run in store.runs]
    done = join_lists([*(run["done"] for run in runs), {digest_list(names): complete}])
    left = join_lists(run["left"] for run in runs)
    left = {
        key: sorted(set(paths).difference(done.get(key, ())))
        for key, paths in left.items()
        if key not in done or set(paths).difference(done[key])
    }
    # An earlier merge of the same parts said what was left; they say it better now.
    part_runs = [run for store in parts for run in store.runs]
    merges = [run for store in out for run in store.runs if covered and run["merged"]]
    lists = [run[of] for run in part_runs for of in ("done", "left")]
    columns = {path for own in lists for paths in own.values() for path in paths}
    outdated = {key for run in merges for key in run["left"]}
    outdated -= {key for run in part_runs for key in run["left"]}
    left = {
        key: paths
        for key, paths in left.items()
        if key not in outdated or not columns.issuperset(paths)
    }
    shares = join_shares(runs)
    missing = missing_shares(shares)
    seen = {share for own in shares.values() for share in own}  # with one column or another
    absent = sum(images for share, images in missing.items() if share not in seen)

    def is_open(run: Mapping[str, Any]) -> bool:
        return not left.keys().isdisjoint(run["left"])

    unseen = sum(
        max(0, count_asked(store) - len(store.names) - len(store.failed))
        for store in parts
        if any(map(is_open, store.runs))
    )
    before = [run["asked"] for store in out for run in store.runs if is_open(run)]
    return {
        "asked": max(len(names) + max(unseen, absent), *before, 0),
        "new": max((run["new"] for run in runs if is_open(run)), default=0),
        "finished": not left and not missing,
        "merged": True,
        "share": None,
        "shares": shares if missing else {},
        "provenance": {},
        "done": done,
        "left": left,
    }


def _covers(
    parts: Collection[FeatureStore], out: Collection[FeatureStore], images: _Images
) -> bool:
    """Tell whether the parts have every row that `out` has."""
    names = sorted({name for store in (*parts, *out) for name in store.columns})
    held = np.logical_or.reduce([store.has(names, images.names) for store in parts])
    return all(held[store.has(names, images.names)].all() for store in out)


def _complete_columns(stores: Mapping[str, FeatureStore], images: _Images) -> list[str]:
    """Return the paths of the columns that all images have, each in one store or another."""
    names = sorted({name for store in stores.values() for name in store.columns})
    held = [store.has(names, images.names) for store in stores.values()]
    whole = np.logical_or.reduce(held).all(axis=0)
    return [name.path for name, has in zip(names, whole.tolist(), strict=True) if has]


def _join_columns(stores: Mapping[str, FeatureStore]) -> dict[Descriptor, Column]:
    """Return the columns of several stores; refuse those that differ."""
    (origin, first), *_ = stores.items()
    joined: dict[Descriptor, tuple[str, Column]] = {}
    for where, store in stores.items():
        if store.dtype != first.dtype:
            raise StoreError(
                f"{origin} holds {first.dtype} and {where} {store.dtype}. Merge only stores of one "
                "type."
            )
        for name, column in store.columns.items():
            other, held = joined.setdefault(name, (where, column))
            if held.digest != column.digest:
                raise FingerprintMismatch(
                    f"{printable(other)} and {printable(where)} hold {name.path}, made with "
                    "different settings:\n"
                    f"{differences(held.settings, column.settings, other, where)}\n"
                    "Merge only what was made with the same ones."
                )
            if held.width != column.width:
                raise StoreError(
                    f"{name.path} has {held.width} numbers in {other} and {column.width} in "
                    f"{where}. One of them is wrong."
                )
    return {name: column for name, (_, column) in sorted(joined.items())}


def _join_images(stores: Mapping[str, FeatureStore]) -> _Images:
    """Return the images of several stores; refuse two of one name."""
    joined: dict[str, tuple[list[int], list[int], str]] = {}
    for where, store in stores.items():
        index = store.index
        ids, stamps = index.ids[index.counted].tolist(), index.stamps[index.counted].tolist()
        for name, image, stamp in zip(store.names, ids, stamps, strict=True):
            held, _, other = joined.setdefault(name, (image, stamp, where))
            if held != image:
                raise StoreError(
                    f"{name!r} is one image in {other} and another in {where}: the files differ. "
                    "Extract one of them under another name, or merge the stores apart."
                )
    names = sorted(joined, key=_as_searched)
    ids = np.array([joined[name][0] for name in names], np.int64)
    return _Images(names, ids, np.array([joined[name][1] for name in names], np.int64))


def _as_searched(name: str) -> tuple[tuple[bool, str], ...]:
    """Sort the files of a folder before the folders in it."""
    *folders, file = name.split("/")
    return (*((True, folder) for folder in folders), (False, file))
