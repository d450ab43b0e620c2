"""What a source of pictures names: a folder, a file, a glob, a list or a CSV manifest."""

from __future__ import annotations

import codecs
import csv
import glob
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vggfeat.data.images import EXTENSIONS
from vggfeat.errors import DataError, DataNotFound


@dataclass(frozen=True)
class Entry:
    """A picture as a source names it."""

    path: Path
    name: str
    label: str = ""
    split: str = ""


def entries(source: str, *, qualify: bool) -> Iterator[Entry]:
    """List what a source names; `qualify` keeps the folder in names, where there are several.

    Raises
    ------
    DataNotFound
        If the source does not exist.
    DataError
        If a manifest cannot be used.
    """
    path = Path(source)
    if source == "-":
        typed = sys.stdin.buffer.read() if sys.stdin else b""
        yield from _listed(typed)
    elif source.startswith("@") and not path.exists():
        yield from _read_list(Path(source[1:]))
    elif path.is_dir():
        base = path.parent if qualify and path.name else path
        yield from (Entry(p, os.path.relpath(p, base)) for p in walk(path))
    elif path.is_file():
        manifest = path.suffix.lower() == ".csv"
        yield from _read_csv(path) if manifest else [Entry(path, os.path.normpath(source))]
    elif matches := sorted(glob.glob(source, recursive=True)):  # noqa: PTH207  # may be absolute
        for match in matches:
            yield from entries(match, qualify=True)
    else:
        raise DataNotFound(f"There is no picture, folder or list {source!r}. Check the spelling.")


def walk(folder: Path) -> Iterator[Path]:
    """Go through the pictures below a folder, sorted, without hidden ones.

    Raises
    ------
    DataError
        If a folder cannot be read.
    """
    seen: set[Path] = set()
    for parent, folders, files in os.walk(folder, onerror=_unreadable, followlinks=True):
        # A folder reached in two ways is searched once, so that links cannot lead round in circles.
        if Path(parent).resolve() in seen:
            folders.clear()
            continue
        seen.add(Path(parent).resolve())
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            # Hidden files are nobody's pictures: macOS leaves a ._x.jpg beside every x.jpg.
            if Path(name).suffix.lower() in EXTENSIONS and not name.startswith("."):
                yield Path(parent, name)


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"The folder {error.filename} cannot be read: {error.strerror}. Allow it to be read, or "
        "name the folders that may be."
    ) from error


def _read_list(path: Path) -> Iterator[Entry]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataNotFound(f"The list {path} cannot be read: {error.strerror}.") from error
    yield from _listed(content)


def _listed(content: bytes) -> Iterator[Entry]:
    """Read one path a line, or paths with a NUL after each, as `find -print0` writes them."""
    end = b"\0" if b"\0" in content else b"\n"
    for line in content.removeprefix(codecs.BOM_UTF8).split(end):
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            yield Entry(Path(name), os.path.normpath(name))


def _read_csv(path: Path) -> Iterator[Entry]:
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
            name = os.path.normpath(row["path"])
            yield Entry(path.parent / row["path"], name, label, split)
