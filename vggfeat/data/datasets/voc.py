"""PASCAL VOC's layout: image-level labels, persons with actions, boxes (PAPER Section 6)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Literal, NamedTuple

import numpy as np

from vggfeat._io.text import and_more
from vggfeat.data.datasets.annotations import (
    ClassBoxes,
    Tree,
    VocObject,
    check_boxes,
    check_names,
    check_stated_size,
    examples_of,
    find_annotation,
    find_in,
    folders_of,
    read_annotation,
)
from vggfeat.data.datasets.card import DatasetCard, Reader, register
from vggfeat.data.image import EXTENSIONS, Box, decoded_size
from vggfeat.data.imageset import ImageSet
from vggfeat.data.names import is_hidden
from vggfeat.data.sources.files import is_image
from vggfeat.data.sources.lists import as_text
from vggfeat.errors import DataError, DataNotFound, ImageError, ParameterError
from vggfeat.settings import UPRIGHT, Decoding

Task = Literal["classification", "action"]
SPLITS = ("train", "val", "trainval", "test")
LISTS = {"classification": "Main", "action": "Action"}
Row = tuple[str, int]
"""An image's id, and the number of its person, from 1 on; 0 for the image itself."""
_YEAR = re.compile(r"VOC\d{4}")
_PERSON = re.compile("[0-9]{1,9}")
_LABELS = {"-1": -1, "0": 0, "1": 1}
JPEG = (".jpg", ".jpeg")
NAMED = 4  # lists in a message


@register("voc")
class VocReader(Reader):
    """A year of VOC."""

    needs = ("train", "val", "trainval", "test")
    needs_classes = True

    def is_tree(self, card: DatasetCard, folder: Path) -> bool:
        """Tell the folder of the year: another has the same folders, but not the same images."""
        year = folder.resolve().name
        other = _YEAR.fullmatch(year) is not None and year != Path(card.folder).name
        return not other and (folder / "ImageSets" / LISTS[_task(card)]).is_dir()

    def folders(self, card: DatasetCard, tree: Path) -> tuple[Path, ...]:
        """Return the folders that archives of the year were unpacked to."""
        return find_folders(tree, Path(card.folder).name, _task(card))

    def read(self, card: DatasetCard, tree: Path) -> ImageSet:
        """Read the images, with targets."""
        return read_voc(self.folders(card, tree) or tree, card.classes, _task(card))


def find_folders(path: Path, year: str, task: Task = "classification") -> tuple[Path, ...]:
    """Find the folders of a year at a path or below it, as archives were unpacked to.

    They are one folder; or several, as ``VOCtrainval_06-Nov-2007/VOCdevkit/VOC2007`` beside
    ``VOCtest_06-Nov-2007/VOCdevkit/VOC2007``, none of which has a list that another has.
    """
    if (path / "ImageSets" / LISTS[task]).is_dir():
        return (path,)
    patterns = (year, f"VOCdevkit/{year}", f"*/{year}", f"*/VOCdevkit/{year}")
    folders = dict.fromkeys(folder for pattern in patterns for folder in sorted(path.glob(pattern)))
    joined: dict[Path, set[str]] = {}
    for folder in folders:
        lists = {file.name for file in (folder / "ImageSets" / LISTS[task]).glob("*.txt")}
        if lists and all(lists.isdisjoint(others) for others in joined.values()):
            joined[folder] = lists
    return tuple(joined)


def find_own_tree(path: Path) -> tuple[Path, ...]:
    """Find the folder of a tree of VOC's layout, unless it is one of its years, which have cards.

    Examples
    --------
    >>> find_own_tree(Path("nowhere"))
    ()
    """
    needed = (("ImageSets/Main",), ("Annotations", "JPEGImages"))
    is_tree = any(all((path / name).is_dir() for name in names) for names in needed)
    return (path,) if is_tree and not _YEAR.fullmatch(path.resolve().name) else ()


def read_voc(tree: Tree, classes: Sequence[str], task: Task = "classification") -> ImageSet:
    """Read the images, splits and labels of one year, a folder such as ``VOC2007``, or several.

    For classification a row is an image, named by its id; for action a person in a given box, named
    ``id#number``, and one who does something else than the ten actions is in all lists, as −1.

    Returns
    -------
    ImageSet
        Rows sorted by name, with targets in the order of `classes`, the splits that are there, and
        boxes for actions. A split with no list of any class, as the test split of 2012, has no
        labels. Rows whose image is not there are left out and named in ``missing``. Where no class
        has a list, labels are made of the annotations; images whose own cannot be used are left
        out, and ``unusable`` says why. Without lists of splits, all images that have one count.

    Raises
    ------
    DataError
        If a list or an annotation is damaged, or lists contradict each other.
    """
    may_lack_lists = task == "classification" and find_in(tree, "Annotations").is_dir()
    if not (may_lack_lists or find_in(tree, "ImageSets", LISTS[task]).is_dir()):
        raise DataError(f"{tree} has no ImageSets/{LISTS[task]}. It should be a folder of VOC.")
    there = find_images_of(tree)
    labels: dict[Row, dict[str, int]] = {}
    rows = {
        split: _read_split(tree, task, split, classes, labels, there)
        for split in SPLITS
        if find_in(tree, "ImageSets", LISTS[task], f"{split}.txt").is_file()
    }
    annotated = _Annotated()
    if task == "classification" and not _listed_classes(tree):
        rows = {split: annotated.read(tree, some, classes) for split, some in rows.items()}
        if not rows:
            annotated.read(tree, annotated.choose(tree, there), classes)
        labels = annotated.labels
    every = sorted({row for of_split in rows.values() for row in of_split} | {*annotated.labels})
    kept = [row for row in every if row[0] in there]
    if every and not kept:
        _refuse_other_images(find_in(tree, "JPEGImages"), {image for image, _ in every})
    place = {row: at for at, row in enumerate(kept)}
    targets = np.zeros((len(kept), len(classes)), dtype=np.int8)
    for row, at in place.items():
        if row in labels:
            targets[at] = [labels[row][name] for name in classes]
    return ImageSet(
        names=tuple(map(_name_of, kept)),
        images=tuple(there[image] for image, _ in kept),
        targets=targets,
        labelled=np.array([row in labels for row in kept], dtype=bool),
        splits={
            split: np.array([place[row] for row in of_split if row in place], dtype=np.int64)
            for split, of_split in rows.items()
        },
        boxes=tuple(_boxes(tree, kept)) if task == "action" else (),
        missing=tuple(_name_of(row) for row in every if row not in place),
        unusable=annotated.faults,
        doubts=annotated.doubts(),
    )


def find_images_of(tree: Tree) -> dict[str, Path]:
    """Find the images of a tree, of any format that is read, by their ids; a JPEG comes first."""
    paths = [
        path
        for folder in folders_of(tree)
        for path in sorted((folder / "JPEGImages").glob("*"))
        if is_image(path)
    ]
    there: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: path.suffix.lower() not in JPEG):
        there.setdefault(path.stem, path)
    return there


def _refuse_other_images(folder: Path, ids: Collection[str]) -> None:
    """Refuse a tree whose images are of a format that is not read, so that none is found."""
    if others := sorted(path.name for path in folder.glob("*") if path.stem in ids):
        raise DataError(
            f"{folder} has {others[0]}, which is no image of a format that is read. Convert the "
            "images, such as to .jpg or .png."
        )


class VocBoxes(NamedTuple):
    """What a year of VOC has to localise; an image with objects of two classes is two examples."""

    classes: tuple[str, ...]
    splits: dict[str, list[ClassBoxes]]  # as far as they are there, sorted by image
    left_out: dict[str, str]  # why images are in no split, by their names
    images: dict[str, Path]  # by their names


def read_voc_boxes(
    tree: Tree,
    classes: Sequence[str] = (),
    splits: Collection[str] = SPLITS,
    decoding: Decoding = UPRIGHT,
) -> VocBoxes:
    """Read the examples of some splits of a year of VOC, and of nothing that only others show.

    Classes are in the order asked for; by default all that have a list or, in a tree without lists
    of classes, an object in the annotations of its images.

    Returns
    -------
    VocBoxes
        Without the images whose file is not there, and those of a test split without labels. Left
        out, with a reason, are images that cannot be read, or whose annotation cannot be, or
        contradicts the lists; those that are not of the size that the annotation states, be it
        wrong or that of the image before it is turned upright: their boxes lie somewhere else; and
        those with boxes outside of them. To know it the heads of all files are read, a fifth of a
        millisecond each. An image without objects needs no annotation.

    Raises
    ------
    ParameterError
        If the tree has no such class.
    DataNotFound, DataError
        If it has no lists; if a list is damaged.
    """
    known = classes_in(tree)
    if unknown := [name for name in classes if name not in known]:
        raise ParameterError.not_one_of("class", str(tree), known, unknown[0])
    wanted = tuple(dict.fromkeys(classes)) or tuple(known)
    images = read_voc(tree, wanted)
    assert images.targets is not None
    labelled = np.ones(len(images), bool) if images.labelled is None else images.labelled
    rows = {
        split: [row for row in images.splits[split] if labelled[row]]
        for split in SPLITS
        if split in splits and split in images.splits
    }
    examples: dict[int, list[ClassBoxes]] = {}
    left_out = dict(images.unusable)
    for row in sorted({row for some in rows.values() for row in some}):
        name, path = images.names[row], Path(str(images.images[row]))
        labels = dict(zip(wanted, images.targets[row].tolist(), strict=True))
        examples[row] = []
        try:
            if max(labels.values()) >= 0 or find_annotation(tree, name).is_file():
                examples[row] = _examples(tree, name, path, labels, known, decoding)
        except (DataError, ImageError) as error:
            left_out[name] = str(error)
    held = {
        split: [example for row in of_split for example in examples[row]]
        for split, of_split in rows.items()
    }
    there = {name: Path(str(at)) for name, at in zip(images.names, images.images, strict=True)}
    return VocBoxes(wanted, held, left_out, there)


def _examples(
    tree: Tree,
    name: str,
    path: Path,
    labels: Mapping[str, int],
    known: Sequence[str],
    decoding: Decoding,
) -> list[ClassBoxes]:
    """Read the examples of an image; DataError or ImageError if it is to be left out."""
    annotation = read_annotation(tree, name)
    check_names(annotation, known, labels)
    examples = examples_of(name, annotation, list(labels))
    if not examples:
        return []
    size = decoded_size(path, decoding)
    if annotation.size != (0, 0):
        check_stated_size(size, annotation.size)
    for example in examples:
        check_boxes(example.boxes, size)
    return [replace(example, size=size) for example in examples]


def classes_in(tree: Tree) -> list[str]:
    """List the classes of a tree: those that have a list of any split, or else an object.

    Raises
    ------
    DataNotFound
        If it has neither.
    """
    if known := _listed_classes(tree):
        return sorted(known)
    there = find_images_of(tree)
    paths = [find_in(tree, "ImageSets", "Main", f"{split}.txt") for split in SPLITS]
    rows = [
        row
        for path in paths
        if path.is_file()
        for row in _unlabelled(path, tree, "classification", there)
    ]
    for image, _ in dict.fromkeys(rows or _annotated_rows(tree, there)):
        with suppress(DataError):  # one that is damaged or absent is told where labels are read
            known |= {shown.name for shown in read_annotation(tree, image).objects}
    if not known:
        lists = sorted(path.name for path in find_in(tree, "ImageSets", "Main").glob("*.txt"))
        has = f"only {', '.join(lists[:NAMED])}" if lists else "nothing there"
        raise DataNotFound(
            f"{tree} has no lists ImageSets/Main/<class>_<split>.txt, which say in which images a "
            f"class is, nor annotations of the images of train.txt, val.txt or test.txt there; it "
            f"has {has}. Write them, or name a folder of VOC, such as VOCdevkit/VOC2007."
        )
    return sorted(known)


def _listed_classes(tree: Tree) -> set[str]:
    """Name the classes that have a list of any split."""
    return {
        path.name.removesuffix(f"_{split}.txt")
        for split in SPLITS
        for folder in folders_of(tree)
        for path in (folder / "ImageSets" / "Main").glob(f"*_{split}.txt")
        if not is_hidden(path.name)
    }


def _task(card: DatasetCard) -> Task:
    task: Task = card.protocol.get("task", "classification")
    if task not in LISTS:
        raise DataError(
            f"The card {card.name} has the task {task!r}; it should be {' or '.join(LISTS)}."
        )
    return task


def _name_of(row: Row) -> str:
    image, person = row
    return f"{image}#{person}" if person else image


def _read_split(
    tree: Tree,
    task: Task,
    split: str,
    classes: Sequence[str],
    labels: dict[Row, dict[str, int]],
    there: Collection[str],
) -> list[Row]:
    """List the rows of a split, and add their labels to `labels`."""
    lists = find_in(tree, "ImageSets", LISTS[task], f"{split}.txt").parent
    paths = {name: lists / f"{name}_{split}.txt" for name in classes}
    listed = [name for name, path in paths.items() if path.is_file()]
    if not listed:
        return _unlabelled(lists / f"{split}.txt", tree, task, there)
    if absent := [name for name in classes if name not in listed]:
        raise DataError(
            f"{paths[absent[0]]} is missing, though {paths[listed[0]].name} is there. "
            "Restore it from the original archive."
        )
    rows: dict[Row, None] = {}
    for name, path in paths.items():
        for row, label in _labelled(path, task, there):
            rows[row] = None
            if labels.setdefault(row, {}).setdefault(name, label) != label:
                raise DataError(
                    f"{path} gives {_name_of(row)} the label {label}; another list gives it "
                    f"{labels[row][name]}. Restore them from the original archive."
                )
    for row in rows:
        if without := [name for name in classes if name not in labels[row]]:
            raise DataError(f"{paths[without[0]]} gives no label to {_name_of(row)}.")
    return sorted(rows)


@dataclass
class _Annotated:
    """What annotations say of the images of splits that no list gives labels."""

    labels: dict[Row, dict[str, int]] = field(default_factory=dict)
    unannotated: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)

    def read(self, tree: Tree, rows: Sequence[Row], classes: Sequence[str]) -> list[Row]:
        """Read the labels of a split, and return its rows without those of damaged annotations.

        An image without an annotation shows nothing; where no image has one, nobody knows.
        """
        if not any(find_annotation(tree, image).is_file() for image, _ in rows):
            return list(rows)
        for row in rows:
            if row in self.labels or row[0] in self.faults:
                continue
            objects: tuple[VocObject, ...] = ()
            try:
                if find_annotation(tree, row[0]).is_file():
                    objects = read_annotation(tree, row[0]).objects
                else:
                    self.unannotated.append(row[0])
            except DataError as error:
                self.faults[row[0]] = str(error)
            else:
                self.labels[row] = {name: _label_of(objects, name) for name in classes}
        return [row for row in rows if row in self.labels]

    def choose(self, tree: Tree, there: Iterable[str]) -> list[Row]:
        """Choose the images that have an annotation, where no split says which ones count."""
        rows = _annotated_rows(tree, there)
        self.skipped = sorted({*there} - {image for image, _ in rows})
        return rows

    def doubts(self) -> tuple[str, ...]:
        """Say which images may show more, and which are left out."""
        doubts = []
        if self.skipped:
            doubts.append(f"{and_more(self.skipped, 'image')} without an annotation left out.")
        if self.unannotated:
            doubts.append(
                f"{and_more(self.unannotated, 'image')} without an annotation: taken to show none "
                "of the classes."
            )
        if self.faults:
            doubts.append(
                f"{and_more(list(self.faults), 'image')} left out, for an annotation that cannot "
                f"be used: {next(iter(self.faults.values()))}."
            )
        return tuple(doubts)


def _annotated_rows(tree: Tree, there: Iterable[str]) -> list[Row]:
    return [(image, 0) for image in sorted(there) if find_annotation(tree, image).is_file()]


def _label_of(objects: Sequence[VocObject], name: str) -> int:
    """Return 1 where an object of a class is there, 0 where all are difficult, and -1."""
    difficult = [shown.difficult for shown in objects if shown.name == name]
    return -1 if not difficult else 0 if all(difficult) else 1


def _labelled(path: Path, task: Task, there: Collection[str]) -> Iterator[tuple[Row, int]]:
    """Read ``id label``, or ``id person label``; there may be blanks in the ids of images."""
    wanted = 2 if task == "classification" else 3
    for number, line in _lines(path):
        fields = line.rsplit(None, wanted - 1)
        image = _id_of(fields[0], there)
        is_id = image in there or len(image.split()) == 1
        if len(fields) != wanted or fields[-1] not in _LABELS or not is_id:
            shape = "id label" if wanted == 2 else "id person label"
            raise DataError(
                f"{path}, line {number}, is {line!r}; it should be '{shape}' with a label of -1, "
                "0 or 1."
            )
        person = fields[1] if wanted == 3 else "0"
        yield _row(path, number, image, person), _LABELS[fields[-1]]


def _unlabelled(path: Path, tree: Tree, task: Task, there: Collection[str]) -> list[Row]:
    """Read ``id`` or ``id person``; where no person is named, all those in the annotation."""
    rows: list[Row] = []
    for number, line in _lines(path):
        image, person = _id_of(line, there), "0"
        if task == "action" and image not in there and len(fields := line.rsplit(None, 1)) > 1:
            image, person = _id_of(fields[0], there), fields[1]
        row = _row(path, number, image, person)
        if task == "action" and not row[1]:
            objects = read_annotation(tree, row[0]).objects
            rows += [(row[0], k) for k, shown in enumerate(objects, 1) if shown.name == "person"]
        else:
            rows.append(row)
    return sorted(set(rows))


def _id_of(text: str, there: Collection[str]) -> str:
    """Return the id of an image as its file has it, where a list writes it in another form.

    Lists may compose accents otherwise than the file system does, and write suffixes.
    """
    plain = PurePath(text).stem if PurePath(text).suffix.lower() in EXTENSIONS else text
    forms = [unicodedata.normalize(form, each) for each in (text, plain) for form in ("NFC", "NFD")]
    return next((each for each in (text, plain, *forms) if each in there), text)


def _row(path: Path, number: int, image: str, person: str) -> Row:
    # An id becomes a path: nothing in a list may lead out of the folder of images.
    if not _PERSON.fullmatch(person) or {"/", "\\", "\0"} & set(image):
        raise DataError(f"{path}, line {number}, names {image!r}: not an image's id.")
    return image, int(person)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as file, as_text(file) as text:
            lines = text.read().splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line := line.strip():
            yield number, line


def _boxes(tree: Tree, rows: Sequence[Row]) -> Iterator[Box]:
    image = ""
    objects: tuple[VocObject, ...] = ()
    for row in rows:
        if row[0] != image:
            image, objects = row[0], read_annotation(tree, row[0]).objects
        if not 1 <= row[1] <= len(objects):
            raise DataError(
                f"{find_annotation(tree, image)} has {len(objects)} objects; the lists name "
                f"number {row[1]}."
            )
        yield objects[row[1] - 1].box
