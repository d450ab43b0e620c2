"""Images of plain classes, told apart by brightness or by colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def two_classes(root: Path, each: int = 5) -> Path:
    """Draw two classes that are told apart by their brightness."""
    rng = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 190)):
        (root / label).mkdir(parents=True)
        for number in range(each):
            noise = rng.integers(-50, 50, (6, 7, 3)) + level
            image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
            image.resize((260, 230)).save(root / label / f"{number}.png")
    return root
