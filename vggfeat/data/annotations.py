"""Where objects are: boxes of pictures, from ILSVRC's XML files and from a tree of VOC's.

Both have the same form, a file for each picture: ``n01440764/n01440764_18.xml`` for ILSVRC's
training pictures, ``ILSVRC2012_val_00000001.xml`` for those of validation, and
``Annotations/000026.xml`` for VOC's. ILSVRC's come in folders or in tar files, and are read where
they lie.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

from vggfeat.data.images import FORMATS
from vggfeat.data.voc import PARTS, VocObject, objects_of, read_voc
from vggfeat.errors import DataError, DataNotFound, ParameterError

SUFFIX = ".xml"
_DAMAGED = (tarfile.TarError, zlib.error, EOFError, OSError)


@dataclass(frozen=True)
class Annotation:
    """What an XML file says of a picture.

    Parameters
    ----------
    size : (int, int)
        Width and height; (0, 0) where it does not say.
    objects : tuple of VocObject
        With boxes in pixels from 1 on, ends included.
    """

    size: tuple[int, int]
    objects: tuple[VocObject, ...]

    def named(self, classes: Collection[str]) -> Annotation:
        """Keep the objects of some classes."""
        return Annotation(self.size, tuple(one for one in self.objects if one.name in classes))


@dataclass(frozen=True, eq=False)
class Example:
    """A picture and one of the classes of its objects.

    Parameters
    ----------
    name : str
        The picture's.
    label : str
        The class.
    size : (int, int)
        Width and height of the picture.
    boxes : array, shape (K, 4)
        The class's objects in it, in pixels from 1 on, ends included: the largest that is not
        difficult first, which is the one to learn; then all others, any of which counts as found.
    """

    name: str
    label: str
    size: tuple[int, int]
    boxes: NDArray[np.float64]


def examples_of(name: str, annotation: Annotation, classes: Sequence[str]) -> list[Example]:
    """Make an example of each class that has an object which is not difficult.

    Examples
    --------
    >>> cats = [VocObject("cat", (1, 1, 4, 4)), VocObject("cat", (5, 1, 9, 9))]
    >>> found = examples_of("a", Annotation((20, 10), tuple(cats)), ["bus", "cat"])
    >>> [(one.label, one.boxes[0].tolist()) for one in found]
    [('cat', [5.0, 1.0, 9.0, 9.0])]
    """
    found = []
    for label in classes:
        objects = [one for one in annotation.objects if one.name == label]
        if not all(one.difficult for one in objects):
            ordered = sorted(objects, key=lambda one: (one.difficult, -_area(one), one.box))
            boxes = np.array([one.box for one in ordered], dtype=np.float64)
            found.append(Example(name, label, annotation.size, boxes))
    return found


def read_annotations(source: Path, classes: Collection[str] | None = None) -> dict[str, Annotation]:
    """Read all XML files of a folder, at any depth, or of a tar file.

    Parameters
    ----------
    source : Path
        For ILSVRC, its folder of boxes (``train/n01440764/n01440764_18.xml``, or flat), or the
        tar file they come in, compressed or not.
    classes : collection of str, optional
        Keep only objects of these; a picture without any is left out.

    Returns
    -------
    dict
        By the name of the picture, without a suffix and without folders; sorted.

    Raises
    ------
    DataNotFound
        If there is no such folder or file, or it holds no annotations.
    DataError
        If an annotation, or the tar file, is damaged.
    """
    found: dict[str, Annotation] = {}
    seen = False
    for name, content in _files(source):
        seen = True
        one = _parsed(content, f"{source}: {name}")
        one = one if classes is None else one.named(classes)
        if one.objects:
            found[PurePosixPath(name).stem] = one
    if not seen:
        raise DataNotFound(
            f"{source} holds no annotations. Name a folder or a tar file of {SUFFIX} files, one "
            "for each picture."
        )
    return dict(sorted(found.items()))


def read_voc_boxes(
    tree: Path, classes: Sequence[str] = ()
) -> tuple[tuple[str, ...], dict[str, list[Example]]]:
    """Read the examples of each part of a year of VOC.

    Parameters
    ----------
    tree : Path
        Folder with ``Annotations``, ``ImageSets`` and ``JPEGImages``, such as ``VOC2007``.
    classes : sequence of str
        Those that are wanted; all of the tree's lists by default.

    Returns
    -------
    tuple of str
        The classes, sorted.
    dict of str to list of Example
        By part: train, val, trainval, test, as far as they are there; sorted by picture. A picture
        with objects of two classes is two examples. Pictures whose file is not there, and
        those of a test part without labels, are left out.

    Raises
    ------
    ParameterError
        If the tree has no such class.
    DataError
        If a list or an annotation is damaged.
    """
    lists = tree / "ImageSets" / "Main"
    known = sorted(path.name.removesuffix("_train.txt") for path in lists.glob("*_train.txt"))
    if not known:
        raise DataNotFound(
            f"{tree} has no lists ImageSets/Main/<class>_train.txt. Name a folder of VOC, such as "
            "VOCdevkit/VOC2007."
        )
    if unknown := [name for name in classes if name not in known]:
        raise ParameterError.not_one_of("class", str(tree), known, unknown[0])
    wanted = tuple(sorted(set(classes) or known))
    images = read_voc(tree, wanted)
    annotations: dict[str, list[Example]] = {}
    paths = dict(zip(images.names, map(str, images.pictures), strict=True))
    for name, path in paths.items():
        one = _of_voc(tree, name).named(wanted)
        if one.size == (0, 0) and one.objects:
            one = Annotation(_stored_size(Path(path)), one.objects)
        annotations[name] = examples_of(name, one, wanted)
    parts = {
        part: [one for row in images.parts[part] for one in annotations[images.names[row]]]
        for part in PARTS
        if part in images.parts
    }
    return wanted, parts


def _of_voc(tree: Path, name: str) -> Annotation:
    path = tree / "Annotations" / f"{name}{SUFFIX}"
    try:
        return _parsed(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: there is no annotation of {name}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Go through names and contents of all annotations."""
    if source.is_dir():
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                if name.endswith(SUFFIX):
                    yield name, Path(folder, name).read_bytes()
        return
    if not source.is_file():
        raise DataNotFound(f"There is no {source}. Name a folder or a tar file of {SUFFIX} files.")
    try:
        with tarfile.open(source) as archive:
            yield from _members(archive)
    except _DAMAGED as error:
        raise DataError(
            f"{source} is no tar file, or is damaged: {error}. Fetch it anew."
        ) from error


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Go through the annotations of a tar file, and of tar files in it, one for each synset."""
    for member in archive:
        file = archive.extractfile(member) if member.isreg() else None
        if file is None:
            continue
        if member.name.endswith(SUFFIX):
            yield member.name, file.read()
        elif member.name.endswith((".tar", ".tar.gz", ".tgz")):
            with tarfile.open(fileobj=file) as inner:
                yield from _members(inner)


def _parsed(content: bytes, where: str) -> Annotation:
    try:
        root: Element = fromstring(content)
        size = tuple(_number(root, f"size/{side}") for side in ("width", "height"))
        objects = objects_of(root)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise DataError(f"{where} is not an annotation: {error}") from error
    return Annotation((size[0], size[1]) if min(size) > 0 else (0, 0), objects)


def _number(root: Element, path: str) -> int:
    text: Any = root.findtext(path, "0").strip()
    return int(text) if text.isdecimal() else 0


def _stored_size(path: Path) -> tuple[int, int]:
    """Read a picture's size from its head; (0, 0) where that cannot be done."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.size
    # Decoders of damaged files raise errors of a dozen classes; who decodes it will say which.
    except Exception:
        return (0, 0)


def _area(one: VocObject) -> float:
    xmin, ymin, xmax, ymax = one.box
    return (xmax - xmin + 1) * (ymax - ymin + 1)
