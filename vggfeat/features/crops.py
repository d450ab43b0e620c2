"""Multi-crop evaluation (Section 3.2): a regular grid of crops, each run on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

SIDE = 224  # of a crop, in pixels: what the networks were trained on (Section 3.1)


def offsets(side: int, grid: int) -> list[int]:
    """Where crops begin along a side: evenly, the first and the last at the borders.

    Parameters
    ----------
    side : int
        Of the rescaled picture, in pixels, at least 224.
    grid : int
        Number of crops along it; one lies in the middle.

    Examples
    --------
    >>> offsets(256, 5), offsets(341, 3), offsets(256, 1)
    ([0, 8, 16, 24, 32], [0, 59, 117], [16])
    """
    room = side - SIDE
    if grid == 1:
        return [room // 2]
    gaps = grid - 1
    return [(2 * place * room + gaps) // (2 * gaps) for place in range(grid)]


def crop_posteriors(
    scores: Callable[[Tensor], Tensor], pixels: Tensor, grid: int, *, flip: bool, budget: int
) -> Tensor:
    """Average the posteriors of all crops, and of their mirror images.

    Crops are cut out as they are needed, so that memory is bounded by `budget` whatever the grid.

    Parameters
    ----------
    scores : callable
        Class scores (b, C) of crops (b, 3, 224, 224).
    pixels : Tensor (B, 3, H, W)
        Pictures of one shape.
    grid : int
        Crops along each side.
    flip : bool
        Whether mirror images of the crops count as well.
    budget : int
        Pixels that may go through the network at a time; one crop may exceed it. Where the
        device's memory does not hold as many, it is half of it, and half again.

    Returns
    -------
    Tensor (B, C)
    """
    corners = list(product(offsets(pixels.shape[2], grid), offsets(pixels.shape[3], grid)))
    everything = range(len(pixels) * len(corners))  # picture by picture, row by row
    sums: dict[int, Tensor] = {}
    start, size = 0, max(1, budget // SIDE**2)
    while len(some := everything[start : start + size]):
        places = [(n // len(corners), *corners[n % len(corners)]) for n in some]
        found = _posteriors(scores, _cut(pixels, places), flip=flip)
        if found is None:  # outside of the handler, whose error still holds the memory
            size = len(some) // 2
            continue
        counts = Counter(picture for picture, _, _ in places)  # whose crops lie together
        for picture, own in zip(counts, torch.split(found, list(counts.values())), strict=True):
            total = own.sum(0)
            sums[picture] = sums[picture] + total if picture in sums else total
        start += len(some)
    return torch.stack([sums[picture] for picture in range(len(pixels))]) / len(corners)


def _cut(pixels: Tensor, places: list[tuple[int, int, int]]) -> Tensor:
    """Cut crops (b, 3, 224, 224) out of pictures, by picture, top and left."""
    return torch.stack([pixels[n, :, y : y + SIDE, x : x + SIDE] for n, y, x in places])


def _posteriors(scores: Callable[[Tensor], Tensor], crops: Tensor, *, flip: bool) -> Tensor | None:
    """Return posteriors (b, C), or None where fewer crops might yet fit into memory."""
    try:
        posteriors = scores(crops).softmax(1)
        if flip:
            posteriors = (posteriors + scores(crops.flip(3)).softmax(1)) / 2
    except torch.OutOfMemoryError:
        if len(crops) == 1:
            raise
        return None
    return posteriors
