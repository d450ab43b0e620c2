"""The objects of a tree of VOC, by part and class, for localisation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vggfeat.data.annotations import (
    SUFFIX,
    Annotation,
    Example,
    check_size,
    examples_of,
    read_annotation,
    upright_size,
)
from vggfeat.data.voc import PARTS, read_voc
from vggfeat.errors import DataError, DataNotFound, ParameterError, PictureError


class VocBoxes(NamedTuple):
    """What a year of VOC has to localise.

    Parameters
    ----------
    classes : tuple of str
    parts : dict of str to list of Example
        By part, as far as it is there, sorted by picture. A picture with objects of two classes is
        two examples.
    left_out : dict of str to str
        Reasons why pictures with such objects are in no part, by their names.
    """

    classes: tuple[str, ...]
    parts: dict[str, list[Example]]
    left_out: dict[str, str]


def read_voc_boxes(
    tree: Path, classes: Sequence[str] = (), parts: Collection[str] = PARTS
) -> VocBoxes:
    """Read the examples of parts of a year of VOC.

    Parameters
    ----------
    tree : Path
        Folder with ``Annotations``, ``ImageSets`` and ``JPEGImages``, such as ``VOC2007``.
    classes : sequence of str
        Those that are wanted, in their order; by default all that have a list.
    parts : collection of str
        Of train, val, trainval and test. What only the others show is not looked at.

    Returns
    -------
    VocBoxes
        Without the pictures whose file is not there, and those of a test part without labels. Left
        out, with a reason, are pictures that cannot be read and those that are not of the size
        that the annotation states, be it wrong or that of the picture before it is turned upright:
        their boxes lie somewhere else. To know it the heads of all files are read, a fifth of a
        millisecond each.

    Raises
    ------
    ParameterError
        If the tree has no such class.
    DataNotFound
        If it has no lists.
    DataError
        If a list or an annotation is damaged.
    """
    known = classes_in(tree)
    if unknown := [name for name in classes if name not in known]:
        raise ParameterError.not_one_of("class", str(tree), known, unknown[0])
    wanted = tuple(dict.fromkeys(classes)) or tuple(known)
    images = read_voc(tree, wanted)
    labelled = np.ones(len(images), bool) if images.labelled is None else images.labelled
    rows = {
        part: [row for row in images.parts[part] if labelled[row]]
        for part in PARTS
        if part in parts and part in images.parts
    }
    examples: dict[int, list[Example]] = {}
    left_out: dict[str, str] = {}
    for row in sorted({row for some in rows.values() for row in some}):
        name, picture = images.names[row], Path(str(images.pictures[row]))
        found = examples_of(name, _of_voc(tree, name).named(wanted), wanted)
        try:
            examples[row] = [_sized(one, picture) for one in found]
        except PictureError as error:
            examples[row], left_out[name] = [], str(error)
    held = {part: [one for row in some for one in examples[row]] for part, some in rows.items()}
    return VocBoxes(wanted, held, left_out)


def classes_in(tree: Path) -> list[str]:
    """List the classes of a tree: those with a list of a part, whichever are there.

    Raises
    ------
    DataNotFound
        If it has no lists.
    """
    lists = tree / "ImageSets" / "Main"
    known = {
        path.name.removesuffix(f"_{part}.txt")
        for part in PARTS
        for path in lists.glob(f"*_{part}.txt")
    }
    if not known:
        raise DataNotFound(
            f"{tree} has no lists ImageSets/Main/<class>_<part>.txt. Name a folder of VOC, such "
            "as VOCdevkit/VOC2007."
        )
    return sorted(known)


def _sized(one: Example, picture: Path) -> Example:
    """Check the size of an example's picture, or find it where it is not stated."""
    size = upright_size(picture)
    if one.size == (0, 0):
        return replace(one, size=size)
    check_size(size, one.size)
    return one


def _of_voc(tree: Path, name: str) -> Annotation:
    path = tree / "Annotations" / f"{name}{SUFFIX}"
    if not path.exists():
        raise DataError(f"{path} is missing: there is no annotation of {name}.")
    return read_annotation(path)
