"""PASCAL VOC's own layout: image-level labels, persons with actions, boxes (PAPER Section 6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import parse  # type: ignore[import-untyped]

from vggfeat.data.images import Box
from vggfeat.data.imagesets import ImageSet
from vggfeat.errors import DataError

Task = Literal["classification", "action"]
PARTS = ("train", "val", "trainval", "test")
LISTS = {"classification": "Main", "action": "Action"}
_PERSON = re.compile("[0-9]{1,9}")
_LABELS = {"-1": -1, "0": 0, "1": 1}


@dataclass(frozen=True)
class VocObject:
    """An object that an annotation names, with its box in pixels from 1 on, ends included."""

    name: str
    box: Box
    difficult: bool = False


def read_voc(tree: Path, classes: Sequence[str], task: Task = "classification") -> ImageSet:
    """Read the pictures, parts and labels of one year.

    Parameters
    ----------
    tree : Path
        Folder with ``Annotations``, ``ImageSets`` and ``JPEGImages``, such as ``VOC2007``.
    classes : sequence of str
        Columns of the targets.
    task : "classification" or "action"
        A row is a picture, named by its id, or a person in a given box, named ``id#number``.

    Returns
    -------
    ImageSet
        Rows sorted by name, with targets, the parts that are there, and boxes for actions. Rows
        whose picture is not there are left out and named in ``missing``.

    Raises
    ------
    DataError
        If a list or an annotation is damaged, or lists contradict each other.

    Notes
    -----
    A part with no list of any class, as the test part of 2012, has no labels. A person of the
    action task who does something else than the ten actions is in all lists, as −1.
    """
    lists = tree / "ImageSets" / LISTS[task]
    if not lists.is_dir():
        raise DataError(f"{tree} has no ImageSets/{LISTS[task]}. It should be a folder of VOC.")
    found = [part for part in PARTS if (lists / f"{part}.txt").is_file()]
    labels: dict[Row, dict[str, int]] = {}
    rows_of: dict[str, list[Row]] = {}
    for part in found:
        rows_of[part] = _read_part(lists, part, classes, labels, tree, task)
    return _image_set(tree, classes, rows_of, labels, task)


def read_objects(tree: Path, picture: str) -> tuple[VocObject, ...]:
    """Read the objects of a picture's annotation, in its order.

    Parameters
    ----------
    tree : Path
        Folder with ``Annotations``.
    picture : str
        The picture's id, such as ``000026``.

    Raises
    ------
    DataError
        If there is no annotation, or it is not one.
    """
    path = tree / "Annotations" / f"{picture}.xml"
    try:
        return objects_of(parse(path).getroot())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: there is no annotation of {picture}.") from error
    except (ParseError, DefusedXmlException, ValueError, LookupError, OSError) as error:
        raise DataError(f"{path} is not a VOC annotation: {error}") from error


def objects_of(annotation: Element) -> tuple[VocObject, ...]:
    """Read the objects of an annotation that is parsed, in its order.

    Raises
    ------
    ValueError
        If an object has no name or no box.

    Examples
    --------
    >>> from xml.etree.ElementTree import fromstring
    >>> box = "<xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax>"
    >>> text = f"<a><object><name>cat</name><bndbox>{box}</bndbox></object></a>"
    >>> objects_of(fromstring(text))
    (VocObject(name='cat', box=(1.0, 2.0, 9.0, 8.0), difficult=False),)
    """
    return tuple(_object(element) for element in annotation.findall("object"))


Row = tuple[str, int]
"""A picture's id, and the number of its person, from 1 on; 0 for the picture itself."""


def row_name(row: Row) -> str:
    """Write a row as a name.

    Examples
    --------
    >>> row_name(("000026", 0)), row_name(("2010_006215", 1))
    ('000026', '2010_006215#1')
    """
    picture, person = row
    return f"{picture}#{person}" if person else picture


def _read_part(
    lists: Path,
    part: str,
    classes: Sequence[str],
    labels: dict[Row, dict[str, int]],
    tree: Path,
    task: Task,
) -> list[Row]:
    """List the rows of a part, and add their labels to `labels`."""
    paths = {name: lists / f"{name}_{part}.txt" for name in classes}
    there = [name for name, path in paths.items() if path.is_file()]
    if not there:
        return _unlabelled(lists / f"{part}.txt", tree, task)
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
                    f"{path} gives {row_name(row)} the label {label}; another list gives it "
                    f"{labels[row][name]}. Restore them from the original archive."
                )
    for row in rows:
        if without := [name for name in classes if name not in labels[row]]:
            raise DataError(f"{paths[without[0]]} gives no label to {row_name(row)}.")
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


def _unlabelled(path: Path, tree: Path, task: Task) -> list[Row]:
    """Read ``id`` or ``id person``; where no person is named, all those in the annotation."""
    rows: list[Row] = []
    for number, fields in _lines(path):
        row = _row(path, number, fields)
        if task == "action" and not row[1]:
            objects = read_objects(tree, row[0])
            rows += [(row[0], k) for k, one in enumerate(objects, 1) if one.name == "person"]
        else:
            rows.append(row)
    return sorted(set(rows))


def _row(path: Path, number: int, fields: Sequence[str]) -> Row:
    person = fields[1] if len(fields) > 1 else "0"
    # An id becomes a path: nothing in a list may lead out of the folder of pictures.
    if len(fields) > 2 or not _PERSON.fullmatch(person) or {"/", "\\"} & set(fields[0]):
        raise DataError(f"{path}, line {number}, is {' '.join(fields)!r}: not a picture's id.")
    return fields[0], int(person)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if fields := line.split():
            yield number, fields


def _image_set(
    tree: Path,
    classes: Sequence[str],
    rows_of: dict[str, list[Row]],
    labels: dict[Row, dict[str, int]],
    task: Task,
) -> ImageSet:
    every = sorted({row for rows in rows_of.values() for row in rows})
    present = _pictures_of(tree, (picture for picture, _ in every))
    kept = [row for row in every if row[0] in present]
    number = {row: at for at, row in enumerate(kept)}
    targets = np.zeros((len(kept), len(classes)), dtype=np.int8)
    for row, at in number.items():
        if row in labels:
            targets[at] = [labels[row][name] for name in classes]
    parts = {
        part: np.array([number[row] for row in rows if row in number], dtype=np.int64)
        for part, rows in rows_of.items()
    }
    return ImageSet(
        names=tuple(map(row_name, kept)),
        pictures=tuple(present[picture] for picture, _ in kept),
        targets=targets,
        labelled=np.array([row in labels for row in kept], dtype=bool),
        parts=parts,
        boxes=tuple(_boxes(tree, kept)) if task == "action" else (),
        missing=tuple(row_name(row) for row in every if row not in number),
    )


def _pictures_of(tree: Path, ids: Iterable[str]) -> dict[str, Path]:
    folder = tree / "JPEGImages"
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {one: folder / f"{one}.jpg" for one in ids if f"{one}.jpg" in there}


def _boxes(tree: Path, rows: Sequence[Row]) -> Iterator[Box]:
    picture = ""
    objects: tuple[VocObject, ...] = ()
    for row in rows:
        if row[0] != picture:
            picture, objects = row[0], read_objects(tree, row[0])
        if not 1 <= row[1] <= len(objects):
            raise DataError(
                f"{tree / 'Annotations' / picture}.xml has {len(objects)} objects; the lists name "
                f"number {row[1]}."
            )
        yield objects[row[1] - 1].box


def _object(element: Element) -> VocObject:
    corners = [float(_text(element, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    xmin, ymin, xmax, ymax = corners
    if not (np.isfinite(corners).all() and xmin <= xmax and ymin <= ymax):
        raise ValueError(f"its box {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g} is empty")
    difficult = element.findtext("difficult", "0").strip() == "1"
    return VocObject(_text(element, "name"), (xmin, ymin, xmax, ymax), difficult)


def _text(element: Element, path: str) -> str:
    text = (element.findtext(path) or "").strip()
    if not text:
        raise ValueError(f"an object has no {path}")
    return text
