"""Random crops, mirror images and colour shifts of Section 3.1, the same on every machine.

All that is random about an image in an epoch is a :class:`Draw`, a function of the seed, the
epoch and the image's index alone: it depends neither on how many processes or workers there
are nor on where a resumed run begins. The workers decode and cut, in :func:`crop`; the device
does the rest to whole batches, in :func:`to_input`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vggfeat.data.image import Pixels, decode, open_encoded, rescaled_size
from vggfeat.errors import DataError, ParameterError
from vggfeat.nets.preprocessing import PixelConvention
from vggfeat.settings import UPRIGHT, Decoding

SIDE = 224
SHIFT = NormalDist(0, 0.1)  # Krizhevsky's α

Scale = int | tuple[int, int]
Triple = tuple[float, float, float]
# A JPEG is decoded at reduced size while its smallest side stays at least this multiple of S. On
# photographs the result then differs from that of a full decoding by 1 grey level (root mean
# square; 46 dB), at a multiple of 1 by 4 (36 dB). 2000 × 1500 pixels at S = 256 take a third of
# the time; ILSVRC's usual 500 × 375 are decoded in full.
MARGIN = 2
_CHUNK = 1 << 20  # pixels whose squares are summed at once: 24 MB as float64


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


def crop(
    content: bytes,
    S: Scale,
    draw: Draw,
    side: int = SIDE,
    *,
    decoding: Decoding = UPRIGHT,
    reduced: bool = True,
) -> Pixels:
    """Decode an image and compute its crop.

    Parameters
    ----------
    content : bytes
        Of the file.
    S : int or tuple of two int
        Training scale, or its range.
    draw : Draw
        The image's random numbers.
    side : int
        Side of the crop, in pixels.
    decoding : Decoding
        How it becomes pixels.
    reduced : bool
        Whether a JPEG may be decoded at reduced size.

    Returns
    -------
    ndarray (side, side, 3) of uint8
        RGB, not mirrored: :func:`vggfeat.train.augment.to_input` does that.

    Raises
    ------
    ImageError
        With the reason, if it cannot be decoded.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> from vggfeat.train.augment import draw
    >>> image = asset("clipart10") / "boat" / "boat_0001.jpg"
    >>> crop(image.read_bytes(), 256, draw(0, epoch=0, image=7)).shape
    (224, 224, 3)
    """
    with open_encoded(content) as image:
        stored = image.size
        if reduced:
            smallest = MARGIN * training_scale(S, draw, side)
            image.draft(None, (smallest, smallest))
        return _cut(decode(image, decoding), stored, image.size, S, draw, side)


def _cut(
    image: Image.Image,
    stored: tuple[int, int],
    reduced: tuple[int, int],
    S: Scale,
    draw: Draw,
    side: int,
) -> Pixels:
    """Rescale what lies in the crop.

    The crop's box is reckoned in the full image, so that a reduced one is cut at the same place.
    """
    step = -(-stored[0] // reduced[0])  # 1, 2, 4 or 8: sizes are divided by it and rounded up
    if image.size != reduced:  # turned upright
        stored = stored[1], stored[0]
    place = crop_of(*stored, S, draw, side)
    box = [
        min(extent, (start + reach) * full / rescaled / step)
        for reach in (0, side)
        for start, full, rescaled, extent in zip(
            place.offset, stored, place.size, image.size, strict=True
        )
    ]
    left, top, right, bottom = box
    resized = image.resize((side, side), Image.Resampling.BILINEAR, (left, top, right, bottom))
    return np.asarray(resized)


@dataclass(frozen=True)
class Colours:
    """The colours of a training set.

    Parameters
    ----------
    mean : tuple of three float
        Mean R, G, B, in 0–255.
    values : tuple of three float
        Eigenvalues of the covariance of R, G, B in [0, 1], the largest first.
    vectors : tuple of three tuples
        Eigenvectors as the columns of a matrix whose rows are R, G, B.
    """

    mean: Triple
    values: Triple
    vectors: tuple[Triple, Triple, Triple]

    @property
    def deviation(self) -> float:
        """Root mean square of what is left when the mean is subtracted, in 0–255.

        Examples
        --------
        >>> round(ILSVRC.deviation, 1)
        72.2
        """
        return 255 * math.sqrt(sum(self.values) / 3)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Colours:
        """Inverse of :meth:`to_dict`, also after JSON made lists of the tuples."""
        r, g, b = map(_triple, saved["vectors"])
        return cls(_triple(saved["mean"]), _triple(saved["values"]), (r, g, b))


# The authors' mean and the components commonly used for ILSVRC. They are eigenvalues, not their
# roots: 0.24 in all is the variance of three channels whose deviation is 0.28 each.
ILSVRC = Colours(
    mean=(123.68, 116.779, 103.939),
    values=(0.2175, 0.0188, 0.0045),
    vectors=((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203)),
)


def principal_components(images: Iterable[Pixels]) -> Colours:
    """Compute the mean and the principal components of the pixels of a training set.

    Sums of whole numbers are exact, so the result is that of all pixels at once; the memory is
    that of one image. Every pixel counts the same. Of each vector the entry largest in
    magnitude is positive.

    Parameters
    ----------
    images : iterable of ndarray (H, W, 3) of uint8
        RGB; looked at once.

    Raises
    ------
    DataError
        If there is no pixel.

    Examples
    --------
    >>> grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    >>> found = principal_components([grey])
    >>> found.mean, [round(value, 4) for value in found.values]
    ((127.5, 127.5, 127.5), [0.252, 0.0, 0.0])
    """
    count = 0
    total = np.zeros(3, np.int64)
    squares = np.zeros((3, 3), np.int64)
    for image in images:
        for rows in _chunks(image):
            count += len(rows)
            total += rows.sum(axis=0).astype(np.int64)
            squares += (rows.T @ rows).astype(np.int64)  # exact: below 2⁵³ in a chunk
    if not count:
        raise DataError("There are no pixels to compute the mean colour of: no image was read.")
    mean = total / count
    covariance = (squares / count - np.outer(mean, mean)) / 255**2
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, range(3)])
    return Colours.from_dict({"mean": mean, "values": values, "vectors": vectors})


def colour_shifts(alphas: Sequence[Triple], colours: Colours) -> Tensor:
    """Compute Krizhevsky's P·(α∘λ), which is added to every pixel of an image.

    λ and P are the eigenvalues and eigenvectors of the covariance of R, G, B. Read literally, the
    formula depends on the unit, since λ has its square: here it is that of [0, 1], where the
    values commonly used belong. An image's red varies by 0.1·0.2175·0.57 ≈ 0.012, 3 of 255.

    Returns
    -------
    Tensor (B, 3) of float64
        R, G, B in units of a full channel.

    Examples
    --------
    >>> colour_shifts([(0.1, 0.0, 0.0)], ILSVRC).numpy().round(4)
    array([[-0.0123, -0.0126, -0.0127]])
    """
    alpha, values, vectors = (
        torch.tensor(numbers, dtype=torch.float64)
        for numbers in (alphas, colours.values, colours.vectors)
    )
    return alpha.view(-1, 3) * values @ vectors.T


def _triple(values: Iterable[float]) -> Triple:
    first, second, third = map(float, values)
    return first, second, third


def _chunks(image: Pixels) -> Iterator[npt.NDArray[np.float64]]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ParameterError.of(
            "images",
            "principal_components",
            "arrays (H, W, 3) of uint8",
            f"{image.shape} of {image.dtype}",
        )
    rows = image.reshape(-1, 3)
    for begin in range(0, len(rows), _CHUNK):
        yield rows[begin : begin + _CHUNK].astype(np.float64)


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
    chosen = torch.tensor(which, dtype=torch.bool).to(crops.device, non_blocking=True)
    return torch.where(chosen.view(-1, 1, 1, 1), crops.flip(3), crops)


def _among(count: int, uniform: float) -> int:
    """One of 0, …, count − 1, each equally likely."""
    return int(uniform * count)


def _to(device: torch.device, values: Tensor) -> Tensor:
    # Without waiting: a copy that waits would also wait for all work queued on the device.
    return values.to(device, torch.float32, non_blocking=True)
