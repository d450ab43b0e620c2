"""Files and folders of images, and lists of a million of them that many processes can hold."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat._io.remote import is_address
from vggfeat.data.image import EXTENSIONS, ImageRef, read_encoded
from vggfeat.data.names import is_hidden
from vggfeat.data.sources.remote import RemoteImage
from vggfeat.errors import DataError

Names: TypeAlias = NDArray[np.bytes_]
Ints: TypeAlias = NDArray[np.int64]


class EncodedImages(ABC):
    """A compact list of encoded images, which are read one by one: files, or members of a tar."""

    names: Names
    """Names (N,), as bytes."""

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """Return the name of an image."""
        return os.fsdecode(bytes(self.names[row]))

    def read(self, row: int) -> bytes:
        """Read the file of an image, whole; ImageError if that cannot be done."""
        content = read_encoded(self.image(row))
        assert content is not None
        return content

    @abstractmethod
    def image(self, row: int) -> Path | ImageRef:
        """Return where an image is."""

    @abstractmethod
    def take(self, rows: ArrayLike) -> Self:
        """Keep these rows, in this order."""


@dataclass(frozen=True, eq=False)
class FileImages(EncodedImages):
    """Images that are files below a folder, or at other `places` if names are not their paths.

    Examples
    --------
    >>> images = FileImages(Path("photos"), np.array([b"a/1.jpg", b"a/2.jpg"]))
    >>> images.name(1), images.image(1), len(images.take([1]))
    ('a/2.jpg', ...Path('photos/a/2.jpg'), 1)
    """

    root: Path
    names: Names
    places: Names | None = None

    def image(self, row: int) -> Path | ImageRef:
        """Return where an image is."""
        places = self.names if self.places is None else self.places
        place = os.fsdecode(bytes(places[row]))
        return RemoteImage(place) if is_address(place) else self.root / place

    def take(self, rows: ArrayLike) -> Self:
        """Keep these rows, in this order."""
        kept = np.asarray(rows, dtype=np.int64)
        places = None if self.places is None else self.places[kept]
        return replace(self, names=self.names[kept], places=places)


def list_files(root: Path, folders: Iterable[Path]) -> FileImages:
    """List the images below some folders of a root."""
    start = len(root.absolute().as_posix().rstrip("/")) + 1
    names = [os.fsencode(path.as_posix()[start:]) for at in folders for path in walk(at.absolute())]
    return FileImages(root, np.array(names, dtype=np.bytes_))


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
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(files):
            if is_image(path := Path(parent, name)):
                yield path


def is_image(path: Path) -> bool:
    """Tell an image by its name."""
    return path.suffix.lower() in EXTENSIONS and not is_hidden(path.name)


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"The folder {error.filename} cannot be read: {error.strerror}. Allow it to be read, or "
        "name the folders that may be."
    ) from error
