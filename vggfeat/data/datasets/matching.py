"""Which annotation is of which image, by their folders and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from typing import NamedTuple

from vggfeat.data.datasets.annotations import Annotation, AnnotationFile
from vggfeat.data.datasets.parts import part_of
from vggfeat.errors import DataError


class _Place(NamedTuple):
    """Folders and stem of an image or an annotation, from the outermost on."""

    path: tuple[str, ...]
    part: str  # train, val or test; empty if no folder says it
    group: str  # its own folder, as of its class; empty if that is a part's


def match_annotations(
    images: Sequence[str], files: Sequence[AnnotationFile]
) -> Mapping[int, Annotation]:
    """Find the annotation of each image.

    An annotation is of the image of its name whose folders agree with its own in most levels, as
    ``Annotations/train/cat/1.xml`` is of ``train/cat/1.jpg`` and never of ``val/cat/1.jpg``, or of
    ``train/dog/1.jpg``. Levels that one of the two has not, do not matter: annotations of images in
    class folders may lie flat.

    Parameters
    ----------
    images : sequence of str
        Paths from the folder of the set on; a tar counts as a folder.
    files : sequence of AnnotationFile

    Returns
    -------
    mapping
        Of places in `images`; without those that have no annotation.

    Raises
    ------
    DataError
        If an annotation could be of two images, or an image has two annotations that differ.

    Examples
    --------
    >>> from pathlib import Path
    >>> flat = AnnotationFile(Path("bbox_val"), "1.xml", Annotation((20, 10), ()))
    >>> list(match_annotations(["train/cat/1.jpg", "val/cat/1.jpg"], [flat]))
    [1]
    """
    stems = {PurePosixPath(file.path).stem for file in files}
    rows: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        if (stem := PurePosixPath(image).stem) in stems:
            rows.setdefault(stem, []).append(row)
    places = {row: _place(images[row]) for some in rows.values() for row in some}
    groups = {place.group for place in places.values()} - {""}
    found: dict[int, AnnotationFile] = {}
    for file in files:
        own = _place(file.path, file.source.name)
        own_groups: set[str] = set()
        if own.group in groups:  # it may lie in another class's folder than that of its object
            own_groups = {own.group, *(shown.name for shown in file.annotation.objects)}
        nearest = _nearest(own, rows.get(own.path[-1], []), places, own_groups)
        if several := [row for row in nearest if images[row] != images[nearest[0]]]:
            raise DataError(
                f"{file.source}: {file.path} may be of {images[nearest[0]]} or of "
                f"{images[several[0]]}. Rename one of them, or put annotations into folders like "
                "those of the images."
            )
        for row in nearest:
            found[row] = _agreed(found.get(row, file), file, images[row])
    return {row: file.annotation for row, file in found.items()}


def _place(path: str, source: str = "") -> _Place:
    *folders, name = PurePosixPath(path).parts
    every = [source, *folders] if source else folders
    parts = list(map(part_of, every))
    if parts and parts[0]:  # bbox_train and ILSVRC2012_img_train.tar count as train
        every[0] = parts[0]
    group = folders[-1] if folders and not parts[-1] else ""
    return _Place((*every, PurePosixPath(name).stem), next(filter(None, parts), ""), group)


def _nearest(
    own: _Place, rows: Sequence[int], places: Mapping[int, _Place], own_groups: set[str]
) -> list[int]:
    """Take the images that an annotation agrees with in most levels, and contradicts in none.

    Where it says of which groups it is, it is of no other.
    """
    levels: dict[int, int] = {}
    for row in rows:
        place = places[row]
        other_part = own.part and place.part and own.part != place.part
        other_group = own_groups and place.group and place.group not in own_groups
        if not other_part and not other_group:
            pairs = zip(reversed(own.path), reversed(place.path), strict=False)
            levels[row] = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    most = max(levels.values(), default=0)
    return [row for row, shared in levels.items() if shared == most]


def _agreed(first: AnnotationFile, second: AnnotationFile, image: str) -> AnnotationFile:
    """Take one of two annotations of an image, which may be the same twice, or damaged."""
    if first.annotation.fault:
        return second
    if not second.annotation.fault and first.annotation != second.annotation:
        raise DataError(
            f"{image} has two annotations that differ, {first.source}: {first.path} and "
            f"{second.source}: {second.path}. Remove one of them, or rename one of the images."
        )
    return first
