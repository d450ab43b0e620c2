"""What labels alone tell, before any image is read: quantities, classes that look alike."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from vggfeat._io.text import and_more, counted
from vggfeat.data.imageset import ImageSet
from vggfeat.data.sources.lists import SEPARATOR
from vggfeat.errors import DataError

FEW = 10  # different numbers that may well be classes


def refuse_quantities(labels: Sequence[str], name: str) -> None:
    """Refuse labels that are numbers most of which one image alone has, as an age or a price.

    Parameters
    ----------
    labels : sequence of str
        One of each image.
    name : str
        The data set's.

    Raises
    ------
    DataError
        Naming some of them.

    Examples
    --------
    >>> refuse_quantities(["0", "1", "0", "1"], "digits")
    """
    counts = Counter(labels)
    alone = [label for label, count in counts.items() if count == 1]
    if len(counts) > FEW and 2 * len(alone) > len(counts) and _are_numbers(counts):
        raise DataError(
            f"{name} has {len(counts):,} different labels, which are numbers, such as "
            f"{alone[0]} and {alone[1]}, and {len(alone):,} of them are of one image alone: they "
            "look like a quantity, and a linear SVM tells classes apart. Write classes, such as "
            "small and large, or name another column of labels."
        )


def list_doubts(images: ImageSet) -> tuple[str, ...]:
    """Say what is in doubt about the labels and splits of images, a sentence each.

    Examples
    --------
    >>> [doubt] = list_doubts(ImageSet(("a", "b"), ("a.jpg", "b.jpg"), labels=("dog", "Dog")))
    >>> doubt
    "The classes 'Dog' and 'dog' are written almost the same, and count as 2."
    """
    doubts = list(images.doubts)
    labels = set(images.labels)
    fractions = (
        sorted(label for label in labels if float(label) % 1) if _are_numbers(labels) else []
    )
    if fractions:
        doubts.append(
            f"The labels are numbers, such as {fractions[0]}: each is a class of its own, and none "
            "is nearer to one than to another."
        )
    if joined := sorted(label for label in labels if SEPARATOR in label):
        doubts.append(
            f"The label {joined[0]!r} counts as one class. Where images have several, call the "
            f"column labels: {SEPARATOR!r} stands between them there."
        )
    forms: dict[str, list[str]] = {}
    for label in images.classes:
        forms.setdefault(_plain(label), []).append(label)
    if groups := [alike for alike in forms.values() if len(alike) > 1]:
        first, *others = groups
        more = f"; so are those of {counted(len(others), 'more group')}" if others else ""
        doubts.append(
            f"The classes {' and '.join(map(repr, first))} are written almost the same, and count "
            f"as {len(first)}{more}."
        )
    part = next((part for part in ("test", "val") if part in images.splits), None)
    if images.labels and part:
        tested = {images.labels[row] for row in images.splits[part]}
        if untested := sorted(labels - tested):
            doubts.append(
                f"The part {part} has no image of {and_more(untested, 'class')}: how well "
                f"{'it is' if len(untested) == 1 else 'they are'} recognised is not measured."
            )
    return tuple(doubts)


def _are_numbers(labels: Iterable[str]) -> bool:
    try:
        return all(math.isfinite(float(label)) for label in labels)
    except ValueError:
        return False


def _plain(label: str) -> str:
    """Write a label without capitals, runs of blanks and marks that look the same."""
    text = unicodedata.normalize("NFKC", label).casefold()
    return " ".join(text.replace("_", " ").replace("-", " ").split())
