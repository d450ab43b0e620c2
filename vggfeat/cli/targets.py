"""Where a command writes, looked at before its work, which may take hours."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from vggfeat._io.atomic import explain_os_errors
from vggfeat._io.remote import address_of
from vggfeat.data.image import HEAD, is_drawing
from vggfeat.data.names import is_hidden
from vggfeat.errors import StoreError
from vggfeat.report.tables import RESULT

MEGABYTE = 1 << 20  # the longest line of names that a table begins with


def check_file(
    option: str,
    target: Path | None,
    *,
    makes_folder: bool = False,
    made_by: Iterable[Path | None] = (),
    force: bool = True,
) -> None:
    """Refuse a file that cannot be written, or that is there and may not be replaced.

    Parameters
    ----------
    option : str
        The option or argument that names it.
    target : Path, optional
        None where nothing is to be written.
    makes_folder : bool
        Whether the command makes the folder of the file, wherever it is.
    made_by : iterable of Path
        Folders that the command makes: the file may lie in them.
    force : bool
        Whether a file that is there is replaced.

    Raises
    ------
    StoreError
        Saying what is in its place, or what is missing above it.
    """
    if target is None:
        return
    if target.is_dir():
        raise StoreError(f"{option} {target} is a folder. Name a file, in it or elsewhere.")
    if target.exists() and not force:
        raise StoreError(f"{target} is there already. Name another file, or replace it by --force.")
    _check_above(option, target)
    absolute = target.absolute()
    made = makes_folder or any(out and out.absolute() in absolute.parents for out in made_by)
    if not made and not target.parent.exists():
        raise StoreError(
            f"There is no folder {target.parent} for {option} {target}. Make it, or name another "
            "file."
        )
    there = _existing(target.parent)
    if not os.access(there, os.W_OK | os.X_OK):
        raise StoreError(
            f"{option} {target} may not be written in {there}. Allow it, or name another place."
        )


def file_path(text: str) -> Path:
    """Take the path of a file as it is typed; one that ends in a slash names a folder.

    Raises
    ------
    StoreError
        If it does.
    """
    if text.endswith(("/", os.sep)):
        raise StoreError(f"{text} is a folder. Name a file in it, such as {text}features.h5.")
    return Path(text)


def check_folder(option: str, target: Path | str | None) -> None:
    """Refuse a folder that is a file, or lies below one; an address is looked at by its store.

    Raises
    ------
    StoreError
        Naming the file.
    """
    if target is None or address_of(target):
        return
    if Path(target).is_file():
        raise StoreError(f"{option} {target} is a file. Name a folder.")
    _check_above(option, Path(target))


def check_drawings(option: str, folder: Path, columns: Sequence[str]) -> None:
    """Refuse a folder to draw into that holds anything but earlier drawings and their tables.

    Parameters
    ----------
    option : str
        The option that names it.
    folder : Path
    columns : sequence of str
        Those of the command's tables.

    Raises
    ------
    StoreError
        Naming something else that lies there.
    """
    check_folder(option, folder)
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for path in (Path(at, name) for name in sorted(files) if not is_hidden(name)):
            if not (_is_drawing(path) or _is_table(path, columns)):
                raise StoreError(
                    f"{option} {folder} holds {path.relative_to(folder)}, which is no drawing of "
                    "an earlier run, and nothing is written among other files. Name a new or empty "
                    f"folder with {option}."
                )


def check_report(option: str, page: Path | None) -> None:
    """Refuse a page whose figures would go into a folder of other files, as of the images.

    Parameters
    ----------
    option : str
        The option that names it.
    page : Path, optional
        None where nothing is to be written. Its figures go into the folder of its name.

    Raises
    ------
    StoreError
        Naming the folder.
    """
    check_file(option, page, makes_folder=True)
    folder = page.with_suffix("") if page else None
    if page is None or folder is None or page.is_file() or not folder.is_dir():
        return
    figures = {".csv", Path(RESULT).suffix}
    others = (path for path in folder.iterdir() if path.suffix not in figures)
    if any(not is_hidden(path.name) for path in others):
        raise StoreError(
            f"{option} {page}: its figures go into the folder {folder}, which holds other files. "
            f"Name another page, such as {page.with_stem(f'{page.stem}-report')}."
        )


def check_table(
    option: str, target: Path | None, first: Sequence[str], last: Sequence[str] = ()
) -> None:
    """Refuse to replace a file but an earlier table of the command, or one that is empty.

    Parameters
    ----------
    option : str
        The option that names it.
    target : Path, optional
        None where nothing is to be written.
    first, last : sequence of str
        The columns that it begins and ends with.

    Raises
    ------
    StoreError
        Saying that it is something else.
    """
    if target is None or not target.is_file() or not target.stat().st_size:
        return
    if not _is_table(target, first, last):
        raise StoreError(
            f"{option} {target} is there already, and is none of the tables that this command "
            "writes. Name another file, or move that one away."
        )


def _is_drawing(path: Path) -> bool:
    if not path.is_file():  # a pipe, or a link to nothing
        return False
    with explain_os_errors(path, "read"), path.open("rb") as file:
        return is_drawing(file.read(HEAD))


def _is_table(path: Path, first: Sequence[str], last: Sequence[str] = ()) -> bool:
    """Tell a table by the columns that it begins and ends with."""
    if not path.is_file():
        return False
    with explain_os_errors(path, "read"), path.open("rb") as file:
        line = file.readline(MEGABYTE).decode("utf-8", "replace")
    try:
        names = next(csv.reader([line]), [])
    except csv.Error:
        return False
    return names[: len(first)] == [*first] and names[len(names) - len(last) :] == [*last]


def _check_above(option: str, target: Path) -> None:
    there = _existing(target.parent)
    if not there.is_dir():
        raise StoreError(
            f"{option} {target} cannot be written, since {there} is a file. Name another place."
        )


def _existing(path: Path) -> Path:
    """Return the nearest folder or file that is there, at a path or above it."""
    return next(one for one in (path, *path.parents) if one.exists())
