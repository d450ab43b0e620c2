"""What is trained on: pictures with a class each, to train and to validate.

ILSVRC-2012 as it is distributed (a tar file of tar files) or unpacked, any folder of class
folders, or a CSV manifest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vggfeat._io.download import Progress
from vggfeat.data.datasets.folders import read_manifest
from vggfeat.data.datasets.ilsvrc import Ints, read_tar
from vggfeat.data.imageset import ImageSet
from vggfeat.data.sources.files import walk
from vggfeat.errors import DataError, DataNotFound, ParameterError
from vggfeat.learn.splits import held_out_part
from vggfeat.train.devkit import ground_truth
from vggfeat.train.pictures import FilePictures, Part, Pictures

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
VAL_FRACTION = 0.1
SPLITS = ("train", "val", "test")  # of a manifest; the last is left alone
_SHOWN = 3  # names that an error shows


@dataclass(frozen=True, eq=False)
class TrainSet:
    """Pictures to train and to validate with.

    Parameters
    ----------
    classes : tuple of str
        Sorted; for ILSVRC the synsets (wnids), in the order of the authors' Caffe models.
    train, val : Part
    source : str
        Where the training and the validation pictures are from, in words.
    unvalidated : tuple of str
        Classes of one picture, of which none was drawn for validation.

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

    def __post_init__(self) -> None:
        if several := [label for label in self.classes if len(f"{label}.".splitlines()) > 1]:
            raise DataError(
                f"{self.source}: the name of the class {several[0]!r} has several lines. A network "
                "that is trained lists its classes line by line. Rename it."
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the names of classes and pictures and of the labels, not of the pictures.

        Two that agree are trained on in the same order; where they lie does not matter.
        """
        digest = hashlib.sha256("\n".join(self.classes).encode("utf-8", "surrogateescape"))
        for part in (self.train, self.val):
            digest.update(f"\0{len(part)} {part.pictures.names.dtype}\0".encode())
            digest.update(part.pictures.names.tobytes() + part.labels.astype("<i8").tobytes())
        return digest.hexdigest()


class _Labelled(NamedTuple):
    """Pictures with classes of their own."""

    pictures: Pictures
    classes: tuple[str, ...]
    labels: Ints
    where: Path


def open_trainset(
    root: str | Path,
    *,
    val: str | Path | None = None,
    val_fraction: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> TrainSet:
    """Find the pictures to train and to validate with.

    Parameters
    ----------
    root : path
        One of:

        - a folder with ``ILSVRC2012_img_train.tar``, or that file itself; it is read where it
          lies, without unpacking;
        - a folder with ``train``, which holds a folder for each class;
        - a folder that holds a folder for each class;
        - a CSV manifest with the columns path, label and, optionally, split: train, val, or test,
          whose pictures are left alone.
    val : path, optional
        The validation pictures, as a folder of class folders, a CSV manifest, or ILSVRC's flat
        folder or tar file; by default ``val`` or ``ILSVRC2012_img_val.tar`` beside the training
        pictures. The classes of ILSVRC's are in its development kit or in Caffe's ``val.txt``,
        beside them or in `root`: see :func:`vggfeat.train.devkit.ground_truth`.
    val_fraction : float in (0, 1), optional
        Share of the training pictures that is drawn, class by class, to validate instead; 0.1 for
        a single set without parts. At least one of a class, where it has two.
    seed : int
        Of that draw.
    progress : callable, optional
        Called with the bytes so far and in all of a tar file that is opened for the first time.

    Raises
    ------
    ParameterError
        If the fraction is not between 0 and 1, or there are validation pictures already.
    DataNotFound
        If pictures, or the classes of ILSVRC's validation pictures, are not there.
    DataError
        If there are fewer than two classes, training and validation have not the same ones, no
        class has two pictures to draw from, the name of a class has several lines, or a file is
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
    train, validation, whole = _parts(root, progress)
    if val is not None:
        validation = _labelled(Path(val), [root], train.classes, progress)
    if len(train.classes) < 2:
        raise DataError(
            f"{train.where} has one class, {train.classes[0]!r}; at least two are needed. Name the "
            "folder above the class folders."
        )
    if validation is None:
        if val_fraction is None and not whole:
            raise DataNotFound(_no_validation(root))
        return _drawn(train, val_fraction or VAL_FRACTION, seed)
    if val_fraction is not None:
        expected = f"left out, since there are validation pictures in {validation.where}"
        raise ParameterError.of("val_fraction", "open_trainset", expected, val_fraction)
    return _matched(train, validation)


def _parts(root: Path, progress: Progress | None) -> tuple[_Labelled, _Labelled | None, bool]:
    """Find training and validation pictures, and whether the first are a set without parts."""
    if root.suffix.lower() == ".csv":
        return _from_manifest(root)
    tar = root / TRAIN_TAR if root.is_dir() else root
    if tar.is_file():
        train = _by_folder(read_tar(tar, progress), tar)
    elif _folders(root / "train"):  # a class may have that name, but no folders in it
        train = _class_folders(root / "train")
    else:
        return _class_folders(root), None, True
    base = root if root.is_dir() else root.parent
    for beside in (base / "val", base / VAL_TAR):
        if beside.exists():
            return train, _labelled(beside, [base], train.classes, progress), False
    return train, None, False


def _labelled(
    path: Path, places: Sequence[Path], classes: Sequence[str], progress: Progress | None
) -> _Labelled:
    """Open validation pictures of any layout."""
    if path.suffix.lower() == ".csv":
        return _manifest(path, read_manifest(path))
    if path.is_file():
        pictures: Pictures = read_tar(path, progress)
    elif _folders(path):
        return _class_folders(path)
    else:
        pictures = _files(path, [path])
    if not len(pictures.names):
        raise DataNotFound(f"There are no validation pictures in {path}. Name another folder.")
    if b"/" in bytes(pictures.names[0]):
        return _by_folder(pictures, path)
    truth = ground_truth([path.parent, path, *places], classes)
    names = [pictures.name(row) for row in range(len(pictures.names))]
    if unknown := [name for name in names if name not in truth]:
        raise DataError(
            f"{path}: the lists of ILSVRC's validation pictures do not know {_some(unknown)}. "
            "Remove what is not of ILSVRC, or use class folders."
        )
    return _coded(pictures, [truth[name] for name in names], path)


def _from_manifest(path: Path) -> tuple[_Labelled, _Labelled | None, bool]:
    images = read_manifest(path)
    if not images.splits:
        return _manifest(path, images), None, True
    marked = sum(map(len, images.splits.values()))
    known = {*images.splits} | ({""} if marked < len(images) else set())
    if unknown := sorted(known - set(SPLITS)):
        raise DataError(
            f"{path} has the split {unknown[0]!r}; each picture's should be one of "
            f"{', '.join(SPLITS)}. Remove the column to have validation pictures drawn."
        )
    train, val = (images.splits.get(name, np.array([], np.int64)) for name in SPLITS[:2])
    if not len(train):
        raise DataNotFound(f"{path} has no picture of the split 'train' to train with. Mark some.")
    validation = _manifest(path, images.take(val)) if len(val) else None
    return _manifest(path, images.take(train)), validation, False


def _manifest(path: Path, images: ImageSet) -> _Labelled:
    names = [os.fsencode(str(picture)) for picture in images.images]
    return _coded(FilePictures(Path(), np.array(names)), images.labels, path)


def _class_folders(root: Path) -> _Labelled:
    pictures = _files(root, _folders(root))
    if not len(pictures.names):
        raise DataNotFound(
            f"{root} has no class folders with pictures, such as {root / 'cat' / '1.jpg'}. Name a "
            f"folder that has them, or has them in train, or holds {TRAIN_TAR}, or a CSV file with "
            "the columns path and label."
        )
    return _by_folder(pictures, root)


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(root: Path, folders: Iterable[Path]) -> FilePictures:
    """List the pictures below some folders by their paths below the root."""
    start = len(root.absolute().as_posix().rstrip("/")) + 1
    names = [os.fsencode(path.as_posix()[start:]) for at in folders for path in walk(at.absolute())]
    return FilePictures(root, np.array(names, dtype=np.bytes_))


def _by_folder(pictures: Pictures, where: Path) -> _Labelled:
    """Take the first folder of each name for the class."""
    labels = [
        os.fsdecode(bytes(name).rpartition(b"/")[0].split(b"/")[0]) for name in pictures.names
    ]
    if "" in labels:
        raise DataError(
            f"{where} holds pictures, not a tar file or a folder of them for each class. Name "
            f"{TRAIN_TAR}, which does."
        )
    return _coded(pictures, labels, where)


def _coded(pictures: Pictures, labels: Sequence[str], where: Path) -> _Labelled:
    classes = sorted(set(labels))
    code = {label: number for number, label in enumerate(classes)}
    return _Labelled(
        pictures, tuple(classes), np.array([code[label] for label in labels], np.int64), where
    )


def _matched(train: _Labelled, val: _Labelled) -> TrainSet:
    if missing := sorted(set(train.classes) - set(val.classes)):
        raise DataError(
            f"{val.where} has no picture of {_some(missing)}, which {train.where} has: validation "
            "would not see it. Add some, take it out of training, or name no validation pictures "
            "and have some drawn, by a val_fraction."
        )
    if unknown := sorted(set(val.classes) - set(train.classes)):
        raise DataError(
            f"{train.where} has no picture of {_some(unknown)}, which {val.where} has: it could "
            "not be learnt. Add some, or take it out of validation."
        )
    return TrainSet(
        train.classes,
        Part(train.pictures, train.labels),
        Part(val.pictures, val.labels),
        f"{train.where}, validated on {val.where}",
    )


def _drawn(train: _Labelled, fraction: float, seed: int) -> TrainSet:
    counts = np.bincount(train.labels)
    if counts.max() < 2:
        raise DataError(
            f"Each class of {train.where} has one picture, so none can be put aside to validate. "
            "Add pictures, or name validation pictures."
        )
    split = held_out_part(np.array(train.classes)[train.labels], fraction, seed)
    every = Part(train.pictures, train.labels)
    return TrainSet(
        train.classes,
        every.take(split.train),
        every.take(split.test),
        f"{train.where}, validated on {fraction:.3g} of each class, drawn with seed {seed}",
        tuple(train.classes[label] for label in np.flatnonzero(counts == 1)),
    )


def _no_validation(root: Path) -> str:
    base = root if root.is_dir() else root.parent
    if root.suffix.lower() == ".csv":
        return (
            f"{root} has no picture of the split 'val'. Mark some, name others, or have a share of "
            f"the training pictures drawn, as by a val_fraction of {VAL_FRACTION}."
        )
    return (
        f"There are no validation pictures in {base / 'val'} or {base / VAL_TAR}. Put them there, "
        "name others, or have a share of the training pictures drawn, as by a val_fraction of "
        f"{VAL_FRACTION}."
    )


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return f"{shown} and {rest} others" if rest > 0 else shown
