"""I2, three classes of textures that overlap; other inputs draw of them too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from golden.inputs import made

KINDS = ("dune", "reed", "tile", "wave")
SIZES = ((48, 36), (40, 40), (34, 44))
"""Width and height."""


def texture(kind: str, width: int, height: int, seed: int) -> np.ndarray:
    """Draw a texture (height, width, 3) by integers, 0 to 255: a direction and a colour."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    across = {
        "dune": 2 * x + y + 3 * seed,
        "reed": 2 * x - y + 5 * seed,
        "tile": 12 * ((x // 4 + y // 4 + seed) % 2),
        "wave": y + (x // 6) * 5 + 7 * seed,
    }[kind]
    stripes = 255 * (across % 12 < 6)
    tint = {"dune": (9, 7, 5), "reed": (7, 8, 6), "tile": (6, 8, 8), "wave": (6, 7, 9)}[kind]
    return stripes[:, :, None] * np.array(tint) // 10 + 10


def mixed(parts: Sequence[tuple[str, int]], width: int, height: int, seed: int) -> np.ndarray:
    """Mix textures by whole weights (tenths) with noise, so that classes are mistaken."""
    random = np.random.RandomState(seed)
    pixels = random.randint(0, 256, (height, width, 3)) * (10 - sum(share for _, share in parts))
    for kind, share in parts:
        pixels = pixels + texture(kind, width, height, seed) * share
    return (pixels // 10).clip(0, 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    """Write an image as plain bytes (PPM) under any name: nothing compresses, nothing rounds."""
    height, width = pixels.shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"P6\n{width} {height}\n255\n".encode() + pixels.tobytes())


@made("I2")
def classes(folder: Path) -> None:
    """Write dune/0.ppm … tile/9.ppm, and m.csv with path, label and split."""
    lines = ["path,label,split"]
    random = np.random.RandomState(5)
    for number, kind in enumerate(KINDS[:3]):
        for k in range(10):
            own = random.randint(3, 6)
            other = KINDS[(number + random.randint(1, 3)) % 3]
            width, height = SIZES[k % 3]
            parts = [(kind, own), (other, random.randint(0, own + 1))]
            pixels = mixed(parts, width, height, 100 * number + k)
            write(folder / kind / f"{k}.ppm", pixels)
            lines.append(f"{kind}/{k}.ppm,{kind},{'train' if k < 5 else 'test'}")
    (folder / "m.csv").write_text("\n".join(lines) + "\n", "utf-8")
