"""ILSVRC-2012 as it is distributed, or unpacked: images, their classes, and their boxes.

``ILSVRC2012_img_train.tar`` holds a tar for each class, ``ILSVRC2012_img_val.tar`` holds images;
both are read where they lie, and unpacked they are ``train`` with class folders and a flat ``val``.
Class folders and manifests of one's own are read here too, so that whatever trains or tests on
ILSVRC does so on them.

Two lists tell the classes of flat validation images. The development kit's
``ILSVRC2012_validation_ground_truth.txt`` has a number for each image, in the order of their names;
``meta.mat`` beside it says which synset the number means. Those numbers are *not* the order of the
classes by synset, which the authors' models and this project have: reading them as such is the
classical mistake. Caffe's ``val.txt`` has lines of a name and the number of its class from 0 on, in
the order of ``synsets.txt``, or sorted.

Boxes are XML files in VOC's form, one for each image, ``n01440764/n01440764_18.xml`` or
``ILSVRC2012_val_00000001.xml``, in folders or in tars.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from vggfeat._io.download import Progress
from vggfeat._io.text import and_more
from vggfeat.data.datasets.caltech import read_caltech
from vggfeat.data.datasets.card import DatasetCard, Reader, register
from vggfeat.data.datasets.folders import read_labelled
from vggfeat.data.imageset import ImageSet, one_hot
from vggfeat.data.sources.files import EncodedImages, FileImages, Ints, is_image, list_files, walk
from vggfeat.data.sources.remote import RemoteImage
from vggfeat.data.sources.tar import DAMAGED, read_tar
from vggfeat.errors import DataError, DataNotFound

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
KIT = "ILSVRC2012_devkit_t12"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
CAFFE = "val.txt"
VAL_NAME = "ILSVRC2012_val_{:08d}.JPEG"
# Where boxes are looked for, below the folder of the images: as they are distributed, and as they
# are usually unpacked.
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
    """Images whose classes are known, or are in a list of ILSVRC's.

    Parameters
    ----------
    images : EncodedImages
    where : Path
    labels : ndarray (N,) of str
        The class of each, unless `truth` has it.
    truth : Path, optional
        The list that has the classes: see :func:`find_truth`.
    splits : mapping
        Rows of each split of a manifest.
    loose : int
        Images beside the class folders, which are of no class and left out.
    """

    images: EncodedImages
    where: Path
    labels: np.ndarray[Any, np.dtype[np.str_]] = field(default_factory=lambda: np.array([], str))
    truth: Path | None = None
    splits: Mapping[str, Ints] = field(default_factory=dict)
    loose: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """The different labels, sorted; none where a list has them."""
        return tuple(np.unique(self.labels).tolist())

    def labels_among(self, classes: Sequence[str]) -> list[str]:
        """Return the class of each image.

        Parameters
        ----------
        classes : sequence of str
            What the numbers of a ``val.txt`` mean where no ``synsets.txt`` is beside it.

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
        """Keep those to validate on: of a manifest with splits the split ``val``, or else all.

        Raises
        ------
        DataNotFound
            If there are splits, but no images of that one.
        """
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
        )


@register("ilsvrc")
class IlsvrcReader(Reader):
    """ILSVRC's validation images, in class folders, in one flat folder, or in their tar."""

    def is_tree(self, card: DatasetCard, folder: Path) -> bool:
        """Tell ILSVRC's folder."""
        return find_val(folder) is not None

    def read(self, card: DatasetCard, tree: Path) -> ImageSet:
        """Read the images, with targets; strays are found in class folders alone."""
        val = find_val(tree) or tree / "val"
        if val.is_dir() and any(map(_has_images, _folders(val))):
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


def find_train(root: Path) -> Path | None:
    """Find the training images of ILSVRC's folder: the tar, or ``train`` with class folders.

    Parameters
    ----------
    root : Path
        The folder, or the tar itself.
    """
    tar = root / TRAIN_TAR if root.is_dir() else root
    if tar.is_file():
        return tar
    folder = root / "train"  # a class may have that name, but no folders in it
    return folder if folder.is_dir() and _folders(folder) else None


def find_val(root: Path) -> Path | None:
    """Find the validation images of ILSVRC's folder: ``val``, or the tar."""
    return next((path for path in (root / "val", root / VAL_TAR) if path.exists()), None)


def read_val(root: Path, progress: Progress | None = None) -> LabelledImages:
    """Read images to test on, where nothing to train with need be there.

    Parameters
    ----------
    root : path
        ILSVRC's folder, with ``val`` or ``ILSVRC2012_img_val.tar`` in it, or either itself: a
        folder for each synset, or all in one with the development kit or Caffe's ``val.txt`` beside
        it (see :func:`find_truth`). Or any folder of class folders, or a CSV manifest with the
        columns path and label, of which the split ``val`` is taken where it has splits.
    progress : callable, optional
        Called with bytes while a tar is indexed.

    Raises
    ------
    DataNotFound
        If there are no images, or nothing says their classes.
    DataError
        If a manifest or a tar cannot be used.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> found = read_val(asset("clipart10"))
    >>> len(found), found.labels.tolist()[0], found.loose
    (300, 'bird', 0)
    """
    if root.suffix.lower() == ".csv":
        return read_images(root).take_val()
    where = find_val(root) or root
    if where == root and not (where.is_dir() or where.suffix == ".tar"):
        raise DataNotFound(f"There is no folder {where}. Name ILSVRC's, or one of class folders.")
    if where == root and (root / "train").is_dir():
        raise DataNotFound(
            f"{root} has train, but no val to test on. Put the validation images there, or name "
            "the folder that they are in."
        )
    return read_images(where, [root], progress)


def read_images(
    path: Path, lists: Sequence[Path] = (), progress: Progress | None = None
) -> LabelledImages:
    """Read images of any layout: a manifest, a tar, class folders, or one flat folder.

    Parameters
    ----------
    path : Path
    lists : sequence of Path
        Folders in which ILSVRC's lists are looked for, besides `path` and that above.
    progress : callable, optional
        Called with bytes while a tar is indexed.

    Raises
    ------
    DataNotFound
        If there are no images, or nothing says their classes.
    DataError
        If a file cannot be used.
    """
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    if path.is_file():
        images: EncodedImages = _read_tar(path, progress)
    elif any(map(_has_images, _folders(path))):
        return read_class_folders(path)
    else:
        images = list_files(path, [path])
    if not len(images):
        raise DataNotFound(f"There are no validation images in {path}. Name another folder.")
    if "/" in images.name(0):
        return _labelled_by_folder(images, path)
    return LabelledImages(images, path, truth=find_truth([path.parent, path, *lists]))


def read_class_folders(root: Path) -> LabelledImages:
    """Read a folder that holds a folder for each class.

    Raises
    ------
    DataNotFound
        If there are no images.
    """
    images = list_files(root, _folders(root))
    if not len(images):
        raise DataNotFound(
            f"{root} has no class folders with images, such as {root / 'cat' / '1.jpg'}. Name a "
            f"folder that has them, or has them in train, or holds {TRAIN_TAR}, or a CSV file with "
            "the columns path and label."
        )
    loose = sum(map(is_image, root.iterdir()))
    return replace(_labelled_by_folder(images, root), loose=loose)


def read_class_tar(path: Path, progress: Progress | None = None) -> LabelledImages:
    """Read a tar of a tar, or of a folder, for each class.

    Raises
    ------
    DataNotFound
        If there are no images.
    DataError
        If images are in no class, or it is no tar.
    """
    return _labelled_by_folder(_read_tar(path, progress), path)


def find_truth(places: Sequence[Path]) -> Path:
    """Find the lists of the classes of flat validation images.

    Parameters
    ----------
    places : sequence of Path
        Folders to look in, the likeliest first: for the kit's two files (there, in ``data``, or
        in ``ILSVRC2012_devkit_t12/data``), for ``ILSVRC2012_devkit_t12.tar.gz``, for ``val.txt``.

    Returns
    -------
    Path
        The folder of the kit's two files, the packed kit, or Caffe's ``val.txt``.

    Raises
    ------
    DataNotFound
        If there is none.
    """
    for place in places:
        for folder in (place, place / "data", place / KIT / "data"):
            if (folder / TRUTH).is_file() and (folder / META).is_file():
                return folder
        for file in (place / f"{KIT}.tar.gz", place / CAFFE):
            if file.is_file():
                return file
    looked = ", ".join(str(place) for place in dict.fromkeys(places))
    raise DataNotFound(
        "The validation images lie in no class folders, and no list of their classes was found "
        f"in {looked}. Put {KIT}.tar.gz (or its {TRUTH} and {META}) or Caffe's val.txt there, or "
        "move the images into a folder for each class, val/n01440764/…."
    )


def read_truth(path: Path, classes: Sequence[str]) -> dict[str, str]:
    """Read the class of each validation image.

    Parameters
    ----------
    path : Path
        As :func:`find_truth` finds it.
    classes : sequence of str
        What the numbers of a ``val.txt`` mean where no ``synsets.txt`` is beside it.

    Returns
    -------
    dict
        The synset (wnid) for each name of an image.

    Raises
    ------
    DataError
        If a list cannot be read.
    """
    return _from_caffe(path, classes) if path.name == CAFFE else _from_kit(path)


def read_synsets(content: bytes, path: Path) -> dict[int, str]:
    """Read which synset each ILSVRC2012_ID of ``meta.mat`` means.

    Parameters
    ----------
    content : bytes
    path : Path
        Where it is from, for the error.

    Raises
    ------
    DataError
        If it is damaged, or no ``meta.mat`` of ILSVRC-2012.
    """
    from scipy.io import loadmat  # which takes as long to load as all the rest

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(content), squeeze_me=True)["synsets"])
        return {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
    # Of a damaged file scipy raises errors of a dozen classes.
    except Exception as error:
        raise DataError(
            f"{path} cannot be used: {type(error).__name__}: {error}. Restore it from {KIT}.tar.gz."
        ) from error


def find_boxes(root: Path) -> list[Path]:
    """Find the folders and tars of boxes beside ILSVRC's images.

    Raises
    ------
    DataNotFound
        If there are none.
    """
    sources = [root / name for name in BOXES if (root / name).exists()]
    if not sources:
        raise DataNotFound(
            f"There are no boxes in {root}: neither {', '.join(BOXES)}. Put one there, or say "
            "where they are with --boxes."
        )
    return sources


def _read_csv(path: Path) -> LabelledImages:
    images = read_labelled(str(path))
    places = [
        image.address if isinstance(image, RemoteImage) else str(image) for image in images.images
    ]
    # As a manifest's paths are relative to it, so are these.
    files = FileImages(Path(), _as_bytes(images.names), _as_bytes(places))
    return LabelledImages(files, path, np.array(images.labels), splits=images.splits)


def _as_bytes(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bytes_]]:
    return np.array([os.fsencode(text) for text in texts], dtype=np.bytes_)


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
    return LabelledImages(images, where, np.array(labels))


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _has_images(folder: Path) -> bool:
    """Tell class folders from others, such as the development kit's."""
    return next(walk(folder), None) is not None


def _from_kit(path: Path) -> dict[str, str]:
    truth, meta = _kit_files(path)
    wnids = read_synsets(meta, path / META)
    classes: dict[str, str] = {}
    for line, words in _lines(truth):
        number = int(words[0]) if len(words) == 1 and words[0].isdecimal() else -1
        if number not in wnids:
            raise DataError(
                f"{path / TRUTH}, line {line}: {' '.join(words)!r} is no ILSVRC2012_ID of {META}."
                f" Restore both from {KIT}.tar.gz."
            )
        classes[VAL_NAME.format(line)] = wnids[number]
    return classes


def _kit_files(path: Path) -> tuple[bytes, bytes]:
    """Read the kit's two files, from their folder or from the kit as it is distributed."""
    if path.is_dir():
        return (path / TRUTH).read_bytes(), (path / META).read_bytes()
    try:
        with tarfile.open(path) as kit:
            files = [kit.extractfile(f"{KIT}/data/{name}") for name in (TRUTH, META)]
            truth, meta = (cast("Any", file).read() for file in files)
    except (*DAMAGED, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be used: {error}. Fetch it anew; it holds {KIT}/data/{TRUTH} and "
            f"{META}."
        ) from error
    return truth, meta


def _from_caffe(path: Path, classes: Sequence[str]) -> dict[str, str]:
    listed = path.with_name("synsets.txt")
    names = list(classes)
    if listed.is_file():
        names = [words[0] for _, words in _lines(listed.read_bytes())]
    truth: dict[str, str] = {}
    for line, words in _lines(path.read_bytes()):
        number = int(words[1]) if len(words) == 2 and words[1].isdecimal() else len(names)
        if number >= len(names):
            raise DataError(
                f"{path}, line {line}: {' '.join(words)!r} is not an image's name and the number "
                f"of its class, from 0 to {len(names) - 1}. Put Caffe's synsets.txt beside it, if "
                "the training images are only a part of ILSVRC."
            )
        truth[PurePosixPath(words[0]).name] = names[number]
    return truth


def _lines(content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Go through the words of each line that has any, with its number from 1 on."""
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        if words := line.split():
            yield number, words
