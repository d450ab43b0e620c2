"""Random crops, mirror images and colour shifts of Section 3.1, the same on every machine.

All that is random about an image in an epoch is a :class:`Draw`, a function of the seed, the
epoch and the image's index alone: it depends neither on how many processes or workers there
are nor on where a resumed run begins. The workers ask :func:`crop_of` where to cut; the device
does the rest to whole batches, in :func:`to_input`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vggfeat.data.image import rescaled_size
from vggfeat.errors import ParameterError
from vggfeat.nets.preprocessing import PixelConvention
from vggfeat.train.colours import ILSVRC, Colours, Triple, colour_shifts

SIDE = 224
SHIFT = NormalDist(0, 0.1)  # Krizhevsky's α

Scale = int | tuple[int, int]


class Draw(NamedTuple):
    """The random numbers of one image in one epoch.

    Parameters
    ----------
    scale, left, top : float
        Uniform in (0, 1): the training scale in its range, and where the crop lies.
    flip : bool
        Whether the image is mirrored; half are.
    alpha : tuple of three float
        The colour shift along each principal component, from N(0, σ = 0.1).
    """

    scale: float
    left: float
    top: float
    flip: bool
    alpha: Triple


# The middle of everything: the central crop, at the middle 0.5 (S_min + S_max) of a range of S.
CENTRE = Draw(0.5, 0.5, 0.5, False, (0.0, 0.0, 0.0))


class Place(NamedTuple):
    """Where a crop lies.

    Parameters
    ----------
    size : tuple of int
        Width and height of the whole image after rescaling.
    offset : tuple of int
        Left and top of the crop in it, in pixels.
    """

    size: tuple[int, int]
    offset: tuple[int, int]


def draw(seed: int, epoch: int, image: int) -> Draw:
    """Draw the random numbers of one image in one epoch.

    They come from Philox, a generator without a past: its key is the seed and the epoch, its
    counter the image. A call takes some 15 µs.

    Parameters
    ----------
    seed, epoch, image : int
        From 0 to 2⁶⁴ − 1; the image by its index in the training set.

    Examples
    --------
    >>> draw(0, epoch=3, image=41) == draw(0, epoch=3, image=41)
    True
    >>> draw(0, epoch=4, image=41).alpha == draw(0, epoch=5, image=41).alpha
    False
    """
    source = np.random.Philox(key=seed | epoch << 64, counter=image << 64)
    # The middles of 2⁵² equal parts of [0, 1]: neither 0, whose quantile is infinite, nor 1.
    parts = (source.random_raw(7) >> np.uint64(12)) + 0.5
    scale, left, top, flip, *shifts = (parts * 2.0**-52).tolist()
    first, second, third = map(SHIFT.inv_cdf, shifts)
    return Draw(scale, left, top, flip < 0.5, (first, second, third))


def training_scale(S: Scale, draw: Draw, side: int = SIDE) -> int:
    """Smallest side of an image in this epoch: S itself, or uniform over S_min, …, S_max.

    Raises
    ------
    ParameterError
        If a crop would not fit.

    Examples
    --------
    >>> training_scale((256, 512), draw(0, epoch=0, image=7)), training_scale(384, draw(0, 0, 7))
    (304, 384)
    """
    low, high = (S, S) if isinstance(S, int) else S
    if not side <= low <= high:
        expected = f"an integer from {side} on, or two of them, S_min ≤ S_max"
        raise ParameterError.of("S", "training", expected, S)
    return low + _among(high - low + 1, draw.scale)


def crop_of(width: int, height: int, S: Scale, draw: Draw, side: int = SIDE) -> Place:
    """Choose the crop of an image (Section 3.1): rescale it isotropically, cut anywhere.

    Parameters
    ----------
    width, height : int
        Of the image, in pixels.
    S : int or tuple of two int
        Training scale, the smallest side after rescaling; or the range [S_min; S_max] from which
        every image's is drawn.
    draw : Draw
        The image's random numbers.
    side : int
        Side of the crop, in pixels.

    Raises
    ------
    ParameterError
        If a crop would not fit.

    Examples
    --------
    >>> crop_of(500, 375, 256, draw(0, epoch=0, image=7))
    Place(size=(341, 256), offset=(29, 10))
    """
    size = rescaled_size(width, height, training_scale(S, draw, side))
    left, top = (
        _among(extent - side + 1, u) for extent, u in zip(size, (draw.left, draw.top), strict=True)
    )
    return Place(size, (left, top))


def to_input(
    crops: Tensor,
    pixels: PixelConvention,
    draws: Sequence[Draw] | None = None,
    colours: Colours | None = ILSVRC,
) -> Tensor:
    """Turn crops as decoded into what a network takes, augmented in training.

    Parameters
    ----------
    crops : Tensor (B, 3, H, W) of uint8
        RGB, on the device where the work shall be done.
    pixels : PixelConvention
        What the network takes; the mean is subtracted here.
    draws : sequence of B Draw, optional
        The images' random numbers; None in validation: no mirror images, no colour shift.
    colours : Colours or None
        Whose principal components shift the colours; None for no shift.

    Returns
    -------
    Tensor (B, 3, H, W) of float32
        On the same device, in the same memory format.

    Examples
    --------
    >>> crops = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    >>> to_input(crops, PixelConvention("RGB", 255.0, (100.0, 110.0, 120.0)))[0, :, 0, 0]
    tensor([155., 145., 135.])
    """
    shifts = torch.zeros(len(crops), 3, dtype=torch.float64)
    if draws is not None:
        crops = mirrored(crops, [draw.flip for draw in draws])
        if colours is not None:
            shifts = colour_shifts([draw.alpha for draw in draws], colours)
    if pixels.channels == "BGR":
        crops, shifts = crops.flip(1), shifts.flip(1)
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (pixels.mean, pixels.std))
    gain = _to(crops.device, pixels.range / 255 / std).view(1, 3, 1, 1)
    offset = _to(crops.device, (shifts * pixels.range - mean) / std).view(-1, 3, 1, 1)
    return crops.to(torch.float32).mul_(gain).add_(offset)


def mirrored(crops: Tensor, which: Sequence[bool]) -> Tensor:
    """Mirror some images of a batch (B, 3, H, W), left to right.

    Examples
    --------
    >>> mirrored(torch.tensor([[[[1, 2]]], [[[3, 4]]]]), [False, True]).flatten().tolist()
    [1, 2, 4, 3]
    """
    chosen = torch.tensor(which).to(crops.device, non_blocking=True)
    return torch.where(chosen.view(-1, 1, 1, 1), crops.flip(3), crops)


def _among(count: int, uniform: float) -> int:
    """One of 0, …, count − 1, each equally likely."""
    return int(uniform * count)


def _to(device: torch.device, values: Tensor) -> Tensor:
    # Without waiting: a copy that waits would also wait for all work queued on the device.
    return values.to(device, torch.float32, non_blocking=True)
