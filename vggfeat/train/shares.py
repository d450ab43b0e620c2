"""What a worker makes: one process's share of one global batch, decoded.

It is a function of the job, which is an epoch and a batch of it: a worker has no state, so it
does not matter which of them makes what, or when.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vggfeat.data.image import Pixels
from vggfeat.errors import DataError, ImageError
from vggfeat.train.augment import Draw, Scale, draw
from vggfeat.train.decode import Packed, crop, packed
from vggfeat.train.part import Part

Job: TypeAlias = tuple[int, int]  # epoch, global batch
# The middle of everything: the central crop, at the middle 0.5 (S_min + S_max) of a range of S.
CENTRE = Draw(0.5, 0.5, 0.5, False, (0.0, 0.0, 0.0))
# Images unreadable one after another, after which the fault is the disk's rather than theirs.
MOST_BAD = 16
_ORDER = 1 << 192  # Philox's counter for an epoch's order; those of images lie below


class Share(NamedTuple):
    """A process's share of a global batch.

    Parameters
    ----------
    pixels : Tensor (B, 3, side, side) of uint8
        RGB, in channels_last order; without what the GPU is to decode.
    labels, rows : Tensor (B,) of int64
    positions : tuple of int
        Where each place of the share is in the epoch's order.
    packed : dict of int to Packed
        What the GPU is to decode, by its place in the share.
    failed : dict of str to str
        Name and reason of each image that could not be read.
    error : str
        Why there is no share.
    """

    pixels: Tensor
    labels: Tensor
    rows: Tensor
    positions: tuple[int, ...]
    packed: dict[int, Packed]
    failed: dict[str, str]
    error: str


class Made(NamedTuple):
    """One place of a share: its row, and its pixels or what the GPU makes them of."""

    position: int
    row: int
    pixels: Pixels | Packed


@dataclass(frozen=True, eq=False)
class Shares(Dataset[Share]):
    """All shares of a process, by their jobs.

    Parameters
    ----------
    part : Part
    batch_size : int
        Of a global batch.
    S : int or tuple of two int
    side : int
        Of a crop, in pixels.
    seed, rank, world : int
    augment : bool
        True for training, False for validation.
    pack : bool
        Whether JPEGs are left to the GPU.
    """

    part: Part
    batch_size: int
    S: Scale
    side: int
    seed: int
    rank: int
    world: int
    augment: bool
    pack: bool

    @property
    def count(self) -> int:
        """Number of global batches in an epoch."""
        full, rest = divmod(len(self.part), self.batch_size)
        return full + bool(rest and (not self.augment or not full))

    def bounds(self, k: int) -> tuple[int, int]:
        """First and last position of global batch k in an epoch's order."""
        start = k * self.batch_size
        return start, min(start + self.batch_size, len(self.part))

    def __getitem__(self, job: Job) -> Share:
        epoch, k = job
        failed: dict[str, str] = {}
        start, end = self.bounds(k)
        first, last = (start + (end - start) * r // self.world for r in (self.rank, self.rank + 1))
        try:
            made = [
                one
                for position in range(first, last)
                if (one := self.make(epoch, position, failed, pack=self.pack))
            ]
        except DataError as error:  # as words: torch would add its trace to an exception
            return self._share([], failed, str(error))
        return self._share(made, failed)

    def make(
        self, epoch: int, position: int, failed: dict[str, str], *, pack: bool = False
    ) -> Made | None:
        """Make one place: in training of the first image from there on that can be read.

        Raises
        ------
        DataError
            If none of many can.
        """
        reason = ""
        for row in self._candidates(epoch, position):
            image_draw = draw(self.seed, epoch, row) if self.augment else CENTRE
            try:
                return Made(position, row, self._pixels(row, image_draw, pack))
            except ImageError as error:
                reason = f"{self.part.name(row)}: {error}"
                failed[self.part.name(row)] = str(error)
        if self.augment:
            raise DataError(
                f"{self._patience} images, one after another, could not be read; the last is "
                f"{reason}. See whether the disk is there and the images are whole, and resume."
            )
        return None

    @property
    def _patience(self) -> int:
        return min(MOST_BAD, len(self.part))

    def _candidates(self, epoch: int, position: int) -> Iterator[int]:
        if not self.augment:
            yield position
            return
        order = epoch_order(len(self.part), self.seed, epoch)
        for step in range(self._patience):
            yield int(order[(position + step) % len(order)])

    def _pixels(self, row: int, image_draw: Draw, pack: bool) -> Pixels | Packed:
        content = self.part.read(row)
        if pack and (left := packed(content, self.S, image_draw, self.side)):
            return left
        # Validation is exact: what is measured is what the other commands will see.
        return crop(content, self.S, image_draw, self.side, reduced=self.augment)

    def _share(self, made: Sequence[Made], failed: dict[str, str], error: str = "") -> Share:
        pixels = np.zeros((len(made), self.side, self.side, 3), dtype=np.uint8)
        left: dict[int, Packed] = {}
        for slot, one in enumerate(made):
            if isinstance(one.pixels, Packed):
                left[slot] = one.pixels
            else:
                pixels[slot] = one.pixels
        rows = np.array([one.row for one in made], dtype=np.int64)
        return Share(
            pixels=torch.from_numpy(pixels).permute(0, 3, 1, 2),
            labels=torch.from_numpy(self.part.labels[rows]),
            rows=torch.from_numpy(rows),
            positions=tuple(one.position for one in made),
            packed=left,
            failed=failed,
            error=error,
        )


@lru_cache(maxsize=2)
def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the images in an epoch: the same on every machine.

    It sorts numbers of Philox, a generator without a past, rather than trust numpy to shuffle in
    the same way for ever.

    Examples
    --------
    >>> sorted(epoch_order(5, seed=0, epoch=3).tolist())
    [0, 1, 2, 3, 4]
    """
    source = np.random.Philox(key=seed | epoch << 64, counter=_ORDER)
    order = np.argsort(source.random_raw(count), kind="stable")
    order.flags.writeable = False
    return order
