"""Where objects are: boxes of pictures, from XML files of ILSVRC and of VOC.

Both have the same form, a file for each picture: ``n01440764/n01440764_18.xml`` for ILSVRC's
training pictures, ``ILSVRC2012_val_00000001.xml`` for those of validation, and
``Annotations/000026.xml`` for VOC's. ILSVRC's come in folders or in tar files, and are read where
they lie.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vggfeat.data import tarring
from vggfeat.data.bounds import unwarned
from vggfeat.data.images import FORMATS
from vggfeat.data.voc import VocObject, objects_of
from vggfeat.errors import DataError, DataNotFound, PictureError

SUFFIX = ".xml"
ORIENTATION = 0x0112  # of EXIF
ON_ITS_SIDE = range(5, 9)  # orientations whose upright picture has width and height exchanged
LARGEST = 1 << 20  # bytes of an annotation; the longest of ILSVRC has 20,000


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


def read_annotations(
    source: Path,
    classes: Collection[str] | None = None,
    pictures: Collection[str] | None = None,
) -> dict[str, Annotation]:
    """Read all XML files of a folder, at any depth, or of a tar file.

    Parameters
    ----------
    source : Path
        For ILSVRC, its folder of boxes (``train/n01440764/n01440764_18.xml``, or flat), or the
        tar file they come in, compressed or not.
    classes : collection of str, optional
        Keep only objects of these; a picture without any is left out.
    pictures : collection of str, optional
        Read only the files of these, named without a suffix; which spares half a million files
        where only ILSVRC's validation is wanted.

    Returns
    -------
    dict
        By the name of the picture, without a suffix and without folders; sorted.

    Raises
    ------
    DataNotFound
        If there is no such folder or file, or it holds no annotations.
    DataError
        If an annotation, or the tar file, is damaged or cannot be read.
    """
    found: dict[str, Annotation] = {}
    seen = False
    for name, content in _files(source, pictures):
        seen = True
        if content is None:
            continue
        one = _parsed(content, f"{source}: {name}")
        one = one if classes is None else one.named(classes)
        if one.objects:
            found[_stem(name)] = one
    if not seen:
        raise DataNotFound(
            f"{source} holds no annotations. Name a folder or a tar file of {SUFFIX} files, one "
            "for each picture."
        )
    return dict(sorted(found.items()))


def read_annotation(path: Path) -> Annotation:
    """Read one XML file.

    Raises
    ------
    DataError
        If it cannot be read, or is none.
    """
    return _parsed(_read(path), str(path))


def check_size(found: tuple[int, int], stated: tuple[int, int]) -> None:
    """Refuse a picture of another size than its annotation states.

    Raises
    ------
    PictureError
        With both.
    """
    if found != stated:
        pixels, others = ("×".join(map(str, size)) for size in (found, stated))
        raise PictureError(f"it has {pixels} pixels and its annotation states {others}")


@unwarned()
def upright_size(file: Path | IO[bytes]) -> tuple[int, int]:
    """Read the width and height of a picture, turned upright, from its head.

    Raises
    ------
    PictureError
        If that cannot be done.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            turned = image.getexif().get(ORIENTATION) in ON_ITS_SIDE
    except UnidentifiedImageError as error:
        raise PictureError("not a picture of a format that is read") from error
    # Decoders of damaged files raise errors of a dozen classes; all mean the same here.
    except Exception as error:
        raise PictureError(" ".join(f"{type(error).__name__}: {error}".split())) from error
    return (height, width) if turned else (width, height)


def _files(source: Path, pictures: Collection[str] | None) -> Iterator[tuple[str, bytes | None]]:
    """Go through the names of all annotations, with the contents of those of some pictures."""
    if source.is_dir():
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                if name.endswith(SUFFIX):
                    wanted = _wanted(name, pictures)
                    yield name, _read(Path(folder, name)) if wanted else None
        return
    if not source.is_file():
        raise DataNotFound(f"There is no {source}. Name a folder or a tar file of {SUFFIX} files.")
    try:
        with source.open("rb") as file, tarring.opened(file, packed=True) as archive:
            yield from _members(archive, pictures)
    except DataError:
        raise
    except tarring.DAMAGED as error:
        raise DataError(
            f"{source} is no tar file, or is damaged: {error}. Fetch it anew."
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _wanted(name: str, pictures: Collection[str] | None) -> bool:
    return pictures is None or _stem(name) in pictures


def _members(
    archive: tarfile.TarFile, pictures: Collection[str] | None, *, nested: bool = True
) -> Iterator[tuple[str, bytes | None]]:
    """Go through the annotations of a tar file, and of tar files in it, one for each synset."""
    for member in tarring.members(archive):
        file = archive.extractfile(member) if member.isreg() else None
        if file is None:
            continue
        if member.name.endswith(SUFFIX):
            if member.size > LARGEST:
                raise DataError(f"{member.name} has {member.size:,} bytes: it is no annotation.")
            yield member.name, file.read() if _wanted(member.name, pictures) else None
        elif nested and member.name.endswith((".tar", ".tar.gz", ".tgz")):
            with tarring.opened(file, packed=True) as inner:
                yield from _members(inner, pictures, nested=False)


def _parsed(content: bytes, where: str) -> Annotation:
    try:
        root: Element = fromstring(content)
        size = tuple(_number(root, f"size/{side}") for side in ("width", "height"))
        objects = objects_of(root)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DataError(f"{where} is not an annotation: {error}") from error
    return Annotation((size[0], size[1]) if min(size) > 0 else (0, 0), objects)


def _number(root: Element, path: str) -> int:
    text: Any = root.findtext(path, "0").strip()
    return int(text) if text.isdecimal() else 0


def _area(one: VocObject) -> float:
    xmin, ymin, xmax, ymax = one.box
    return (xmax - xmin + 1) * (ymax - ymin + 1)
