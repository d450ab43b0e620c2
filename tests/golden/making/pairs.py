"""I7: two classes of images that a tiny network learns to tell apart, just large enough to crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from golden.inputs import made
from golden.making.textures import mixed, write

EACH = 12
SIZES = ((224, 238), (250, 224), (231, 224))
"""Width and height; the smaller is the training scale, so that nothing is resampled."""


@made("I7")
def pairs(folder: Path) -> None:
    """Write dune/00.ppm … wave/11.ppm."""
    random = np.random.RandomState(7)
    for number, kind in enumerate(("dune", "wave")):
        for k in range(EACH):
            width, height = SIZES[k % 3]
            tenths = int(random.randint(3, 8)) + 3 * number  # dune is darker, mostly
            pixels = mixed([(kind, 4)], width, height, 700 + 20 * number + k)
            dimmed = (pixels.astype(np.int64) * tenths // 10).astype(np.uint8)
            write(folder / kind / f"{k:02}.ppm", dimmed)
