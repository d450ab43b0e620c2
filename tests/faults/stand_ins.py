"""Pictures, and a network of no weights, that cost nothing and give exact numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tinynet import PIXELS
from torch import Tensor

from vggfeat.data.imagesets import ImageSet, find_pictures
from vggfeat.features.extract import Summary, extract
from vggfeat.features.extraction import Extraction, Part
from vggfeat.features.store import FeatureStore
from vggfeat.nets.weights import Weights

SCALES = (8, 10)
D = 16


class Sums:
    """What of a DenseExtractor an extraction relies on; whole numbers, whatever the batch."""

    pixel_budget = 2_000
    device = torch.device("cpu")
    runtime = "torch"
    device_name = "CPU"
    cluster = None
    deterministic = False
    extraction = Extraction("D", "sums", ("fc7",))
    weights = Weights("D", {"fc7.bias": torch.zeros(1)}, PIXELS, "sums", "none")

    def check_scales(self, scales: Any) -> None:
        pass

    def describe_finite(self, pixels: Tensor) -> tuple[Tensor, dict[tuple[str, str], Tensor]]:
        sums = pixels.numpy().astype(np.int64).sum((1, 2, 3))[:, None]
        found = torch.from_numpy((sums % (7 + np.arange(D))).astype("f4"))
        return torch.arange(len(pixels)), {("fc7", "average"): found}

    def part(self, key: tuple[str, str], Q: int) -> Part:
        return Part(self.extraction.net, *key, Q)


def draw(folder: Path, good: int = 40, bad: int = 2) -> Path:
    """Draw small pictures of three shapes; some files are no pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for n in range(good):
        shape = ((12, 10), (10, 12), (11, 11))[n % 3]
        Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(folder / f"{n:04}.png")
    for n in range(bad):
        (folder / f"bad{n}.png").write_bytes(b"no picture")
    return folder


def opened(out: Path | None, images: ImageSet, **more: Any) -> FeatureStore:
    """Open a store for pictures."""
    return FeatureStore(out, Sums.extraction, images.names, stats=images.stats(), **more)


def run(pictures: Path, out: Path, **more: Any) -> Summary:
    """Extract, as the command does."""
    images = find_pictures([str(pictures)])
    return extract(images, Sums(), SCALES, opened(out, images), workers=2, **more)  # type: ignore[arg-type]  # it stands in


def content(path: Path) -> dict[str, Any]:
    """Return all that a store promises to hold, its shards' digests compared first."""
    store = FeatureStore.open(path)
    read = store.read(verify=True)
    return {
        "names": store.names,
        "failed": store.failed,
        **{str(part): values.tobytes() for part, values in read.items()},
    }
