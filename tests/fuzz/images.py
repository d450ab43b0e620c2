"""Images of every format that is read: mutated, absurd, animated, of many pages, misnamed."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from helpers.networks import FakeExtractor, pixel_sums
from PIL import Image
from support import noise

from fuzz.campaign import Campaign
from vggfeat.data.imageset import ImageSet
from vggfeat.features.pipeline import extract
from vggfeat.store.store import FeatureStore

SUFFIXES = ("jpg", "png", "webp", "avif", "gif", "bmp", "tif", "ppm")
# How each format is written: every kind of compression, depth and palette that Pillow knows.
WRITTEN: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    ("JPEG", "CMYK", {}),
    *(("PNG", mode, {}) for mode in ("RGBA", "P", "1", "I;16")),
    ("WEBP", "RGB", {"lossless": True}),
    ("WEBP", "RGBA", {"quality": 50}),
    *(("AVIF", mode, {}) for mode in ("RGB", "RGBA")),
    ("GIF", "P", {}),
    *((kind, mode, {}) for kind, mode in (("BMP", "P"), ("PPM", "RGB"), ("PPM", "L"))),
    *(("TIFF", mode, {}) for mode in ("F", "I;16")),
    *(("TIFF", "RGB", {"compression": how}) for how in ("tiff_lzw", "jpeg", "tiff_deflate")),
    ("TIFF", "1", {"compression": "group4"}),
)
PIECES = (b"IHDR", b"IDAT", b"IEND", b"acTL", b"fcTL", b"eXIf", b"iCCP", b"zTXt", b"\xff\xd8")
PIECES += (b"\xff\xda", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xe1", b"Exif\0\0", b"MM\0*")
PIECES += (b"II*\0", b"RIFF", b"WEBP", b"VP8X", b"ANIM", b"ANMF", b"GIF89a", b"\x21\xf9\x04", b"P6")
PIECES += (b"ftyp", b"avif", b"meta", b"iloc", b"ispe", b"av1C", b"mdat")


def written(values: np.ndarray, kind: str, mode: str, **options: Any) -> bytes:
    """Write an image in a mode; Pillow makes none of 16 bits or floats from colours itself."""
    if mode in ("I;16", "F"):
        numbers = np.uint16 if mode == "I;16" else np.float32
        grey = values[..., 0].astype(np.float64)
        image = Image.fromarray((grey * 257 if mode == "I;16" else grey / 255).astype(numbers))
    else:
        image = Image.fromarray(values).convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def animated(kind: str) -> bytes:
    """Write eight frames, or pages."""
    frames = [Image.fromarray(noise(24, 18, seed)) for seed in range(8)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    return out.getvalue()


def png(width: int, height: int, rows: bytes) -> bytes:
    """Write a PNG of one bit a pixel, whatever its head says."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_ = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", sum_)

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    )


def absurd() -> Iterator[bytes]:
    """Yield lines and images of sizes that no image has."""
    for width, height in ((2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (100_000, 100_000), (0, 9)):
        yield png(width, height, b"\0" * 1000)
    yield png(1, 9000, bytes(2 * 9000))
    yield png(9000, 1, bytes(1126))


class Images(Campaign):
    """A hostile image between two good ones: these are described, and it is or is named."""

    name = "images"
    cases = 20_000
    seconds = 60.0
    tokens = PIECES
    Q = 64

    def prepare(self) -> Sequence[bytes]:
        small = noise(24, 18)
        (self.folder / "good.png").write_bytes(written(small, "PNG", "RGB"))
        warnings.simplefilter("ignore")  # Pillow's, of bombs and damaged metadata
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = written(small, "JPEG", "RGB", exif=exif.tobytes())
        plain = [written(small, kind, mode, **options) for kind, mode, options in WRITTEN]
        return [*plain, turned, *map(animated, ("GIF", "PNG", "WEBP", "TIFF", "MPO"))]

    def crafted(self) -> Sequence[bytes]:
        return [b"", b"\0", *absurd()]

    def case(self, dice: random.Random, number: int) -> tuple[str, bytes]:
        return dice.choice(SUFFIXES), super().case(dice, number)

    def attempt(self, case: tuple[str, bytes]) -> None:
        suffix, content = case
        path = self.folder / f"bad.{suffix}"
        path.write_bytes(content)
        names = ("first", "bad", "last")
        good = self.folder / "good.png"
        images = ImageSet(names, (good, path, good))
        network = FakeExtractor(pixel_sums)
        store = FeatureStore(None, "a")
        extract(images, network, [self.Q], store, workers=1)  # type: ignore[arg-type]  # it stands in
        there = store.complete()
        assert {"first", "last"} <= set(there), f"good images are absent: {there}"
        reason = store.failed.get("bad", "")
        assert ("bad" in there) != bool(reason), "neither described nor named"
        assert reason.isprintable(), f"a strange reason: {reason!r}"
        assert len(reason) < 500, f"a long reason: {reason!r}"
        for values in store.read().values():
            assert np.isfinite(values).all(), "not finite"


CAMPAIGNS = (Images,)
