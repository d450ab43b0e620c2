"""Images and the boxes of their objects, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from vggfeat.data.datasets.annotations import check_stated_size
from vggfeat.data.image import ImageRef, decode, decoded_size, open_encoded
from vggfeat.data.sources.files import EncodedImages, Ints, Names
from vggfeat.localization.boxes import Floats
from vggfeat.settings import UPRIGHT, Decoding
from vggfeat.train.data import Part


@dataclass(frozen=True, eq=False)
class SizedImages(EncodedImages):
    """Images that are refused when they are read, if they are not of the size stated for them.

    So whoever reads them leaves out those whose boxes lie elsewhere, as it does with damaged
    ones, and the heads of half a million files need not be read beforehand; it takes a hundredth
    of the time of decoding.

    Parameters
    ----------
    images : EncodedImages
    sizes : array, shape (N, 2)
        Width and height of each, once it is decoded.
    decoding : Decoding
        How they become pixels.
    """

    images: EncodedImages
    sizes: Ints
    decoding: Decoding = UPRIGHT
    names: Names = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", self.images.names)

    def image(self, row: int) -> Path | ImageRef:
        """Return where an image is."""
        return self.images.image(row)

    def read(self, row: int) -> bytes:
        """Read the bytes of an image.

        Raises
        ------
        ImageError
            If that cannot be done, or the image is of another size.
        """
        content = self.images.read(row)
        width, height = self.sizes[row].tolist()
        check_stated_size(decoded_size(content, self.decoding), (width, height))
        return content

    def take(self, rows: ArrayLike) -> Self:
        """Keep these rows, in this order."""
        kept = np.asarray(rows, dtype=np.int64)
        return replace(self, images=self.images.take(kept), sizes=self.sizes[kept])


@dataclass(frozen=True, eq=False)
class Boxed:
    """A part of a set: a row for each image and each class that it shows.

    Parameters
    ----------
    part : Part
        Images, and their classes by their places in the set's.
    sizes : array, shape (N, 2)
        Width and height of each image.
    boxes : tuple of N arrays, shape (K, 4)
        Edges of the objects of the class: the one to learn first, then all that count as found.
    decoding : Decoding
        How images become pixels, in which boxes are.
    """

    part: Part
    sizes: Ints
    boxes: tuple[Floats, ...]
    decoding: Decoding = UPRIGHT

    def __len__(self) -> int:
        return len(self.part)

    @property
    def chosen(self) -> Floats:
        """The box to learn of each row, edges (N, 4)."""
        return np.array([of[0] for of in self.boxes], dtype=np.float64).reshape(-1, 4)

    def images(self) -> Iterator[tuple[str, list[int]]]:
        """Go through the images, each with its rows, which follow one another."""
        for name, rows in groupby(range(len(self)), self.part.name):
            yield name, list(rows)

    def open(self, row: int) -> Image.Image:
        """Decode the image of a row.

        Raises
        ------
        ImageError
            If it cannot be read, or is not of the size that its annotation states: as a wrong
            annotation's, or one of an image before it was turned upright. Its boxes lie
            somewhere else.
        """
        with open_encoded(self.part.read(row)) as opened:
            image = decode(opened, self.decoding)
        width, height = self.sizes[row].tolist()
        check_stated_size(image.size, (width, height))
        return image

    def take(self, rows: Sequence[int]) -> Boxed:
        """Keep these rows, in this order."""
        kept = np.asarray(rows, dtype=np.int64)
        boxes = tuple(self.boxes[k] for k in kept)
        return replace(self, part=self.part.take(kept), sizes=self.sizes[kept], boxes=boxes)
