"""From the bytes of an image to the crop that is trained on, with as little work as possible.

Three quarters of a rescaled image may lie outside of its crop, so only the crop is computed:
the pixels are those of :func:`vggfeat.data.image.rescale` and a cut, to a grey level. And a JPEG
of many more pixels than asked for is decoded at half, a quarter or an eighth of its size, which
libjpeg does in the frequency domain.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from vggfeat.data.image import Pixels, decode, open_encoded
from vggfeat.train.augment import SIDE, Draw, Scale, crop_of, training_scale

# A JPEG is decoded at reduced size while its smallest side stays at least this multiple of S. On
# photographs the result then differs from that of a full decoding by 1 grey level (root mean
# square; 46 dB), at a multiple of 1 by 4 (36 dB). 2000 × 1500 pixels at S = 256 take a third of
# the time; ILSVRC's usual 500 × 375 are decoded in full.
MARGIN = 2


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
