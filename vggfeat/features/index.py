"""Which shard holds which picture: the index of a feature store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat.errors import StoreDamaged
from vggfeat.features.catalogue import Header, Rows

MANY = 8  # names of the list that are gone through faster than one is looked up

Stat = tuple[int, int]
Stats = NDArray[np.int64]


class View(NamedTuple):
    """What ``features.h5`` says of its pictures, and of the shards behind it.

    Their generation is the highest of them; their keys are None if an earlier version wrote it.
    """

    names: list[bytes]
    stats: Stats
    generation: int
    shards: frozenset[str] | None

    def lacks(self, header: Header) -> bool:
        """Tell whether a shard was not there when the view was made."""
        if self.shards is None:
            return header.generation > self.generation
        return header.key not in self.shards


class Index:
    """Where the descriptors of a list of pictures lie.

    A shard's row is a picture's only if its name and its file's stat match: a picture
    that was replaced under its name is computed again, and shards need no order.

    Parameters
    ----------
    names : sequence of bytes
        The N pictures.
    stats : array (N, 2)
        What their files must be.

    Attributes
    ----------
    where : dict of ndarray (N, 2) of int32
        Shard, as a position in ``keys``, and row in it, by HDF5 path; −1 where there is none.
    dimensions : dict of int
        D by HDF5 path.
    keys : list of str
        The shards, in the order in which they were added.
    known : int
        Number of shard rows whose name was asked for, whatever their stat.
    others : set of bytes
        Names in shards that were not asked for.
    generation : int
        The highest of the shards.
    """

    def __init__(self, names: Sequence[bytes], stats: ArrayLike) -> None:
        self.stats = np.array(stats, np.int64).reshape(len(names), 2)
        self.where: dict[str, NDArray[np.int32]] = {}
        self.dimensions: dict[str, int] = {}
        self.keys: list[str] = []
        self.known = 0
        self.others: set[bytes] = set()
        self.generation = 0
        self._names = names

    @cached_property
    def _rows(self) -> dict[bytes, int]:
        """Row of each name; made when it is first needed: for a million that takes 0.2 s."""
        return dict(zip(self._names, range(len(self._names)), strict=True))

    def rows(self, names: Sequence[bytes]) -> Rows:
        """Return the rows (n,) of pictures; −1 for one that is none of the list."""
        return np.fromiter(map(self._rows.get, names, repeat(-1)), np.intp, len(names))

    def add(self, header: Header) -> None:
        """Add the pictures of one shard."""
        self.add_all([header])

    def add_all(self, headers: Sequence[Header]) -> None:
        """Add the pictures of shards; of what several hold, the last one's count."""
        self._check_dimensions(headers)
        names = list(chain.from_iterable(header.names for header in headers))
        counts = [len(header.names) for header in headers]
        starts = np.cumsum([0, *counts])
        rows = self._rows_of(headers)
        found = rows >= 0
        self.known += int(found.sum())
        self.others.update(names[row] for row in np.flatnonzero(~found))
        stats = np.concatenate([np.zeros((0, 2), np.int64), *(header.stats for header in headers)])
        found &= (self.stats[rows] == stats).all(axis=1) if len(self.stats) else False
        shard = np.repeat(np.arange(len(headers)), counts)
        for path in {path: None for header in headers for path in header.datasets}:
            here = found & np.array([path in header.datasets for header in headers])[shard]
            for start, header in zip(starts[:-1], headers, strict=True):
                if path in header.absent:
                    here[start + header.absent[path]] = False
            if path not in self.where:
                self.where[path] = np.full((len(self.stats), 2), -1, np.int32)
            self.where[path][rows[here], 0] = len(self.keys) + shard[here]
            self.where[path][rows[here], 1] = np.flatnonzero(here) - starts[shard[here]]
        self.keys += [header.key for header in headers]
        self.generation = max([self.generation, *(header.generation for header in headers)])

    def _rows_of(self, headers: Sequence[Header]) -> Rows:
        """Return the rows of all pictures of shards, most of which are in the list's order.

        Names that follow each other there as in the shard need no look-up each.
        """
        if MANY * sum(len(header.names) for header in headers) < len(self._names):
            return self.rows([name for header in headers for name in header.names])
        firsts = {header.names[0] for header in headers if header.names}
        start = {name: row for row, name in enumerate(self._names) if name in firsts}
        rows = [np.zeros(0, np.intp)]
        for header in headers:
            first, count = start.get(header.names[0]) if header.names else None, len(header.names)
            if first is not None and self._names[first : first + count] == header.names:
                rows.append(np.arange(first, first + count))
            else:
                rows.append(self.rows(header.names))
        return np.concatenate(rows)

    def contradicts(self, header: Header) -> bool:
        """Tell whether a shard has another file's row under a name of the list."""
        rows = self.rows(header.names)
        found = rows >= 0
        return bool((self.stats[rows[found]] != header.stats[found]).any())

    def _check_dimensions(self, headers: Sequence[Header]) -> None:
        for header in headers:
            for path, dimension in header.datasets.items():
                if self.dimensions.setdefault(path, dimension) != dimension:
                    raise StoreDamaged(
                        f"{path} has {dimension} dimensions in shard {header.key} and "
                        f"{self.dimensions[path]} in others. Delete the one that is wrong."
                    )

    def has(self, paths: Iterable[str]) -> NDArray[np.bool_]:
        """Tell for each picture whether all these arrays hold it."""
        complete = np.ones(len(self.stats), bool)
        for path in paths:
            complete &= self.where[path][:, 0] >= 0 if path in self.where else False
        return complete

    def plan(self, paths: Iterable[str], rows: Rows) -> dict[int, dict[str, tuple[Rows, Rows]]]:
        """Say what to read from each shard, so that each is opened once.

        Returns
        -------
        dict
            For each shard and path, rows of the shard and their positions in ``rows``.
        """
        plan: dict[int, dict[str, tuple[Rows, Rows]]] = {}
        for path in paths:
            shard, source = self.where[path][rows].T.astype(np.intp)
            order = np.argsort(shard, kind="stable")
            for some in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1):
                if len(some) and shard[some[0]] >= 0:
                    plan.setdefault(int(shard[some[0]]), {})[path] = (source[some], some)
        return plan


def newest(headers: Sequence[Header], view: View | None = None) -> tuple[list[bytes], Stats]:
    """Return every name that shards hold, sorted, with the stat of the row written last.

    A view, where it is given, was made before any of the shards was written.

    Returns
    -------
    names : list of bytes, length n
        Each once.
    stats : ndarray (n, 2)
    """
    ordered: list[Header | View] = [] if view is None else [view]
    ordered += sorted(headers, key=lambda header: header.generation)
    names = list(chain.from_iterable(shard.names for shard in ordered))
    stats = np.concatenate([np.zeros((0, 2), np.int64), *(shard.stats for shard in ordered)])
    latest = dict(zip(names, range(len(names)), strict=True))
    found = sorted(latest)
    return found, stats[[latest[name] for name in found]]


def current(headers: Sequence[Header], view: View | None) -> tuple[list[bytes], Stats]:
    """Return every picture that a store has, each once, with the stat of its current row.

    Those of the view come first, in its order, then what was written since, sorted, also by a run
    that was begun before. What the view was made of and does not show was left out for a reason.
    """
    if view is None:
        return newest(headers)
    since = [header for header in headers if view.lacks(header)]
    if not since:
        return view.names, view.stats
    names, stats = newest(since, view)
    row = dict(zip(names, range(len(names)), strict=True))
    shown = set(view.names)
    ordered = [*view.names, *(name for name in names if name not in shown)]
    return ordered, stats[[row[name] for name in ordered]]
