"""Pictures by their rows, and their classes, as compact as the memory of many workers wants."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from vggfeat.data.datasets.ilsvrc import Ints, Names
from vggfeat.data.image import LACKING
from vggfeat.errors import DataError, PictureError


class Pictures(Protocol):
    """What files and tar files of pictures have in common."""

    @property
    def names(self) -> Names:
        """Paths (N,) below a folder or in an archive, as bytes."""

    def name(self, row: int) -> str:
        """Name of a picture."""

    def read(self, row: int) -> bytes:
        """Read the bytes of a picture; PictureError if that cannot be done."""

    def take(self, rows: ArrayLike) -> Pictures:
        """Keep these rows, in this order."""


@dataclass(frozen=True, eq=False)
class FilePictures:
    """Pictures that are files.

    Parameters
    ----------
    root : Path
    names : ndarray (N,) of bytes
        Paths below it.
    """

    root: Path
    names: Names

    def name(self, row: int) -> str:
        """Path of a picture below the root."""
        return os.fsdecode(bytes(self.names[row]))

    def read(self, row: int) -> bytes:
        """Read the bytes of a picture.

        Raises
        ------
        PictureError
            If the file cannot be read.
        """
        path = self.root / self.name(row)
        try:
            if path.exists() and not path.is_file():  # opening a pipe would wait for ever
                raise PictureError("not a file, but a folder, a pipe or a device")
            return path.read_bytes()
        except OSError as error:
            if error.errno in LACKING:
                raise DataError(f"{path} could not be read: {error.strerror}.") from error
            raise PictureError(error.strerror or str(error)) from error

    def take(self, rows: ArrayLike) -> FilePictures:
        """Keep these rows, in this order."""
        return replace(self, names=self.names[np.asarray(rows, dtype=np.int64)])


@dataclass(frozen=True, eq=False)
class Part:
    """Pictures and their classes.

    Parameters
    ----------
    pictures : Pictures
    labels : ndarray (N,) of int64
        The class of each, by its place in the training set's ``classes``.
    """

    pictures: Pictures
    labels: Ints

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """Name of a picture."""
        return self.pictures.name(row)

    def read(self, row: int) -> bytes:
        """Read the bytes of a picture; PictureError if that cannot be done."""
        return self.pictures.read(row)

    def take(self, rows: ArrayLike) -> Part:
        """Keep these rows, in this order."""
        kept = np.asarray(rows, dtype=np.int64)
        return Part(self.pictures.take(kept), self.labels[kept])
