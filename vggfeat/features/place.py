"""Where the files of a feature store lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import h5py

from vggfeat._io.atomic import explain_os_errors, leftovers, write_atomic, write_exclusive
from vggfeat._io.remote import address_of
from vggfeat.features.files import ASIDE, opened
from vggfeat.features.remote import RemotePlace


class Place(Protocol):
    """What a folder, or any other place that keeps files by name, does for a store.

    Names are relative, with ``/`` between folder and file: ``manifest.json``, ``shards/….h5``.
    ``str`` of a place is what a user would type to name it.
    """

    def create(self) -> None:
        """Make the place ready to be written."""

    def names(self, folder: str = "") -> list[str]:
        """Return the bare names of what lies directly in a folder; nothing if it is absent."""

    def read(self, name: str) -> bytes | None:
        """Return a small file's content; None if it is absent."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, seen whole or not at all and durable on return, in place of any other."""

    def write_new(self, name: str, content: bytes) -> bool:
        """Write likewise, unless the file is there: then leave it, and return False."""

    def remove(self, name: str) -> None:
        """Remove a file; it is no error if it is absent."""

    def set_aside(self, name: str) -> str:
        """Rename a file so that no reader takes it for one of the store's; return its new name."""

    def opened(self, name: str) -> AbstractContextManager[h5py.File]:
        """Open an HDF5 file for reading."""

    def sha256(self, name: str) -> str:
        """Digest a file of any size."""

    def nbytes(self, names: Iterable[str]) -> int:
        """Bytes of some files together; absent ones count nothing."""

    def leftovers(self) -> list[str]:
        """Name the temporary files of writers that are dead."""


def place_of(where: Path | str) -> Place:
    """Return the place that a user named: a folder here, or an address such as s3://bucket/f.

    Examples
    --------
    >>> str(place_of("features"))
    'features'
    """
    address = address_of(where)
    return Folder(Path(where)) if address is None else RemotePlace(address)


class Folder:
    """A folder of the file system.

    Parameters
    ----------
    path : Path
        It need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def create(self) -> None:
        """Make the folders."""
        with explain_os_errors(self.path):
            (self.path / "shards").mkdir(parents=True, exist_ok=True)

    def names(self, folder: str = "") -> list[str]:
        """Return the bare names of what lies directly in a folder; nothing if it is absent."""
        where = self.path / folder
        with explain_os_errors(where, "read"):
            return [path.name for path in where.iterdir()] if where.is_dir() else []

    def read(self, name: str) -> bytes | None:
        """Return a small file's content; None if it is absent."""
        with explain_os_errors(self.path / name, "read"):
            try:
                return (self.path / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all; it is on disk on return."""
        write_atomic(self.path / name, content)

    def write_new(self, name: str, content: bytes) -> bool:
        """Write a file unless it is there already."""
        return write_exclusive(self.path / name, content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with explain_os_errors(self.path / name, "removed"):
            (self.path / name).unlink(missing_ok=True)

    def set_aside(self, name: str) -> str:
        """Rename a file so that no reader takes it for one of the store's."""
        with explain_os_errors(self.path / name, "renamed"):
            (self.path / name).replace(self.path / (name + ASIDE))
        return name + ASIDE

    def opened(self, name: str) -> AbstractContextManager[h5py.File]:
        """Open an HDF5 file for reading."""
        return opened(self.path / name)

    def sha256(self, name: str) -> str:
        """Digest a file of any size."""
        with explain_os_errors(self.path / name, "read"), (self.path / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def nbytes(self, names: Iterable[str]) -> int:
        """Bytes of some files together."""
        paths = [self.path / name for name in names]
        return sum(path.stat().st_size for path in paths if path.exists())

    def leftovers(self) -> list[str]:
        """Name the temporary files of writers that are dead."""
        found = [*leftovers(self.path), *leftovers(self.path / "shards")]
        return [path.relative_to(self.path).as_posix() for path in found]
