"""Images with boxes to train and test localisation with: ILSVRC's, or those of a VOC tree."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from vggfeat._io.download import Progress
from vggfeat._io.text import and_more, counted
from vggfeat.classification.classes import chosen, ilsvrc_classes, named
from vggfeat.classification.validation import match_classes
from vggfeat.data.datasets.annotations import (
    Annotation,
    ClassBoxes,
    check_boxes,
    check_names,
    check_stated_size,
    examples_of,
    read_annotations,
)
from vggfeat.data.datasets.ilsvrc import find_boxes, find_val, read_images
from vggfeat.data.datasets.matching import match_annotations
from vggfeat.data.datasets.sample_voc import compose
from vggfeat.data.datasets.voc import VocBoxes, classes_in, find_folders, read_voc_boxes
from vggfeat.data.image import ImageRef, decode, decoded_size, open_encoded
from vggfeat.data.sources.files import EncodedImages, FileImages, Ints, Names
from vggfeat.data.sources.lists import is_manifest
from vggfeat.data.sources.tar import TarMember
from vggfeat.errors import DataError, DataNotFound, ImageError, ParameterError
from vggfeat.localization.boxes import Floats, Size, edges
from vggfeat.settings import UPRIGHT, Decoding
from vggfeat.train.data import Part, TrainSet, open_trainset

SAMPLE = "sample-voc"
PARTS = ("train", "val", "test")
VAL_FOR_TEST = (
    "val, since there are no test labels; it also chose the weights of nets that were trained on "
    "this set, so that its errors are too low for new images"
)


@dataclass(frozen=True, eq=False)
class SizedImages(EncodedImages):
    """Images that are refused when they are read, if they are not of the size stated for them.

    So whoever reads them leaves out those whose boxes lie elsewhere, as it does with damaged
    ones, and the heads of half a million files need not be read beforehand; it takes a hundredth
    of the time of decoding.

    Parameters
    ----------
    images : EncodedImages
    sizes : array, shape (N, 2)
        Width and height of each, once it is decoded.
    decoding : Decoding
        How they become pixels.
    """

    images: EncodedImages
    sizes: Ints
    decoding: Decoding = UPRIGHT
    names: Names = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", self.images.names)

    def image(self, row: int) -> Path | ImageRef:
        """Return where an image is."""
        return self.images.image(row)

    def read(self, row: int) -> bytes:
        """Read the bytes of an image.

        Raises
        ------
        ImageError
            If that cannot be done, or the image is of another size.
        """
        content = self.images.read(row)
        width, height = self.sizes[row].tolist()
        check_stated_size(decoded_size(content, self.decoding), (width, height))
        return content

    def take(self, rows: ArrayLike) -> Self:
        """Keep these rows, in this order."""
        kept = np.asarray(rows, dtype=np.int64)
        return replace(self, images=self.images.take(kept), sizes=self.sizes[kept])


@dataclass(frozen=True, eq=False)
class BoxDataset:
    """A part of a set: a row for each image and each class that it shows.

    Parameters
    ----------
    part : Part
        Images, and their classes by their places in the set's.
    sizes : array, shape (N, 2)
        Width and height of each image.
    boxes : tuple of N arrays, shape (K, 4)
        Edges of the objects of the class: the one to learn first, then all that count as found.
    decoding : Decoding
        How images become pixels, in which boxes are.
    """

    part: Part
    sizes: Ints
    boxes: tuple[Floats, ...]
    decoding: Decoding = UPRIGHT

    def __len__(self) -> int:
        return len(self.part)

    @property
    def chosen(self) -> Floats:
        """The box to learn of each row, edges (N, 4)."""
        return np.array([of[0] for of in self.boxes], dtype=np.float64).reshape(-1, 4)

    def images(self) -> Iterator[tuple[str, list[int]]]:
        """Go through the images, each with its rows, which follow one another."""
        for name, rows in groupby(range(len(self)), self.part.name):
            yield name, list(rows)

    def open(self, row: int) -> Image.Image:
        """Decode the image of a row.

        Raises
        ------
        ImageError
            If it cannot be read, or is not of the size that its annotation states: as a wrong
            annotation's, or one of an image before it was turned upright. Its boxes lie
            somewhere else.
        """
        with open_encoded(self.part.read(row)) as opened:
            image = decode(opened, self.decoding)
        width, height = self.sizes[row].tolist()
        check_stated_size(image.size, (width, height))
        return image

    def take(self, rows: Sequence[int]) -> BoxDataset:
        """Keep these rows, in this order."""
        kept = np.asarray(rows, dtype=np.int64)
        boxes = tuple(self.boxes[k] for k in kept)
        return replace(self, part=self.part.take(kept), sizes=self.sizes[kept], boxes=boxes)


@dataclass(frozen=True, eq=False)
class BoxSet:
    """Images with boxes, to train, to validate and to test with.

    Parameters
    ----------
    classes : tuple of str
        Synsets (wnids) for ILSVRC.
    train, val, test : BoxDataset
        Empty where it was not asked for. ILSVRC's test images have no public boxes: those of
        validation stand for them, as where VOC's test part has no labels.
    source : str
        Where they are from, in words.
    left_out : dict of str to str
        Reasons why images that have boxes are in no part, by their names.
    tested : str
        The part that `test` is, in words.
    """

    classes: tuple[str, ...]
    train: BoxDataset
    val: BoxDataset
    test: BoxDataset
    source: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    tested: str = "test"

    @property
    def trainset(self) -> TrainSet:
        """The images and their classes, as training takes them."""
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
    parts: Collection[str] = PARTS,
    decoding: Decoding = UPRIGHT,
    progress: Progress | None = None,
) -> BoxSet:
    """Find images and their boxes.

    Parameters
    ----------
    root : path
        One of:

        - a year of VOC, ``VOC2007``, or a ``VOCdevkit`` with one year;
        - ``"sample-voc"``, scenes made of the shipped drawings;
        - ILSVRC's folder, as :func:`~vggfeat.train.data.open_trainset` takes it.
    classes : sequence of str
        Those that are wanted; all by default. To train with, ILSVRC's may be synsets or names, and
        they are sorted; to test with they are left in their order, which is that of a net's
        outputs.
    boxes : sequence of Path
        Folders or tars of ILSVRC's XML files; by default those of
        :data:`~vggfeat.data.datasets.ilsvrc.BOXES`.
    parts : collection of str
        Of train, val and test, those that are wanted. Where it is test alone, neither images
        nor boxes of training are looked at, and need not be there.
    decoding : Decoding
        How images become pixels: whether boxes are in images that are turned upright.
    progress : callable, optional
        Called with bytes while a tar file of images is indexed.

    Returns
    -------
    BoxSet
        An image of VOC with objects of two classes is two rows. The largest object that is not
        difficult is the one to learn, and finding any of them counts. Images without objects of
        the classes are left out.

    Notes
    -----
    An image whose boxes cannot be placed, since it is damaged or not of the size that its
    annotation states, is left out. Of VOC all are looked at here, and ``left_out`` names them; of
    ILSVRC only those whose size is not stated. The others are looked at when they are read, and
    whoever reads them counts them among the images that failed. An annotation that is damaged, has
    boxes outside of the image or other classes than the lists or the folders say leaves out its
    image alone, and ``left_out`` says why.

    Raises
    ------
    DataNotFound
        If there are no images or no boxes.
    DataError
        If a part has none, or files are damaged.
    ParameterError
        For a class or a part that is not there.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise ParameterError.not_one_of("parts", "open_boxset", PARTS, unknown[0])
    wanted = tuple(dict.fromkeys(classes) if set(parts) == {"test"} else sorted(set(classes)))
    if str(root) == SAMPLE:
        _refuse_boxes(boxes, SAMPLE)
        return _of_voc((compose() / "VOCdevkit" / "VOC2007",), wanted, parts, SAMPLE, decoding)
    path = Path(root)
    if not path.exists():
        raise DataNotFound(
            f"There is no {path}. Name a folder of VOC such as VOCdevkit/VOC2007, ILSVRC's folder, "
            f"or {SAMPLE!r}."
        )
    if folders := _voc_folders(path):
        source = str(folders[0] if len(folders) == 1 else path)
        _refuse_boxes(boxes, source)
        return _of_voc(folders, wanted, parts, source, decoding)
    if (path / "JPEGImages").is_dir():
        raise DataNotFound(_no_list(path, "train"))
    if set(parts) == {"test"}:
        return _test_of_ilsvrc(path, wanted, boxes, decoding, progress)
    return _of_ilsvrc(path, wanted, boxes, parts, decoding, progress)


def _refuse_boxes(boxes: Sequence[Path], source: str) -> None:
    if boxes:
        raise ParameterError(
            f"--boxes is for ILSVRC; those of {source} lie in its own Annotations. Leave it out."
        )


def _voc_folders(path: Path) -> tuple[Path, ...]:
    """Find the folders of the one year of VOC at a path or below it, if there is one."""
    patterns = ("VOC*", "VOCdevkit/VOC*", "*/VOC*", "*/VOCdevkit/VOC*")
    below = [folder for pattern in patterns for folder in path.glob(pattern)]
    years = sorted({each.name for each in below if (each / "ImageSets" / "Main").is_dir()})
    if len(years) > 1 and not (path / "ImageSets").is_dir():
        raise DataError(f"{path} has {', '.join(years)}. Name one of them.")
    return find_folders(path, years[0] if years else path.name)


def _of_voc(
    tree: tuple[Path, ...],
    classes: Sequence[str],
    parts: Collection[str],
    source: str,
    decoding: Decoding,
) -> BoxSet:
    if set(parts) == {"test"}:
        _check_of_net(source, classes, classes_in(tree))
    found = read_voc_boxes(tree, classes, parts, decoding)
    tested = "test"
    if "test" in parts and not found.splits.get("test"):  # as that of 2012, which has no labels
        tested = VAL_FOR_TEST
        more = read_voc_boxes(tree, classes, {*parts, "val"}, decoding)
        found = more._replace(splits={**more.splits, "test": more.splits.get("val", [])})
    for part in parts:
        if part not in found.splits:
            raise DataNotFound(_no_list(source, part))
        if not found.splits[part]:
            raise DataError(_nothing(source, part, found.classes, found.left_out))
    held = {
        part: _boxed(tree, found, found.splits[part] if part in parts else [], decoding)
        for part in PARTS
    }
    return BoxSet(found.classes, **held, source=source, left_out=found.left_out, tested=tested)


def _no_list(where: Path | str, part: str) -> str:
    return (
        f"{where} has no ImageSets/Main/{part}.txt, which says which images are of {part}. Write "
        "it: the name of an image, without its suffix, in each line."
    )


def _boxed(
    tree: tuple[Path, ...],
    found: VocBoxes,
    examples: Sequence[ClassBoxes],
    decoding: Decoding,
) -> BoxDataset:
    root = Path(os.path.commonpath(tree))
    paths = [found.images[example.name] for example in examples]
    names = [os.fsencode(path.relative_to(root).as_posix()) for path in paths]
    code = {label: number for number, label in enumerate(found.classes)}
    labels = np.array([code[one.label] for one in examples], dtype=np.int64)
    part = Part(FileImages(root, np.array(names, dtype=np.bytes_)), labels)
    sizes = np.array([one.size for one in examples], dtype=np.int64)
    return BoxDataset(part, sizes, tuple(edges(one.boxes) for one in examples), decoding)


def _of_ilsvrc(
    root: Path,
    classes: Sequence[str],
    boxes: Sequence[Path],
    parts: Collection[str],
    decoding: Decoding,
    progress: Progress | None,
) -> BoxSet:
    images = open_trainset(root, progress=progress)
    wanted = tuple(sorted(chosen(classes, images.classes, str(root)))) or images.classes
    sources = _sources(root, boxes)
    left_out: dict[str, str] = {}
    both = (images.train, images.val)
    train, val = _annotated(root, both, images.classes, wanted, sources, left_out, decoding)
    held = {"train": train, "val": val, "test": val}
    for name in parts:
        if not len(held[name]):
            where = ", ".join(map(str, sources))
            raise DataError(_nothing(where, name, wanted, left_out))
    held = {name: one if name in parts else one.take([]) for name, one in held.items()}
    return BoxSet(wanted, **held, source=images.source, left_out=left_out, tested=VAL_FOR_TEST)


def _test_of_ilsvrc(
    root: Path,
    classes: Sequence[str],
    boxes: Sequence[Path],
    decoding: Decoding,
    progress: Progress | None,
) -> BoxSet:
    """Open the validation images; those of training need not be there."""
    every, part, where = _val_of_ilsvrc(root, classes, progress)
    if not set(classes) & set(every):
        _check_of_net(where, classes, every)
    wanted = tuple(classes) or every
    sources = _sources(root, boxes)
    if not boxes:  # half a million files, of which none is of these images
        sources = [source for source in sources if "train" not in source.name] or sources
    left_out: dict[str, str] = {}
    [test] = _annotated(root, (part,), every, wanted, sources, left_out, decoding)
    if not len(test):
        raise DataError(_nothing(", ".join(map(str, sources)), "test", wanted, left_out))
    none = test.take([])
    return BoxSet(wanted, none, none, test, where, left_out, VAL_FOR_TEST)


def _val_of_ilsvrc(
    root: Path, classes: Sequence[str], progress: Progress | None
) -> tuple[tuple[str, ...], Part, str]:
    """Read validation images, which stand for test images; return all classes, too, and where.

    Of a set without splits, they are those that training would draw to validate with.
    """
    base = root if root.is_dir() else root.parent
    if is_manifest(str(root)):
        images = read_images(root)
        every = images.classes
        val = images.take_val() if images.splits else None
    else:
        where = find_val(base)
        val = read_images(where, [base], progress) if where else None
        every = (val.classes if val else ()) or _known(classes)
    if val is None:
        drawn = open_trainset(root, progress=progress)
        return drawn.classes, drawn.val, drawn.source
    labels = match_classes(val, named(every)).labels
    return every, Part(val.images, labels), str(val.where)


def _known(classes: Sequence[str]) -> tuple[str, ...]:
    """Take ILSVRC's classes, if those of the net are among them, or else the net's."""
    every = ilsvrc_classes().keys
    return every if set(classes) <= set(every) else tuple(classes)


def _sources(root: Path, boxes: Sequence[Path]) -> list[Path]:
    return list(boxes) or find_boxes(root if root.is_dir() else root.parent)


def _annotated(
    root: Path,
    parts: Sequence[Part],
    every: Sequence[str],
    wanted: Sequence[str],
    sources: Sequence[Path],
    left_out: dict[str, str],
    decoding: Decoding,
) -> list[BoxDataset]:
    """Keep the images of each part that have a box of their own class."""
    base = root if root.is_dir() else root.parent
    places = [_place(part, row, base) for part in parts for row in range(len(part))]
    stems = {PurePosixPath(place).stem for place in places}
    found = match_annotations(places, read_annotations(sources, stems))
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    return [
        _with_boxes(part, every, wanted, found, start, left_out, decoding)
        for part, start in zip(parts, starts, strict=False)
    ]


def _place(part: Part, row: int, base: Path) -> str:
    """Tell where an image lies, from the folder of the set on."""
    image, name = part.images.image(row), part.name(row)
    if isinstance(image, TarMember):
        return f"{PurePosixPath(image.archive).name}/{name}"
    if isinstance(image, Path) and image.is_relative_to(base):
        return image.relative_to(base).as_posix()
    return name


def _with_boxes(
    part: Part,
    every: Sequence[str],
    wanted: Sequence[str],
    annotations: Mapping[int, Annotation],
    start: int,
    left_out: dict[str, str],
    decoding: Decoding,
) -> BoxDataset:
    code = {label: number for number, label in enumerate(wanted)}
    rows: list[int] = []
    sizes: list[Size] = []
    boxes: list[Floats] = []
    for row, number in enumerate(part.labels):
        label, annotation = every[number], annotations.get(start + row)
        if label not in code or annotation is None:
            continue
        name = part.name(row)
        try:
            if annotation.fault:
                raise DataError(annotation.fault)
            check_names(annotation, every, {label: 1})
            for example in examples_of(name, annotation, [label]):
                size = example.size if min(example.size) > 0 else _size(part, row, decoding)
                check_boxes(example.boxes, size)
                rows.append(row)
                sizes.append(size)
                boxes.append(edges(example.boxes))
        except (DataError, ImageError) as error:
            left_out[name] = str(error)
    kept = part.take(rows)
    labels = np.array([code[every[label]] for label in kept.labels], dtype=np.int64)
    both = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    images = SizedImages(kept.images, both, decoding)
    return BoxDataset(Part(images, labels), both, tuple(boxes), decoding)


def _size(part: Part, row: int, decoding: Decoding) -> Size:
    """Read the size of an image whose annotation does not state it."""
    return decoded_size(part.read(row), decoding)


def _nothing(where: str, part: str, classes: Sequence[str], left_out: Mapping[str, str]) -> str:
    """Say that a part has no image, and why, if there would be some."""
    said = f"{where} has no box of a {part} image of {_some(classes)}"
    if not left_out:
        return f"{said}."
    name, reason = next(iter(left_out.items()))
    return f"{said} that can be used: {len(left_out)} were left out, such as {name}: {reason}."


def _check_of_net(where: str, classes: Sequence[str], every: Sequence[str]) -> None:
    """Refuse images to test a net on that are of other classes than it knows."""
    if unknown := [key for key in classes if key not in every]:
        raise DataError(
            f"{where} has no images of {and_more(unknown, 'class')} of the net: its own classes "
            f"are {_few(every)}. Name a set that has those that the net was trained on."
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", …" * (len(names) > 3)


def _some(names: Iterable[str]) -> str:
    first, *rest = names
    return f"{first} and {counted(len(rest), 'more class')}" if rest else first
