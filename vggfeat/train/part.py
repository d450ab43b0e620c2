"""Images to train or to test with, and their classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vggfeat.data.sources.files import EncodedImages, Ints
from vggfeat.errors import DataError


@dataclass(frozen=True, eq=False)
class Part:
    """Images and their classes, as compact as the memory of many workers wants.

    Parameters
    ----------
    images : EncodedImages
    labels : ndarray (N,) of int64
        The class of each, by its place in the training set's ``classes``.
    """

    images: EncodedImages
    labels: Ints

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """Return the name of an image."""
        return self.images.name(row)

    def read(self, row: int) -> bytes:
        """Read the bytes of an image.

        Raises
        ------
        ImageError
            If it cannot be read.
        DataError
            If the machine lacks what reading takes.
        """
        try:
            return self.images.read(row)
        except OSError as error:
            raise DataError(f"{self.name(row)} could not be read: {error.strerror}.") from error

    def take(self, rows: ArrayLike) -> Part:
        """Keep these rows, in this order."""
        kept = np.asarray(rows, dtype=np.int64)
        return Part(self.images.take(kept), self.labels[kept])
