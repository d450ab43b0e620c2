"""Finding pictures: folders, lists, manifests, tars and addresses become one image set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat._io.remote import is_address, redact
from vggfeat.data.identity import stamps_of
from vggfeat.data.images import Box, Picture
from vggfeat.data.manifests import Entry
from vggfeat.data.names import name_of, prefix_of, relative_name
from vggfeat.data.sources import pictures_of, shown, walk
from vggfeat.data.stored import Stored
from vggfeat.data.tars import Member
from vggfeat.errors import DataError, DataNotFound, ParameterError

Targets = NDArray[np.int8]
Rows = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class ImageSet:
    """Pictures with unique names, and their labels where they have any.

    Parameters
    ----------
    names : tuple of str
        Unique; see :func:`find_pictures`.
    pictures : tuple of Picture
        What is decoded: paths, objects at addresses or in tars, PIL images or arrays.
    labels : tuple of str
        The class of every picture; empty without labels.
    splits : tuple of str
        The split of every picture; empty without splits.
    targets : ndarray (N, C) of int8, optional
        +1 for each class that a row has, −1 for the others, and 0 where it has only difficult
        objects of a class; the columns are the classes of the data set's card. 0 throughout for a
        row without labels.
    labelled : ndarray (N,) of bool, optional
        Which rows have targets; all of them if None.
    parts : mapping
        Row numbers, ascending, of each part that a data set comes with. A row may be in several,
        as VOC's train is in trainval.
    boxes : tuple of Box
        xmin, ymin, xmax, ymax of the person of each row, in pixels from 1 on, both ends included,
        as VOC has them; empty without boxes.
    duplicates : int
        How often a picture was named again, and left out.
    missing : tuple of str
        Names of rows that the lists of a data set promise and whose picture is not there.
    strays : tuple of str
        Files and, with a ``/`` behind them, folders that were skipped as none of the data set's.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> sample = read_folders(asset("clipart10"))
    >>> len(sample.names), sample.names[0], sample.classes[:3]
    (300, 'bird/bird_0001.jpg', ['bird', 'boat', 'bug'])
    """

    names: tuple[str, ...]
    pictures: tuple[Picture, ...]
    labels: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    targets: Targets | None = field(default=None, compare=False, repr=False)
    labelled: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    parts: Mapping[str, Rows] = field(default_factory=dict, compare=False, repr=False)
    boxes: tuple[Box, ...] = field(default=(), repr=False)
    duplicates: int = field(default=0, compare=False)
    missing: tuple[str, ...] = field(default=(), compare=False, repr=False)
    strays: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> list[str]:
        """The different labels, sorted."""
        return sorted(set(self.labels))

    def stamps(self) -> NDArray[np.int64]:
        """Return what tells each file from another that has, or had, its name, unopened: (N, 2)."""
        return stamps_of(self.pictures)

    def take(self, rows: ArrayLike) -> ImageSet:
        """Keep these rows, in this order, with all that belongs to them.

        Examples
        --------
        >>> images = ImageSet(("a", "b"), ("a.jpg", "b.jpg"), parts={"test": np.array([1])})
        >>> images.take([1]).names, images.take([1]).parts
        (('b',), {'test': array([0])})
        """
        kept = np.asarray(rows, dtype=np.int64)

        def some(values: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(values[row] for row in kept) if values else ()

        return replace(
            self,
            names=some(self.names),
            pictures=some(self.pictures),
            labels=some(self.labels),
            splits=some(self.splits),
            boxes=some(self.boxes),
            targets=None if self.targets is None else self.targets[kept],
            labelled=None if self.labelled is None else self.labelled[kept],
            parts={part: np.flatnonzero(np.isin(kept, of)) for part, of in self.parts.items()},
        )

    def positives(self, part: str | None = None) -> Rows:
        """Count the positives of each class, in all rows or in those of a part: (C,)."""
        if self.targets is None:
            raise DataError("Pictures without targets have no positives to count.")
        targets = self.targets if part is None else self.targets[self.parts[part]]
        counts: Rows = (targets == 1).sum(axis=0)
        return counts


def one_hot(labels: Sequence[str], classes: Sequence[str]) -> Targets:
    """Make targets (N, C) of one label for each picture.

    Examples
    --------
    >>> one_hot(["dog", "cat"], ["cat", "dog"]).tolist()
    [[-1, 1], [1, -1]]
    """
    column = {label: number for number, label in enumerate(classes)}
    targets = np.full((len(labels), len(classes)), -1, dtype=np.int8)
    targets[np.arange(len(labels)), [column[label] for label in labels]] = 1
    return targets


def find_pictures(
    sources: Sequence[str | os.PathLike[str]], relative_to: str | os.PathLike[str] | None = None
) -> ImageSet:
    """Collect pictures from sources as they are typed on a command line.

    Parameters
    ----------
    sources : sequence of str or path
        Folders (searched through, without hidden ones), files, globs, ``@list.txt`` or ``-`` (one
        path a line; relative to the current folder), CSV or Parquet manifests with a column
        ``path`` (relative to the manifest) and, optionally, ``label`` and ``split``, or
        WebDataset's tars (``train-{000..099}.tar``). All but ``-`` may be at an address:
        ``s3://bucket/folder``, ``https://host/list.csv``; lists may name addresses.
    relative_to : path, optional
        Names are paths from this folder, in which all images lie.

    Returns
    -------
    ImageSet
        In the order of the sources, folders sorted; an image named twice is there once. Images at
        addresses and in tars are read when they are decoded.

    Raises
    ------
    DataNotFound
        If a source does not exist or holds no pictures.
    DataError
        If a manifest or a tar cannot be used, two images have one name, or an image does not lie
        in `relative_to`.
    DownloadError
        If an address cannot be read, or ``VGGFEAT_OFFLINE`` forbids it.
    MissingExtra
        If what reads such addresses is not installed.

    Notes
    -----
    A name depends on its own source alone:

    - of a folder ``x/photos``: ``photos/`` and the path below it; of ``.``, ``..`` and ``/`` the
      path below alone;
    - of a file, a glob or a tar: the path as it is typed, without a leading ``./``, ``../``, ``/``
      or drive: ``a/1.jpg``, ``a/000.tar/member.jpg``;
    - of a list or a manifest: the entry as it is written, likewise;
    - at an address: of a folder as above; of an object or a tar its bucket or host and its path,
      without what is secret.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> found = find_pictures([str(asset("clipart10") / "boat")])
    >>> len(found), found.names[:2]
    (30, ('boat/boat_0001.jpg', 'boat/boat_0002.jpg'))
    """
    if isinstance(sources, str | os.PathLike):
        raise ParameterError.of("sources", "find_pictures", "a list of sources", sources)
    found = (entry for source in sources for entry in pictures_of(os.fspath(source)))
    if relative_to is not None:
        folder = os.fspath(relative_to)
        found = (replace(entry, name=_relative_name(entry, folder)) for entry in found)
    return _image_set(found)


def read_labelled(source: str) -> ImageSet:
    """Read a folder of class folders, a manifest or tars, all of whose pictures have labels.

    Parameters
    ----------
    source : str
        A path, an address, or a pattern of tars.

    Raises
    ------
    DataError, DataNotFound, DownloadError, MissingExtra
        As for :func:`find_pictures`, and if a label is missing.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> read_labelled(str(asset("clipart10"))).classes[:3]
    ['bird', 'boat', 'bug']
    """
    if not is_address(source):
        return read_folders(Path(source)) if Path(source).is_dir() else read_manifest(source)
    images = find_pictures([source])
    return images if images.labels else _labelled_by_folder(images, source)


def read_folders(root: Path) -> ImageSet:
    """Read a folder of class folders.

    Raises
    ------
    DataNotFound
        If the folder is missing, or has no class folders with pictures.

    Notes
    -----
    Files beside the class folders (a licence, a table) are not pictures of any class.
    """
    if not root.is_dir():
        raise DataNotFound(
            f"There is no folder {root}. Name a folder that holds a folder for each class, "
            "a CSV file with the columns path and label, or a data set."
        )
    found = [
        Entry(path, path.relative_to(root).as_posix(), folder.name)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for path in walk(folder)
    ]
    if not found:
        raise DataNotFound(f"{root} has no class folders with pictures, such as {root}/cat/1.jpg.")
    return _image_set(found)


def _relative_name(entry: Entry, folder: str) -> str:
    """Name an image by its path from a folder; what is in a tar, by that of the tar."""
    picture = entry.picture
    if isinstance(picture, Member) and not is_address(picture.archive):
        inside = entry.name.removeprefix(name_of(picture.archive))
        return relative_name(picture.archive, folder) + inside
    if isinstance(picture, Stored):
        raise DataError(f"--relative-to names files of this machine, and {picture} is none.")
    return relative_name(picture, folder)


def read_manifest(path: Path | str, relative_to: Path | None = None) -> ImageSet:
    """Read a manifest, or tars, whose pictures all have labels.

    Parameters
    ----------
    path : path
        Or a pattern of tars.
    relative_to : Path, optional
        As for :func:`find_pictures`.

    Raises
    ------
    DataError
        If a label is missing.
    DataNotFound
        If not one of its pictures is there.
    """
    images = find_pictures([path], relative_to)
    _need_labels(images, str(path))
    if not any(isinstance(one, Stored) or Path(str(one)).exists() for one in images.pictures):
        raise DataNotFound(
            f"Not one of the {len(images)} pictures of {path} is there, such as "
            f"{images.pictures[0]}. Paths in it are relative to the folder that it lies in."
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
        raise DataNotFound(f"{redact(source)} has no class folders with pictures, nor labels.")
    kept = images.take(rows)
    return replace(kept, labels=tuple(name.partition("/")[0] for name in kept.names))


def _need_labels(images: ImageSet, source: str) -> None:
    where = shown(source)
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


def _image_set(found: Iterable[Entry]) -> ImageSet:
    unique: dict[str, Entry] = {}
    total = 0
    for entry in found:
        total += 1
        first = unique.setdefault(entry.name, entry)
        if first.picture != entry.picture and not _same_file(first.picture, entry.picture):
            raise DataError(
                f"Two images have the name {entry.name!r}: {first.picture} and {entry.picture}. "
                "Name them from a folder above both, by --relative-to DIR; images at addresses "
                "need stores of their own."
            )
        if first.label != entry.label:
            raise DataError(
                f"{entry.name!r} is there twice, as {first.label!r} and as {entry.label!r}. "
                "A picture has one label: remove one of the lines."
            )
    kept = list(unique.values())
    return ImageSet(
        names=tuple(unique),
        pictures=tuple(entry.picture for entry in kept),
        labels=tuple(e.label for e in kept) if any(e.label for e in kept) else (),
        splits=tuple(e.split for e in kept) if any(e.split for e in kept) else (),
        duplicates=total - len(kept),
    )


def _same_file(one: Path | Stored, other: Path | Stored) -> bool:
    if isinstance(one, Stored) or isinstance(other, Stored):
        return False
    return one.exists() and other.exists() and one.samefile(other)
