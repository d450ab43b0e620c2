"""What images lack of a store's columns: as far as it is known before they are read, and after."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat.data.batching import Job
from vggfeat.data.identity import NOWHERE, Id, stamp_of
from vggfeat.data.imageset import ImageSet
from vggfeat.store.column import Descriptor
from vggfeat.store.index import Index
from vggfeat.store.shard import Pairs, encode
from vggfeat.store.store import FeatureStore

Bools = NDArray[np.bool_]
Key = tuple[str, str]  # a layer and a pooling
Lacking = Mapping[int, tuple[Key, ...]]
"""What an image lacks: layers and poolings, by Q."""


class Expectation(NamedTuple):
    """What images lack if they are those that are expected, (N, columns); a store's other rows."""

    lacking: Bools
    ids: Pairs
    rows: Index


class Plan:
    """What is left to do of a list of images, for some columns of a store.

    Attributes
    ----------
    stamps : ndarray (N, 2)
        What the files look like.
    ids : ndarray (N, 2)
        Which images they are; 0 where that is known only when they are read.
    known : ndarray (N,) of bool
        Whether it was known when the store was looked at.
    current, written : ndarray (N, 2)
        The images that the store has under these names: as runs noted them, and as rows say.
    left : ndarray (N,) of bool
        Which images are to be read.
    complete : ndarray (N,) of bool
        Which images are known to lack nothing.
    """

    def __init__(
        self, images: ImageSet, columns: Sequence[Descriptor], store: FeatureStore
    ) -> None:
        self.images = images
        self.columns = columns
        self.store = store
        self.stamps = images.stamps()

    def look(self, done: Collection[str] = ()) -> dict[int, list[Descriptor]]:
        """Look what the store has now; return what it has of images that are not its current ones.

        Those that are `done`, as they failed or wait to be written, are left out.
        """
        names = self.images.names
        self.ids = self.store.recall(names, self.stamps)
        self.known: Bools = (self.ids != 0).any(axis=1)
        self.current = self.store.identify(names)
        self.written = self.store.identify(names, noted=False)
        ids = np.where(self.known[:, None], self.ids, self.written)
        held = self.store.has(self.columns, names, ids)
        lacking: Bools = ~held  # of an unknown image: if it turns out to be the one written
        self.complete: Bools = self.known & held.all(axis=1)
        self.left: Bools = ~self.complete
        if done:
            self.left &= np.array([name not in done for name in names])
        # At once: decoding threads must not see a part of one plan and a part of the next.
        self._expected = Expectation(lacking, ids, self.store.index)
        back = self.known & held.any(axis=1) & (ids != self.current).any(axis=1)
        return {row: self._chosen(held[row]) for row in np.flatnonzero(back).tolist()}

    def jobs(self) -> Iterator[Job]:
        """List the images that are to be read; what is left may change meanwhile."""
        for row in range(len(self.images)):
            if self.left[row]:
                yield Job(row, self.lacking_of)

    def lacking_of(self, row: int, image: Id) -> Lacking:
        """Say what an image lacks, now that its bytes were read; asked by the decoding threads."""
        if stamp_of(self.images.images[row]) != tuple(self.stamps[row].tolist()):
            self.stamps[row] = NOWHERE  # replaced since: nobody knows of which file it was
        expected = self._expected
        mask = expected.lacking[row]
        if image != tuple(expected.ids[row].tolist()):
            mask = ~self._held_earlier(expected.rows, row, image)
        lacking: dict[int, list[Key]] = {}
        for column in self._chosen(mask):
            lacking.setdefault(column.Q, []).append((column.layer, column.pool))
        return {Q: tuple(keys) for Q, keys in lacking.items()}

    def note_changed(self) -> None:
        """Let nobody read old descriptors of images that have changed, while a run goes on."""
        changed = np.flatnonzero(~self.known & self.current.any(axis=1))
        if len(changed):
            names = [self.images.names[row] for row in changed]
            self.store.note(names, np.zeros((len(changed), 2), np.int64), self.stamps[changed])
            self.store.save_notes()

    def replaces(self, rows: Sequence[int]) -> Bools:
        """Tell which images take the place of others of their names."""
        there = self.written[rows]
        replaced: Bools = there.any(axis=1) & (there != self.ids[rows]).any(axis=1)
        return replaced

    def described_as(self, rows: Sequence[int]) -> tuple[list[str], Pairs, Pairs]:
        """Return names, ids and stamps of some images, as a store writes them."""
        return [self.images.names[row] for row in rows], self.ids[rows], self.stamps[rows]

    def _held_earlier(self, index: Index, row: int, image: Id) -> Bools:
        """Tell which columns have an image under this name that is not the current one."""
        number, ids = index.numbers(encode([self.images.names[row]])), np.array([image], np.int64)
        places = [index.places(column, number, ids)[0, 0] for column in self.columns]
        return np.array(places) >= 0

    def _chosen(self, mask: Bools) -> list[Descriptor]:
        return [column for column, chosen in zip(self.columns, mask, strict=True) if chosen]
