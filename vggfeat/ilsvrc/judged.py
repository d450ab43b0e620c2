"""What a test of localisation found, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat.ilsvrc.boxes import Floats, as_annotated, best_match
from vggfeat.ilsvrc.localize import Located, Windows
from vggfeat.ilsvrc.regression import CORRECT

Bools = NDArray[np.bool_]


class Judged(NamedTuple):
    """What was found of one class in one picture that shows it.

    Parameters
    ----------
    name : str
        The picture's.
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

    def shares(self) -> tuple[float, float, float]:
        """IoU of the central crop's box, of the merged one and of the single window's."""
        if self.found is None:
            return best_match(self.central, self.truths), 0.0, 0.0
        boxes = (self.central, self.found.box, self.found.single)
        central, merged, single = (best_match(box, self.truths) for box in boxes)
        return central, merged, single


class Errors(NamedTuple):
    """Shares of pictures that are wrong, from 0 to 1.

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
        Pictures that show the class.
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
    """Localisation on test pictures, a row for each picture and class that it shows.

    Parameters
    ----------
    classes : tuple of str
    judged : tuple of Judged
        The rows.
    dense : bool
        Whether protocol 2 was run.
    top : int
        Labels of a picture that count; 5, or all classes where there are fewer.
    settings : dict
        How it was tested.
    failed : dict of str to str
        Reasons why pictures were left out, by name.
    windows : dict of int to Windows
        What merging was given, of some rows.
    """

    classes: tuple[str, ...]
    judged: tuple[Judged, ...]
    dense: bool
    top: int
    settings: Mapping[str, Any]
    failed: Mapping[str, str] = field(default_factory=dict)
    windows: Mapping[int, Windows] = field(default_factory=dict)

    def shares(self) -> Floats:
        """IoU of each row's boxes, shape (N, 3): central crop, merged, single window."""
        return np.array([one.shares() for one in self.judged], dtype=np.float64).reshape(-1, 3)

    def errors(self, label: int | None = None) -> Errors:
        """Count the errors of a class, or over all rows; NaN where there is no row."""
        rows = [k for k, one in enumerate(self.judged) if label in (None, one.label)]
        right = self.shares()[rows] > CORRECT
        ranks = np.array([self.judged[k].rank for k in rows], dtype=np.int64)
        first, among = ranks < 1, ranks < self.top
        central, merged, single = right.T

        def error(hits: Bools) -> float:
            return 1 - float(hits.mean()) if len(hits) else float("nan")

        def dense(hits: Bools) -> float:
            return error(hits) if self.dense else float("nan")

        return Errors(
            error(central),
            dense(merged & first),
            dense(merged & among),
            dense(merged),
            dense(single & first),
            dense(single & among),
            dense(single),
            len(rows),
        )

    @property
    def pieces(self) -> float:
        """Boxes that were left after merging, for each class of a picture: the mean."""
        left = [one.found.pieces for one in self.judged if one.found]
        return float(np.mean(left)) if left else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON types; None where a figure is none."""
        every = {name: _plain(self.errors(c)) for c, name in enumerate(self.classes)}
        return {
            "errors": _plain(self.errors()),
            "classes": [{"name": name, **errors} for name, errors in every.items()],
            "top": self.top,
            "dense": self.dense,
            "boxes_left": self.pieces if self.dense else None,
            "settings": dict(self.settings),
            "failed": dict(self.failed),
            "pictures": [self._row(one) for one in self.judged],
        }

    def _row(self, one: Judged) -> dict[str, Any]:
        central, merged, single = one.shares()
        row = {
            "picture": one.name,
            "class": self.classes[one.label],
            "true": [as_annotated(box) for box in one.truths],
            "central": as_annotated(one.central),
            "central_iou": central,
        }
        if one.found is None:
            return row
        return row | {
            "first_label": self.classes[one.first],
            "rank": one.rank,
            "box": as_annotated(one.found.box),
            "iou": merged,
            "score": one.found.score,
            "windows": one.found.windows,
            "boxes_left": one.found.pieces,
            "single": as_annotated(one.found.single),
            "single_iou": single,
        }


def _plain(errors: Errors) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in errors._asdict().items()}
