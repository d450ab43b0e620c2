"""Finding pictures: folders, files, globs, lists and CSV manifests become one image set."""

from __future__ import annotations

import csv
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vggfeat.data.images import EXTENSIONS, Picture
from vggfeat.errors import DataError, DataNotFound

MANIFEST_COLUMNS = ("path", "label", "split")


@dataclass(frozen=True)
class ImageSet:
    """Pictures with unique names, and their labels where they have any.

    Parameters
    ----------
    names : tuple of str
        Unique; a path below the folder that was named, or the path as it was written.
    pictures : tuple of Picture
        What is decoded: paths, PIL images or arrays.
    labels : tuple of str
        The class of every picture; empty without labels.
    splits : tuple of str
        The split of every picture; empty without splits.
    duplicates : int
        How often a picture was named again, and left out.

    Examples
    --------
    >>> from vggfeat.resources import asset
    >>> sample = read_folders(asset("clipart10"))
    >>> len(sample.names), sample.names[0], sample.classes[:3]
    (300, 'bird/bird_0001.jpg', ['bird', 'boat', 'bug'])
    """

    names: tuple[str, ...]
    pictures: tuple[Picture, ...]
    labels: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    duplicates: int = field(default=0, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> list[str]:
        """The different labels, sorted."""
        return sorted(set(self.labels))

    def stats(self) -> list[tuple[int, int]]:
        """Size in bytes and time of change in ns of every file; (0, 0) without one.

        They tell a picture that was replaced under its old name.
        """
        return [_stat(picture) for picture in self.pictures]


def find_pictures(sources: Sequence[str]) -> ImageSet:
    """Collect pictures from sources as they are typed on a command line.

    Parameters
    ----------
    sources : sequence of str
        Folders (searched through, without hidden ones), files, globs, ``@list.txt`` or ``-`` (one
        path a line; relative to the current folder), or CSV manifests with a column ``path``
        (relative to the manifest) and, optionally, ``label`` and ``split``.

    Returns
    -------
    ImageSet
        In the order of the sources, folders sorted; a file named twice is there once.

    Raises
    ------
    DataNotFound
        If a source does not exist or holds no pictures.
    DataError
        If a manifest cannot be used.

    Examples
    --------
    >>> from vggfeat.resources import asset
    >>> found = find_pictures([str(asset("clipart10") / "boat")])
    >>> len(found), found.names[:2]
    (30, ('boat_0001.jpg', 'boat_0002.jpg'))
    """
    found: list[_Entry] = []
    for source in sources:
        entries = list(_entries(source, qualify=len(sources) > 1))
        if not entries:
            raise DataNotFound(
                f"There are no pictures in {source!r}. Pictures end in "
                f"{', '.join(sorted(EXTENSIONS))}; name a folder, files, or a list as @paths.txt."
            )
        found += entries
    return _image_set(found)


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
    entries = [
        _Entry(path, path.relative_to(root).as_posix(), folder.name)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for path in _walk(folder)
    ]
    if not entries:
        raise DataNotFound(f"{root} has no class folders with pictures, such as {root}/cat/1.jpg.")
    return _image_set(entries)


def read_manifest(path: Path) -> ImageSet:
    """Read a CSV manifest whose pictures all have labels.

    Raises
    ------
    DataError
        If a label is missing.
    """
    images = find_pictures([str(path)])
    if unlabelled := [
        name for name, label in zip(images.names, images.labels, strict=False) if not label
    ]:
        raise DataError(
            f"{path} gives no label to {unlabelled[0]} and {len(unlabelled) - 1} others."
        )
    if not images.labels:
        raise DataError(
            f"{path} has no column 'label'. Its columns should be path, label[, split]."
        )
    return images


@dataclass(frozen=True)
class _Entry:
    path: Path
    name: str
    label: str = ""
    split: str = ""


def _entries(source: str, *, qualify: bool) -> Iterator[_Entry]:
    """List what a source names; `qualify` keeps the folder in names, where there are several."""
    path = Path(source)
    if source == "-":
        yield from _listed(os.fsdecode(sys.stdin.buffer.read()))
    elif source.startswith("@") and not path.exists():
        yield from _read_list(Path(source[1:]))
    elif path.is_dir():
        base = path.parent if qualify and path.name else path
        yield from (_Entry(p, os.path.relpath(p, base)) for p in _walk(path))
    elif path.is_file():
        manifest = path.suffix.lower() == ".csv"
        yield from _read_csv(path) if manifest else [_Entry(path, source)]
    elif matches := sorted(glob.glob(source, recursive=True)):  # noqa: PTH207  # may be absolute
        for match in matches:
            yield from _entries(match, qualify=True)
    else:
        raise DataNotFound(f"There is no picture, folder or list {source!r}. Check the spelling.")


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[Path] = set()
    for parent, folders, files in os.walk(folder, onerror=_unreadable, followlinks=True):
        seen.add(Path(parent).resolve())
        folders[:] = [
            name
            for name in sorted(folders)
            # A link to a folder above would lead round in circles.
            if not name.startswith(".") and Path(parent, name).resolve() not in seen
        ]
        for name in sorted(files):
            # Hidden files are nobody's pictures: macOS leaves a ._x.jpg beside every x.jpg.
            if Path(name).suffix.lower() in EXTENSIONS and not name.startswith("."):
                yield Path(parent, name)


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"The folder {error.filename} cannot be read: {error.strerror}. Allow it to be read, or "
        "name the folders that may be."
    ) from error


def _read_list(path: Path) -> Iterator[_Entry]:
    try:
        text = os.fsdecode(path.read_bytes())
    except OSError as error:
        raise DataNotFound(f"The list {path} cannot be read: {error.strerror}.") from error
    yield from _listed(text)


def _listed(text: str) -> Iterator[_Entry]:
    # Not splitlines: it also breaks at characters that names may hold.
    for line in text.split("\n"):
        if name := line.rstrip("\r"):
            yield _Entry(Path(name), name)


def _read_csv(path: Path) -> Iterator[_Entry]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file)
        if "path" not in (rows.fieldnames or ()):
            raise DataError(
                f"{path} has the columns {', '.join(rows.fieldnames or ()) or 'nothing'}; "
                f"a manifest needs 'path', and may have 'label' and 'split'."
            )
        for number, row in enumerate(rows, start=2):
            if not row["path"]:
                raise DataError(f"{path}, line {number}, names no path.")
            label, split = row.get("label") or "", row.get("split") or ""
            yield _Entry(path.parent / row["path"], row["path"], label, split)


def _image_set(entries: Sequence[_Entry]) -> ImageSet:
    unique: dict[str, _Entry] = {}
    for entry in entries:
        first = unique.setdefault(entry.name, entry)
        if first.path != entry.path and not _same_file(first.path, entry.path):
            raise DataError(
                f"Two pictures have the name {entry.name!r}: {first.path} and {entry.path}. "
                "Name the folder above both instead."
            )
        if first.label != entry.label:
            raise DataError(
                f"{entry.name!r} is there twice, as {first.label!r} and as {entry.label!r}. "
                "A picture has one label: remove one of the lines."
            )
    kept = list(unique.values())
    return ImageSet(
        names=tuple(unique),
        pictures=tuple(entry.path for entry in kept),
        labels=tuple(e.label for e in kept) if any(e.label for e in kept) else (),
        splits=tuple(e.split for e in kept) if any(e.split for e in kept) else (),
        duplicates=len(entries) - len(kept),
    )


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _stat(picture: Picture) -> tuple[int, int]:
    if not isinstance(picture, str | Path):
        return (0, 0)
    try:
        found = Path(picture).stat()
    except OSError:
        return (0, 0)  # the decoder will say what is wrong with it
    return (found.st_size, found.st_mtime_ns)
