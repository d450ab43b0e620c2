"""Same-shaped batches from pictures of any shape, decoded ahead by threads, bounded in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vggfeat.data.images import Picture, Pixels, load
from vggfeat.errors import PictureError

# Pixels that may wait in unfinished batches; the largest is run early when they become more.
HELD_PIXELS = 32_000_000
# Pictures decoded ahead of the network, for each thread: enough to ride out a slow file.
AHEAD = 4

Job = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Batch:
    """Pictures of one shape.

    Parameters
    ----------
    Q : int
        Their smallest side, in pixels.
    rows : tuple of int
        Which pictures they are, ascending.
    pixels : Tensor (B, 3, H, W) of uint8
        RGB, in channels_last order, never padded.
    """

    Q: int
    rows: tuple[int, ...]
    pixels: Tensor


@dataclass(frozen=True)
class Decoded:
    """A picture at all its scales, or the reason why there is none."""

    row: int
    pixels: dict[int, Pixels]
    error: PictureError | None = None


def decode_ahead(
    pictures: Sequence[Picture], jobs: Iterable[Job], *, workers: int, exif: bool = True
) -> Generator[Decoded, None, None]:
    """Decode pictures in threads (Pillow releases the interpreter's lock) and keep their order.

    Parameters
    ----------
    pictures : sequence of Picture
        All pictures.
    jobs : iterable of (row, scales)
        Which of them, at which scales.
    workers : int
        Number of threads.
    exif : bool
        Whether a recorded orientation is applied.
    """

    def one(job: Job) -> Decoded:
        row, scales = job
        try:
            return Decoded(row, load(pictures[row], scales, exif=exif))
        except PictureError as error:
            return Decoded(row, {}, error)

    waiting: deque[Future[Decoded]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="vggfeat-decode")
    try:
        for job in jobs:
            waiting.append(pool.submit(one, job))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batches(decoded: Iterable[Decoded], pixel_budget: int) -> Iterator[Batch]:
    """Group decoded pictures by exact shape; a batch is run as soon as it fills the budget.

    Parameters
    ----------
    decoded : iterable of Decoded
        Good pictures, rows ascending.
    pixel_budget : int
        Pixels after which a batch is complete; one picture alone may exceed it.

    Examples
    --------
    >>> import numpy as np
    >>> wide, tall = np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4, 3), np.uint8)
    >>> pictures = [Decoded(0, {4: wide}), Decoded(1, {4: tall}), Decoded(2, {4: wide})]
    >>> [(b.rows, tuple(b.pixels.shape)) for b in batches(pictures, pixel_budget=48)]
    [((0, 2), (2, 3, 4, 6)), ((1,), (1, 3, 6, 4))]
    """
    groups: dict[tuple[int, int, int], list[tuple[int, Pixels]]] = {}
    held = 0
    for picture in decoded:
        for Q, pixels in picture.pixels.items():
            height, width = pixels.shape[:2]
            key = (Q, height, width)
            group = groups.setdefault(key, [])
            group.append((picture.row, pixels))
            held += height * width
            # One more must still fit: a budget is an upper bound unless one picture exceeds it.
            if (len(group) + 1) * height * width > pixel_budget:
                held -= len(group) * height * width
                yield _batch(Q, groups.pop(key))
        while held > HELD_PIXELS:
            key = max(groups, key=lambda k: len(groups[k]) * k[1] * k[2])
            held -= len(groups[key]) * key[1] * key[2]
            yield _batch(key[0], groups.pop(key))
    for key in list(groups):
        yield _batch(key[0], groups.pop(key))


def _batch(Q: int, members: list[tuple[int, Pixels]]) -> Batch:
    stacked = torch.from_numpy(np.stack([pixels for _, pixels in members]))
    return Batch(Q, tuple(row for row, _ in members), stacked.permute(0, 3, 1, 2))
