"""The label and the split of each image of a set, as its list or its class folders have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from posixpath import commonprefix

from vggfeat.data.datasets.parts import PARTS, part_of
from vggfeat.data.imageset import ImageSet
from vggfeat.data.names import prefix_of
from vggfeat.data.sources.lists import SEPARATOR


def labels_of(images: ImageSet) -> dict[str, tuple[str, str]]:
    """Return label and split by an image's name; none where nothing is known.

    Several labels of an image are joined by ``|``. Where no list has labels, and images lie in two
    or more folders of a source, or of one above, these are their labels; images beside these
    folders have an empty one. Folders of parts are splits.

    Examples
    --------
    >>> labels_of(ImageSet(("train/cat/1.jpg", "test/dog/2.jpg"), (Path("1"), Path("2"))))
    {'train/cat/1.jpg': ('cat', 'train'), 'test/dog/2.jpg': ('dog', 'test')}
    """
    labels = images.labels or tuple(map(SEPARATOR.join, images.label_sets))
    if not labels:
        return _by_folder(images)
    splits = dict.fromkeys(images.names, "")
    for part in PARTS:
        splits |= {images.names[row]: part for row in images.splits.get(part, ())}
    return {name: (label, splits[name]) for name, label in zip(images.names, labels, strict=True)}


def _by_folder(images: ImageSet) -> dict[str, tuple[str, str]]:
    if not all(isinstance(image, Path) for image in images.images):
        return {}
    folders = _folders(images)
    inside = [folder for folder in folders if folder]
    above = len(commonprefix(inside)) if inside else 0
    below = [folder[above:] for folder in folders]
    splits = [part_of(folder[0]) if folder else "" for folder in below]
    if all(split for split, folder in zip(splits, below, strict=True) if folder):
        below = [folder[1:] for folder in below]
    else:
        splits = [""] * len(below)
    labels = [folder[0] if folder else "" for folder in below]
    if len({*labels} - {""}) < 2:
        labels = _sources(images, folders)
    if len({*labels} - {""}) < 2:
        return {}
    return dict(zip(images.names, zip(labels, splits, strict=True), strict=True))


def _folders(images: ImageSet) -> list[tuple[str, ...]]:
    """Split the folder of each image below its source; one of a list, and a part, is in the name.

    Beside folders that were named, an image that is in none of them has no folder.
    """
    roots = {root for root in images.roots if root}
    if all(part_of(root.name) for root in roots):
        return [PurePosixPath(name).parent.parts for name in images.names]
    return [
        Path(str(image)).relative_to(root).parent.parts if root else ()
        for image, root in zip(images.images, images.roots, strict=True)
    ]


def _sources(images: ImageSet, folders: Sequence[tuple[str, ...]]) -> list[str]:
    """Name the source of each image, where each is a folder with images of its own, as of a class.

    There are none where sources are parts, whose names are in the folders.
    """
    own = {root for root, folder in zip(images.roots, folders, strict=False) if not folder}
    if {*images.roots} - own:
        return []
    return [prefix_of(str(root)).rstrip("/") if root else "" for root in images.roots]
