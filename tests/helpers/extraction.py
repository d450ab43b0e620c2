"""A small extraction whose numbers are exact, and all that a store promises to hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from helpers.networks import FakeExtractor, pixel_sums
from vggfeat.data.imagesets import find_pictures
from vggfeat.features.pipeline import Summary, extract
from vggfeat.store.store import FeatureStore

SCALES = (8, 10)


def draw_small(folder: Path, good: int = 40, bad: int = 2) -> Path:
    """Draw small images of three shapes; some files are no images."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for n in range(good):
        shape = ((12, 10), (10, 12), (11, 11))[n % 3]
        Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(folder / f"{n:04}.png")
    for n in range(bad):
        (folder / f"bad{n}.png").write_bytes(b"no image")
    return folder


def extract_sums(folder: Path, out: Path, **more: Any) -> Summary:
    """Extract as the command does, without a network."""
    images, fake = find_pictures([str(folder)]), FakeExtractor(pixel_sums)
    store = FeatureStore(out, "a")
    return extract(images, fake, SCALES, store, workers=2, **more)  # type: ignore[arg-type]  # it stands in


def content(path: Path) -> dict[str, Any]:
    """Return all that a store promises to hold, its shards' digests compared first."""
    store = FeatureStore(path)
    read = store.read(verify=True)
    return {
        "names": store.names,
        "failed": store.failed,
        **{column.path: values.tobytes() for column, values in read.items()},
    }
