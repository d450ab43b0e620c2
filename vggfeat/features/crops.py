"""Multi-crop evaluation (Section 3.2): a regular grid of crops, each run on its own."""

from __future__ import annotations

from collections.abc import Callable

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


def cut(pixels: Tensor, grid: int) -> Tensor:
    """Cut the crops of a regular grid out of pictures of one shape.

    Parameters
    ----------
    pixels : Tensor (B, 3, H, W)
    grid : int
        Crops along each side.

    Returns
    -------
    Tensor (B·grid², 3, 224, 224)
        Picture by picture, row by row.
    """
    rows, columns = offsets(pixels.shape[2], grid), offsets(pixels.shape[3], grid)
    found = [pixels[:, :, y : y + SIDE, x : x + SIDE] for y in rows for x in columns]
    return torch.stack(found, 1).flatten(0, 1)


def crop_posteriors(
    scores: Callable[[Tensor], Tensor], pixels: Tensor, grid: int, *, flip: bool, budget: int
) -> Tensor:
    """Average the posteriors of all crops, and of their mirror images.

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
        Pixels that may go through the network at a time; one crop may exceed it.

    Returns
    -------
    Tensor (B, C)
    """
    found = []
    for some in torch.split(cut(pixels, grid), max(1, budget // SIDE**2)):
        posteriors = scores(some).softmax(1)
        if flip:
            posteriors = (posteriors + scores(some.flip(3)).softmax(1)) / 2
        found.append(posteriors)
    return torch.cat(found).view(len(pixels), grid**2, -1).mean(1)
