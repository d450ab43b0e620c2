"""Where objects are: XML files of VOC's form, one for each image, which ILSVRC has too."""

from __future__ import annotations

import posixpath
import tarfile
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeAlias, cast
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]
from numpy.typing import NDArray

from vggfeat.data.image import Box
from vggfeat.data.names import is_hidden
from vggfeat.data.sources.tar import DAMAGED
from vggfeat.errors import DataError, DataNotFound, ImageError

SUFFIX = ".xml"
Tree: TypeAlias = Path | Sequence[Path]
"""A year of VOC: its folder, or those that its archives were unpacked to."""


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
    fault: str = ""  # why it cannot be used, if it cannot


class AnnotationFile(NamedTuple):
    """An annotation, and where it lies: a folder or a tar, and its path therein."""

    source: Path
    path: str
    annotation: Annotation


@dataclass(frozen=True, eq=False)
class ClassBoxes:
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


def folders_of(tree: Tree) -> tuple[Path, ...]:
    """Return the folders of a tree, of which there is one unless archives were unpacked apart."""
    return (tree,) if isinstance(tree, Path) else tuple(tree)


def find_in(tree: Tree, *parts: str) -> Path:
    """Find a file or folder in that folder of a tree that has it; in the first if none has."""
    paths = [folder.joinpath(*parts) for folder in folders_of(tree)]
    return next((path for path in paths if path.exists()), paths[0])


def read_annotation(tree: Tree, image: str) -> Annotation:
    """Read the annotation of an image, such as ``000026``, of a tree with ``Annotations``.

    Raises
    ------
    DataError
        If there is no annotation, or it is not one.
    """
    path = find_annotation(tree, image)
    return _parse(_read_file(path), str(path))


def find_annotation(tree: Tree, image: str) -> Path:
    """Find where the annotation of an image of a tree lies, if it has one.

    Its accents may be composed in another way than those of the image's own name.
    """
    path = find_in(tree, "Annotations", f"{image}{SUFFIX}")
    if image.isascii() or path.exists():
        return path
    forms = [unicodedata.normalize(form, image) for form in ("NFC", "NFD")]
    others = [find_in(tree, "Annotations", f"{form}{SUFFIX}") for form in forms]
    return next((other for other in others if other.exists()), path)


def read_annotations(
    sources: Sequence[Path], images: Collection[str] | None = None
) -> list[AnnotationFile]:
    """Read all XML files of folders, at any depth, and of tars, compressed or not.

    Parameters
    ----------
    sources : sequence of Path
        With ``train/n01440764/n01440764_18.xml``, say, or flat.
    images : collection of str, optional
        Read only the files of these, named without a suffix; which spares half a million files
        where only ILSVRC's validation is wanted.

    Returns
    -------
    list of AnnotationFile
        One that is damaged or cannot be read has a fault and no objects: it is of one image, and
        does not stop the others. Which image it is of says
        :func:`~vggfeat.data.datasets.matching.match_annotations`.

    Raises
    ------
    DataNotFound
        If there is no such folder or file, or it holds no annotations.
    DataError
        If a tar is damaged.
    """
    found: list[AnnotationFile] = []
    for source in sources:
        empty = True
        for path, content in _annotation_files(source, images):
            empty = False
            if content is not None:
                found.append(AnnotationFile(source, path, _parse_or_fault(content, source, path)))
        if empty:
            raise DataNotFound(
                f"{source} holds no annotations. Name a folder or a tar file of {SUFFIX} files, "
                "one for each image."
            )
    return found


def examples_of(name: str, annotation: Annotation, classes: Sequence[str]) -> list[ClassBoxes]:
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
            examples.append(ClassBoxes(name, label, annotation.size, boxes))
    return examples


def check_stated_size(size: tuple[int, int], stated: tuple[int, int]) -> None:
    """Refuse an image of another size than its annotation states, by an ImageError with both."""
    if size != stated:
        pixels, others = ("×".join(map(str, pair)) for pair in (size, stated))
        raise ImageError(f"it has {pixels} pixels and its annotation states {others}")


def check_boxes(boxes: NDArray[np.float64], size: tuple[int, int]) -> None:
    """Refuse boxes (K, 4) that cannot be pixels of an image of this size.

    Raises
    ------
    DataError
        If one is given in shares of the image, from 0 to 1, or lies outside of the image.

    Examples
    --------
    >>> check_boxes(np.array([[1, 1, 120, 80]]), (120, 80))
    """
    width, height = size
    for xmin, ymin, xmax, ymax in boxes.tolist():
        box = f"its box {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g}"
        if max(xmax, ymax) <= 1 and min(xmin, ymin) < 1:
            raise DataError(f"{box} is in shares of the image, from 0 to 1; pixels are needed")
        if min(xmax, ymax) < 1 or xmin > width or ymin > height:
            raise DataError(f"{box} lies outside of the image, which has {width}×{height} pixels")


def check_names(annotation: Annotation, known: Collection[str], labels: Mapping[str, int]) -> None:
    """Refuse an annotation whose objects contradict what is known of its image.

    Parameters
    ----------
    annotation : Annotation
    known : collection of str
        All classes that there are.
    labels : mapping of str to int
        What the image shows of some: 1, an object; 0, difficult ones alone; −1, none.

    Raises
    ------
    DataError
        If an object is there that should not be, or one is lacking; if all are of unknown names, or
        one is of a name that differs from a class's in capitals alone.

    Examples
    --------
    >>> cat = Annotation((20, 10), (VocObject("cat", (1, 1, 4, 4)),))
    >>> check_names(cat, ["bus", "cat"], {"bus": -1, "cat": 1})
    """
    names = {shown.name for shown in annotation.objects}
    certain = {shown.name for shown in annotation.objects if not shown.difficult}
    told = ", ".join(map(repr, sorted(names))) or "no object"
    unknown = names - set(known)
    alike = unknown & {name for name in unknown if name.casefold() in map(str.casefold, known)}
    if alike or (unknown and unknown == names):
        first = min(alike or unknown)
        raise DataError(f"its annotation names {first!r}, which is none of the classes")
    for label, said in labels.items():
        if said > 0 and label not in names:
            raise DataError(f"it should show {label!r}, and its annotation has {told}")
        if said < 0 and label in certain:
            raise DataError(f"it should show no {label!r}, and its annotation has {told}")


def _annotation_files(
    source: Path, images: Collection[str] | None
) -> Iterator[tuple[str, bytes | DataError | None]]:
    """Go through the paths of all annotations, with the contents of those of some images."""
    if source.is_dir():
        for path in sorted(source.rglob(f"*{SUFFIX}")):
            below = path.relative_to(source)
            if any(map(is_hidden, below.parts)):
                continue
            try:
                yield below.as_posix(), _read_file(path) if _is_wanted(path.name, images) else None
            except DataError as error:
                yield below.as_posix(), error
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
    tar: tarfile.TarFile, images: Collection[str] | None, folder: str = ""
) -> Iterator[tuple[str, bytes | None]]:
    """Go through the annotations of a tar, and of tars in it, one for each synset."""
    while (member := tar.next()) is not None:
        cast("Any", tar).members.clear()  # half a million of them would fill the memory
        file = tar.extractfile(member) if member.isreg() else None
        name = posixpath.normpath(member.name)
        if file is None or any(map(is_hidden, name.split("/"))):
            continue
        if name.endswith(SUFFIX):
            yield folder + name, file.read() if _is_wanted(name, images) else None
        elif not folder and name.endswith((".tar", ".tar.gz", ".tgz")):
            with tarfile.open(fileobj=file) as inner:
                stem = posixpath.basename(name).partition(".")[0]
                yield from _annotation_members(inner, images, f"{stem}/")


def _is_wanted(name: str, images: Collection[str] | None) -> bool:
    return images is None or PurePosixPath(name).stem in images


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}; restore it from its archive"
        ) from error


def _parse_or_fault(content: bytes | DataError, source: Path, path: str) -> Annotation:
    try:
        if isinstance(content, DataError):
            raise content
        return _parse(content, f"{source}: {path}")
    except DataError as error:
        return Annotation((0, 0), (), str(error))


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
