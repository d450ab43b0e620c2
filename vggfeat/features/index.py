"""Which shard holds which picture: the index of a feature store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from vggfeat.errors import StoreDamaged
from vggfeat.features.shards import Header, Rows

Stat = tuple[int, int]


class Index:
    """Where the descriptors of a list of pictures lie.

    A shard's row is a picture's only if its name and its file's stat match: a picture
    that was replaced under its name is computed again, and shards need no order.

    Parameters
    ----------
    names : sequence of bytes
        The N pictures.
    stats : sequence of (size, time)
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
    """

    def __init__(self, names: Sequence[bytes], stats: Sequence[Stat]) -> None:
        self.stats = np.array(stats, np.int64).reshape(len(names), 2)
        self.where: dict[str, NDArray[np.int32]] = {}
        self.dimensions: dict[str, int] = {}
        self.keys: list[str] = []
        self.known = 0
        self.others: set[bytes] = set()
        self._rows = {name: row for row, name in enumerate(names)}

    def add(self, header: Header) -> None:
        """Add the pictures of a shard."""
        rows = np.array([self._rows.get(name, -1) for name in header.names], np.intp)
        found = rows >= 0
        self.known += int(found.sum())
        self.others.update(header.names[row] for row in np.flatnonzero(~found))
        found &= (self.stats[rows] == header.stats).all(axis=1) if len(self.stats) else False
        for path, dimension in header.datasets.items():
            if self.dimensions.setdefault(path, dimension) != dimension:
                raise StoreDamaged(
                    f"{path} has {dimension} dimensions in shard {header.key} and "
                    f"{self.dimensions[path]} in others. Delete the one that is wrong."
                )
            here = found.copy()
            here[header.absent.get(path, [])] = False
            where = self.where.setdefault(path, np.full((len(self.stats), 2), -1, np.int32))
            where[rows[here], 0] = len(self.keys)
            where[rows[here], 1] = np.flatnonzero(here)
        self.keys.append(header.key)

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


def newest(headers: Iterable[Header]) -> dict[bytes, Stat]:
    """Return the newest stat under which each name is held."""
    stats: dict[bytes, Stat] = {}
    for header in headers:
        for name, (size, time) in zip(header.names, header.stats.tolist(), strict=True):
            if name not in stats or stats[name][1] <= time:
                stats[name] = (size, time)
    return stats
