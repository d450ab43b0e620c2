"""Class folders, and manifests and tars with a label for each image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from vggfeat._io.remote import is_address, redact
from vggfeat._io.text import and_more
from vggfeat.data.datasets.card import DatasetCard, Reader, register
from vggfeat.data.datasets.parts import (
    check_classes,
    class_folders,
    find_parts,
    note_beside,
    refuse_parts,
)
from vggfeat.data.image import ImageRef
from vggfeat.data.imageset import ImageSet, find_images, image_set_of, name_columns
from vggfeat.data.left_out import LeftOut
from vggfeat.data.names import name_of, prefix_of
from vggfeat.data.sources.files import walk
from vggfeat.data.sources.lists import LABEL, Entry, is_manifest, list_columns
from vggfeat.data.sources.tar import TarMember
from vggfeat.errors import DataError, DataNotFound


@register("folders")
class FoldersReader(Reader):
    """A folder for each class, whichever these are."""

    in_place = True

    def read(self, card: DatasetCard, tree: Path) -> ImageSet:
        """Read the images, with labels."""
        return read_folders(tree)


@register("manifest")
class ManifestReader(Reader):
    """A CSV or Parquet manifest, or a tar."""

    in_place = True

    def read(self, card: DatasetCard, tree: Path) -> ImageSet:
        """Read the images, with labels, and with the splits that the manifest marks."""
        is_tar = tree.suffix.lower() == ".tar"
        return read_labelled(
            str(tree),
            relative_to=tree.parent if is_tar else None,
            path_column=card.path_column,
            label_column=card.label_column,
        )


def read_labelled(
    source: str,
    relative_to: Path | None = None,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
) -> ImageSet:
    """Read class folders, a manifest or tars, all of whose images have labels.

    A manifest with a column ``labels`` gives each image several, or none: ``label_sets``. Its
    column ``split``, if any, says train, val or test; trainval is train and val together, as in
    VOC.

    Where no image of a tar, or of a folder at an address, has a label of its own, its first folder
    in there is its class. What lies beside the class folders is in ``left_out``.

    Parameters
    ----------
    source : str
        A path, an address, or a pattern of tars.
    relative_to : Path, optional
    path_column, label_column : str, optional
        As for :func:`~vggfeat.data.imageset.find_images`.

    Raises
    ------
    DataError, DataNotFound, DownloadError, MissingExtra
        As for :func:`~vggfeat.data.imageset.find_images`, if a label is missing, and if not one of
        a manifest's images is there.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> read_labelled(str(asset("clipart10"))).classes[:3]
    ['bird', 'boat', 'bug']
    """
    if Path(source).is_dir():
        name_columns([source], path_column, label_column)
        return read_folders(Path(source))
    images = find_images([source], relative_to, path_column=path_column, label_column=label_column)
    if images.label_sets:
        images = _multi_label(images, source)
    elif not images.labels:
        images = _labelled_by_folder(images, source)
    pairs = zip(images.names, images.labels, strict=bool(images.labels))
    if unlabelled := [name for name, label in pairs if not label]:
        raise DataError(f"{redact(source)} gives no label to {and_more(unlabelled, 'image')}.")
    if not any(isinstance(each, ImageRef) or Path(str(each)).exists() for each in images.images):
        raise DataNotFound(
            f"Not one of the {len(images)} images of {source} is there, such as "
            f"{images.images[0]!s}. Paths in it are relative to the folder that it lies in."
        )
    return images


def read_folders(root: Path) -> ImageSet:
    """Read a folder of class folders, or of parts that have them, which are splits then.

    Files and folders beside them (a licence, a table) are of no class, and in ``left_out``.

    Raises
    ------
    DataNotFound
        If the folder is missing, or has no class folders with images.
    DataError
        If it has parts and none to train with; see :func:`~vggfeat.data.datasets.parts.find_parts`
        and :func:`~vggfeat.data.datasets.parts.class_folders`.
    """
    if not root.is_dir():
        raise DataNotFound(
            f"There is no folder {root}. Name a folder that holds a folder for each class, "
            "a CSV file with the columns path and label, or a data set."
        )
    parts = find_parts(root)
    entries: list[Entry] = []
    left_out = LeftOut()
    for split, part in (parts if "train" in parts else {"": root}).items():
        folders = class_folders(part)
        own = [
            Entry(path, path.relative_to(root).as_posix(), folder.name, split)
            for folder in folders
            for path in walk(folder, left_out, root)
        ]
        note_beside(left_out, root, part, folders, {entry.label for entry in own})
        entries += own
    if parts:
        above = [root / part.relative_to(root).parts[0] for part in parts.values()]
        note_beside(left_out, root, root, above, {folder.name for folder in above})
    if not entries or (parts and all(entry.split != "train" for entry in entries)):
        where = parts.get("train", root)
        raise DataNotFound(f"{where} has no class folders with images, such as {where}/cat/1.jpg.")
    images = image_set_of(entries, left_out)
    check_classes(left_out, root, images.names, images.labels)
    return images


def _multi_label(images: ImageSet, source: str) -> ImageSet:
    """Check the label sets and splits of a manifest, and add trainval."""
    if images.labels:
        raise DataError(
            f"{redact(source)} has both columns 'label' and 'labels'. Keep 'label' where an image "
            "has one class, or 'labels' (a|b) where it has several or none."
        )
    if not images.classes:
        raise DataError(
            f"{redact(source)} gives no image a label: its column 'labels' is empty. Write the "
            "classes of each image, such as cat|dog."
        )
    splits = dict(images.splits)
    if not splits:
        return images
    if unknown := sorted({*splits} - {"train", "val", "test"}):
        raise DataError(
            f"{redact(source)} has the split {unknown[0]!r}; it should be train, val or test."
        )
    if unmarked := np.setdiff1d(
        np.arange(len(images)), np.concatenate([*splits.values()])
    ).tolist():
        names = [images.names[row] for row in unmarked]
        raise DataError(
            f"{redact(source)} gives no split to {and_more(names, 'image')}. Write train, val or "
            "test for every image, or leave the column out."
        )
    nothing = np.array([], np.int64)
    trainval = np.union1d(splits.get("train", nothing), splits.get("val", nothing))
    return replace(images, splits=splits | {"trainval": trainval})


def _explain_no_labels(source: str) -> str:
    """Say that a list or a manifest gives no image a label, and what would."""
    names = list_columns(source) if is_manifest(source) else []
    if not names:
        return f"{source} gives images no labels. Name a CSV file with the columns path and label."
    if LABEL in names:
        return f"{source} gives no image a label: its column 'label' is empty. Write the classes."
    return (
        f"{source} has no column 'label', or 'labels' where an image has several classes (a|b); it "
        f"has {', '.join(names)}. Say which one has the labels by --label-column (label_column in "
        "Python)."
    )


def _labelled_by_folder(images: ImageSet, source: str) -> ImageSet:
    """Label images by their folders in a tar, or below an address, from which they are named."""
    names, folders, prefix = list(images.names), [], prefix_of(source)
    for row, image in enumerate(images.images):
        if isinstance(image, TarMember):
            tar = PurePosixPath(name_of(image.archive)).name
            below = f"/{names[row]}".partition(f"/{tar}/")[2]
        elif is_address(source):
            below = names[row] = names[row].removeprefix(prefix)
        else:
            raise DataError(_explain_no_labels(source))
        folders.append(below.partition("/")[0] if "/" in below else "")
    refuse_parts(folders, redact(source))
    rows = [row for row, folder in enumerate(folders) if folder]
    if not rows:
        raise DataNotFound(f"{redact(source)} has no class folders with images, nor labels.")
    images.left_out.loose += [
        name for name, folder in zip(names, folders, strict=True) if not folder
    ]
    return replace(images, names=tuple(names), labels=tuple(folders)).take(rows)
