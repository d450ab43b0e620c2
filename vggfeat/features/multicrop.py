"""Multi-crop evaluation (Section 3.2): a regular grid of crops, each described on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from vggfeat.nets.config import INPUT_SIDE


def offsets(side: int, grid: int) -> list[int]:
    """Where a grid of crops begins along a side: evenly, from border to border; one in the middle.

    Examples
    --------
    >>> offsets(256, 5), offsets(341, 3), offsets(256, 1)
    ([0, 8, 16, 24, 32], [0, 59, 117], [16])
    """
    room = side - INPUT_SIDE
    if grid == 1:
        return [room // 2]
    gaps = grid - 1
    return [(2 * place * room + gaps) // (2 * gaps) for place in range(grid)]


def average_crops(
    describe: Callable[[Tensor], Tensor], pixels: Tensor, grid: int, *, flip: bool, budget: int
) -> Tensor:
    """Average the descriptors of all crops, and of their mirror images with `flip`.

    Parameters
    ----------
    describe : callable
        Descriptors (b, D) of crops (b, 3, 224, 224).
    pixels : Tensor (B, 3, H, W)
    grid : int
        Crops along each side.
    budget : int
        Pixels that may go through the network at a time; one crop may exceed it. Where the
        device's memory does not hold as many, it is half of it, and half again.

    Returns
    -------
    Tensor (B, D)
    """
    corners = list(product(offsets(pixels.shape[2], grid), offsets(pixels.shape[3], grid)))
    everything = range(len(pixels) * len(corners))  # image by image, row by row
    sums: dict[int, Tensor] = {}
    start, size = 0, max(1, budget // INPUT_SIDE**2)
    while len(some := everything[start : start + size]):
        places = [(n // len(corners), *corners[n % len(corners)]) for n in some]
        crops = torch.stack(
            [pixels[n, :, y : y + INPUT_SIDE, x : x + INPUT_SIDE] for n, y, x in places]
        )
        described = _describe(describe, crops, flip=flip)
        if described is None:  # outside of the handler, whose error still holds the memory
            size = len(some) // 2
            continue
        counts = Counter(image for image, _, _ in places)  # whose crops lie together
        for image, own in zip(counts, torch.split(described, list(counts.values())), strict=True):
            total = own.sum(0)
            sums[image] = sums[image] + total if image in sums else total
        start += len(some)
    return torch.stack([sums[image] for image in range(len(pixels))]) / len(corners)


def _describe(describe: Callable[[Tensor], Tensor], crops: Tensor, *, flip: bool) -> Tensor | None:
    """Return descriptors (b, D), or None where fewer crops might yet fit into memory."""
    try:
        descriptors = describe(crops)
        if flip:
            descriptors = (descriptors + describe(crops.flip(3))) / 2
    except torch.OutOfMemoryError:
        if len(crops) == 1:
            raise
        return None
    return descriptors
