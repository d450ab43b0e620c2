"""PASCAL VOC's layout: image-level labels, persons with actions, boxes (PAPER Section 6)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

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
from vggfeat.data.image import Box, decoded_size
from vggfeat.data.imageset import ImageSet
from vggfeat.data.names import is_hidden
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


def read_voc(tree: Tree, classes: Sequence[str], task: Task = "classification") -> ImageSet:
    """Read the images, splits and labels of one year, a folder such as ``VOC2007``, or several.

    For classification a row is an image, named by its id; for action a person in a given box, named
    ``id#number``, and one who does something else than the ten actions is in all lists, as −1.

    Returns
    -------
    ImageSet
        Rows sorted by name, with targets in the order of `classes`, the splits that are there, and
        boxes for actions. A split with no list of any class, as the test split of 2012, has no
        labels. Rows whose image is not there are left out and named in ``missing``.

    Raises
    ------
    DataError
        If a list or an annotation is damaged, or lists contradict each other.
    """
    if not find_in(tree, "ImageSets", LISTS[task]).is_dir():
        raise DataError(f"{tree} has no ImageSets/{LISTS[task]}. It should be a folder of VOC.")
    labels: dict[Row, dict[str, int]] = {}
    rows = {
        split: _read_split(tree, task, split, classes, labels)
        for split in SPLITS
        if find_in(tree, "ImageSets", LISTS[task], f"{split}.txt").is_file()
    }
    every = sorted({row for of_split in rows.values() for row in of_split})
    there: dict[str, Path] = {}
    for folder in folders_of(tree):
        there = {path.name: path for path in (folder / "JPEGImages").glob("*")} | there
    kept = [row for row in every if f"{row[0]}.jpg" in there]
    if every and not kept:
        _refuse_other_images(find_in(tree, "JPEGImages"), {image for image, _ in every}, there)
    place = {row: at for at, row in enumerate(kept)}
    targets = np.zeros((len(kept), len(classes)), dtype=np.int8)
    for row, at in place.items():
        if row in labels:
            targets[at] = [labels[row][name] for name in classes]
    return ImageSet(
        names=tuple(map(_name_of, kept)),
        images=tuple(there[f"{image}.jpg"] for image, _ in kept),
        targets=targets,
        labelled=np.array([row in labels for row in kept], dtype=bool),
        splits={
            split: np.array([place[row] for row in of_split if row in place], dtype=np.int64)
            for split, of_split in rows.items()
        },
        boxes=tuple(_boxes(tree, kept)) if task == "action" else (),
        missing=tuple(_name_of(row) for row in every if row not in place),
    )


def _refuse_other_images(folder: Path, ids: Collection[str], there: Collection[str]) -> None:
    """Refuse a tree whose images are of another format, so that none is found."""
    if others := sorted(name for name in there if Path(name).stem in ids):
        raise DataError(
            f"{folder} has {others[0]}, and {Path(others[0]).stem}.jpg is looked for. Images of "
            "VOC's layout are called ID.jpg: convert them."
        )


class VocBoxes(NamedTuple):
    """What a year of VOC has to localise; an image with objects of two classes is two examples."""

    classes: tuple[str, ...]
    splits: dict[str, list[ClassBoxes]]  # as far as they are there, sorted by image
    left_out: dict[str, str]  # why images are in no split, by their names


def read_voc_boxes(
    tree: Tree,
    classes: Sequence[str] = (),
    splits: Collection[str] = SPLITS,
    decoding: Decoding = UPRIGHT,
) -> VocBoxes:
    """Read the examples of some splits of a year of VOC, and of nothing that only others show.

    Classes are in the order asked for; by default all that have a list.

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
    left_out: dict[str, str] = {}
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
    return VocBoxes(wanted, held, left_out)


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
    """List the classes of a tree, which have a list of any split; DataNotFound without lists."""
    known = {
        path.name.removesuffix(f"_{split}.txt")
        for split in SPLITS
        for folder in folders_of(tree)
        for path in (folder / "ImageSets" / "Main").glob(f"*_{split}.txt")
        if not is_hidden(path.name)
    }
    if not known:
        lists = sorted(path.name for path in find_in(tree, "ImageSets", "Main").glob("*.txt"))
        has = f"only {', '.join(lists[:NAMED])}" if lists else "nothing there"
        raise DataNotFound(
            f"{tree} has no lists ImageSets/Main/<class>_<split>.txt, which say in which images a "
            f"class is; it has {has}. Write them, or name a folder of VOC, such as "
            "VOCdevkit/VOC2007."
        )
    return sorted(known)


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
    tree: Tree, task: Task, split: str, classes: Sequence[str], labels: dict[Row, dict[str, int]]
) -> list[Row]:
    """List the rows of a split, and add their labels to `labels`."""
    lists = find_in(tree, "ImageSets", LISTS[task], f"{split}.txt").parent
    paths = {name: lists / f"{name}_{split}.txt" for name in classes}
    there = [name for name, path in paths.items() if path.is_file()]
    if not there:
        return _unlabelled(lists / f"{split}.txt", tree, task)
    if absent := [name for name in classes if name not in there]:
        raise DataError(
            f"{paths[absent[0]]} is missing, though {paths[there[0]].name} is there. "
            "Restore it from the original archive."
        )
    rows: dict[Row, None] = {}
    for name, path in paths.items():
        for row, label in _labelled(path, task):
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


def _labelled(path: Path, task: Task) -> Iterator[tuple[Row, int]]:
    """Read ``id label``, or ``id person label``."""
    wanted = 2 if task == "classification" else 3
    for number, fields in _lines(path):
        if len(fields) != wanted or fields[-1] not in _LABELS:
            shape = "id label" if wanted == 2 else "id person label"
            raise DataError(
                f"{path}, line {number}, is {' '.join(fields)!r}; it should be '{shape}' with a "
                "label of -1, 0 or 1."
            )
        yield _row(path, number, fields[:-1]), _LABELS[fields[-1]]


def _unlabelled(path: Path, tree: Tree, task: Task) -> list[Row]:
    """Read ``id`` or ``id person``; where no person is named, all those in the annotation."""
    rows: list[Row] = []
    for number, fields in _lines(path):
        row = _row(path, number, fields)
        if task == "action" and not row[1]:
            objects = read_annotation(tree, row[0]).objects
            rows += [(row[0], k) for k, shown in enumerate(objects, 1) if shown.name == "person"]
        else:
            rows.append(row)
    return sorted(set(rows))


def _row(path: Path, number: int, fields: Sequence[str]) -> Row:
    person = fields[1] if len(fields) > 1 else "0"
    # An id becomes a path: nothing in a list may lead out of the folder of images.
    if len(fields) > 2 or not _PERSON.fullmatch(person) or {"/", "\\"} & set(fields[0]):
        raise DataError(f"{path}, line {number}, is {' '.join(fields)!r}: not an image's id.")
    return fields[0], int(person)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if fields := line.split():
            yield number, fields


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
