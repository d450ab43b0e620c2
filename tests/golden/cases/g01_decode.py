"""G01: what an image file becomes before a network sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from golden.adapter import features as adapter
from golden.case import case
from golden.inputs import Inputs


def blocks(pixels: ArrayLike) -> dict[str, Any]:
    """Sum an image up: its size, means of 4 × 4 blocks, mean and spread of channels."""
    values = np.asarray(pixels, np.float64)
    height, width = values.shape[:2]
    rows, columns = (
        [(i * n // 4, max(i * n // 4 + 1, (i + 1) * n // 4)) for i in range(4)]
        for n in (height, width)
    )
    means = [values[a:b, c:d].mean() for a, b in rows for c, d in columns]
    return {
        "size": [width, height],
        "blocks": means,
        "channels": [*values.mean((0, 1)), *values.std((0, 1))],
    }


@case(
    "G01-decode",
    command="decode every image, rescale it to Q = 32 and 64",
    tolerance={
        "*/Q*/blocks/*": {"abs": 1.0},
        "*/Q*/channels/*": {"abs": 1.0},
        "odd-rgba.png/decoded/blocks/*": {"abs": 1.0},
        "odd-rgba.png/decoded/channels/*": {"abs": 1.0},
        "odd-cmyk.tif/*/blocks/*": {"abs": 3.0},
        "odd-cmyk.tif/*/channels/*": {"abs": 3.0},
    },
)
def decoding(inputs: Inputs) -> dict[str, Any]:
    """Hold lossless files exactly until they are blended, converted or rescaled."""
    files = [file for name in ("I1", "I1b") for file in sorted(inputs[name].iterdir())]
    return {file.name: _of(file) for file in files}


def _of(file: Path) -> dict[str, Any]:
    try:
        image = adapter.decode(file)
    except adapter.image_error() as error:
        return {"unusable": adapter.reason_kind(error)}
    scales = {f"Q{Q}": blocks(adapter.rescale(image, Q)) for Q in (32, 64)}
    return {"decoded": blocks(image), **scales}
