"""Which row of which shard holds an image: the index of a store, and the two caches behind it.

``index.npz`` holds the headers of all shards, so that a store of thousands opens at once. A shard
never changes, so what was noted of it once stays true; what the file lacks is read from the shards.
``stamps-….npz``, one for each writer, hold what was seen of images since their rows were written:
unchanged under a new stamp, or changed and not yet read.
"""

from __future__ import annotations

import io
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.checksums import append_checksum, strip_checksum
from vggfeat.errors import StoreDamaged
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.shard import Pairs, Rows, ShardHeader, open_hdf5, stored
from vggfeat.store.storage import VIEW, Storage

INDEX = "index.npz"
_STAMPS = re.compile(r"stamps-[0-9a-f]+\.npz")
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError)
Places = NDArray[np.int32]
"""Shard, as a number in the index, and row in it, of n images: (n, 2); −1 where there is none."""


class Stamps(NamedTuple):
    """What was seen of n images since their rows were written.

    Parameters
    ----------
    names : list of bytes
    stamps : ndarray (n, 2) of int64
        What their files look like now.
    ids : ndarray (n, 2) of int64
        Which images they are; 0 for one that has changed and was not yet read.
    generations : ndarray (n,) of int64
        The highest generation of a shard that was known then, or one more than that of an earlier
        note of the image: later rows are newer.
    """

    names: list[bytes]
    stamps: Pairs
    ids: Pairs
    generations: NDArray[np.int64]

    @classmethod
    def join(cls, several: Sequence[Stamps]) -> Stamps:
        """Join what several files say, keeping the newest entry of each name."""
        names = list(chain.from_iterable(one.names for one in several))
        stamps, ids, generations = (
            np.concatenate([np.zeros(shape, np.int64), *(one[place] for one in several)])
            for place, shape in ((1, (0, 2)), (2, (0, 2)), (3, (0,)))
        )
        order = np.argsort(generations, kind="stable").tolist()
        newest = dict(zip([names[row] for row in order], order, strict=True))
        rows = sorted(newest.values())
        return cls([names[row] for row in rows], stamps[rows], ids[rows], generations[rows])


@dataclass
class Index:
    """Where the descriptors of all images of a store lie.

    An image's current id is that of its newest row, or of what was seen of it since. A row counts
    if its id is current and its column's settings are those of the store.

    Parameters
    ----------
    headers : sequence of ShardHeader
    columns : mapping of Column
        The store's.
    seen : Stamps
    first : sequence of bytes
        Names that come first, in their order; all others follow, sorted.
    """

    headers: Sequence[ShardHeader]
    columns: Mapping[Descriptor, Column]
    seen: Stamps
    first: Sequence[bytes] = ()
    names: list[bytes] = field(init=False)
    ids: Pairs = field(init=False)
    written: Pairs = field(init=False)  # ids of the newest rows, whatever was seen since
    stamps: Pairs = field(init=False)
    where: dict[Descriptor, Places] = field(init=False)

    def __post_init__(self) -> None:
        # Oldest first, so that what is assigned last is the newest.
        self.headers = sorted(self.headers, key=lambda header: (header.generation, header.key))
        self.names, placed = self._name_all()
        number, shard, row, ids, stamps = self._rows(placed)
        self.ids = np.zeros((len(self.names), 2), np.int64)
        self.stamps = np.zeros((len(self.names), 2), np.int64)
        self.ids[number], self.stamps[number] = ids, stamps
        self.written = np.zeros((len(self.names), 2), np.int64)
        self.written[number[shard >= 0]] = ids[shard >= 0]
        counts = (shard >= 0) & (ids == self.ids[number]).all(axis=1)
        self.where = {}
        for descriptor in self.columns:
            places = np.full((len(self.names), 2), -1, np.int32)
            some = counts & self._has_column(descriptor, shard, row)
            places[number[some], 0], places[number[some], 1] = shard[some], row[some]
            self.where[descriptor] = places
        self._table = (number, shard, row, ids, stamps)

    def add_column(self, column: Column) -> None:
        """Take in a column that no shard has: all else stays as it is."""
        self.columns = {**self.columns, column.descriptor: column}
        self.where[column.descriptor] = np.full((len(self.names), 2), -1, np.int32)
        self.__dict__.pop("_shards_with", None)

    @cached_property
    def generation(self) -> int:
        """The highest generation of a shard."""
        return max((header.generation for header in self.headers), default=0)

    @cached_property
    def number(self) -> dict[bytes, int]:
        """Place of each name in `names`; made when it is needed: for a million that takes 0.2 s."""
        return dict(zip(self.names, range(len(self.names)), strict=True))

    @cached_property
    def held(self) -> list[Descriptor]:
        """The columns that have a row of any image, sorted."""
        return sorted(name for name, places in self.where.items() if (places[:, 0] >= 0).any())

    @cached_property
    def counted(self) -> Rows:
        """Places in `names` of the images that have a row in any column."""
        held = np.zeros(len(self.names), bool)
        for places in self.where.values():
            held |= places[:, 0] >= 0
        return np.flatnonzero(held)

    def numbers(self, names: Sequence[bytes]) -> Rows:
        """Return the places of names in `names`, (n,); −1 for one that no shard has."""
        return np.fromiter(map(self.number.get, names, repeat(-1)), np.intp, len(names))

    def recall(self, numbers: Rows, stamps: Pairs) -> Pairs:
        """Return the ids of images whose files look as they did once; 0 where unknown.

        What is no file has a stamp of 0, and is unknown.
        """
        ids = np.zeros((len(numbers), 2), np.int64)
        known = np.flatnonzero((numbers >= 0) & stamps.any(axis=1))
        same = (self.stamps[numbers[known]] == stamps[known]).all(axis=1)
        ids[known[same]] = self.ids[numbers[known[same]]]
        others = known[~same]
        if len(others):
            number, _, _, old_ids, old_stamps = self._of(numbers[others])
            earlier = dict(zip(_keys(number, old_stamps), old_ids.tolist(), strict=True))
            asked = _keys(numbers[others], stamps[others])
            ids[others] = [earlier.get(key, (0, 0)) for key in asked]
        return ids

    def places(self, descriptor: Descriptor, numbers: Rows, ids: Pairs | None = None) -> Places:
        """Say where rows of images lie; with `ids`, also of images that are no longer current."""
        found = np.full((len(numbers), 2), -1, np.int32)
        if descriptor not in self.where:
            return found
        known = np.flatnonzero(numbers >= 0)
        if ids is None:
            found[known] = self.where[descriptor][numbers[known]]
            return found
        same = (self.ids[numbers[known]] == ids[known]).all(axis=1)
        found[known[same]] = self.where[descriptor][numbers[known[same]]]
        others = known[~same & ids[known].any(axis=1)]
        if len(others):
            number, shard, row, old, _ = self._of(numbers[others])
            mine = self._has_column(descriptor, shard, row)
            rows = np.stack([shard[mine], row[mine]], axis=1).tolist()
            earlier = dict(zip(_keys(number[mine], old[mine]), rows, strict=True))
            asked = _keys(numbers[others], ids[others])
            found[others] = [earlier.get(key, (-1, -1)) for key in asked]
        return found

    def needed(self, seen: Stamps) -> Stamps:
        """Leave out of `seen` what newer rows say better."""
        newest = np.full(len(self.names) + 1, -1, np.int64)  # the last for what no shard has
        number, shard, *_ = self._table
        generations = np.array([header.generation for header in self.headers], np.int64)
        newest[number[shard >= 0]] = generations[shard[shard >= 0]]
        rows = np.flatnonzero(newest[self.numbers(seen.names)] <= seen.generations)
        return Stamps([seen.names[row] for row in rows], *(array[rows] for array in seen[1:]))

    def _of(self, numbers: Rows) -> tuple[Any, ...]:
        """Return the rows of some images, of each oldest first: number, shard, row, ids, stamps."""
        order, starts = self._by_number
        numbers = np.unique(numbers)
        counts = starts[numbers + 1] - starts[numbers]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        mine = order[np.repeat(starts[numbers], counts) + within]
        return tuple(array[mine] for array in self._table)

    @cached_property
    def _by_number(self) -> tuple[Rows, Rows]:
        """Rows of the table sorted by image, and where each image's begin; made when needed."""
        number = self._table[0]
        order = np.argsort(number, kind="stable")
        return order, np.searchsorted(number[order], np.arange(len(self.names) + 1))

    def _name_all(self) -> tuple[list[bytes], Rows]:
        """Return all names, and the place among them of each row of the shards, oldest first.

        Most shards have names that follow each other in `first`, and need no lookup each.
        """
        leading = {header.names[0] for header in self.headers if header.names}
        start = {name: place for place, name in enumerate(self.first) if name in leading}
        runs: list[Rows | None] = []
        for header in self.headers:
            count = len(header.names)
            begin = start.get(header.names[0], len(self.first)) if count else 0
            follows = self.first[begin : begin + count] == header.names
            runs.append(np.arange(begin, begin + count) if follows else None)
        others = [h.names for h, run in zip(self.headers, runs, strict=True) if run is None]
        names = list(self.first)
        if others:
            names += sorted(set(chain.from_iterable(others)).difference(names))
            self.names = names  # for the lookups
        placed = [np.zeros(0, np.intp)]
        for header, run in zip(self.headers, runs, strict=True):
            placed.append(self.numbers(header.names) if run is None else run)
        return names, np.concatenate(placed)

    def _rows(self, number: Rows) -> tuple[Any, ...]:
        """List all rows, oldest first, those of `seen` among them with −1 for the shard."""
        none = np.zeros((0, 2), np.int64)
        counts = [len(header.names) for header in self.headers]
        shard = np.repeat(np.arange(len(counts)), counts)
        row = np.arange(len(number)) - np.repeat(
            np.cumsum([0, *counts[:-1]])[: len(counts)], counts
        )
        ids = np.concatenate([none, *(header.ids for header in self.headers)])
        stamps = np.concatenate([none, *(header.stamps for header in self.headers)])
        if not self.seen.names:
            return number, shard, row, ids, stamps
        places = self.numbers(self.seen.names)
        known = np.flatnonzero(places >= 0)  # of what has no row there is nothing to say
        generations = np.array([header.generation for header in self.headers], np.int64)[shard]
        after = np.searchsorted(generations, self.seen.generations[known], side="right")
        return (
            np.insert(number, after, places[known]),
            np.insert(shard, after, -1),
            np.insert(row, after, -1),
            np.insert(ids, after, self.seen.ids[known], axis=0),
            np.insert(stamps, after, self.seen.stamps[known], axis=0),
        )

    def _has_column(self, descriptor: Descriptor, shard: Rows, row: Rows) -> NDArray[np.bool_]:
        """Tell which rows a column has, of those made with its settings."""
        has, absent = self._shards_with[descriptor]
        mine: NDArray[np.bool_] = has[shard]
        for place, rows in absent:
            mine &= ~((shard == place) & np.isin(row, rows))
        return mine

    @cached_property
    def _shards_with(self) -> dict[Descriptor, tuple[NDArray[np.bool_], list[tuple[int, Rows]]]]:
        """Tell for each column which shards have it, and which rows those lack all the same."""
        found = {}
        for descriptor, column in self.columns.items():
            has = np.zeros(len(self.headers) + 1, bool)  # the last for those without a shard
            absent: list[tuple[int, Rows]] = []
            for place, header in enumerate(self.headers):
                own = header.columns.get(descriptor)
                has[place] = own is not None and own.digest == column.digest
                if has[place] and descriptor in header.absent:
                    absent.append((place, header.absent[descriptor]))
            found[descriptor] = has, absent
        return found


def _keys(numbers: Rows, pairs: Pairs) -> Iterator[tuple[int, tuple[int, int]]]:
    return zip(numbers.tolist(), map(tuple, pairs.tolist()), strict=True)


class Notes:
    """What writers noted of images since their rows were written, and this writer's own file.

    Nobody else writes that file, so that nothing in it is lost.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._file = f"stamps-{secrets.token_hex(8)}.npz"
        self._read = Stamps.join([])
        self._own = Stamps.join([])

    def load(self) -> None:
        """Read what all writers have saved."""
        self._read = self._join(self._contents())

    def _contents(self) -> dict[str, bytes]:
        contents = {name: self._storage.read(name) for name in list_stamps(self._storage)}
        return {name: content for name, content in contents.items() if content is not None}

    def _join(self, contents: Mapping[str, bytes]) -> Stamps:
        where = f"{self._storage}/"
        return Stamps.join([parse_stamps(c, where + name) for name, c in contents.items()])

    @property
    def stamps(self) -> Stamps:
        """What is known of all images: what was saved, and what this writer noted since."""
        return Stamps.join([self._read, self._own])

    @property
    def generation(self) -> int:
        """The highest generation of a note."""
        return max(int(part.generations.max(initial=0)) for part in (self._read, self._own))

    def add(self, names: list[bytes], ids: Pairs, stamps: Pairs, generation: int) -> None:
        """Note what images look like, after all rows of shards up to a generation."""
        known = self.stamps
        earlier = dict(zip(known.names, known.generations.tolist(), strict=True))
        # Also after what any file of stamps says of the same image.
        later = (max(generation, 1 + earlier.get(name, -1)) for name in names)
        generations = np.fromiter(later, np.int64, len(names))
        self._own = Stamps.join([self._own, Stamps(names, stamps, ids, generations)])

    def save(self, index: Index) -> None:
        """Write what this writer noted, less what newer rows say better.

        Where an image has changed, ``features.h5`` would still show its old row: it goes, and is
        written anew when a run finishes.
        """
        if self._own.names:
            if not self._own.ids.any(axis=1).all():
                self._storage.remove(VIEW)
            write_stamps(self._storage, self._file, index.needed(self._own))

    def merge_files(self, index: Index) -> None:
        """Make one file of all, and remove those that have not changed since they were read."""
        contents = self._contents()
        self._own = Stamps.join([self._join(contents), self._own])
        write_stamps(self._storage, self._file, index.needed(self._own))
        for name, content in contents.items():
            if name != self._file and self._storage.read(name) == content:
                self._storage.remove(name)


def read_headers(storage: Storage, keys: Iterable[str]) -> dict[str, ShardHeader]:
    """Return the headers that ``index.npz`` holds of some shards; none where it cannot be used."""
    wanted = set(keys)
    if not (arrays := _parse_npz(storage.read(INDEX))):
        return {}
    try:
        kinds = [_parse_kind(kind) for kind in json.loads(arrays["kinds"].tobytes())]
        names, ends = _split(arrays["names"]), np.cumsum(arrays["rows"]).tolist()
        starts = [0, *ends[:-1]]
        each = (_split(arrays["keys"]), starts, ends, arrays["kind"], arrays["generations"])
        headers = {}
        for key, start, end, kind, generation in zip(*each, strict=True):
            if (name := key.decode()) in wanted:
                ids, stamps = arrays["ids"][start:end], arrays["stamps"][start:end]
                columns, dtype, provenance = kinds[kind]
                some = names[start:end]
                headers[name] = ShardHeader(
                    name, some, ids, stamps, columns, dtype, int(generation), provenance
                )
    except (*_MALFORMED, StoreDamaged):
        return {}  # of an earlier version: it is written anew
    return headers


def write_headers(storage: Storage, headers: Sequence[ShardHeader]) -> None:
    """Write ``index.npz``."""
    kinds: dict[str, int] = {}
    kind = [kinds.setdefault(_kind(header), len(kinds)) for header in headers]
    none = np.zeros((0, 2), np.int64)
    arrays: dict[str, Any] = {
        "keys": _join([header.key.encode() for header in headers]),
        "kinds": np.frombuffer(("[" + ",".join(kinds) + "]").encode(), np.uint8),
        "kind": np.array(kind, np.int64),
        "rows": np.array([len(header.names) for header in headers], np.int64),
        "generations": np.array([header.generation for header in headers], np.int64),
        "names": _join([name for header in headers for name in header.names]),
        "ids": np.concatenate([none, *(header.ids for header in headers)]),
        "stamps": np.concatenate([none, *(header.stamps for header in headers)]),
    }
    storage.write(INDEX, _npz(arrays))


def read_column_files(storage: Storage) -> dict[Descriptor, Column]:
    """Return the columns that have files."""
    columns = {}
    for name in (f"columns/{bare}" for bare in storage.list("columns")):
        if name.endswith(".json") and (content := storage.read(name)):
            column = Column.from_json(content, f"{storage}/{name}")
            columns[column.descriptor] = column
    return columns


def read_view_names(storage: Storage) -> list[bytes] | None:
    """Return the names in ``features.h5``, in order; None where it is absent or damaged."""
    content = storage.read(VIEW)
    image = None if content is None else strip_checksum(content)
    if image is None:
        return None
    with open_hdf5(f"{storage}/{VIEW}", io.BytesIO(image)) as file:
        names: list[bytes] = stored(file, "names")[:].tolist()
    return names


def list_stamps(storage: Storage) -> list[str]:
    """Name all files of stamps."""
    return sorted(filter(_STAMPS.fullmatch, storage.list()))


def parse_stamps(content: bytes, where: str) -> Stamps:
    """Parse the content of a file of stamps.

    It may say that an image has changed, so that what is damaged is not passed over.
    """
    arrays = _parse_npz(content)
    try:
        names = _split(arrays["names"])
        held = Stamps(names, arrays["stamps"], arrays["ids"], arrays["generations"])
        shapes = [array.shape for array in held[1:]] == [(len(names), 2)] * 2 + [(len(names),)]
        whole = shapes and all(array.dtype == np.int64 for array in held[1:])
    except _MALFORMED:
        whole = False
    if not whole:
        raise StoreDamaged(
            f"{where} is damaged: it is not what was written. Move it aside with: vggfeat store "
            f"repair {where.rpartition('/')[0]}. Then run the same command again."
        )
    return held


def write_stamps(storage: Storage, name: str, seen: Stamps) -> None:
    """Write a file of stamps; remove it where there is nothing to say."""
    if not seen.names:
        storage.remove(name)
        return
    arrays: dict[str, Any] = {"names": _join(seen.names)}
    arrays |= dict(zip(seen._fields[1:], seen[1:], strict=True))
    storage.write(name, _npz(arrays))


def _parse_npz(content: bytes | None) -> dict[str, NDArray[Any]]:
    """Return the arrays of a cache; none where it is absent, or not what was written."""
    image = None if content is None else strip_checksum(content)
    try:
        with np.load(io.BytesIO(image or b""), allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except Exception:  # numpy has errors of many kinds for what it cannot read
        return {}


def _npz(arrays: Mapping[str, Any]) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return append_checksum(content.getvalue())


def _kind(header: ShardHeader) -> str:
    """Return as JSON what most shards have in common."""
    columns = [column.to_json() for column in header.columns.values()]
    return json.dumps([columns, header.dtype, header.provenance], default=str)


def _parse_kind(kind: list[Any]) -> tuple[dict[Descriptor, Column], str, dict[str, Any]]:
    columns = [Column.from_json(text, INDEX) for text in kind[0]]
    return {column.descriptor: column for column in columns}, kind[1], dict(kind[2])


def _join(parts: Sequence[bytes]) -> NDArray[np.uint8]:
    """Join names, none of which has a zero byte, each with one behind it."""
    return np.frombuffer(b"".join(part + b"\0" for part in parts), np.uint8)


def _split(joined: NDArray[np.uint8]) -> list[bytes]:
    return joined.tobytes().split(b"\0")[:-1]
