"""Pictures whose classes are known, to test a network on: ILSVRC's validation, or one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggfeat.data.cards import load_card
from vggfeat.data.imagesets import ImageSet, find_pictures, read_folders, read_manifest
from vggfeat.data.sources import walk
from vggfeat.errors import DataError, DataNotFound
from vggfeat.ilsvrc.classes import CARD, Classes, ilsvrc_classes
from vggfeat.train.devkit import ground_truth
from vggfeat.train.trainset import VAL_TAR


@dataclass(frozen=True)
class Validation:
    """Pictures and their classes.

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
        """What keeps the figures from being ILSVRC-2012's; empty where nothing does."""
        if self.classes.keys != ilsvrc_classes().keys:
            return f"{len(self.classes)} classes of one's own"
        whole = load_card(CARD).counts["val"]
        return "" if len(self.images) == whole else f"{len(self.images):,} of {whole:,} pictures"

    def labels_of(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the classes (n,) of some pictures.

        Raises
        ------
        DataError
            If a picture is none of these.
        """
        known = dict(zip(self.images.names, self.labels.tolist(), strict=True))
        if unknown := [name for name in names if name not in known]:
            raise DataError(
                f"{self.where} has no picture {unknown[0]!r}, nor {len(unknown) - 1} others whose "
                "scores are there. Name the folder that they were computed from."
            )
        return np.array([known[name] for name in names], np.int64)


def open_validation(root: Path | str, classes: Classes) -> Validation:
    """Find pictures to test on, and their classes; nothing to train with need be there.

    Parameters
    ----------
    root : path
        ILSVRC's folder, with ``val`` in it, or that folder itself: a folder for each synset, or
        one flat folder with the development kit or Caffe's ``val.txt`` beside it (see
        :func:`vggfeat.train.devkit.ground_truth`). Or any folder of class folders, or a CSV
        manifest with the columns path and label, of which the split ``val`` is taken where it has
        splits.
    classes : Classes
        Those of the network; the pictures may have only some of them.

    Raises
    ------
    DataNotFound
        If there are no pictures, or nothing says their classes.
    DataError
        If a picture is of no class of the network, or the pictures are still in a tar file.

    Examples
    --------
    >>> from vggfeat.ilsvrc.classes import named
    >>> from vggfeat.resources import asset
    >>> drawn = named(sorted(p.name for p in asset("clipart10").iterdir() if p.is_dir()))
    >>> found = open_validation(asset("clipart10"), drawn)
    >>> found.images.names[30], int(found.labels[30]), found.partial
    ('boat/boat_0001.jpg', 1, "10 classes of one's own")
    """
    root = Path(root)
    where = root / "val" if (root / "val").is_dir() else root
    if root.suffix.lower() == ".csv":
        images = read_manifest(root)
        if images.splits:
            images = images.take([row for row, part in enumerate(images.splits) if part == "val"])
    elif any(_has_pictures(path) for path in _listed(where, root)):
        images = read_folders(where)
    else:
        return _flat(where, root, classes)
    return _coded(images, images.labels, classes, where)


def _listed(where: Path, root: Path) -> list[Path]:
    """List what a folder holds, if it is one that can be tested on."""
    tar = root if root.suffix == ".tar" else root / VAL_TAR
    if tar.is_file() and where == root:
        raise DataError(
            f"{tar} is read once it is unpacked: mkdir {tar.parent / 'val'} && tar xf {tar} -C "
            f"{tar.parent / 'val'}"
        )
    if not where.is_dir():
        raise DataNotFound(f"There is no folder {where}. Name ILSVRC's, or one of class folders.")
    if (root / "train").is_dir() and where == root:
        raise DataNotFound(
            f"{root} has train, but no val to test on. Put the validation pictures there, or name "
            "the folder that they are in."
        )
    return list(where.iterdir())


def _has_pictures(path: Path) -> bool:
    """Tell class folders from others, such as the development kit's."""
    folder = path.is_dir() and not path.name.startswith(".")
    return folder and next(walk(path), None) is not None


def _flat(where: Path, root: Path, classes: Classes) -> Validation:
    images = find_pictures([where])
    truth = ground_truth([where.parent, where, root], classes.keys)
    if unknown := [name for name in images.names if name not in truth]:
        raise DataError(
            f"{where}: the lists of ILSVRC's validation pictures do not know {unknown[0]!r}, nor "
            f"{len(unknown) - 1} others. Remove what is not of ILSVRC, or use class folders."
        )
    return _coded(images, [truth[name] for name in images.names], classes, where)


def _coded(images: ImageSet, labels: Sequence[str], classes: Classes, where: Path) -> Validation:
    place = {key: number for number, key in enumerate(classes.keys)}
    if unknown := sorted(set(labels) - set(place)):
        raise DataError(
            f"{where} has pictures of {unknown[0]!r} and {len(unknown) - 1} other classes that the "
            f"network does not have: it has {', '.join(classes.keys[:3])}, …. Name a folder whose "
            "class folders are called as those that it was trained on."
        )
    if not len(images):
        raise DataNotFound(f"{where} has no pictures of the split 'val'. Mark some.")
    return Validation(images, np.array([place[one] for one in labels], np.int64), classes, where)
