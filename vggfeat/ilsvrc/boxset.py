"""Pictures with boxes to train and test localisation with: ILSVRC's, or those of a VOC tree."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from vggfeat.data.annotations import (
    Annotation,
    Example,
    examples_of,
    read_annotations,
    read_voc_boxes,
)
from vggfeat.data.compose import compose
from vggfeat.data.ilsvrc import Ints
from vggfeat.data.images import FORMATS, decode
from vggfeat.download import Progress
from vggfeat.errors import DataError, DataNotFound, ParameterError, PictureError
from vggfeat.ilsvrc.boxes import Floats, Size, edges
from vggfeat.train.pictures import FilePictures, Part
from vggfeat.train.trainset import TrainSet, open_trainset

SAMPLE = "sample-voc"
# Where ILSVRC's boxes are looked for, below the folder of its pictures: as they are distributed,
# and as they are usually unpacked.
PLACES = (
    "ILSVRC2012_bbox_train_v2.tar.gz",
    "ILSVRC2012_bbox_val_v3.tgz",
    "Annotation",
    "Annotations",
    "bbox_train",
    "bbox_val",
)


@dataclass(frozen=True, eq=False)
class Boxed:
    """A part of a set: a row for each picture and each class that it shows.

    Parameters
    ----------
    part : Part
        Pictures, and their classes by their places in the set's.
    sizes : array, shape (N, 2)
        Width and height of each picture.
    boxes : tuple of N arrays, shape (K, 4)
        Edges of the objects of the class: the one to learn first, then all that count as found.
    """

    part: Part
    sizes: Ints
    boxes: tuple[Floats, ...]

    def __len__(self) -> int:
        return len(self.part)

    @property
    def chosen(self) -> Floats:
        """The box to learn of each row, edges (N, 4)."""
        return np.array([of[0] for of in self.boxes], dtype=np.float64).reshape(-1, 4)

    def pictures(self) -> Iterator[tuple[str, list[int]]]:
        """Go through the pictures, each with its rows, which follow one another."""
        for name, rows in groupby(range(len(self)), self.part.name):
            yield name, list(rows)

    def open(self, row: int) -> Image.Image:
        """Decode the picture of a row.

        Raises
        ------
        PictureError
            If it cannot be read, or is not of the size that its annotation states, as one is that
            is turned upright: then its boxes are not where they belong.
        """
        try:
            image = decode(Image.open(io.BytesIO(self.part.read(row)), formats=FORMATS))
        except PictureError:
            raise
        # Decoders of damaged files raise errors of a dozen classes; all mean the same here.
        except Exception as error:
            raise PictureError(" ".join(f"{type(error).__name__}: {error}".split())) from error
        if image.size != tuple(self.sizes[row]):
            stated = "×".join(map(str, self.sizes[row]))
            raise PictureError(
                f"it has {image.width}×{image.height} pixels and its annotation states {stated}"
            )
        return image

    def take(self, rows: Sequence[int]) -> Boxed:
        """Keep these rows, in this order."""
        return Boxed(self.part.take(rows), self.sizes[rows], tuple(self.boxes[row] for row in rows))


@dataclass(frozen=True, eq=False)
class BoxSet:
    """Pictures with boxes, to train, to validate and to test with.

    Parameters
    ----------
    classes : tuple of str
        Sorted; synsets (wnids) for ILSVRC.
    train, val, test : Boxed
        ILSVRC's test pictures have no public boxes: those of validation stand for them.
    source : str
        Where they are from, in words.
    """

    classes: tuple[str, ...]
    train: Boxed
    val: Boxed
    test: Boxed
    source: str

    @property
    def trainset(self) -> TrainSet:
        """The pictures and their classes, as training takes them."""
        return TrainSet(self.classes, self.train.part, self.val.part, self.source)

    @property
    def digest(self) -> str:
        """SHA-256 of the boxes to learn, of training and validation."""
        told = [one.chosen.astype("<f8").tobytes() for one in (self.train, self.val)]
        return hashlib.sha256(b"\0".join(told)).hexdigest()


def open_boxset(
    root: str | Path,
    *,
    classes: Sequence[str] = (),
    boxes: Sequence[Path] = (),
    progress: Progress | None = None,
) -> BoxSet:
    """Find pictures and their boxes.

    Parameters
    ----------
    root : path
        One of:

        - a year of VOC, ``VOC2007``, or a ``VOCdevkit`` with one year;
        - ``"sample-voc"``, scenes made of the shipped drawings;
        - ILSVRC's folder, as :func:`~vggfeat.train.trainset.open_trainset` takes it.
    classes : sequence of str
        Those that are wanted; all by default.
    boxes : sequence of Path
        Folders or tar files of ILSVRC's XML files; by default those of :data:`PLACES`.
    progress : callable, optional
        Called with bytes while a tar file of pictures is indexed.

    Returns
    -------
    BoxSet
        A picture of VOC with objects of two classes is two rows. The largest object that is not
        difficult is the one to learn, and finding any of them counts. Pictures without objects of
        the classes are left out.

    Raises
    ------
    DataNotFound
        If there are no pictures or no boxes.
    DataError
        If a part has none, or files are damaged.
    ParameterError
        For a class that is not there.
    """
    if str(root) == SAMPLE:
        return _of_voc(compose() / "VOCdevkit" / "VOC2007", classes, SAMPLE)
    path = Path(root)
    if not path.exists():
        raise DataNotFound(
            f"There is no {path}. Name a folder of VOC such as VOCdevkit/VOC2007, ILSVRC's folder, "
            f"or {SAMPLE!r}."
        )
    if tree := _tree(path):
        return _of_voc(tree, classes, str(tree))
    return _of_ilsvrc(path, classes, boxes, progress)


def _tree(path: Path) -> Path | None:
    """Find the year of VOC at a path or below it."""
    years = [path, *sorted(path.glob("VOC*")), *sorted(path.glob("VOCdevkit/VOC*"))]
    found = [one for one in years if (one / "ImageSets" / "Main").is_dir()]
    if len(found) > 1:
        raise DataError(f"{path} has {', '.join(one.name for one in found)}. Name one of them.")
    return found[0] if found else None


def _of_voc(tree: Path, classes: Sequence[str], source: str) -> BoxSet:
    wanted, parts = read_voc_boxes(tree, classes)
    for part in ("train", "val"):
        if not parts.get(part):
            raise DataError(f"{tree} has no {part} picture with an object of {_some(wanted)}.")
    held = {part: _boxed(tree, wanted, examples) for part, examples in parts.items() if examples}
    return BoxSet(wanted, held["train"], held["val"], held.get("test", held["val"]), source)


def _boxed(tree: Path, classes: Sequence[str], examples: Sequence[Example]) -> Boxed:
    names = [os.fsencode(f"JPEGImages/{one.name}.jpg") for one in examples]
    code = {label: number for number, label in enumerate(classes)}
    labels = np.array([code[one.label] for one in examples], dtype=np.int64)
    part = Part(FilePictures(tree, np.array(names, dtype=np.bytes_)), labels)
    sizes = np.array([one.size for one in examples], dtype=np.int64)
    return Boxed(part, sizes, tuple(edges(one.boxes) for one in examples))


def _of_ilsvrc(
    root: Path, classes: Sequence[str], boxes: Sequence[Path], progress: Progress | None
) -> BoxSet:
    pictures = open_trainset(root, progress=progress)
    if unknown := [name for name in classes if name not in pictures.classes]:
        raise ParameterError.not_one_of("class", str(root), pictures.classes, unknown[0])
    wanted = tuple(sorted(set(classes) or pictures.classes))
    base = root if root.is_dir() else root.parent
    sources = list(boxes) or [base / name for name in PLACES if (base / name).exists()]
    if not sources:
        raise DataNotFound(
            f"There are no boxes in {base}: neither {', '.join(PLACES)}. Put one there, or say "
            "where they are with --boxes."
        )
    annotations: dict[str, Annotation] = {}
    for source in sources:
        annotations |= read_annotations(source, wanted)
    train, val = (
        _annotated(part, pictures.classes, wanted, annotations)
        for part in (pictures.train, pictures.val)
    )
    for name, part in (("training", train), ("validation", val)):
        if not len(part):
            where = ", ".join(map(str, sources))
            raise DataError(f"{where} has no box of a {name} picture of {_some(wanted)}.")
    return BoxSet(wanted, train, val, val, pictures.source)


def _annotated(
    part: Part, every: Sequence[str], wanted: Sequence[str], known: Mapping[str, Annotation]
) -> Boxed:
    """Keep the pictures that have a box of their own class."""
    code = {label: number for number, label in enumerate(wanted)}
    rows: list[int] = []
    sizes: list[Size] = []
    boxes: list[Floats] = []
    for row, label in enumerate(part.labels):
        name = PurePosixPath(part.name(row)).stem
        if every[label] not in code or name not in known:
            continue
        for one in examples_of(name, known[name], [every[label]]):
            rows.append(row)
            sizes.append(one.size if min(one.size) > 0 else _size(part, row))
            boxes.append(edges(one.boxes))
    kept = part.take(rows)
    labels = np.array([code[every[label]] for label in kept.labels], dtype=np.int64)
    both = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    return Boxed(Part(kept.pictures, labels), both, tuple(boxes))


def _size(part: Part, row: int) -> Size:
    """Read the size of a picture whose annotation does not state it."""
    with Image.open(io.BytesIO(part.read(row)), formats=FORMATS) as image:
        return image.size


def _some(names: Iterable[str]) -> str:
    first, *rest = names
    return f"{first} and {len(rest)} more classes" if rest else first
