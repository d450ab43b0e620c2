"""The paper's two protocols of localisation (Appendix A): which boxes are right, and the errors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat.classification.classes import named
from vggfeat.errors import DataError, ImageError
from vggfeat.localization.boxes import Floats, iou
from vggfeat.localization.data import BoxDataset
from vggfeat.localization.predict import (
    TOP,
    Detection,
    LocalizationSystem,
    check_classes,
    detect,
)
from vggfeat.localization.training import CORRECT

Ints = NDArray[np.int64]


class ObjectResult(NamedTuple):
    """What was predicted for one class in one image that shows it.

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
    ious : tuple of float
        Highest intersection over union with an object: of the central crop's box, of the merged
        box, of the single window's; the last two are 0 where only protocol 1 was run.
    rank : int
        How many classes the classification system finds likelier; 0 for its first label.
    first : int
        Its first label.
    detection : Detection or None
        What protocol 2 says of the class.
    """

    name: str
    label: int
    truths: Floats
    central: Floats
    ious: tuple[float, float, float]
    rank: int = 0
    first: int = 0
    detection: Detection | None = None


class BoxErrors(NamedTuple):
    """Shares of objects that are wrong, from 0 to 1.

    Parameters
    ----------
    central : float
        Protocol 1: the box of the true class from the central crop.
    top1, top5 : float
        Protocol 2: none of the first labels is the class with a box that is correct.
    box : float
        Boxes of protocol 2 alone, the class being given.
    single1, single5, single : float
        The same three, with the one window of highest class score instead of merging.
    objects : int
        Number of objects.
    """

    central: float
    top1: float
    top5: float
    box: float
    single1: float
    single5: float
    single: float
    objects: int


@dataclass(frozen=True, eq=False)
class BoxEvaluation:
    """Localisation on test images, a row for each image and class that it shows.

    Parameters
    ----------
    classes : tuple of str
        Their keys: for ILSVRC synsets (wnids).
    objects : tuple of ObjectResult
    dense : bool
        Whether protocol 2 was run.
    top : int
        Labels of an image that count; 5, or all classes where there are fewer.
    failed : dict of str to str
        Reasons why images were left out, by name.
    windows : dict of int to array, shape (n, 4)
        What merging was given, of some objects: the boxes of the class from all windows.

    Examples
    --------
    >>> box = np.array([0.0, 0, 8, 4])
    >>> result = ObjectResult("a", 1, box[None], box, (0.4, 0.8, 0.4))
    >>> errors = BoxEvaluation(("bus", "cat"), (result,), True, 2).errors(1)
    >>> errors.top5, errors.central
    (0.0, 1.0)
    """

    classes: tuple[str, ...]
    objects: tuple[ObjectResult, ...]
    dense: bool
    top: int
    failed: Mapping[str, str] = field(default_factory=dict)
    windows: Mapping[int, Floats] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What people call the classes."""
        return named(self.classes).names

    @cached_property
    def labels(self) -> Ints:
        """Classes of the objects, shape (N,)."""
        return np.array([item.label for item in self.objects], dtype=np.int64)

    @cached_property
    def ious(self) -> Floats:
        """IoU of each object's boxes, shape (N, 3): central crop, merged, single window."""
        return np.array([item.ious for item in self.objects], dtype=np.float64).reshape(-1, 3)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Which objects are found, for each of the errors of :class:`BoxErrors`: (7, N)."""
        central, merged, single = (self.ious > CORRECT).T
        ranks = np.array([item.rank for item in self.objects], dtype=np.int64)
        first, among = ranks < 1, ranks < self.top
        hits = (central, merged & first, merged & among, merged)
        return np.stack([*hits, single & first, single & among, single])

    def errors(self, label: int | None = None) -> BoxErrors:
        """Count the errors of a class, or over all objects; NaN where there is no object."""
        row = len(self.classes) if label is None else label
        return BoxErrors._make([*self._errors[row].tolist(), int(self._counts[row])])

    @cached_property
    def _counts(self) -> Ints:
        """Objects of each class, and of all, shape (C + 1,)."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return np.append(counts, counts.sum())

    @cached_property
    def _errors(self) -> Floats:
        """Shares that are wrong, of each class and of all, shape (C + 1, 7)."""
        n = len(self.classes)
        right = np.stack([np.bincount(self.labels, hits, n) for hits in self.right], axis=1)
        right = np.concatenate([right, right.sum(axis=0, keepdims=True)])
        of = self._counts[:, None].astype(np.float64)
        errors: Floats = 1 - np.divide(right, of, out=np.full_like(right, np.nan), where=of > 0)
        if not self.dense:
            errors[:, 1:] = np.nan
        return errors


def evaluate_objects(
    tested: BoxDataset,
    classes: Sequence[str],
    system: LocalizationSystem,
    *,
    windows_of: Collection[int] = (),
    progress: Callable[[int, int], None] | None = None,
) -> BoxEvaluation:
    """Judge the box of every object.

    Parameters
    ----------
    tested : BoxDataset
        Test images.
    classes : sequence of str
        What the numbers of their labels mean.
    system : LocalizationSystem
    windows_of : collection of int
        Rows whose windows' boxes are kept, to be drawn.
    progress : callable, optional
        Called with images done and all images.

    Raises
    ------
    DataError
        If a net, or the classification system, knows other classes, or no image can be read.
    """
    check_classes(classes, system.classes)
    objects: list[ObjectResult] = []
    windows: dict[int, Floats] = {}
    failed: dict[str, str] = {}
    n_classes = len(classes)
    images = list(tested.images())
    for done, (name, rows) in enumerate(images, 1):
        try:
            image = tested.open(rows[0])
            central = system.nets[0].central(image)
            view = system.look(image, name) if system.classifier else None
        except ImageError as error:
            failed[name] = str(error)
        else:
            for row in rows:
                label, truths = int(tested.part.labels[row]), tested.boxes[row]
                box = central[system.nets[0].column(label)]
                if view is None:
                    objects.append(judge_object(name, label, truths, box))
                    continue
                scores, seen = view
                detection = detect(seen, scores.posteriors, image.size, label, system.merging)
                if row in windows_of:
                    windows[len(objects)] = seen.of(label)[0]
                judged = judge_object(name, label, truths, box, detection)
                first = int(scores.posteriors.argmax())
                objects.append(judged._replace(rank=scores.rank(label), first=first))
                n_classes = scores.n_classes
        if progress is not None:
            progress(done, len(images))
    if not objects:
        reason = next(iter(failed.values()), "there are none")
        raise DataError(f"No test image can be used: {reason}.")
    dense, top = system.classifier is not None, min(TOP, n_classes)
    return BoxEvaluation(tuple(classes), tuple(objects), dense, top, failed, windows)


def judge_object(
    name: str, label: int, truths: Floats, central: Floats, detection: Detection | None = None
) -> ObjectResult:
    """Compare the boxes of an object with the true ones."""
    boxes = [central] if detection is None else [central, detection.box, detection.single]
    best = [*iou(np.stack(boxes), truths).max(axis=1).tolist(), 0.0, 0.0]
    ious = (best[0], best[1], best[2])
    return ObjectResult(name, label, truths, central, ious, detection=detection)
