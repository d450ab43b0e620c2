"""Where objects are: XML files of VOC's form, one for each image, which ILSVRC has too."""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]
from numpy.typing import NDArray

from vggfeat.data.image import Box
from vggfeat.data.sources.tar import DAMAGED
from vggfeat.errors import DataError, DataNotFound, ImageError

SUFFIX = ".xml"


@dataclass(frozen=True)
class VocObject:
    """An object that an annotation names, with its box in pixels from 1 on, ends included."""

    name: str
    box: Box
    difficult: bool = False

    @property
    def area(self) -> float:
        """Its pixels."""
        xmin, ymin, xmax, ymax = self.box
        return (xmax - xmin + 1) * (ymax - ymin + 1)


class Annotation(NamedTuple):
    """What an XML file says of an image: width and height, (0, 0) if nothing, and its objects."""

    size: tuple[int, int]
    objects: tuple[VocObject, ...]


@dataclass(frozen=True, eq=False)
class Example:
    """An image and one of the classes of its objects.

    Parameters
    ----------
    name, label : str
        Of the image, and of the class.
    size : (int, int)
        Width and height of the image.
    boxes : array, shape (K, 4)
        The class's objects in it, in pixels from 1 on, ends included: the largest that is not
        difficult first, which is the one to learn; then all others, any of which counts as found.
    """

    name: str
    label: str
    size: tuple[int, int]
    boxes: NDArray[np.float64]


def read_annotation(tree: Path, image: str) -> Annotation:
    """Read the annotation of an image, such as ``000026``, of a tree with ``Annotations``.

    Raises
    ------
    DataError
        If there is no annotation, or it is not one.
    """
    path = tree / "Annotations" / f"{image}{SUFFIX}"
    return _parse(_read_file(path), str(path))


def read_annotations(
    sources: Sequence[Path],
    classes: Collection[str] | None = None,
    images: Collection[str] | None = None,
) -> dict[str, Annotation]:
    """Read all XML files of folders, at any depth, and of tars, compressed or not.

    Parameters
    ----------
    sources : sequence of Path
        With ``train/n01440764/n01440764_18.xml``, say, or flat.
    classes : collection of str, optional
        Keep only objects of these; an image without any is left out.
    images : collection of str, optional
        Read only the files of these, named without a suffix; which spares half a million files
        where only ILSVRC's validation is wanted.

    Returns
    -------
    dict
        By the name of the image, without a suffix and without folders.

    Raises
    ------
    DataNotFound
        If there is no such folder or file, or it holds no annotations.
    DataError
        If one is damaged or cannot be read, or an image has two annotations that differ.
    """
    annotations: dict[str, Annotation] = {}
    for source in sources:
        empty = True
        for name, content in _annotation_files(source, images):
            empty = False
            if content is None:
                continue
            size, objects = _parse(content, f"{source}: {name}")
            annotation = Annotation(
                size, tuple(each for each in objects if classes is None or each.name in classes)
            )
            image = PurePosixPath(name).stem
            if annotation.objects and annotations.setdefault(image, annotation) != annotation:
                raise DataError(
                    f"{source}: {name} is a second annotation of {image!r}, which differs from the "
                    "first. Boxes are found by the name of the image, without its folder: rename "
                    "one of the images, or remove one of the annotations."
                )
        if empty:
            raise DataNotFound(
                f"{source} holds no annotations. Name a folder or a tar file of {SUFFIX} files, "
                "one for each image."
            )
    return annotations


def examples_of(name: str, annotation: Annotation, classes: Sequence[str]) -> list[Example]:
    """Make an example of each class that has an object which is not difficult.

    Examples
    --------
    >>> cats = [VocObject("cat", (1, 1, 4, 4)), VocObject("cat", (5, 1, 9, 9))]
    >>> found = examples_of("a", Annotation((20, 10), tuple(cats)), ["bus", "cat"])
    >>> [(one.label, one.boxes[0].tolist()) for one in found]
    [('cat', [5.0, 1.0, 9.0, 9.0])]
    """
    examples = []
    for label in classes:
        objects = [shown for shown in annotation.objects if shown.name == label]
        if not all(shown.difficult for shown in objects):
            ordered = sorted(objects, key=lambda shown: (shown.difficult, -shown.area, shown.box))
            boxes = np.array([shown.box for shown in ordered], dtype=np.float64)
            examples.append(Example(name, label, annotation.size, boxes))
    return examples


def check_stated_size(size: tuple[int, int], stated: tuple[int, int]) -> None:
    """Refuse an image of another size than its annotation states, by an ImageError with both."""
    if size != stated:
        pixels, others = ("×".join(map(str, pair)) for pair in (size, stated))
        raise ImageError(f"it has {pixels} pixels and its annotation states {others}")


def _annotation_files(
    source: Path, images: Collection[str] | None
) -> Iterator[tuple[str, bytes | None]]:
    """Go through the names of all annotations, with the contents of those of some images."""
    if source.is_dir():
        for path in sorted(source.rglob(f"*{SUFFIX}")):
            yield path.name, _read_file(path) if _is_wanted(path.name, images) else None
        return
    if not source.is_file():
        raise DataNotFound(f"There is no {source}. Name a folder or a tar file of {SUFFIX} files.")
    try:
        with tarfile.open(source) as tar:
            yield from _annotation_members(tar, images)
    except DataError:
        raise
    except DAMAGED as error:
        raise DataError(
            f"{source} is no tar file, or is damaged: {error}. Fetch it anew."
        ) from error


def _annotation_members(
    tar: tarfile.TarFile, images: Collection[str] | None, *, nested: bool = True
) -> Iterator[tuple[str, bytes | None]]:
    """Go through the annotations of a tar, and of tars in it, one for each synset."""
    while (member := tar.next()) is not None:
        cast("Any", tar).members.clear()  # half a million of them would fill the memory
        file = tar.extractfile(member) if member.isreg() else None
        if file and member.name.endswith(SUFFIX):
            yield member.name, file.read() if _is_wanted(member.name, images) else None
        elif file and nested and member.name.endswith((".tar", ".tar.gz", ".tgz")):
            with tarfile.open(fileobj=file) as inner:
                yield from _annotation_members(inner, images, nested=False)


def _is_wanted(name: str, images: Collection[str] | None) -> bool:
    return images is None or PurePosixPath(name).stem in images


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}; restore it from its archive"
        ) from error


def _parse(content: bytes, where: str) -> Annotation:
    try:
        root: Element = fromstring(content)
        width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
        objects = tuple(map(_object, root.findall("object")))
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DataError(f"{where} is not an annotation: {error}") from error
    return Annotation((width, height) if min(width, height) > 0 else (0, 0), objects)


def _number(root: Element, path: str) -> int:
    text = (root.findtext(path) or "0").strip()
    return int(text) if text.isdecimal() else 0


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
