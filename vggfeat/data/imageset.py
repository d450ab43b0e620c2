"""A set of images: names, images, targets, splits, boxes; and what of each image is looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat._io.remote import is_address, redact
from vggfeat._io.text import counted, printable
from vggfeat.data.identity import stamps_of
from vggfeat.data.image import Box, Crop, ImageLike, ImageRef, lacking_decoder
from vggfeat.data.left_out import LeftOut
from vggfeat.data.names import name_of, relative_name
from vggfeat.data.sources import list_images
from vggfeat.data.sources.lists import COLUMNS, SEPARATOR, Columns, Entry, is_manifest
from vggfeat.data.sources.tar import TarMember
from vggfeat.errors import DataError, ParameterError

Targets = NDArray[np.int8]
Rows = NDArray[np.int64]
T = TypeVar("T")
# What a notebook shows of a set: splits, and characters of a name.
SHOWN = 5
LONGEST_SHOWN = 40


@dataclass(frozen=True)
class ImageSet:
    """Images with unique names, and their labels where they have any.

    Parameters
    ----------
    names : tuple of str
        Unique; see :func:`find_images`.
    images : tuple of ImageLike
        What is decoded: paths, objects at addresses or in tars, PIL images or arrays.
    labels : tuple of str
        The class of every image; empty without labels.
    label_sets : tuple of tuple of str
        The classes of every image, sorted, where an image may have several or none of them; empty
        where it has one.
    targets : ndarray (N, C) of int8, optional
        +1 for each class that a row has, −1 for the others, and 0 where it has only difficult
        objects of a class; the columns are the classes of the data set's card. 0 throughout for a
        row without labels.
    labelled : ndarray (N,) of bool, optional
        Which rows have targets; all of them if None.
    splits : mapping
        Row numbers, ascending, of each split that a data set comes with. A row may be in several,
        as VOC's train is in trainval, or in none.
    boxes : tuple of Box
        Of the person of each row; empty without boxes.
    missing : tuple of str
        Rows that the lists of a data set promise and whose image is not there.
    left_out : LeftOut
        What lies beside the images and was not read.
    unusable : mapping of str to str
        Why images have no row, by name, such as for want of labels that can be read.
    doubts : tuple of str
        What a user should know of the labels, a sentence each.
    roots : tuple of Path or None
        The folder that was named, of each image that is from one; empty where none was.

    Examples
    --------
    >>> images = ImageSet(("a", "b"), ("a.jpg", "b.jpg"), labels=("dog", "cat"))
    >>> images
    ImageSet(2 images, a … b, 2 classes, cat … dog)
    >>> len(images), images.classes
    (2, ['cat', 'dog'])
    """

    names: tuple[str, ...]
    images: tuple[ImageLike, ...]
    labels: tuple[str, ...] = ()
    label_sets: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    targets: Targets | None = field(default=None, compare=False, repr=False)
    labelled: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    splits: Mapping[str, Rows] = field(default_factory=dict, compare=False, repr=False)
    boxes: tuple[Box, ...] = field(default=(), repr=False)
    missing: tuple[str, ...] = field(default=(), compare=False, repr=False)
    left_out: LeftOut = field(default_factory=LeftOut, compare=False, repr=False)
    unusable: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    doubts: tuple[str, ...] = field(default=(), compare=False, repr=False)
    roots: tuple[Path | None, ...] = field(default=(), compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        parts = [_ends(self.names, "image")]
        if classes := self.classes:
            parts.append(_ends(classes, "class"))
        parts += [f"{name} {len(rows):,}" for name, rows in list(self.splits.items())[:SHOWN]]
        return f"ImageSet({', '.join(parts)})"

    @property
    def classes(self) -> list[str]:
        """The different labels, sorted."""
        return sorted({*self.labels, *chain.from_iterable(self.label_sets)})

    def stamps(self) -> NDArray[np.int64]:
        """Return what tells each file from another that has, or had, its name, unopened: (N, 2)."""
        return stamps_of(self.images)

    def take(self, rows: ArrayLike) -> ImageSet:
        """Keep these rows, in this order, with all that belongs to them.

        Examples
        --------
        >>> images = ImageSet(("a", "b"), ("a.jpg", "b.jpg"), splits={"test": np.array([1])})
        >>> images.take([1]).names, images.take([1]).splits
        (('b',), {'test': array([0])})
        """
        kept = np.asarray(rows, dtype=np.int64)

        def some(values: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(values[row] for row in kept) if values else ()

        return replace(
            self,
            names=some(self.names),
            images=some(self.images),
            labels=some(self.labels),
            label_sets=some(self.label_sets),
            boxes=some(self.boxes),
            roots=some(self.roots),
            targets=None if self.targets is None else self.targets[kept],
            labelled=None if self.labelled is None else self.labelled[kept],
            splits={name: np.flatnonzero(np.isin(kept, of)) for name, of in self.splits.items()},
        )

    def positives(self, split: str | None = None) -> Rows:
        """Count the positives of each class, in all rows or in those of a split: (C,)."""
        if self.targets is None:
            raise DataError("Images without targets have no positives to count.")
        targets = self.targets if split is None else self.targets[self.splits[split]]
        counts: Rows = (targets == 1).sum(axis=0)
        return counts


def _ends(names: Sequence[str], noun: str) -> str:
    """Count names, and show the first and the last."""
    ends = dict.fromkeys([*names[:1], *names[-1:]])
    shown = " … ".join(printable(name)[-LONGEST_SHOWN:] for name in ends)
    return counted(len(names), noun) + (f", {shown}" if names else "")


def one_hot(labels: Sequence[str], classes: Sequence[str]) -> Targets:
    """Make targets (N, C) of one label for each image.

    Examples
    --------
    >>> one_hot(["dog", "cat"], ["cat", "dog"]).tolist()
    [[-1, 1], [1, -1]]
    """
    column = {label: number for number, label in enumerate(classes)}
    targets = np.full((len(labels), len(classes)), -1, dtype=np.int8)
    targets[np.arange(len(labels)), [column[label] for label in labels]] = 1
    return targets


def multi_hot(label_sets: Sequence[Sequence[str]], classes: Sequence[str]) -> Targets:
    """Make targets (N, C), +1 for each label that an image has and −1 for every other class.

    Examples
    --------
    >>> multi_hot([["cat", "dog"], []], ["cat", "dog"]).tolist()
    [[1, 1], [-1, -1]]
    """
    column = {label: number for number, label in enumerate(classes)}
    targets = np.full((len(label_sets), len(classes)), -1, dtype=np.int8)
    for row, labels in enumerate(label_sets):
        targets[row, [column[label] for label in labels]] = 1
    return targets


def find_images(
    sources: Sequence[str | os.PathLike[str]],
    relative_to: str | os.PathLike[str] | None = None,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
) -> ImageSet:
    """Collect images from sources as they are typed on a command line.

    Parameters
    ----------
    sources : sequence of str or path
        Folders (searched through, without hidden ones), files, globs, ``@list.txt`` or ``-`` (one
        path a line; relative to the current folder), CSV or Parquet manifests with a column
        ``path`` (relative to the manifest) and, optionally, ``label`` or ``labels`` (``a|b``), and
        ``split``, or
        WebDataset's tars (``train-{000..099}.tar``). All but ``-`` may be at an address:
        ``s3://bucket/folder``, ``https://host/list.csv``; lists may name addresses.
    relative_to : path, optional
        Names are paths from this folder, in which all images lie.
    path_column, label_column : str, optional
        What manifests call these columns, where it is not ``path`` and ``label`` (or ``labels``).

    Returns
    -------
    ImageSet
        In the order of the sources, folders sorted; an image named twice is there once. Images at
        addresses and in tars are read when they are decoded. What lies beside the images, and is
        not read, is in ``left_out``.

    Raises
    ------
    DataNotFound
        If a source does not exist or holds no images.
    ParameterError
        If columns are named, and there is no manifest.
    DataError
        If a manifest or a tar cannot be used, two images have one name, or an image does not lie
        in `relative_to`.
    DownloadError
        If an address cannot be read, or ``VGGFEAT_OFFLINE`` forbids it.
    MissingExtra
        If what reads such addresses is not installed.

    Notes
    -----
    A name depends on its own source alone: of a folder ``x/photos`` it is ``photos/`` and the path
    below it (of ``.``, ``..`` and ``/`` the path below alone); of a file, a glob or a tar the path
    as it is typed, without a leading ``./``, ``../``, ``/`` or drive (``a/000.tar/member.jpg``); of
    a list the entry as it is written, likewise; of an object or a tar at an address its bucket or
    host and its path, without what is secret.

    In folders of this machine an image is known by its suffix, and where that is unknown by the
    first bytes of the file; at addresses and in tars by its suffix.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> images = find_images([str(asset("clipart10") / "boat")])
    >>> len(images), images.names[:2]
    (30, ('boat/boat_0001.jpg', 'boat/boat_0002.jpg'))
    """
    if isinstance(sources, str | os.PathLike):
        raise ParameterError.of("sources", "find_images", "a list of sources", sources)
    left_out, texts = LeftOut(), [os.fspath(source) for source in sources]
    columns = name_columns(texts, path_column, label_column)
    entries = (entry for source in texts for entry in list_images(source, left_out, columns))
    if relative_to is not None:
        folder = os.fspath(relative_to)
        entries = (replace(entry, name=_relative_name(entry, folder)) for entry in entries)
    return image_set_of(entries, left_out)


def name_columns(
    sources: Iterable[str], path_column: str | None, label_column: str | None
) -> Columns:
    """Say what the columns of manifests are called; ParameterError if no source may be one."""
    for name, column in (("path_column", path_column), ("label_column", label_column)):
        if column and not any(is_manifest(source) or "*" in source for source in sources):
            where = " and ".join(map(redact, sources))
            raise ParameterError.ignored(name, where, "CSV and Parquet manifests")
    return Columns(path_column or COLUMNS.path, label_column or COLUMNS.label)


def _relative_name(entry: Entry, folder: str) -> str:
    """Name an image by its path from a folder; what is in a tar, by that of the tar."""
    image = entry.image
    if isinstance(image, TarMember) and not is_address(image.archive):
        inside = entry.name.removeprefix(name_of(image.archive))
        return relative_name(image.archive, folder) + inside
    if isinstance(image, ImageRef):
        raise DataError(f"relative_to=DIR names files of this machine, and {image} is none.")
    return relative_name(image, folder)


def image_set_of(entries: Iterable[Entry], left_out: LeftOut) -> ImageSet:
    """Make a set of the images of sources, each of which is there once.

    Those that are named again are added to `left_out`, which the set keeps.

    Raises
    ------
    DataError
        If two images have one name, or an image two labels or two splits.
    """
    unique: dict[str, Entry] = {}
    for entry in entries:
        first = unique.setdefault(entry.name, entry)
        if first.image != entry.image and not _same_file(first.image, entry.image):
            raise DataError(
                f"Two images have the name {entry.name!r}: {first.image} and {entry.image}. "
                "Name them from a folder above both, by relative_to=DIR; images at addresses "
                "need stores of their own."
            )
        if first is not entry:
            _check_agreement(first, entry)
            left_out.repeated.append(entry.name)
        elif lacking := lacking_decoder(entry.name):
            left_out.undecodable[entry.name] = lacking
    kept = list(unique.values())
    label_sets = [entry.label_set for entry in kept if entry.label_set is not None]
    splits = np.array([entry.split for entry in kept])
    return ImageSet(
        names=tuple(unique),
        images=tuple(entry.image for entry in kept),
        labels=tuple(e.label for e in kept) if any(e.label for e in kept) else (),
        label_sets=tuple(label_sets) if len(label_sets) == len(kept) else (),
        splits={name: np.flatnonzero(splits == name) for name in sorted({*splits.tolist()} - {""})},
        left_out=left_out,
        roots=tuple(e.root for e in kept) if any(e.root for e in kept) else (),
    )


def _check_agreement(first: Entry, again: Entry) -> None:
    """Refuse an image that is named again with another label or split."""
    name = first.name
    for what in ("label", "split"):
        before, now = getattr(first, what), getattr(again, what)
        if before != now:
            raise DataError(
                f"{name!r} is there twice, as {before!r} and as {now!r}. An image has one {what}: "
                "remove one of the lines."
            )
    if first.label_set != again.label_set:
        texts = [SEPARATOR.join(entry.label_set or ()) for entry in (first, again)]
        raise DataError(
            f"{name!r} is there twice, with the labels {texts[0]!r} and {texts[1]!r}. Write all "
            f"labels of an image in one line, with {SEPARATOR!r} between them."
        )


def _same_file(first: Path | ImageRef, second: Path | ImageRef) -> bool:
    if isinstance(first, ImageRef) or isinstance(second, ImageRef):
        return False
    return first.exists() and second.exists() and first.samefile(second)


class View(NamedTuple):
    """What rows are described by: images, each once, and for every row the name of its image."""

    images: ImageSet
    names: tuple[str, ...]


def whole_images(images: ImageSet) -> View:
    """Look at whole images, each once, however many of its persons are rows.

    Examples
    --------
    >>> people = ImageSet(("a#1", "a#2"), ("a.jpg", "a.jpg"), boxes=((1, 1, 5, 9), (4, 1, 8, 9)))
    >>> whole_images(people).images.names, whole_images(people).names
    (('a',), ('a', 'a'))
    """
    if not images.boxes:
        return View(images, images.names)
    names = tuple(name.rpartition("#")[0] for name in images.names)
    unique = dict(zip(names, images.images, strict=True))
    return View(ImageSet(tuple(unique), tuple(unique.values())), names)


def boxed_images(images: ImageSet) -> View:
    """Look at the given box of every row (Appendix B, VOC action classification), if there are any.

    Examples
    --------
    >>> people = ImageSet(("a#1", "a#2"), ("a.jpg", "a.jpg"), boxes=((1, 1, 5, 9), (4, 1, 8, 9)))
    >>> boxed_images(people).images.images[1]
    Crop(path=...Path('a.jpg'), box=(4, 1, 8, 9))
    """
    if not images.boxes:
        raise DataError(
            "There are no given boxes to look at; only rows of the action task have one. Describe "
            "whole images, as views='image' does."
        )
    crops: tuple[ImageLike, ...] = tuple(
        Crop(Path(str(image)), box) for image, box in zip(images.images, images.boxes, strict=True)
    )
    return View(ImageSet(images.names, crops), images.names)


VIEWS: Mapping[str, Callable[[ImageSet], View]] = {"image": whole_images, "box": boxed_images}
"""What a row may be described by; several are stacked."""
