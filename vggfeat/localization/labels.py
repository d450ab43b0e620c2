"""Whose labels count in localisation: any system's whose scores of the images are kept.

The paper localises with the labels of its best classification system (Appendix A), which is made
of several nets, scales and modes; such scores are what ``vggfeat classify`` and ``vggfeat fuse``
write.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from vggfeat.errors import DataError, ImageError
from vggfeat.localization.boxes import Floats

if TYPE_CHECKING:
    from vggfeat.classification.scores import Scores


class StoredLabels:
    """The posteriors of images, kept in stores of scores; found by the names of their files.

    Parameters
    ----------
    scores : sequence of Scores
        Fused, each counting the same.
    classes : tuple of str
        Those that are localised.

    Raises
    ------
    StoreError
        If the scores are not of the same images or classes.
    DataError
        If they lack one of the classes, or two images have the same file name.
    """

    def __init__(self, scores: Sequence[Scores], classes: tuple[str, ...]) -> None:
        from vggfeat.classification.scores import same_classes, same_images

        self._scores = scores
        self._rows = places(classes, same_classes(scores).keys)
        names = same_images(scores)
        self._names = {PurePosixPath(name).name: name for name in names}
        if len(self._names) < len(names):
            raise DataError(
                "Several images in the scores have files of the same name, so that they cannot "
                "be told apart. Classify the test images alone."
            )

    @classmethod
    def open(cls, paths: Sequence[Path], classes: tuple[str, ...]) -> StoredLabels:
        """Open stores that ``vggfeat classify --out`` or ``vggfeat fuse --out`` wrote."""
        from vggfeat.classification.scores import open_scores

        return cls([one for path in paths for one in open_scores(path)], classes)

    def of(self, name: str) -> tuple[Floats, Floats]:
        """Return an image's posteriors of the classes localised, and those of all others.

        Raises
        ------
        ImageError
            If there are no scores of it.
        """
        from vggfeat.classification.scores import posteriors

        file = PurePosixPath(name).name
        if file not in self._names:
            raise ImageError(f"no scores of {file} are among the --labels")
        [found] = np.concatenate(list(posteriors(self._scores, [self._names[file]])))
        return split(found, self._rows)


def places(classes: Sequence[str], known: Sequence[str]) -> list[int]:
    """Find classes that are localised among those of a classification system.

    Raises
    ------
    DataError
        If it lacks one of them.
    """
    place = {name: k for k, name in enumerate(known)}
    if missing := [name for name in classes if name not in place]:
        raise DataError(
            f"The classification system does not know {missing[0]!r}, which is localised. It "
            f"knows {', '.join(known[:5])}{' …' * (len(known) > 5)}. Name one of the same "
            "classes."
        )
    return [place[name] for name in classes]


def split(posteriors: Floats, rows: Sequence[int]) -> tuple[Floats, Floats]:
    """Part the posteriors of classes from those of all others.

    Examples
    --------
    >>> own, others = split(np.array([0.1, 0.2, 0.7]), [2, 0])
    >>> own.tolist(), others.tolist()
    ([0.7, 0.1], [0.2])
    """
    return posteriors[list(rows)], np.delete(posteriors, list(rows))
