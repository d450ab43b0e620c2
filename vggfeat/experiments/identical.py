"""Identical images of a data set, known by the ids of their bytes, and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.text import counted
from vggfeat.data.imageset import ImageSet
from vggfeat.data.sources.lists import SEPARATOR
from vggfeat.svm.splits import Split

Ints = NDArray[np.int64]
NAMED = 3  # groups in a note; --json has all
DEDUPLICATE = "--deduplicate keeps one of each."


@dataclass(frozen=True)
class IdenticalImages:
    """Which images of a data set are the same, byte for byte.

    Parameters
    ----------
    groups : tuple of tuple of str
        Names of the images that are the same, two at least.
    contradictions : tuple of tuple of str
        Those of the groups whose images have not the same labels, with these.
    removed : tuple of str
        Images that were left out for it.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    contradictions: tuple[tuple[str, ...], ...] = ()
    removed: tuple[str, ...] = ()

    def notes(self, images: ImageSet, splits: Sequence[Split]) -> tuple[str, ...]:
        """Say what is the same, and how much of it both trains and tests.

        Parameters
        ----------
        images : ImageSet
            Those that the splits are of.
        splits : sequence of Split

        Examples
        --------
        >>> images = ImageSet(("a.jpg", "b.jpg"), ("a.jpg", "b.jpg"))
        >>> [note] = IdenticalImages((("a.jpg", "b.jpg"),)).notes(images, [])
        >>> note
        '1 image is the same as another, byte for byte: a.jpg = b.jpg. --deduplicate keeps one of \
each.'
        """
        if not self.groups:
            return ()
        groups, removed = _list(self.groups), len(self.removed)
        again = sum(len(group) - 1 for group in self.groups)
        leaked = self._leaked(images, splits)
        if removed:
            first = (
                f"{_are(removed, 'left out, being')} the same as another, byte for byte: {groups}."
            )
        elif leaked:
            of_these = _list([self.groups[number] for number in sorted(set(leaked))])
            tested = counted(sum(len(split.test) for split in splits), "test image")
            first = (
                f"{len(leaked):,} of {tested} {'is' if len(leaked) == 1 else 'are'} the same as a "
                "training image of the same label, byte for byte, and the figures too good by "
                f"that: {of_these}. {DEDUPLICATE}"
            )
        else:
            first = f"{_are(again, 'the same as another')}, byte for byte: {groups}. {DEDUPLICATE}"
        if not self.contradictions:
            return (first,)
        kept = (
            "none of them is kept"
            if removed
            else "one of the labels is wrong; --deduplicate keeps none of them"
        )
        second = f"{_are(len(self.contradictions), 'there under different labels')}, and {kept}"
        contradicting = f"{second}: {_list(self.contradictions)}."
        is_all = not removed and not leaked and len(self.contradictions) == len(self.groups)
        return (contradicting,) if is_all else (first, contradicting)

    def _leaked(self, images: ImageSet, splits: Sequence[Split]) -> list[int]:
        """Return for each test row that trains too, with the same label, the number of its group.

        Under another label it makes no figure better.
        """
        group_of = {name: number for number, names in enumerate(self.groups) for name in names}
        keys = {
            row: (group_of[name], _label_key(images, row))
            for row, name in enumerate(images.names)
            if name in group_of
        }
        leaked: list[int] = []
        for split in splits:
            trained = {keys[row] for row in split.train.tolist() if row in keys}
            tested = [keys[row] for row in split.test.tolist() if row in keys]
            leaked += [number for number, label in tested if (number, label) in trained]
        return leaked


def find_identical(images: ImageSet, ids: Ints) -> IdenticalImages:
    """Find the images that have the same id (N, 2); persons of one image are none.

    Examples
    --------
    >>> images = ImageSet(("a", "b", "c"), ("a", "b", "c"), labels=("cat", "dog", "cat"))
    >>> identical = find_identical(images, np.array([[1, 2], [3, 4], [1, 2]]))
    >>> identical.groups, identical.contradictions
    ((('a', 'c'),), ())
    """
    groups = _group(images, ids)
    return IdenticalImages(
        tuple(tuple(images.names[row] for row in rows) for rows in groups),
        tuple(
            tuple(_name_with_label(images, row) for row in rows)
            for rows in groups
            if not _agree(images, rows)
        ),
    )


def choose_kept(images: ImageSet, ids: Ints) -> Ints:
    """Choose the rows to keep: of identical images one, in train, else in val, else the first.

    Of those that have not the same labels none is kept: nobody knows which is right.
    """
    kept = np.ones(len(images), bool)
    rank = np.full(len(images), 2)
    for number, part in ((1, "val"), (0, "train")):
        rank[images.splits.get(part, np.array([], np.int64))] = number
    for rows in _group(images, ids):
        kept[rows] = False
        if _agree(images, rows):
            kept[rows[np.argmin(rank[rows])]] = True
    return np.flatnonzero(kept)


def _group(images: ImageSet, ids: Ints) -> list[Ints]:
    """Group the rows of the same id, in their order; without ids nothing is known."""
    if images.boxes:
        return []
    known = np.flatnonzero(ids.any(axis=1))
    order = known[np.lexsort((known, ids[known, 1], ids[known, 0]))]
    starts = np.flatnonzero((ids[order[1:]] != ids[order[:-1]]).any(axis=1)) + 1
    groups = [rows for rows in np.split(order, starts) if len(rows) > 1]
    return sorted(groups, key=lambda rows: int(rows[0]))


def _agree(images: ImageSet, rows: Ints) -> bool:
    """Tell whether images have the same labels, as far as they have any."""
    if images.labelled is not None:
        rows = rows[images.labelled[rows]]
    if images.labels:
        return len({images.labels[row] for row in rows}) < 2
    if images.targets is None:
        return True
    return not (images.targets[rows] != images.targets[rows[:1]]).any()


def _label_key(images: ImageSet, row: int) -> object:
    """Return what two images of the same labels share."""
    if images.labels:
        return images.labels[row]
    return None if images.targets is None else images.targets[row].tobytes()


def _name_with_label(images: ImageSet, row: int) -> str:
    label = images.labels[row] if images.labels else ""
    if images.label_sets:
        label = SEPARATOR.join(images.label_sets[row]) or "none"
    return f"{images.names[row]} ({label})" if label else images.names[row]


def _are(number: int, what: str) -> str:
    return f"{counted(number, 'image')} {'is' if number == 1 else 'are'} {what}"


def _list(groups: Sequence[Sequence[str]]) -> str:
    more = len(groups) - NAMED
    texts = [" = ".join(group[:NAMED]) + " = …" * (len(group) > NAMED) for group in groups[:NAMED]]
    return "; ".join(texts) + (f"; and {more:,} more" if more > 0 else "")
