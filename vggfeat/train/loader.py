"""Batches of crops: the same ones whatever the number of processes and workers, ahead of time.

What is trained on is a function of the seed: an epoch's order of the seed and the epoch, a crop of
the seed, the epoch and the image's row.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vggfeat._io.text import counted
from vggfeat.data.image import Pixels
from vggfeat.errors import DataError, ImageError, ParameterError
from vggfeat.settings import UPRIGHT, Decoding
from vggfeat.train.augment import CENTRE, SIDE, Scale, crop, draw, training_scale
from vggfeat.train.data import Part

# Images unreadable one after another, after which the fault is the disk's rather than theirs.
MOST_BAD = 16
_NOTHING: Pixels = np.zeros((0, 0, 3), np.uint8)
_ORDER = 1 << 192  # Philox's counter for an epoch's order; those of images lie below


class Batch(NamedTuple):
    """A process's share of a global batch, without the images that cannot be read.

    Parameters
    ----------
    pixels : Tensor (B, 3, crop, crop) of uint8
        RGB, in channels_last order; pinned where there is a CUDA device. Not mirrored:
        :func:`vggfeat.train.augment.to_input` does that on the device.
    labels : Tensor (B,) of int64
        Their classes.
    rows : Tensor (B,) of int64
        Their rows of the part, which with seed and epoch give their random numbers.
    """

    pixels: Tensor
    labels: Tensor
    rows: Tensor


class _Crop(NamedTuple):
    """What a worker makes of an image; errors as words, since torch adds traces to exceptions."""

    row: int
    label: int
    pixels: Pixels
    name: str = ""
    unreadable: str = ""
    error: str = ""


class _Share(NamedTuple):
    """What a worker sends: the images that it could read, and those that it could not."""

    batch: Batch
    unreadable: dict[str, str]
    error: str


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """The images of each batch, as epochs and rows, for one of several processes.

    Global batch k is ``order[k·B : (k + 1)·B]``, and process r of W takes the r-th of W runs of it.
    In training the order is drawn, and the last, incomplete batch is left out unless it is the
    only one; in validation nothing is.
    """

    def __init__(
        self, count: int, batch_size: int, *, rank: int, world: int, seed: int | None
    ) -> None:
        full, rest = divmod(count, batch_size)
        self.batches = full + bool(rest and (seed is None or not full))
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.world = rank, world
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return self.batches - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.count)
        if self.seed is not None:
            order = epoch_order(self.count, self.seed, self.epoch)
        for k in range(self.start, self.batches):
            rows = order[k * self.batch_size : (k + 1) * self.batch_size]
            first, last = (len(rows) * r // self.world for r in (self.rank, self.rank + 1))
            yield [(self.epoch, int(row)) for row in rows[first:last]]


@dataclass(frozen=True, eq=False)
class _Crops(Dataset[_Crop]):
    """The crops of a part by epoch and row: drawn from the seed, or central without one."""

    part: Part
    S: Scale
    side: int
    seed: int | None
    decoding: Decoding

    def __getitem__(self, key: tuple[int, int]) -> _Crop:
        epoch, row = key
        chosen = CENTRE if self.seed is None else draw(self.seed, epoch, row)
        sample = _Crop(row, int(self.part.labels[row]), _NOTHING)
        try:
            content = self.part.read(row)
            # Validation is exact: what is measured is what the other commands will see.
            reduced = self.seed is not None
            pixels = crop(
                content, self.S, chosen, self.side, decoding=self.decoding, reduced=reduced
            )
            return sample._replace(pixels=pixels)
        except ImageError as error:
            return sample._replace(name=self.part.name(row), unreadable=str(error))
        except DataError as error:
            return sample._replace(error=str(error))

    def collate(self, crops: list[_Crop]) -> _Share:
        """Stack the crops that could be read."""
        readable = [sample for sample in crops if not (sample.unreadable or sample.error)]
        pixels = np.zeros((len(readable), self.side, self.side, 3), dtype=np.uint8)
        for slot, sample in zip(pixels, readable, strict=True):
            slot[:] = sample.pixels
        batch = Batch(
            torch.from_numpy(pixels).permute(0, 3, 1, 2),
            torch.tensor([sample.label for sample in readable], dtype=torch.int64),
            torch.tensor([sample.row for sample in readable], dtype=torch.int64),
        )
        unreadable = {sample.name: sample.unreadable for sample in crops if sample.unreadable}
        return _Share(
            batch, unreadable, next((sample.error for sample in crops if sample.error), "")
        )


class Loader:
    """Crops of a part of a training set, in batches, decoded ahead by worker processes.

    An image that cannot be read is left out and noted in ``failed``: a batch is smaller then, and
    may be empty. In validation the crop is the central one, from a full decoding, at Q = S, or
    Q = 0.5 (S_min + S_max) of a range (Section 3.2).

    Parameters
    ----------
    part : Part
        ``TrainSet.train`` or ``TrainSet.val``.
    batch_size : int
        B, over all processes; at least one image for each.
    S : int or tuple of two int
        Training scale: the smallest side of a rescaled image, or the range [S_min; S_max] from
        which each image's is drawn.
    crop : int
        Side of the crops, in pixels.
    workers : int
        Processes that decode; 0 decodes in this one. They end with :meth:`close`.
    seed : int or None
        Of the order and the crops; None in validation.
    rank, world : int
        Which of how many processes this is.
    decoding : Decoding
        How images become pixels.

    Attributes
    ----------
    failed : dict of str to str
        Name and reason of each image that this process could not read.
    waited : float
        Share of the time since :meth:`batches` was begun that was spent waiting for a batch, its
        first one included.

    Raises
    ------
    ParameterError
        If a setting is out of its range.
    DataError
        If there are fewer images to train with than processes.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> from vggfeat.train.data import open_trainset
    >>> part = open_trainset(asset("clipart10")).train
    >>> with Loader(part, batch_size=90, S=32, crop=24, seed=0) as loader:
    ...     for pixels, labels, rows in loader.batches(epoch=0, start=2):
    ...         print(len(loader), tuple(pixels.shape), tuple(labels.shape), tuple(rows.shape))
    3 (90, 3, 24, 24) (90,) (90,)
    """

    def __init__(
        self,
        part: Part,
        *,
        batch_size: int,
        S: Scale,
        crop: int = SIDE,
        workers: int = 0,
        seed: int | None = None,
        rank: int = 0,
        world: int = 1,
        decoding: Decoding = UPRIGHT,
    ) -> None:
        if batch_size < world:
            expected = f"at least {world}, an image for each process"
            raise ParameterError.of("batch_size", "Loader", expected, batch_size)
        if workers < 0:
            raise ParameterError.of("workers", "Loader", "an int of at least 0", workers)
        if seed is not None and len(part) < world:
            raise DataError(
                f"{counted(len(part), 'image')} to train with cannot be shared by {world} "
                f"processes. Start at most {len(part)}, or add images."
            )
        training_scale(S, CENTRE, crop)  # checks it
        self._crops = _Crops(part, S, crop, seed, decoding)
        self._sampler = BatchSampler(len(part), batch_size, rank=rank, world=world, seed=seed)
        self._workers = workers
        self._batches: DataLoader[_Crop] | None = None
        self._walk: Generator[Batch, None, None] | None = None
        self._times = (0.0, 0.0)  # waited, in all: seconds
        self.failed: dict[str, str] = {}

    def __len__(self) -> int:
        return self._sampler.batches

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waited(self) -> float:
        """Share of the time that was spent waiting for a batch."""
        waited, total = self._times
        return waited / total if total else 0.0

    def global_size(self, k: int) -> int:
        """Count the images of global batch k, over all processes, read or not."""
        return min(self._sampler.batch_size, self._sampler.count - k * self._sampler.batch_size)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Go through an epoch from global batch `start` on; ends the walk that was begun before.

        Raises
        ------
        ParameterError
            If the epoch has no such batch.
        DataError
            If many images, one after another, cannot be read.
        """
        if not 0 <= start <= len(self):
            raise ParameterError.of("start", "batches", f"an int from 0 to {len(self)}", start)
        if self._walk:
            self._walk.close()
        self._sampler.epoch, self._sampler.start = epoch, start
        self._walk = self._walked()
        return self._walk

    def close(self) -> None:
        """End the workers; another walk starts them anew."""
        if self._walk:
            self._walk.close()
        self._batches = self._walk = None  # torch ends workers that nobody holds any more

    def _walked(self) -> Generator[Batch, None, None]:
        begun = since = perf_counter()
        waited, bad = 0.0, 0
        for batch, unreadable, error in self._loader() if len(self._sampler) else ():
            self.failed.update(unreadable)
            bad = 0 if len(batch.rows) else bad + len(unreadable)
            if error or (self._sampler.seed is not None and bad >= self._most_bad):
                raise DataError(error or self._much_unreadable(bad, unreadable))
            now = perf_counter()
            waited += now - since
            self._times = (waited, now - begun)
            yield batch
            since = perf_counter()

    @property
    def _most_bad(self) -> int:
        of_an_epoch = min(self._sampler.count, len(self) * self._sampler.batch_size)
        return min(MOST_BAD, of_an_epoch // self._sampler.world)

    def _much_unreadable(self, count: int, unreadable: dict[str, str]) -> str:
        name, reason = list(unreadable.items())[-1]
        return (
            f"{count} images, one after another, could not be read; the last is {name}: {reason}. "
            "See whether the disk is there and the images are whole, and resume."
        )

    def _loader(self) -> DataLoader[_Crop]:
        if self._batches is None:
            self._batches = DataLoader(
                self._crops,
                batch_sampler=self._sampler,
                num_workers=self._workers,
                collate_fn=self._crops.collate,
                persistent_workers=self._workers > 0,
                pin_memory=torch.cuda.is_available(),
                worker_init_fn=_prepare_worker,
                # Else torch's global random state, which dropout uses, would move on with every
                # walk, and a resumed run would not continue as one that was never interrupted.
                generator=torch.Generator(),
            )
        return self._batches


@contextmanager
def explain_dead_workers(last: Path) -> Iterator[None]:
    """Say what to do if a decoding process is killed, where `last` is the checkpoint, if any.

    torch raises that wherever the process that trains happens to be, and a pipe that breaks first
    raises an error of its own.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        why = " ".join(str(error).split()) or type(error).__name__
        kept = "The last checkpoint is intact: go on with --resume." * last.is_file()
        raise DataError(
            f"A decoding process ended ({why}). If memory ran out, ask for fewer --workers. {kept}"
        ) from error


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


def _prepare_worker(_: int) -> None:
    # Ctrl-C, and SIGTERM to all processes of a run, are for the one that trains: it stops where it
    # is whole, and tells its workers to end. torch ends those whose process is gone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Of damaged metadata, which many of a million images have, in every worker.
    warnings.filterwarnings("ignore", module=r"PIL\.")
