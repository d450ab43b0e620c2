"""Files and folders of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from vggfeat.data.image import EXTENSIONS
from vggfeat.errors import DataError


def walk(folder: Path) -> Iterator[Path]:
    """Go through the images below a folder, sorted, without hidden ones.

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
            if is_image(path := Path(parent, name)):
                yield path


def is_image(path: Path) -> bool:
    """Tell an image by its name."""
    # Hidden files are nobody's images: macOS leaves a ._x.jpg beside every x.jpg.
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"The folder {error.filename} cannot be read: {error.strerror}. Allow it to be read, or "
        "name the folders that may be."
    ) from error
