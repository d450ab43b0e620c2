"""Pictures whose classes are known, to test a network on: ILSVRC's validation, or one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.text import and_more, counted
from vggfeat.data.datasets import load_card
from vggfeat.data.datasets.folders import read_folders, read_manifest
from vggfeat.data.imageset import ImageSet, find_images
from vggfeat.data.sources.files import is_image, walk
from vggfeat.errors import DataError, DataNotFound
from vggfeat.ilsvrc.classes import CARD, Classes, ilsvrc_classes
from vggfeat.train.devkit import find_truth, ground_truth
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
            return f"{counted(len(self.classes), 'class')} of one's own"
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
                f"{self.where} lacks {and_more(unknown, 'picture')} whose scores are there. Name "
                "the folder that they were computed from by `vggfeat classify --data`."
            )
        return np.array([known[name] for name in names], np.int64)


@dataclass(frozen=True)
class Pictures:
    """Pictures to test on, whose classes are not yet places of outputs.

    Parameters
    ----------
    images : ImageSet
        With labels, unless they lie in one flat folder.
    where : Path
    lists : tuple of Path
        Of a flat folder: where the lists of ILSVRC's classes are looked for.
    loose : int
        Pictures beside the class folders, which are of no class and left out.
    """

    images: ImageSet
    where: Path
    lists: tuple[Path, ...] = ()
    loose: int = 0

    def coded(self, classes: Classes) -> Validation:
        """Write their classes as places of a network's outputs.

        Raises
        ------
        DataError
            If a picture is of no class of the network, or a list cannot be read.
        """
        labels = self._listed(classes) if self.lists else self.images.labels
        place = {key: number for number, key in enumerate(classes.keys)}
        if unknown := sorted(set(labels) - set(place)):
            raise DataError(
                f"{self.where} has pictures of {and_more(unknown, 'class')} that the network does "
                f"not have: it has {', '.join(classes.keys[:3])}, …. Name a folder whose class "
                "folders are called as those that it was trained on."
            )
        codes = np.array([place[one] for one in labels], np.int64)
        return Validation(self.images, codes, classes, self.where)

    def _listed(self, classes: Classes) -> list[str]:
        """Look up the classes of a flat folder's pictures."""
        truth = ground_truth(self.lists, classes.keys)
        if unknown := [name for name in self.images.names if name not in truth]:
            raise DataError(
                f"{self.where}: the lists of ILSVRC's validation pictures do not know "
                f"{and_more(unknown, 'picture')}. Remove what is not of ILSVRC, or use class "
                "folders."
            )
        return [truth[name] for name in self.images.names]


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
    >>> from vggfeat._io.assets import asset
    >>> drawn = named(sorted(p.name for p in asset("clipart10").iterdir() if p.is_dir()))
    >>> found = open_validation(asset("clipart10"), drawn)
    >>> found.images.names[30], int(found.labels[30]), found.partial
    ('boat/boat_0001.jpg', 1, "10 classes of one's own")
    """
    return find_validation(root).coded(classes)


def find_validation(root: Path | str) -> Pictures:
    """Find pictures to test on, before it is known which classes the network has.

    Parameters
    ----------
    root : path
        As of :func:`open_validation`.

    Raises
    ------
    DataNotFound
        If there are no pictures, or nothing says their classes.
    DataError
        If a manifest cannot be used, or the pictures are still in a tar file.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> found = find_validation(asset("clipart10"))
    >>> len(found.images), found.images.labels[0], found.loose
    (300, 'bird', 0)
    """
    root = Path(root)
    where = root / "val" if (root / "val").is_dir() else root
    if root.suffix.lower() == ".csv":
        return Pictures(_of_manifest(root), root)
    listed = _listed(where, root)
    if any(map(_has_pictures, listed)):
        return Pictures(read_folders(where), where, loose=sum(map(is_image, listed)))
    flat = Pictures(find_images([where], where), where, lists=(where.parent, where, root))
    find_truth(flat.lists)
    return flat


def _of_manifest(path: Path) -> ImageSet:
    images = read_manifest(path)
    if images.splits:
        images = images.take(images.splits.get("val", []))
    if not len(images):
        raise DataNotFound(f"{path} has no pictures of the split 'val'. Mark some.")
    return images


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
