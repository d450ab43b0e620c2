"""Compare what is there with what a card promises: split by split and class by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vggfeat.data.datasets.card import EVERY, READERS, DatasetCard
from vggfeat.data.imageset import ImageSet
from vggfeat.data.sources.files import walk


@dataclass(frozen=True)
class Difference:
    """A number that is not what the card promises.

    Examples
    --------
    >>> print(Difference("test", "car", 721, 73))
    test: 73 of 721 positives of car
    >>> print(Difference("all", "zebra", 0, 12))
    zebra: 12 images, none promised
    """

    split: str  # "all" for the whole
    label: str  # the class; empty for the rows of the split
    expected: int | None  # what the card promises; None for at least one
    found: int

    def __str__(self) -> str:
        where = self.label if self.split == EVERY and self.label else self.split
        if self.expected is None:
            return f"{where}: nothing there"
        if self.expected == 0:
            return f"{where}: {self.found:,} images, none promised"
        positives = f" positives of {self.label}" if self.label and self.split != EVERY else ""
        return f"{where}: {self.found:,} of {self.expected:,}{positives or ' images'}"


@dataclass(frozen=True)
class Check:
    """What a look at a data set found."""

    name: str
    root: str
    counts: dict[str, int]  # rows of each split
    differences: tuple[Difference, ...]  # what is missing or extra; none for a whole data set
    missing: tuple[str, ...]  # images that the lists name and that are not there
    strays: tuple[str, ...]  # files and folders that were skipped

    @property
    def complete(self) -> bool:
        """Whether everything that the card promises is there, and nothing else."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {"complete": self.complete, **asdict(self)}


def check(card: DatasetCard, images: ImageSet, tree: Path, needs: Sequence[str]) -> Check:
    """Compare what was read of a tree with its card.

    What the card gives no number for is not compared, and splits that are not needed only if they
    are there.
    """
    differences = [
        *_rows(card, images, needs),
        *_positives(card, images),
        *_folders(card, images, tree),
    ]
    if images.missing and not differences:
        promised = len(images) + len(images.missing)
        differences.append(Difference("the lists", "", promised, len(images)))
    return Check(
        name=card.name,
        root=str(tree),
        counts={split: len(rows) for split, rows in images.splits.items()} or {EVERY: len(images)},
        differences=tuple(differences),
        missing=images.missing,
        strays=_strays(images),
    )


def absent(card: DatasetCard, images: ImageSet) -> tuple[str, ...]:
    """Name the classes that have not one positive to train with.

    Examples
    --------
    >>> card = DatasetCard(name="mine", reader="folders", classes=("cat", "dog"))
    >>> absent(card, ImageSet(("a",), ("a.jpg",), labels=("dog",)))
    ('cat',)
    """
    if images.labels:
        labels = Counter(images.labels)
        counts = [labels[label] for label in card.classes]
    else:
        counts = images.positives("trainval" if "trainval" in images.splits else None).tolist()
    return tuple(name for name, count in zip(card.classes, counts, strict=True) if not count)


def _rows(card: DatasetCard, images: ImageSet, needs: Sequence[str]) -> list[Difference]:
    counts = {split: len(rows) for split, rows in images.splits.items()} | {EVERY: len(images)}
    promised = dict(card.counts)
    if card.images is not None:
        promised[EVERY] = card.images
    differences = []
    for split in dict.fromkeys([*promised, *needs]):
        count, expected = counts.get(split, 0), promised.get(split)
        differs = not count if expected is None else count != expected
        if differs and (count or split in needs):
            differences.append(Difference(split, "", expected, count))
    return differences


def _positives(card: DatasetCard, images: ImageSet) -> list[Difference]:
    differences = []
    for split, promised in card.positives.items():
        if split == EVERY or len(images.splits.get(split, ())):
            positives = images.positives(None if split == EVERY else split).tolist()
            differences += [
                Difference(split, label, expected, count)
                for label, expected, count in zip(card.classes, promised, positives, strict=True)
                if expected != count
            ]
    if not card.positives and READERS[card.reader].expects_each_class:
        differences += [Difference(EVERY, label, None, 0) for label in absent(card, images)]
    return differences


def _strays(images: ImageSet) -> tuple[str, ...]:
    return (*images.left_out.beside, *images.left_out.loose)


def _folders(card: DatasetCard, images: ImageSet, tree: Path) -> list[Difference]:
    """Find class folders that the card does not know; strays that it knows are none."""
    unknown = [
        stray.rstrip("/")
        for stray in _strays(images)
        if stray.endswith("/") and stray.count("/") == 1 and stray.rstrip("/") not in card.strays
    ]
    counts = {name: sum(1 for _ in walk(tree / name)) for name in unknown}
    return [Difference(EVERY, name, 0, count) for name, count in counts.items() if count]
