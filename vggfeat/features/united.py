"""What several feature stores hold of one net, and its way into another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat.errors import StoreError
from vggfeat.features.catalogue import Rows
from vggfeat.features.extraction import Part
from vggfeat.features.index import Stat
from vggfeat.features.shards import Matrix, encode
from vggfeat.features.store import FeatureStore

SHARD_BYTES = 128 << 20  # of descriptors in one shard, of which three copies are in memory
BLOCK = 4096  # rows that are read or compared at a time
SAME = 0.01  # of its length by which a descriptor may differ from that of another machine


class Source(NamedTuple):
    """One part: what a user calls it, and the stores of its nets."""

    where: str
    nets: dict[str, FeatureStore]

    @property
    def any(self) -> FeatureStore:
        """One of its nets; all have the same names."""
        return next(iter(self.nets.values()))


class United:
    """What several stores hold of one net.

    Parameters
    ----------
    net : str
        Configuration of Table 1.
    sources : sequence of Source
        The stores; of what several hold, the first one's counts.
    names, stats : sequence
        The N pictures.

    Attributes
    ----------
    lacking : int
        Rows of arrays that the store to be made lacks, once it is begun.
    """

    out: FeatureStore
    lacks: NDArray[np.bool_]
    lacking: int

    def __init__(
        self, net: str, sources: Sequence[Source], names: Sequence[str], stats: Sequence[Stat]
    ) -> None:
        self.names, self.stats = names, stats
        self.keys = encode(names)
        self.sources = [one for one in sources if net in one.nets]
        self.stores = [one.nets[net] for one in self.sources]
        # Where each picture is in each part, and which arrays it has there.
        self.rows = [store.index.rows(self.keys) for store in self.stores]
        self.paths: dict[str, Part] = {}
        for store in self.stores:
            self.paths |= {store.extraction.path(part): part for part in store.dimensions}
        self.paths = dict(sorted(self.paths.items()))

    def compare(self) -> None:
        """Refuse a picture whose descriptors differ between parts."""
        for path in self.paths:
            first = self._first(path)
            for number in range(1, len(self.stores)):
                both = np.flatnonzero(self._has(number, path) & (first < number))
                for start in range(0, len(both), BLOCK):
                    some = both[start : start + BLOCK]
                    self._refuse_other(path, number, some, first[some])

    def begin(self, out: Path | str) -> FeatureStore:
        """Open the store to be made, and find what it lacks."""
        behind = {**self.stores[0].manifest.nets[self.stores[0].extraction.net]["provenance"]}
        self.out = FeatureStore(
            out,
            self.stores[0].extraction,
            self.names,
            stats=self.stats,
            dtype=self.stores[0].manifest.dtype,
            provenance=behind,
        )
        lacks = [
            (self._first(path) < len(self.stores)) & ~self.out.index.has([path])
            for path in self.paths
        ]
        self.lacks = np.array(lacks, bool).reshape(len(self.paths), len(self.names))
        self.lacking = int(self.lacks.sum())
        return self.out

    def copy(self) -> Iterator[int]:
        """Write what is lacking, shard by shard; yield the rows of arrays in each."""
        paths = np.array(list(self.paths), object)
        itemsize = np.dtype(self.out.manifest.dtype).itemsize
        for lacks in np.unique(self.lacks, axis=1).T:
            some = paths[lacks].tolist()
            if not some:
                continue
            alike = np.flatnonzero((self.lacks == lacks[:, None]).all(axis=0))
            width = sum(self._dimension(path) for path in some)
            size = max(1, SHARD_BYTES // (width * itemsize))
            for start in range(0, len(alike), size):
                rows = alike[start : start + size]
                self.out.write(
                    rows.tolist(), {self.paths[path]: self._read(path, rows) for path in some}
                )
                yield len(rows) * len(some)

    def _read(self, path: str, rows: Rows) -> Matrix:
        """Read an array's rows, each from the first part that has it, in the type on disk."""
        first = self._first(path)[rows]
        values = np.empty((len(rows), self._dimension(path)), self.out.manifest.dtype)
        for number in np.unique(first):
            mine = np.flatnonzero(first == number)
            for start in range(0, len(mine), BLOCK):
                some = mine[start : start + BLOCK]
                values[some] = self._values(number, path, rows[some])
        return values

    def _values(self, number: int, path: str, rows: Rows) -> NDArray[np.float32]:
        return self.stores[number].gather([path], self.rows[number][rows])[path]

    def _has(self, number: int, path: str) -> NDArray[np.bool_]:
        rows, held = self.rows[number], self.stores[number].index.has([path])
        return (rows >= 0) & held[rows] if len(held) else np.zeros(len(rows), bool)

    def _first(self, path: str) -> Rows:
        """Find the number of the first part that has each picture; their count where none has."""
        first = np.full(len(self.names), len(self.stores), np.intp)
        for number in reversed(range(len(self.stores))):
            first[self._has(number, path)] = number
        return first

    def _dimension(self, path: str) -> int:
        return next(d for one in self.stores if (d := one.index.dimensions.get(path)) is not None)

    def _refuse_other(self, path: str, number: int, rows: Rows, first: Rows) -> None:
        theirs = self._values(number, path, rows)
        for other in np.unique(first):
            mine = np.flatnonzero(first == other)
            held = self._values(other, path, rows[mine])
            apart = np.linalg.norm(held - theirs[mine], axis=1)
            wrong = np.flatnonzero(~(apart <= SAME * np.linalg.norm(held, axis=1)))
            if len(wrong):
                name = self.names[rows[mine[wrong[0]]]]
                raise StoreError(
                    f"{name!r} has other descriptors {path} in {self.sources[number].where} than "
                    f"in {self.sources[other].where}, and so have {len(wrong) - 1} more of "
                    f"{len(rows)}. They are other pictures, or one of the two is wrong: leave out "
                    "one of the parts, or give the pictures other names."
                )
