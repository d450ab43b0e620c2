"""What is trained on: images with a class each, to train and to validate.

ILSVRC-2012 as it is distributed (a tar file of tar files) or unpacked, any folder of class
folders, or a CSV manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vggfeat._io.download import Progress
from vggfeat._io.text import and_more
from vggfeat.data.datasets.ilsvrc import (
    VAL_TAR,
    LabelledImages,
    find_train,
    find_val,
    read_class_images,
    read_images,
)
from vggfeat.data.datasets.parts import find_parts
from vggfeat.data.imageset import name_columns
from vggfeat.data.left_out import LeftOut
from vggfeat.data.sources.files import EncodedImages, Ints, Names
from vggfeat.data.sources.lists import Columns, is_manifest
from vggfeat.errors import DataError, DataNotFound, ParameterError
from vggfeat.svm.splits import held_out_part

VAL_FRACTION = 0.1
SPLITS = ("train", "val", "test")  # of a manifest; the last is left alone


@dataclass(frozen=True, eq=False)
class Part:
    """Images and their classes, as compact as the memory of many workers wants.

    Parameters
    ----------
    images : EncodedImages
    labels : ndarray (N,) of int64
        The class of each, by its place in the training set's ``classes``.
    """

    images: EncodedImages
    labels: Ints

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """Return the name of an image."""
        return self.images.name(row)

    def read(self, row: int) -> bytes:
        """Read the bytes of an image.

        Raises
        ------
        ImageError
            If it cannot be read.
        DataError
            If the machine lacks what reading takes.
        """
        try:
            return self.images.read(row)
        except OSError as error:
            raise DataError(f"{self.name(row)} could not be read: {error.strerror}.") from error

    def take(self, rows: ArrayLike) -> Part:
        """Keep these rows, in this order."""
        kept = np.asarray(rows, dtype=np.int64)
        return Part(self.images.take(kept), self.labels[kept])


@dataclass(frozen=True, eq=False)
class TrainSet:
    """Images to train and to validate with.

    Parameters
    ----------
    classes : tuple of str
        Sorted; for ILSVRC the synsets (wnids), in the order of the authors' Caffe models.
    train, val : Part
    source : str
        Where the training and the validation images are from, in words.
    unvalidated : tuple of str
        Classes of one image, of which none was drawn for validation.
    left_out : LeftOut
        What lies beside the images and was not read.

    Raises
    ------
    DataError
        If the name of a class has several lines.
    """

    classes: tuple[str, ...]
    train: Part
    val: Part
    source: str
    unvalidated: tuple[str, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)

    def __post_init__(self) -> None:
        if several := [label for label in self.classes if len(f"{label}.".splitlines()) > 1]:
            raise DataError(
                f"{self.source}: the name of the class {several[0]!r} has several lines. A network "
                "that is trained lists its classes line by line. Rename it."
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the names of classes and images and of the labels, not of the images.

        Two that agree are trained on in the same order; where they lie does not matter, so that
        names count from the folder on that all have in common.
        """
        digest = hashlib.sha256("\n".join(self.classes).encode("utf-8", "surrogateescape"))
        for part in (self.train, self.val):
            names = part.images.names
            common = _common_folder(names)
            digest.update(f"\0{len(part)}\0".encode())
            digest.update(b"\0".join(name[common:] for name in names.tolist()))
            digest.update(part.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def _common_folder(names: Names) -> int:
    """Measure the path of the folder that all names have in common."""
    if not len(names):
        return 0
    first, last = (name.split(b"/")[:-1] for name in (min(names.tolist()), max(names.tolist())))
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return sum(len(folder) + 1 for folder, _ in shared)


class _Coded(NamedTuple):
    """Images, and their classes by their places in `classes`."""

    part: Part
    classes: tuple[str, ...]
    where: Path


def open_trainset(
    root: str | Path,
    *,
    val: str | Path | None = None,
    val_fraction: float | None = None,
    seed: int = 0,
    path_column: str | None = None,
    label_column: str | None = None,
    progress: Progress | None = None,
) -> TrainSet:
    """Find the images to train and to validate with.

    Parameters
    ----------
    root : path
        One of:

        - a folder with ``ILSVRC2012_img_train.tar``, or that file itself; it is read where it
          lies, without unpacking;
        - a folder with ``train``, which holds a folder for each class;
        - a folder that holds a folder for each class;
        - a CSV or Parquet manifest with the columns path, label and, optionally, split: train, val,
          or test, whose images are left alone.
    val : path, optional
        The validation images, as a folder of class folders, a CSV manifest, of which the split
        ``val`` is taken where it has splits, or ILSVRC's flat folder or tar file; by default
        ``val`` or ``ILSVRC2012_img_val.tar`` beside the training images. The classes of ILSVRC's
        are in its development kit or in Caffe's ``val.txt``, beside them or in `root`: see
        :func:`vggfeat.data.datasets.ilsvrc_truth.find_truth`.
    val_fraction : float in (0, 1), optional
        Share of the training images that is drawn, class by class, to validate instead; 0.1 for
        a single set without parts. At least one of a class, where it has two.
    seed : int
        Of that draw.
    path_column, label_column : str, optional
        What a manifest calls these columns, where it is not ``path`` and ``label``.
    progress : callable, optional
        Called with the bytes so far and in all of a tar file that is opened for the first time.

    Raises
    ------
    ParameterError
        If the fraction is not between 0 and 1, or there are validation images already; if columns
        are named, and there is no manifest.
    DataNotFound
        If images, or the classes of ILSVRC's validation images, are not there.
    DataError
        If there are fewer than two classes, training and validation have not the same ones, no
        class has two images to draw from, the name of a class has several lines, or a file is
        damaged.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> found = open_trainset(asset("clipart10"))
    >>> len(found.train), len(found.val), found.classes[:3]
    (270, 30, ('bird', 'boat', 'bug'))
    """
    if val_fraction is not None and not 0 < val_fraction < 1:
        expected = "a float in (0, 1)"
        raise ParameterError.of("val_fraction", "open_trainset", expected, val_fraction)
    root = Path(root)
    if not root.exists():
        raise DataNotFound(
            f"There is no {root}. Name ILSVRC's folder, a folder of class folders or a CSV file."
        )
    if val is not None and not Path(val).exists():
        raise DataNotFound(
            f"There is no {val} to validate with. Name a folder of class folders, a CSV file or a "
            "tar file by --val, or leave it out."
        )
    sources = [str(source) for source in (root, val) if source is not None]
    columns = name_columns(sources, path_column, label_column)
    images, validation, whole = _find(root, progress, columns)
    left_out = LeftOut()
    left_out.add(images.left_out)
    train = _coded(images)
    if val is not None:
        validation = Path(val)
    if len(train.classes) < 2:
        raise DataError(
            f"{train.where} has one class, {train.classes[0]!r}; at least two are needed. Name the "
            "folder above the class folders."
        )
    if validation is None:
        if val_fraction is None and not whole:
            raise DataNotFound(_no_validation(root))
        return replace(_drawn(train, val_fraction or VAL_FRACTION, seed), left_out=left_out)
    if isinstance(validation, Path):
        base = root if root.is_dir() else root.parent
        validation = read_images(validation, [base], progress, columns).take_val()
        left_out.add(validation.left_out)
    if val_fraction is not None:
        expected = f"left out, since there are validation images in {validation.where}"
        raise ParameterError.of("val_fraction", "open_trainset", expected, val_fraction)
    return replace(_matched(train, _coded(validation, train.classes)), left_out=left_out)


def _find(
    root: Path, progress: Progress | None, columns: Columns
) -> tuple[LabelledImages, LabelledImages | Path | None, bool]:
    """Find training and validation images, and whether the first are a set without splits."""
    if is_manifest(str(root)):
        return _from_manifest(root, columns)
    train = find_train(root)
    if train is None:
        return read_class_images(root), None, True
    images = read_class_images(train, progress)
    return images, find_val(root if root.is_dir() else root.parent), False


def _from_manifest(
    path: Path, columns: Columns
) -> tuple[LabelledImages, LabelledImages | None, bool]:
    images = read_images(path, columns=columns)
    if not images.splits:
        return images, None, True
    marked = sum(map(len, images.splits.values()))
    known = {*images.splits} | ({""} if marked < len(images) else set())
    if unknown := sorted(known - set(SPLITS)):
        raise DataError(
            f"{path} has the split {unknown[0]!r}; each image's should be one of "
            f"{', '.join(SPLITS)}. Remove the column to have validation images drawn."
        )
    train, val = (images.take(images.splits.get(name, [])) for name in SPLITS[:2])
    if not len(train):
        raise DataNotFound(f"{path} has no image of the split 'train' to train with. Mark some.")
    return train, val if len(val) else None, False


def _coded(images: LabelledImages, classes: Sequence[str] = ()) -> _Coded:
    """Write classes as places; a flat folder's are named by numbers of these."""
    known, codes = np.unique(images.labels_among(classes), return_inverse=True)
    part = Part(images.images, codes.astype(np.int64))
    return _Coded(part, tuple(map(str, known.tolist())), images.where)


def _matched(train: _Coded, val: _Coded) -> TrainSet:
    if missing := sorted(set(train.classes) - set(val.classes)):
        raise DataError(
            f"{val.where} has no image of {and_more(missing, 'class')}, which {train.where} has: "
            "validation would not see it. Add some, take it out of training, or name no validation "
            "images and have some drawn, by a val_fraction."
        )
    if unknown := sorted(set(val.classes) - set(train.classes)):
        raise DataError(
            f"{train.where} has no image of {and_more(unknown, 'class')}, which {val.where} has: "
            "it could not be learnt. Add some, or take it out of validation."
        )
    return TrainSet(
        train.classes,
        train.part,
        val.part,
        f"{train.where}, validated on {val.where}",
    )


def _drawn(train: _Coded, fraction: float, seed: int) -> TrainSet:
    counts = np.bincount(train.part.labels)
    if counts.max() < 2:
        raise DataError(
            f"Each class of {train.where} has one image, so none can be put aside to validate. "
            "Add images, or name validation images."
        )
    split = held_out_part(np.array(train.classes)[train.part.labels], fraction, seed)
    return TrainSet(
        train.classes,
        train.part.take(split.train),
        train.part.take(split.test),
        f"{train.where}, validated on {fraction:.3g} of each class, drawn with seed {seed}",
        tuple(train.classes[label] for label in np.flatnonzero(counts == 1)),
    )


def _no_validation(root: Path) -> str:
    base = root if root.is_dir() else root.parent
    if is_manifest(str(root)):
        return (
            f"{root} has no image of the split 'val'. Mark some, name others, or have a share of "
            f"the training images drawn, as by a val_fraction of {VAL_FRACTION}."
        )
    if test := find_parts(base).get("test"):
        return (
            f"{base} has {test.relative_to(base).parts[0]}, but no validation images. Validate on "
            f"its images by --val {test}, or have a share of the training images drawn, by "
            f"--val-fraction {VAL_FRACTION}."
        )
    return (
        f"There are no validation images in {base / 'val'} or {base / VAL_TAR}. Put them there, "
        "name others, or have a share of the training images drawn, as by a val_fraction of "
        f"{VAL_FRACTION}."
    )
