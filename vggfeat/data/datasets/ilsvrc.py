"""ILSVRC-2012 as it is distributed, or unpacked: images, their classes, and where their boxes are.

``ILSVRC2012_img_train.tar`` holds a tar for each class, ``ILSVRC2012_img_val.tar`` holds images;
both are read where they lie, and unpacked they are ``train`` with class folders and a flat ``val``.
Kaggle's archive has these in ``ILSVRC/Data/CLS-LOC``, with its lists and boxes above.
Class folders and manifests of one's own are read here too, so that whatever trains or tests on
ILSVRC does so on them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat._io.download import Progress
from vggfeat._io.text import and_more
from vggfeat.data.datasets.caltech import read_caltech
from vggfeat.data.datasets.card import DatasetCard, Reader, register
from vggfeat.data.datasets.folders import read_labelled
from vggfeat.data.datasets.ilsvrc_truth import find_truth, read_truth
from vggfeat.data.datasets.parts import (
    check_classes,
    class_folders,
    class_tars,
    find_parts,
    has_images,
    list_folders,
    note_beside,
    refuse_parts,
)
from vggfeat.data.image import lacking_decoder
from vggfeat.data.imageset import ImageSet, name_columns, one_hot
from vggfeat.data.left_out import LeftOut
from vggfeat.data.sources.files import EncodedImages, FileImages, Ints, list_files
from vggfeat.data.sources.lists import COLUMNS, Columns, is_manifest
from vggfeat.data.sources.remote import RemoteImage
from vggfeat.data.sources.tar import read_tar
from vggfeat.errors import DataError, DataNotFound

KAGGLE = "ILSVRC/Data/CLS-LOC"
TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
# Where boxes are looked for, below the folder of the images: as they are distributed, and as they
# are usually unpacked. They are XML files in VOC's form, one for each image.
BOXES = (
    "ILSVRC2012_bbox_train_v2.tar.gz",
    "ILSVRC2012_bbox_val_v3.tgz",
    "Annotation",
    "Annotations",
    "bbox_train",
    "bbox_val",
)


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images whose classes are known, or are in a list of ILSVRC's: `truth`."""

    images: EncodedImages
    where: Path
    labels: NDArray[np.str_] = field(default_factory=lambda: np.array([], str))  # (N,)
    truth: Path | None = None
    splits: Mapping[str, Ints] = field(default_factory=dict)  # of a manifest
    left_out: LeftOut = field(default_factory=LeftOut)  # what lies beside the images

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """The different labels, sorted; none where a list has them."""
        return tuple(np.unique(self.labels).tolist())

    def labels_among(self, classes: Sequence[str]) -> list[str]:
        """Return the class of each image; `classes` are for :func:`read_truth`.

        Raises
        ------
        DataError
            If a list cannot be read, or does not know an image.
        """
        if self.truth is None:
            return [str(label) for label in self.labels.tolist()]
        truth = read_truth(self.truth, classes)
        names = [self.images.name(row) for row in range(len(self))]
        if unknown := [name for name in names if name not in truth]:
            raise DataError(
                f"{self.where}: the lists of ILSVRC's validation images do not know "
                f"{and_more(unknown, 'image')}. Remove what is not of ILSVRC, or use class "
                "folders."
            )
        return [truth[name] for name in names]

    def take(self, rows: ArrayLike) -> LabelledImages:
        """Keep these rows, in this order, without the splits."""
        kept = np.asarray(rows, dtype=np.int64)
        labels = self.labels[kept] if self.truth is None else self.labels
        return replace(self, images=self.images.take(kept), labels=labels, splits={})

    def take_val(self) -> LabelledImages:
        """Keep those to validate on: of a manifest with splits the split ``val``, or else all."""
        if not self.splits:
            return self
        rows = self.splits.get("val")
        if rows is None:
            raise DataNotFound(f"{self.where} has no images of the split 'val'. Mark some.")
        return self.take(rows)

    def image_set(self) -> ImageSet:
        """Return the images as a set, with labels unless a list has them."""
        rows = range(len(self))
        return ImageSet(
            names=tuple(self.images.name(row) for row in rows),
            images=tuple(self.images.image(row) for row in rows),
            labels=tuple(self.labels.tolist()),
            left_out=self.left_out,
        )


@register("ilsvrc")
class IlsvrcReader(Reader):
    """ILSVRC's validation images, in class folders, in one flat folder, or in their tar."""

    needs = ("val",)

    def is_tree(self, card: DatasetCard, folder: Path) -> bool:
        """Tell ILSVRC's folder."""
        return find_val(folder) is not None

    def read(self, card: DatasetCard, tree: Path) -> ImageSet:
        """Read the images, with targets; strays are found in class folders alone."""
        val = find_val(tree) or tree / "val"
        if val.is_dir() and any(map(has_images, list_folders(val))):
            images = read_caltech(val, card.classes)
        else:
            found = read_images(val, [tree])
            labels = found.labels_among(card.classes)
            if unknown := sorted(set(labels) - set(card.classes)):
                raise DataError(
                    f"{val} has images of {and_more(unknown, 'class')}, which ILSVRC does not "
                    "have. Its images lie in it without folders, or in those of their classes."
                )
            images = replace(
                found.image_set(), labels=tuple(labels), targets=one_hot(labels, card.classes)
            )
        return replace(images, splits={"val": np.arange(len(images))})


def image_folder(root: Path) -> Path:
    """Find the folder of ILSVRC's train and val: the root, or as it lies in Kaggle's archive."""
    levels = (KAGGLE, "Data/CLS-LOC", "CLS-LOC")
    return next((root / level for level in levels if (root / level).is_dir()), root)


def list_places(root: Path) -> list[Path]:
    """List the folders in which lists and boxes may lie: the root, or all of Kaggle's levels."""
    images = image_folder(root).absolute()
    in_kaggle = images.parts[-2:] == Path(KAGGLE).parts[-2:]
    return [root, *images.parents[1:3]] if in_kaggle else [root]


def find_train(root: Path) -> Path | None:
    """Find the training images of ILSVRC's folder: ``train`` with class folders, or the tar.

    The root may be the tar itself; ``train`` may be called as
    :func:`~vggfeat.data.datasets.parts.find_parts` knows.
    """
    folder = image_folder(root)
    tar = folder / TRAIN_TAR if folder.is_dir() else folder
    return tar if tar.is_file() else find_parts(folder).get("train")


def find_val(root: Path) -> Path | None:
    """Find the validation images of ILSVRC's folder: ``val``, or the tar."""
    folder = image_folder(root)
    paths = (path for path in (folder / "val", folder / VAL_TAR) if path.exists())
    return next(paths, None) or find_parts(folder).get("val")


def read_val(
    root: Path, *, path_column: str | None = None, label_column: str | None = None
) -> LabelledImages:
    """Read images to test on, where nothing to train with need be there.

    Parameters
    ----------
    root : path
        ILSVRC's folder, with ``val`` or ``ILSVRC2012_img_val.tar`` in it, or either itself: a
        folder for each synset, or all in one with the development kit or Caffe's ``val.txt`` beside
        it (see :mod:`~vggfeat.data.datasets.ilsvrc_truth`). Or any folder of class folders, or a
        CSV manifest with the columns path and label, of which the split ``val`` is taken where it
        has splits.
    path_column, label_column : str, optional
        What a manifest calls these columns, where it is not ``path`` and ``label``.

    Raises
    ------
    ParameterError
        If columns are named, and there is no manifest.
    DataNotFound
        If there are no images, or nothing says their classes.
    DataError
        If a manifest or a tar cannot be used.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> found = read_val(asset("clipart10"))
    >>> len(found), found.labels.tolist()[0], found.left_out.beside
    (300, 'bird', ['LICENSE.txt', 'SOURCES.csv'])
    """
    columns = name_columns([str(root)], path_column, label_column)
    if is_manifest(str(root)):
        return read_images(root, columns=columns).take_val()
    where = find_val(root) or root
    if where == root and not (where.is_dir() or where.suffix == ".tar"):
        raise DataNotFound(f"There is no folder {where}. Name ILSVRC's, or one of class folders.")
    if where == root and (train := find_parts(image_folder(root)).get("train")):
        raise DataNotFound(
            f"{root} has {train.name}, but no val to test on. Put the validation images there, or "
            "name the folder that they are in."
        )
    return read_images(where, [root])


def read_images(
    path: Path,
    lists: Sequence[Path] = (),
    progress: Progress | None = None,
    columns: Columns = COLUMNS,
) -> LabelledImages:
    """Read images of any layout: a manifest, a tar, class folders, or one flat folder.

    ILSVRC's lists are looked for in `lists`, besides `path` and the folder above it; `columns` are
    those of a manifest; the errors are those of :func:`read_val`.
    """
    if is_manifest(str(path)):
        return _read_manifest(path, columns)
    left_out = LeftOut()
    if path.is_file():
        images: EncodedImages = _read_tar(path, progress)
    elif any(map(has_images, list_folders(path))) or class_tars(path):
        return read_class_images(path)
    else:
        images = list_files(path, [path], left_out)
    if not len(images):
        raise DataNotFound(f"There are no validation images in {path}. Name another folder.")
    if "/" in images.name(0):
        return replace(_labelled_by_folder(images, path), left_out=left_out)
    places = [place for folder in (path.parent, path, *lists) for place in list_places(folder)]
    return LabelledImages(images, path, truth=find_truth(places), left_out=left_out)


def read_class_images(path: Path, progress: Progress | None = None) -> LabelledImages:
    """Read a folder of class folders, or a tar of a tar, or of a folder, for each class.

    Raises
    ------
    DataNotFound
        If there are no images.
    DataError
        If images of a tar are in no class.
    """
    if path.is_file():
        return _labelled_by_folder(_read_tar(path, progress), path)
    folders, left_out = class_folders(path), LeftOut()
    images = list_files(path, folders, left_out)
    if not len(images):
        raise DataNotFound(
            f"{path} has no class folders with images, such as {path / 'cat' / '1.jpg'}. Name a "
            f"folder that has them, or has them in train, or holds {TRAIN_TAR}, or a CSV file with "
            "the columns path and label."
        )
    labelled = _labelled_by_folder(images, path)
    note_beside(left_out, path, path, folders, labelled.classes)
    names = [images.name(row) for row in range(len(images))]
    left_out.undecodable = {name: lacking for name in names if (lacking := lacking_decoder(name))}
    check_classes(left_out, path, names, labelled.labels.tolist())
    return replace(labelled, left_out=left_out)


def find_boxes(root: Path) -> list[Path]:
    """Find the folders and tars of boxes beside ILSVRC's images; DataNotFound without any."""
    paths = [place / name for place in list_places(root) for name in BOXES]
    sources = [path for path in paths if path.exists()]
    if not sources:
        raise DataNotFound(
            f"There are no boxes in {root}: neither {', '.join(BOXES)}. Put one there, or say "
            "where they are with --boxes."
        )
    return sources


def _read_manifest(path: Path, columns: Columns) -> LabelledImages:
    images = read_labelled(str(path), path_column=columns.path, label_column=columns.label)
    if images.label_sets:
        raise DataError(
            f"{path} has a column 'labels', and a network that classifies needs one class for each "
            "image. Name a CSV file with the columns path and label."
        )
    places = [
        image.address if isinstance(image, RemoteImage) else str(image) for image in images.images
    ]
    names, files = (np.array(list(map(os.fsencode, texts))) for texts in (images.names, places))
    return LabelledImages(
        FileImages(Path(), names, files),
        path,
        np.array(images.labels),
        splits=images.splits,
        left_out=images.left_out,
    )


def _read_tar(path: Path, progress: Progress | None) -> EncodedImages:
    """Find the images of a tar, by name, as in a listed folder: both are the same set."""
    index = read_tar(path, progress, samples=False)
    order = np.argsort(index.names, kind="stable")
    index = index.take(order[index.refusals[order] == b""])
    if not len(index):
        raise DataNotFound(f"{path} holds no images, nor tar files with images.")
    return index


def _labelled_by_folder(images: EncodedImages, where: Path) -> LabelledImages:
    """Take the first folder of each name for the class."""
    labels = [os.fsdecode(bytes(name).rpartition(b"/")[0].split(b"/")[0]) for name in images.names]
    if "" in labels:
        raise DataError(
            f"{where} holds images, not a tar file or a folder of them for each class. Name "
            f"{TRAIN_TAR}, which does."
        )
    refuse_parts(labels, str(where))
    return LabelledImages(images, where, np.array(labels))
