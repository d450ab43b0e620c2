"""What a test of localisation found, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat.classification.classes import named
from vggfeat.localization.boxes import Floats, as_annotated, iou
from vggfeat.localization.predict import TOP, Located
from vggfeat.localization.training import CORRECT

CHUNK = 65_536  # true boxes that are compared at once


class Judged(NamedTuple):
    """What was found of one class in one image that shows it.

    Parameters
    ----------
    name : str
        The image's.
    label : int
        The class.
    truths : array, shape (K, 4)
        Its objects, edges.
    central : array, shape (4,)
        The box of the class from the central crop (protocol 1).
    rank : int
        How many classes the classification system finds likelier; 0 for its first label.
    found : Located or None
        What protocol 2 says of the class; None where only protocol 1 was run.
    first : int
        Its first label.
    """

    name: str
    label: int
    truths: Floats
    central: Floats
    rank: int
    found: Located | None
    first: int


class Errors(NamedTuple):
    """Shares of images that are wrong, from 0 to 1.

    Parameters
    ----------
    central : float
        Protocol 1: the box of the true class from the central crop.
    top1, top5 : float
        Protocol 2: none of the first labels is the class with a box that is correct.
    box : float
        Boxes of protocol 2 alone, the class being given.
    single1, single5, single : float
        The same three, with the one window of highest class output instead of merging.
    of : int
        Images that show the class.
    """

    central: float
    top1: float
    top5: float
    box: float
    single1: float
    single5: float
    single: float
    of: int


@dataclass(frozen=True, eq=False)
class LocalisationResult:
    """Localisation on test images, a row for each image and class that it shows.

    Parameters
    ----------
    classes : tuple of str
        Their keys: for ILSVRC synsets (wnids).
    judged : tuple of Judged
        The rows.
    dense : bool
        Whether protocol 2 was run.
    top : int
        Labels of an image that count; 5, or all classes where there are fewer.
    settings : dict
        How it was tested.
    failed : dict of str to str
        Reasons why images were left out, by name.
    windows : dict of int to array, shape (n, 4)
        What merging was given, of some rows: the boxes of the row's class from all windows.

    Examples
    --------
    >>> box, beside = np.array([0.0, 0, 8, 4]), np.array([0.0, 0, 4, 4])
    >>> found = Located(1, 0.7, box, 2.0, windows=3, pieces=1, single=beside)
    >>> row = Judged("a", 1, np.array([[0.0, 0, 8, 5]]), beside, 0, found, first=1)
    >>> result = LocalisationResult(("bus", "cat"), (row,), True, 2, {})
    >>> result.shares().tolist(), result.errors(1).top5, result.errors(1).central
    ([[0.4, 0.8, 0.4]], 0.0, 1.0)
    """

    classes: tuple[str, ...]
    judged: tuple[Judged, ...]
    dense: bool
    top: int
    settings: Mapping[str, Any]
    failed: Mapping[str, str] = field(default_factory=dict)
    windows: Mapping[int, Floats] = field(default_factory=dict)

    def shares(self) -> Floats:
        """IoU of each row's boxes, shape (N, 3): central crop, merged, single window.

        Those of protocol 2 are 0 where it was not run.
        """
        return self._shares

    def errors(self, label: int | None = None) -> Errors:
        """Count the errors of a class, or over all rows; NaN where there is no row."""
        row = len(self.classes) if label is None else label
        return Errors._make([*self._errors[row].tolist(), int(self._of[row])])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What people call the classes."""
        return named(self.classes).names

    @property
    def tested(self) -> int:
        """Count the images that were tested."""
        return len({one.name for one in self.judged})

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Classes of the rows, shape (N,)."""
        return np.array([one.label for one in self.judged], dtype=np.int64)

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """Classes that are likelier than the row's own, shape (N,)."""
        return np.array([one.rank for one in self.judged], dtype=np.int64)

    @cached_property
    def _shares(self) -> Floats:
        if not self.judged:
            return np.zeros((0, 3))
        some = [_boxes(one) for one in self.judged]
        boxes = np.array(some, dtype=np.float64).reshape(-1, 3, 4)
        counts = np.array([len(one.truths) for one in self.judged])
        truths = np.concatenate([one.truths for one in self.judged])
        pairs = np.repeat(np.arange(len(boxes)), counts)
        every = [
            iou(boxes[pairs[start : start + CHUNK]], truths[start : start + CHUNK, None])
            for start in range(0, len(pairs), CHUNK)
        ]
        best: Floats = np.maximum.reduceat(np.concatenate(every), np.cumsum(counts) - counts)
        if not self.dense:
            best[:, 1:] = 0
        return best

    @cached_property
    def _of(self) -> NDArray[np.int64]:
        """Rows of each class, and of all, shape (C + 1,)."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return np.append(counts, counts.sum())

    @cached_property
    def _errors(self) -> Floats:
        """Shares that are wrong, of each class and of all, shape (C + 1, 7)."""
        central, merged, single = (self._shares > CORRECT).T
        first, among = self.ranks < 1, self.ranks < self.top
        hits = (
            central,
            *(merged & first, merged & among, merged),
            *(single & first, single & among, single),
        )
        count = len(self.classes)
        right = np.stack([np.bincount(self.labels, one, count) for one in hits], axis=1)
        right = np.concatenate([right, right.sum(axis=0, keepdims=True)])
        of = self._of[:, None].astype(np.float64)
        errors: Floats = 1 - np.divide(right, of, out=np.full_like(right, np.nan), where=of > 0)
        if not self.dense:
            errors[:, 1:] = np.nan
        return errors

    @property
    def pieces(self) -> float:
        """Boxes that were left after merging, for each class of an image: the mean."""
        left = [one.found.pieces for one in self.judged if one.found]
        return float(np.mean(left)) if left else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON types; None where a figure is none."""
        classes = zip(self.names, self.classes, strict=True)
        return {
            "errors": self._plain(self.errors()),
            "classes": [
                {"name": name, "key": key, **self._plain(self.errors(c))}
                for c, (name, key) in enumerate(classes)
            ],
            "top": self.top,
            "dense": self.dense,
            "boxes_left": self.pieces if self.dense else None,
            "tested": {
                "images": self.tested,
                "objects": len(self.judged),
                "failed": len(self.failed),
            },
            "settings": dict(self.settings),
            "failed": dict(self.failed),
            "images": [
                self._row(one, shares)
                for one, shares in zip(self.judged, self.shares().tolist(), strict=True)
            ],
        }

    def _row(self, one: Judged, shares: list[float]) -> dict[str, Any]:
        central, merged, single = shares
        row = {
            "image": one.name,
            "class": self.names[one.label],
            "key": self.classes[one.label],
            "true": [as_annotated(box) for box in one.truths],
            "central": as_annotated(one.central),
            "central_iou": central,
        }
        if one.found is None:
            return row
        return row | {
            "first_label": self.names[one.first],
            "rank": one.rank,
            "box": as_annotated(one.found.box),
            "iou": merged,
            "score": one.found.score,
            "windows": one.found.windows,
            "boxes_left": one.found.pieces,
            "single": as_annotated(one.found.single),
            "single_iou": single,
        }

    def _plain(self, errors: Errors) -> dict[str, Any]:
        """Name errors by how many labels count, where there are fewer than five classes."""
        told = {name: None if value != value else value for name, value in errors._asdict().items()}
        return {name.replace(str(TOP), str(self.top)): value for name, value in told.items()}


def _boxes(one: Judged) -> tuple[Floats, Floats, Floats]:
    """Take the three boxes of a row; where protocol 2 was not run, the first stands for all."""
    if one.found is None:
        return one.central, one.central, one.central
    return one.central, one.found.box, one.found.single
