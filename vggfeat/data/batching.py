"""Same-shaped batches from images of any shape, decoded ahead by threads, bounded in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vggfeat.data.identity import NOWHERE, Id, id_of
from vggfeat.data.image import ImageLike, Pixels, load, read_encoded
from vggfeat.errors import ImageError
from vggfeat.settings import UPRIGHT, Decoding

# Pixels that may wait in unfinished batches; the largest is run early when they become more.
HELD_PIXELS = 32_000_000
# Images decoded ahead of the network, for each thread: enough to ride out a slow file.
AHEAD = 4

Wanted = Mapping[int, Any]
"""What is wanted of an image, by scale Q: images of which the same is wanted share a batch."""
Key = tuple[int, tuple[tuple[int, Any], ...], int, int]
"""What the images of a batch have in common: scale, all that is wanted of each, height, width."""


class Job(NamedTuple):
    """An image to be decoded: its row, and what is wanted of it, once its id is known.

    A decoding thread calls `wanted` with row and id; where nothing is wanted it decodes nothing.
    """

    row: int
    wanted: Callable[[int, Id], Wanted]


@dataclass(frozen=True)
class ImageBatch:
    """Images of one shape, of which the same is wanted."""

    Q: int  # their smallest side
    rows: tuple[int, ...]  # which they are, ascending
    pixels: Tensor  # (B, 3, H, W) of uint8: RGB, in channels_last order, never padded
    wanted: Any = None


@dataclass(frozen=True)
class DecodedImage:
    """An image that was read: its id, its pixels at each scale wanted, or why there are none."""

    row: int
    pixels: dict[int, Pixels]
    error: ImageError | None = None
    id: Id = NOWHERE
    wanted: Wanted = field(default_factory=dict)


def decode_ahead(
    images: Sequence[ImageLike],
    jobs: Iterable[Job],
    decoding: Decoding = UPRIGHT,
    *,
    workers: int,
) -> Generator[DecodedImage, None, None]:
    """Decode those images that the jobs name in threads, and keep the order of the jobs.

    Pillow releases the interpreter's lock.
    """

    def read(job: Job) -> DecodedImage:
        image, own = images[job.row], NOWHERE
        try:
            encoded = read_encoded(image)  # the one time that its file is opened
            own = id_of(image, encoded)
            wanted = job.wanted(job.row, own)
            pixels = load(image, wanted, decoding, encoded=encoded) if wanted else {}
        except ImageError as error:
            return DecodedImage(job.row, {}, error, own)
        return DecodedImage(job.row, pixels, None, own, wanted)

    waiting: deque[Future[DecodedImage]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="vggfeat-decode")
    try:
        for job in jobs:
            waiting.append(pool.submit(read, job))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def make_batches(decoded: Iterable[DecodedImage], pixel_budget: int) -> Iterator[ImageBatch]:
    """Group good images, rows ascending, by exact shape and what is wanted.

    A batch is complete at `pixel_budget` pixels; one image alone may exceed it.

    Examples
    --------
    >>> import numpy as np
    >>> wide, tall = np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4, 3), np.uint8)
    >>> images = [DecodedImage(row, {4: pixels}) for row, pixels in enumerate((wide, tall, wide))]
    >>> [(b.rows, tuple(b.pixels.shape)) for b in make_batches(images, pixel_budget=48)]
    [((0, 2), (2, 3, 4, 6)), ((1,), (1, 3, 6, 4))]
    """
    groups: dict[Key, list[tuple[int, Pixels]]] = {}
    held = 0
    for image in decoded:
        # All of it, also at other scales: what is written together is run together, or a run that
        # was killed between two shards would make other batches.
        wanted = tuple(sorted(image.wanted.items()))
        for Q, pixels in image.pixels.items():
            height, width = pixels.shape[:2]
            key = (Q, wanted, height, width)
            group = groups.setdefault(key, [])
            group.append((image.row, pixels))
            held += height * width
            # One more must still fit: a budget is an upper bound unless one image exceeds it.
            if (len(group) + 1) * height * width > pixel_budget:
                held -= len(group) * height * width
                yield _batch(key, groups.pop(key))
        while held > HELD_PIXELS:
            key = max(groups, key=lambda k: len(groups[k]) * k[2] * k[3])
            held -= len(groups[key]) * key[2] * key[3]
            yield _batch(key, groups.pop(key))
    for key in list(groups):
        yield _batch(key, groups.pop(key))


def _batch(key: Key, members: list[tuple[int, Pixels]]) -> ImageBatch:
    stacked = torch.from_numpy(np.stack([pixels for _, pixels in members]))
    rows = tuple(row for row, _ in members)
    return ImageBatch(key[0], rows, stacked.permute(0, 3, 1, 2), dict(key[1]).get(key[0]))
