"""What is in doubt about labels is said; what is not, is not."""

from __future__ import annotations

import numpy as np
import pytest

from vggfeat.data.datasets.doubts import list_doubts
from vggfeat.data.imageset import ImageSet


def images(labels: list[str], **splits: list[int]) -> ImageSet:
    names = tuple(map(str, range(len(labels))))
    parts = {part: np.array(rows) for part, rows in splits.items()}
    return ImageSet(names, names, tuple(labels), splits=parts)


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (images(["cat", "dog", "0"]), []),
        (images(["0", "1", "2.0"]), []),
        (images(["A", "a", "B", "b"]), ["'A'", "'a'", "1 more"]),
        (images(["Löwe", "Lo\u0308we"]), ["Löwe", "Lo\u0308we"]),
        (images(["0.5", "1", "1.5"]), ["0.5"]),
        (images(["cat|dog", "cat"]), ["'cat|dog'", "labels"]),
        (images(["cat", "dog"], train=[0, 1], val=[1], test=[1]), ["test", "'cat'"]),
        (images(["cat", "dog"], train=[0, 1], val=[0]), ["val", "'dog'"]),
    ],
)
def test_what_is_in_doubt_is_named(found: ImageSet, named: list[str]) -> None:
    doubts = list_doubts(found)
    assert len(doubts) == bool(named)
    assert all(name in doubts[0] for name in named)
