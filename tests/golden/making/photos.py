"""I1, twelve images of three shapes; I1b, six odd ones and three bad ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from golden.inputs import made

SHAPES = ((40, 56), (72, 72), (120, 60))
"""Width and height.

On a processor with AVX2 alone oneDNN lays out packed weights anew at every call for many widths
of small maps, which takes half a second an image. With Q = 32 and 64 no image here has one of them.
"""


def pattern(width: int, height: int, seed: int) -> np.ndarray:
    """Draw an image (height, width, 3) by integers: slopes, stripes, grains and a bright disc."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    grain = ((x * 2654435761 + y * 40503 + seed * 69069) >> 7) % 48
    right, low = (seed * 7 + 11) % width, (seed * 5 + 9) % height
    disc = 57 * ((x - right) ** 2 + (y - low) ** 2 < (min(width, height) // 3) ** 2)
    channels = []
    for k in (1, 2, 3):
        wave = (x * (1 + seed % 4) + y * k + 37 * seed) % (60 + 20 * k)
        channels.append(wave + grain + (x * y // (k + 9)) % 32 + disc)
    return np.stack(channels, axis=2).astype(np.uint8)


@made("I1")
def photos(folder: Path) -> None:
    """Write photo-00.png … photo-11.png."""
    for number in range(12):
        width, height = SHAPES[number % 3]
        Image.fromarray(pattern(width, height, number)).save(folder / f"photo-{number:02}.png")


@made("I1b")
def odd_and_bad(folder: Path) -> None:
    """Write what cameras and editors make, and what downloads leave behind."""
    rgb = pattern(64, 48, 21)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(folder / "odd-exif6.png", exif=exif)
    deep = (pattern(44, 44, 22)[:, :, 0].astype(np.uint16) * 257) ^ 129
    Image.fromarray(deep).save(folder / "odd-deep.png")
    alpha = pattern(48, 64, 23)[:, :, 1]
    Image.fromarray(np.dstack([pattern(48, 64, 29), alpha])).save(folder / "odd-rgba.png")
    indices = Image.fromarray(pattern(46, 60, 24)[:, :, 2] % 16)
    palette = [(number * step + 11) % 256 for number in range(16) for step in (17, 29, 71)]
    indices.putpalette(palette)
    indices.save(folder / "odd-palette.png")
    Image.fromarray(pattern(1, 1, 25)).save(folder / "odd-1x1.png")
    cmyk = np.dstack([pattern(40, 52, 26), pattern(40, 52, 27)[:, :, 0] // 2])
    Image.fromarray(cmyk, "CMYK").save(folder / "odd-cmyk.tif")
    (folder / "bad-empty.jpg").touch()
    (folder / "bad-text.jpg").write_text("<html>404: no such image</html>\n", "utf-8")
    whole = pattern(48, 40, 28).tobytes()
    (folder / "bad-cut.ppm").write_bytes(b"P6\n48 40\n255\n" + whole[: len(whole) // 2])
