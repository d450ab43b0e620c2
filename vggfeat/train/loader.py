"""Batches of crops: the same ones whatever the number of processes and workers, ahead of time.

What is trained on is a function of the seed: an epoch's order of the seed and the epoch, a crop of
the seed, the epoch and the image's row. Global batch k is rows [k·B, (k + 1)·B) of the order;
each process takes a contiguous share of it, and each of its workers makes whole shares.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Literal, NamedTuple
from weakref import ref

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vggfeat.errors import DataError, DeviceError, ParameterError
from vggfeat.train.augment import SIDE, Scale, training_scale
from vggfeat.train.decode import Packed, decode_packed
from vggfeat.train.part import Part
from vggfeat.train.shares import CENTRE, Job, Share, Shares

Decoder = Literal["pillow", "nvjpeg"]
DECODERS = ("pillow", "nvjpeg")


class Batch(NamedTuple):
    """A process's share of a global batch.

    Parameters
    ----------
    pixels : Tensor (B, 3, crop, crop) of uint8
        RGB, in channels_last order; pinned where there is a CUDA device, or on it with nvJPEG.
        Not mirrored: :func:`vggfeat.train.augment.to_input` does that on the device.
    labels : Tensor (B,) of int64
        Their classes.
    rows : Tensor (B,) of int64
        Their rows of the part, which with seed and epoch give their random numbers.
    """

    pixels: Tensor
    labels: Tensor
    rows: Tensor


class Loader:
    """Crops of a part of a training set, in batches, decoded ahead by worker processes.

    In training the last, incomplete batch of an epoch is left out, and a set smaller than a batch
    is one batch. An image that cannot be read is noted in ``failed``, and the next one of the
    epoch's order that can be takes its place: so batches keep their size, the gradient its scale,
    and every process decides alike without asking the others.

    In validation the order is that of the part, the last batch is kept, and what cannot be read is
    left out, so that no image counts twice; then a batch is smaller, and may be empty. The crop
    is the central one, from a full decoding, at Q = S, or Q = 0.5 (S_min + S_max) of a range
    (Section 3.2).

    Parameters
    ----------
    part : Part
        ``TrainSet.train`` or ``TrainSet.val``.
    batch_size : int
        B, over all processes; a multiple of `world`.
    S : int or tuple of two int
        Training scale: the smallest side of a rescaled image, or the range [S_min; S_max] from
        which each image's is drawn.
    crop : int
        Side of the crops, in pixels.
    workers : int
        Processes that decode; 0 decodes in this one. They end with :meth:`close`.
    seed : int
        Of the order and the crops.
    rank, world : int
        Which of how many processes this is.
    augment : bool
        True for training, False for validation.
    decoder : "pillow" or "nvjpeg"
        nvJPEG decodes on the GPU, in the process that trains; what it cannot decode, Pillow does.
    device : torch.device, optional
        The GPU of nvJPEG; the current one by default.

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
    DeviceError
        If nvJPEG is asked for where there is no CUDA device.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> from vggfeat.train.trainset import open_trainset
    >>> part = open_trainset(asset("clipart10")).train
    >>> with Loader(part, batch_size=90, S=32, crop=24) as loader:
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
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        augment: bool = True,
        decoder: Decoder = "pillow",
        device: torch.device | None = None,
    ) -> None:
        if batch_size < 1 or batch_size % world:
            expected = f"a multiple of the number of processes, {world}"
            raise ParameterError.of("batch_size", "Loader", expected, batch_size)
        if workers < 0:
            raise ParameterError.of("workers", "Loader", "an int of at least 0", workers)
        if decoder not in DECODERS:
            raise ParameterError.not_one_of("decoder", "Loader", DECODERS, decoder)
        if decoder == "nvjpeg" and not torch.cuda.is_available():
            raise DeviceError(
                "nvJPEG decodes on a CUDA device, and there is none. Leave the decoder at 'pillow'."
            )
        training_scale(S, CENTRE, crop)  # checks it
        self._shares = Shares(
            part, batch_size, S, crop, seed, rank, world, augment, decoder == "nvjpeg"
        )
        self._device = device or torch.device("cuda")
        self._jobs: list[Job] = []  # what the workers are to make, in this order
        self._batches: DataLoader[Share] | None = None
        self._workers = workers
        self._turn = 0
        self._walking: ref[Generator[Batch, None, None]] | None = None
        self._times = (0.0, 0.0)  # waited, in all: seconds
        self.failed: dict[str, str] = {}

    def __len__(self) -> int:
        return self._shares.count

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
        """Count the places of global batch k, over all processes."""
        start, end = self._shares.bounds(k)
        return end - start

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Go through an epoch from global batch `start` on; one such walk at a time.

        Raises
        ------
        ParameterError
            If the epoch has no such batch.
        DataError
            If many images, one after another, cannot be read.
        """
        if not 0 <= start <= len(self):
            raise ParameterError.of("start", "batches", f"an int from 0 to {len(self)}", start)
        self._turn += 1
        walk = self._walk([(epoch, k) for k in range(start, len(self))], self._turn)
        self._walking = ref(walk)
        return walk

    def close(self) -> None:
        """End the workers; another walk starts them anew."""
        if self._walking and (walk := self._walking()):
            walk.close()
        self._batches = self._walking = None  # torch ends workers that nobody holds any more

    def _walk(self, jobs: list[Job], turn: int) -> Generator[Batch, None, None]:
        asked = begun = perf_counter()
        waited = 0.0
        shares: Iterator[Share] | None = None
        for epoch, _ in jobs:
            if turn != self._turn:
                raise RuntimeError("This walk through an epoch ended when another was begun.")
            if shares is None:
                self._jobs[:] = jobs
                shares = iter(self._loader())
            batch = self._finished(next(shares), epoch)
            now = perf_counter()
            waited += now - asked
            self._times = (waited, now - begun)
            yield batch
            asked = perf_counter()

    def _loader(self) -> DataLoader[Share]:
        if self._batches is None:
            self._batches = DataLoader(
                self._shares,
                batch_size=None,
                sampler=self._jobs,
                num_workers=self._workers,
                collate_fn=_as_it_is,
                persistent_workers=self._workers > 0,
                pin_memory=torch.cuda.is_available(),
                worker_init_fn=_prepare_worker,
                # Else torch's global random state, which dropout uses, would move on with every
                # walk, and a resumed run would not continue as one that was never interrupted.
                generator=torch.Generator(),
            )
        return self._batches

    def _finished(self, share: Share, epoch: int) -> Batch:
        self.failed.update(share.failed)
        if share.error:
            raise DataError(share.error)
        if not share.packed:
            return Batch(share.pixels, share.labels, share.rows)
        return self._unpacked(share, epoch)

    def _unpacked(self, share: Share, epoch: int) -> Batch:
        """Decode on the GPU; what it cannot decode, or nobody can, goes the way of other files."""
        pixels = share.pixels.to(self._device, non_blocking=True)
        labels, rows = share.labels, share.rows
        kept = torch.ones(len(rows), dtype=torch.bool)
        decoded = decode_packed(list(share.packed.values()), self._shares.side, self._device)
        for slot, cut in zip(share.packed, decoded, strict=True):
            if cut is not None:
                pixels[slot] = cut
            elif made := self._shares.make(epoch, share.positions[slot], self.failed):
                assert not isinstance(made.pixels, Packed)
                pixels[slot] = torch.tensor(made.pixels).permute(2, 0, 1).to(self._device)
                labels[slot], rows[slot] = int(self._shares.part.labels[made.row]), made.row
            else:
                kept[slot] = False
        if kept.all():
            return Batch(pixels, labels, rows)
        return Batch(pixels[kept.to(self._device)], labels[kept], rows[kept])


@contextmanager
def decoding() -> Iterator[None]:
    """Say what to do if a decoding process is killed.

    torch raises that wherever the process that trains happens to be, and a pipe that breaks first
    raises an error of its own.

    Raises
    ------
    DataError
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"A decoding process ended ({why}). If memory ran out, ask for fewer --workers. The "
            "last checkpoint is intact: go on with --resume."
        ) from error


def _as_it_is(share: Any) -> Any:
    return share


def _prepare_worker(_: int) -> None:
    # Ctrl-C is for the process that trains, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which torch ends a worker
    # Of damaged metadata, which many of a million images have, in every worker.
    warnings.filterwarnings("ignore", module=r"PIL\.")
