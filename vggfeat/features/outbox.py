"""What is described and not yet written: it becomes shards, together with what others wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vggfeat.features.aggregate import Matrix
from vggfeat.features.plan import Bools, Plan
from vggfeat.store.column import Descriptor


class Outbox:
    """Images on their way into the store of a plan.

    Attributes
    ----------
    complete : dict
        By row, the columns that an image lacked, described.
    replaced : ndarray (N,) of bool
        Which images took the place of others of their names.
    """

    def __init__(self, plan: Plan, provenance: dict[str, Any]) -> None:
        self.plan = plan
        self.provenance = provenance
        self.complete: dict[int, dict[Descriptor, Matrix]] = {}
        self.replaced: Bools = np.zeros(len(plan.images), bool)
        self._restored: dict[int, list[Descriptor]] = {}  # in the store, and not current
        self._noted: set[int] = set()  # whose newest row is theirs, under a new stamp

    @property
    def nbytes(self) -> int:
        """Bytes of the descriptors."""
        return sum(a.nbytes for arrays in self.complete.values() for a in arrays.values())

    def keep(self, row: int, held: list[Descriptor]) -> None:
        """Keep what the store has of an image already: copy it, or note its new stamp."""
        plan = self.plan
        if (plan.ids[row] != plan.written[row]).any():
            self._restored[row] = held
        elif not plan.known[row] or (plan.ids[row] != plan.current[row]).any():
            self._noted.add(row)

    def write(self) -> bool:
        """Write what is complete; one shard for each set of columns that images lacked.

        What others wrote is taken in first, so that what was read last counts: return whether
        there was any of it.
        """
        plan, store = self.plan, self.plan.store
        waiting = self._restored or self.complete or self._noted
        others = bool(waiting) and store.refresh()
        for columns, rows in _group_alike(self._restored).items():
            self.replaced[rows] |= plan.replaces(rows)
            store.restore(list(columns), *plan.described_as(rows), self.provenance)
            for row in rows:
                del self._restored[row]
        for columns, rows in _group_alike(self.complete).items():
            self.replaced[rows] |= plan.replaces(rows)
            arrays = {c: np.stack([self.complete[row][c] for row in rows]) for c in columns}
            store.write(*plan.described_as(rows), arrays, self.provenance)
            for row in rows:
                del self.complete[row]
        if self._noted:
            store.note(*plan.described_as(sorted(self._noted)))
            self._noted.clear()
            store.save_notes()
        return others


def _group_alike(
    rows: Mapping[int, Iterable[Descriptor]],
) -> dict[tuple[Descriptor, ...], list[int]]:
    """Group rows, ascending, by their sets of columns."""
    alike: dict[tuple[Descriptor, ...], list[int]] = {}
    for row in sorted(rows):
        alike.setdefault(tuple(sorted(rows[row])), []).append(row)
    return alike
