"""What of vggfeat the cases touch, in one place: the only file here that the rebuild may change.

Command words, keys of JSON, paths in HDF5, names in stores, and imports. A case says what it
means in words that stay (image, descriptor, column); this file says what it is called today.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def decode(image: Path) -> Image.Image:
    """Open an image as RGB, upright."""
    from vggfeat.data.images import decode

    return decode(image)


def rescale(image: Image.Image, Q: int) -> np.ndarray:
    """Rescale to smallest side Q."""
    from vggfeat.data.images import rescale

    return rescale(image, Q)


def reason_kind(reason: object) -> str:
    """Say of which kind the reason is why an image cannot be used, whatever its wording."""
    kinds = {
        "empty": "empty",
        "no image": "not a picture of a format",
        "cut": "truncated",
    }
    fitting = [kind for kind, words in kinds.items() if words in str(reason)]
    return fitting[0] if fitting else f"another: {reason}"


def image_error() -> type[Exception]:
    """Return what is raised for one image that cannot be used."""
    from vggfeat.errors import PictureError

    return PictureError
