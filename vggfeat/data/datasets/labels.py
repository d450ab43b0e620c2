"""The label and the split of each image of a set, as its list or its class folders have them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from posixpath import commonpath

from vggfeat.data.datasets.parts import PARTS, part_of
from vggfeat.data.imageset import ImageSet
from vggfeat.data.sources.lists import SEPARATOR


def labels_of(images: ImageSet) -> dict[str, tuple[str, str]]:
    """Return label and split by an image's name; none where nothing is known.

    Several labels of an image are joined by ``|``. Images of no list, that all lie in two or more
    folders of one, have the name of this folder as their label; folders of parts are their splits.

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
    folders = [PurePosixPath(name).parent for name in images.names]
    above = PurePosixPath(commonpath(map(str, folders)) if folders else "")
    below = [folder.relative_to(above).parts for folder in folders]
    splits = [part_of(folder[0]) if folder else "" for folder in below]
    if all(splits):
        below = [folder[1:] for folder in below]
    else:
        splits = [""] * len(below)
    labels = [folder[0] if folder else "" for folder in below]
    if not all(labels) or len({*labels}) < 2:
        return {}
    return dict(zip(images.names, zip(labels, splits, strict=True), strict=True))
