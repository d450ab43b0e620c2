"""From the bytes of an image to the crop that is trained on, with as little work as possible.

Three quarters of a rescaled image may lie outside of its crop, so only the crop is computed:
the pixels are those of :func:`vggfeat.data.image.rescale` and a cut, to a grey level. And a JPEG
of many more pixels than asked for is decoded at half, a quarter or an eighth of its size, which
libjpeg does in the frequency domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggfeat.data.image import Pixels, decode, open_encoded, orientation_of
from vggfeat.errors import ImageError
from vggfeat.train.augment import SIDE, Draw, Place, Scale, crop_of, training_scale

# A JPEG is decoded at reduced size while its smallest side stays at least this multiple of S. On
# photographs the result then differs from that of a full decoding by 1 grey level (root mean
# square; 46 dB), at a multiple of 1 by 4 (36 dB). 2000 × 1500 pixels at S = 256 take a third of
# the time; ILSVRC's usual 500 × 375 are decoded in full.
MARGIN = 2


class Packed(NamedTuple):
    """A JPEG for the GPU to decode.

    Parameters
    ----------
    content : Tensor (bytes,) of uint8
    place : Place
        Where its crop lies.
    """

    content: Tensor
    place: Place


def crop(content: bytes, S: Scale, draw: Draw, side: int = SIDE, *, reduced: bool = True) -> Pixels:
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
        return _cut(decode(image), stored, image.size, S, draw, side)


def packed(content: bytes, S: Scale, draw: Draw, side: int) -> Packed | None:
    """Prepare an image for the GPU, or None where Pillow must decode it.

    nvJPEG takes grey and RGB images and does not turn them upright; nothing but the head is
    read here.
    """
    try:
        with open_encoded(content) as image:
            plain = image.format == "JPEG" and image.mode in ("L", "RGB")
            if not plain or orientation_of(image) != 1:
                return None
            place = crop_of(*image.size, S, draw, side)
    except ImageError:  # Pillow's full reading will say what is wrong with it
        return None
    return Packed(torch.frombuffer(bytearray(content), dtype=torch.uint8), place)


def decode_packed(images: Sequence[Packed], side: int, device: torch.device) -> list[Tensor | None]:
    """Decode and crop on the GPU with nvJPEG: (3, side, side) of uint8 each, None where it fails.

    Rescaled by torch's bilinear interpolation with antialiasing, whose grey levels differ by one
    or two from Pillow's.
    """
    contents = [image.content for image in images]
    try:
        decoded: list[Tensor | None] = list(_nvjpeg(contents, device))
    except RuntimeError:  # one of them fails all
        decoded = [_one(content, device) for content in contents]
    return [
        None if pixels is None else _cut_tensor(pixels, image.place, side)
        for image, pixels in zip(images, decoded, strict=True)
    ]


def _one(content: Tensor, device: torch.device) -> Tensor | None:
    try:
        return _nvjpeg([content], device)[0]
    except RuntimeError:
        return None


def _nvjpeg(contents: list[Tensor], device: torch.device) -> list[Tensor]:
    import torchvision  # takes as long to load as torch, and is needed here alone

    rgb = torchvision.io.ImageReadMode.RGB
    decoded: list[Tensor] = torchvision.io.decode_jpeg(contents, mode=rgb, device=device)
    return decoded


def _cut_tensor(pixels: Tensor, place: Place, side: int) -> Tensor:
    width, height = place.size
    left, top = place.offset
    rescaled = torch.nn.functional.interpolate(
        pixels[None].float(), (height, width), mode="bilinear", antialias=True
    )
    cut = rescaled[0, :, top : top + side, left : left + side]
    return cut.round_().clamp_(0, 255).to(torch.uint8)


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
