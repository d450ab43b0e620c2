"""Class folders, and manifests with a label for each image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vggfeat._io.remote import is_address, redact
from vggfeat.data.datasets.card import DatasetCard, Reader, register
from vggfeat.data.image import ImageRef
from vggfeat.data.imageset import ImageSet, find_images, image_set_of
from vggfeat.data.names import prefix_of
from vggfeat.data.sources import redact_source
from vggfeat.data.sources.files import walk
from vggfeat.data.sources.lists import Entry
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
    """A CSV or Parquet manifest, or tars."""

    in_place = True

    def read(self, card: DatasetCard, tree: Path) -> ImageSet:
        """Read the images, with labels, and with the splits that the manifest marks."""
        is_tar = tree.suffix.lower() == ".tar"
        return read_manifest(tree, relative_to=tree.parent if is_tar else None)


def read_labelled(source: str) -> ImageSet:
    """Read a folder of class folders, a manifest or tars, all of whose images have labels.

    Parameters
    ----------
    source : str
        A path, an address, or a pattern of tars.

    Raises
    ------
    DataError, DataNotFound, DownloadError, MissingExtra
        As for :func:`~vggfeat.data.imageset.find_images`, and if a label is missing.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> read_labelled(str(asset("clipart10"))).classes[:3]
    ['bird', 'boat', 'bug']
    """
    if not is_address(source):
        return read_folders(Path(source)) if Path(source).is_dir() else read_manifest(source)
    images = find_images([source])
    return images if images.labels else _labelled_by_folder(images, source)


def read_folders(root: Path) -> ImageSet:
    """Read a folder of class folders.

    Raises
    ------
    DataNotFound
        If the folder is missing, or has no class folders with images.

    Notes
    -----
    Files beside the class folders (a licence, a table) are not images of any class.
    """
    if not root.is_dir():
        raise DataNotFound(
            f"There is no folder {root}. Name a folder that holds a folder for each class, "
            "a CSV file with the columns path and label, or a data set."
        )
    entries = [
        Entry(path, path.relative_to(root).as_posix(), folder.name)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for path in walk(folder)
    ]
    if not entries:
        raise DataNotFound(f"{root} has no class folders with images, such as {root}/cat/1.jpg.")
    return image_set_of(entries)


def read_manifest(path: Path | str, relative_to: Path | None = None) -> ImageSet:
    """Read a manifest, or tars, whose images all have labels.

    Parameters
    ----------
    path : path
        Or a pattern of tars.
    relative_to : Path, optional
        As for :func:`~vggfeat.data.imageset.find_images`.

    Raises
    ------
    DataError
        If a label is missing.
    DataNotFound
        If not one of its images is there.
    """
    images = find_images([path], relative_to)
    _need_labels(images, str(path))
    if not any(isinstance(each, ImageRef) or Path(str(each)).exists() for each in images.images):
        raise DataNotFound(
            f"Not one of the {len(images)} images of {path} is there, such as "
            f"{images.images[0]}. Paths in it are relative to the folder that it lies in."
        )
    return images


def _labelled_by_folder(images: ImageSet, source: str) -> ImageSet:
    """Name images from the folder at an address, and take the first folder as the label.

    What lies beside the class folders has no label and is left out.
    """
    prefix = prefix_of(source)
    images = replace(images, names=tuple(name.removeprefix(prefix) for name in images.names))
    rows = [row for row, name in enumerate(images.names) if "/" in name]
    if not rows:
        raise DataNotFound(f"{redact(source)} has no class folders with images, nor labels.")
    kept = images.take(rows)
    return replace(kept, labels=tuple(name.partition("/")[0] for name in kept.names))


def _need_labels(images: ImageSet, source: str) -> None:
    where = redact_source(source)
    if unlabelled := [
        name for name, label in zip(images.names, images.labels, strict=False) if not label
    ]:
        raise DataError(
            f"{where} gives no label to {unlabelled[0]} and {len(unlabelled) - 1} others."
        )
    if not images.labels:
        raise DataError(
            f"{where} has no column 'label'. Its columns should be path, label[, split]."
        )
