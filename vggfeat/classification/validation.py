"""Images whose classes are known, to test a network on: ILSVRC's validation, or one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.text import and_more
from vggfeat.classification.classes import CARD, Classes, ilsvrc_classes
from vggfeat.data.datasets import load_card
from vggfeat.data.datasets.ilsvrc import LabelledImages, read_val
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError


@dataclass(frozen=True)
class Validation:
    """Images and their classes.

    Parameters
    ----------
    images : ImageSet
    labels : ndarray (N,) of int64
        The class of each, as the place of its output.
    classes : Classes
    where : Path
    """

    images: ImageSet
    labels: NDArray[np.int64]
    classes: Classes
    where: Path

    @property
    def partial(self) -> str:
        """What keeps the figures from being ILSVRC-2012's; empty for classes of one's own."""
        if self.classes.keys != ilsvrc_classes().keys:
            return ""
        whole = load_card(CARD).counts["val"]
        return "" if len(self.images) == whole else f"{len(self.images):,} of {whole:,} images"

    def labels_of(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the classes (n,) of some images.

        Raises
        ------
        DataError
            If an image is none of these.
        """
        known = dict(zip(self.images.names, self.labels.tolist(), strict=True))
        if unknown := [name for name in names if name not in known]:
            raise DataError(
                f"{self.where} lacks {and_more(unknown, 'image')} whose scores are there. Name "
                "the folder that they were computed from by `vggfeat classify --data`."
            )
        return np.array([known[name] for name in names], np.int64)


def open_validation(root: Path | str, classes: Classes) -> Validation:
    """Find images to test on, and their classes; nothing to train with need be there.

    Parameters
    ----------
    root : path
        As for :func:`~vggfeat.data.datasets.ilsvrc.read_val`.
    classes : Classes
        Those of the network; the images may have only some of them.

    Raises
    ------
    DataNotFound
        If there are no images, or nothing says their classes.
    DataError
        If an image is of no class of the network, or a file cannot be used.

    Examples
    --------
    >>> from vggfeat.classification.classes import named
    >>> from vggfeat._io.assets import asset
    >>> drawn = named(sorted(p.name for p in asset("clipart10").iterdir() if p.is_dir()))
    >>> found = open_validation(asset("clipart10"), drawn)
    >>> found.images.names[30], int(found.labels[30]), found.partial
    ('boat/boat_0001.jpg', 1, '')
    """
    return match_classes(read_val(Path(root)), classes)


def match_classes(found: LabelledImages, classes: Classes) -> Validation:
    """Write the classes of images as places of a network's outputs.

    Raises
    ------
    DataError
        If an image is of no class of the network, or a list cannot be read.
    """
    labels = found.labels_among(classes.keys)
    place = {key: number for number, key in enumerate(classes.keys)}
    if unknown := sorted(set(labels) - set(place)):
        raise DataError(
            f"{found.where} has images of {and_more(unknown, 'class')} that the network does "
            f"not have: it has {', '.join(classes.keys[:3])}, …. Name a folder whose class "
            "folders are called as those that it was trained on."
        )
    codes = np.array([place[label] for label in labels], np.int64)
    return Validation(found.image_set(), codes, classes, found.where)
