"""The pointing game: whether the strongest evidence for a class lies on an object of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.attribution import explain
from vggfeat.data.datasets.annotations import read_annotation
from vggfeat.data.image import Box
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError, ImageError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.learn.model import SavedModel
from vggfeat.learn.solvers import Floats, Ints


@dataclass(frozen=True)
class PointingResult:
    """How often the strongest location lies in an object of the class.

    Parameters
    ----------
    classes : tuple of str
        The C classes of the model.
    of : array, shape (C,)
        Images with an object of each class.
    hits : array, shape (C,)
        Those of them whose strongest location lies in a box of the class.
    centre : array, shape (C,)
        Those whose middle does: what pointing blindly would hit.
    images : int
        Images looked at.
    failed : dict
        Why images were left out, by name.
    why : str
        Why the maps are not exact; empty if they are.
    """

    classes: tuple[str, ...]
    of: Ints
    hits: Ints
    centre: Ints
    images: int
    failed: dict[str, str]
    why: str = ""

    @property
    def share(self) -> float:
        """Hits among all pairs of an image and one of its classes."""
        return float(self.hits.sum() / self.of.sum())

    @property
    def centre_share(self) -> float:
        """The same for the middle of the image."""
        return float(self.centre.sum() / self.of.sum())

    @property
    def line(self) -> str:
        """The result in one line.

        Examples
        --------
        >>> of, hits, centre = np.array([3, 1]), np.array([2, 1]), np.array([2, 0])
        >>> print(PointingResult(("cat", "dog"), of, hits, centre, 4, {}).line)
        Pointing game: 75.0 % of 4 (the image's centre: 50.0 %)
        """
        left_out = f"; {len(self.failed)} images left out" if self.failed else ""
        return (
            f"Pointing game: {100 * self.share:.1f} % of {self.of.sum()} "
            f"(the image's centre: {100 * self.centre_share:.1f} %{left_out})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON types."""
        per_class = zip(self.classes, self.of, self.hits, self.centre, strict=True)
        return {
            "share": self.share,
            "centre_share": self.centre_share,
            "images": self.images,
            "of": int(self.of.sum()),
            "hits": int(self.hits.sum()),
            "centre": int(self.centre.sum()),
            "classes": [
                {"name": name, "of": int(n), "hits": int(hits), "centre": int(centre)}
                for name, n, hits, centre in per_class
            ],
            "failed": dict(self.failed),
            "exact": not self.why,
            "why": self.why,
        }


def pointing_game(
    model: SavedModel,
    images: ImageSet,
    tree: Path,
    extractors: Sequence[DenseExtractor],
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PointingResult:
    """Ask for every test image whether the strongest location is on an object.

    Parameters
    ----------
    model : SavedModel
        Its classes are VOC's.
    images : ImageSet
        With a test part.
    tree : Path
        Folder with ``Annotations``, such as ``VOC2007``.
    extractors : sequence of DenseExtractor
        As from :func:`~vggfeat.run.predict.model_extractors`.
    limit : int, optional
        Look at so many test images at most, the first ones that have objects of the classes.
    progress : callable, optional
        Called with images done and all images.

    Returns
    -------
    PointingResult

    Raises
    ------
    DataError
        If no test image has an annotated object of any class.

    Notes
    -----
    Zhang et al.'s game, without their tolerance: a location hits if it lies within the outer
    edges of a box. An image counts for a class if it has an object of it that is not difficult,
    which is what a label of 1 means; boxes of difficult objects do not count.
    """
    failed: dict[str, str] = {}
    played = _images(model, images, tree, failed)[:limit]
    if not played:
        reasons = next(iter(failed.values()), "no object of a class of the model is annotated")
        raise DataError(f"There is no test image to point at in {tree}: {reasons}.")
    counts = {name: np.zeros(3, dtype=np.int64) for name in model.classes}
    why = ""
    for done, (row, boxes) in enumerate(played, 1):
        name = images.names[row]
        try:
            found = explain(model, images.images[row], extractors, list(boxes))
        except ImageError as error:
            failed[name] = str(error)
        else:
            why = found.why
            middle = np.array(found.size) / 2
            for label, place in zip(found.classes, found.strongest, strict=True):
                hit, centred = (_inside(point, boxes[label]) for point in (place, middle))
                counts[label] += (1, hit, centred)
        if progress is not None:
            progress(done, len(played))
    of, hits, centre = np.array(list(counts.values())).T
    return PointingResult(model.classes, of, hits, centre, len(played), failed, why)


def _images(
    model: SavedModel, images: ImageSet, tree: Path, failed: dict[str, str]
) -> list[tuple[int, dict[str, list[Box]]]]:
    """List test rows that have objects of the model's classes, with the boxes of each class."""
    found = []
    for row in images.splits.get("test", ()):
        boxes: dict[str, list[Box]] = {}
        try:
            objects = read_annotation(tree, images.names[row]).objects
        except DataError as error:
            failed[images.names[row]] = str(error)
            continue
        for one in objects:
            if one.name in model.classes and not one.difficult:
                boxes.setdefault(one.name, []).append(one.box)
        if boxes:
            found.append((int(row), boxes))
    return found


def _inside(place: Floats, boxes: Sequence[Box]) -> bool:
    """Whether a place lies in a box; VOC counts pixels from 1, so pixel 1 begins at place 0."""
    x, y = place
    return any(xmin - 1 <= x <= xmax and ymin - 1 <= y <= ymax for xmin, ymin, xmax, ymax in boxes)
