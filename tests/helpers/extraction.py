"""A small extraction whose numbers are exact, and all that a store promises to hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from helpers.networks import FakeExtractor, pixel_sums
from vggfeat.data.imageset import find_images
from vggfeat.features.pipeline import Summary, extract
from vggfeat.settings import Extraction
from vggfeat.store.column import Descriptor
from vggfeat.store.store import FeatureStore

SCALES = (8, 10)


class SeveralSums(FakeExtractor):
    """Whole numbers of several layers and poolings, other ones of each."""

    def __init__(self, layers: Sequence[str], pool: str = "average") -> None:
        super().__init__(pixel_sums)
        self.extraction = Extraction(layers=tuple(layers), pool=pool, precision="fp32")

    def keys(self) -> list[tuple[str, str]]:
        """List layers and poolings."""
        return [(layer, pool) for layer in self.extraction.layers for pool in self.extraction.pools]

    def descriptors(self, scales: Iterable[int]) -> list[Descriptor]:
        """Name the columns."""
        return [Descriptor("D", *key, Q) for key in self.keys() for Q in scales]

    def describe_finite(
        self, pixels: Tensor, wanted: Any = None
    ) -> tuple[Tensor, dict[tuple[str, str], Tensor]]:
        """Describe images of one shape."""
        sums = pixel_sums(pixels)
        keys = wanted or self.keys()
        return torch.arange(len(pixels)), {key: sums + sum(map(ord, "".join(key))) for key in keys}


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


def extract_sums(
    folder: Path,
    out: Path,
    extractor: Any = None,
    scales: Sequence[int] = SCALES,
    **more: Any,
) -> Summary:
    """Extract as the command does, without a network."""
    images, store = find_images([str(folder)]), FeatureStore(out, "a")
    fake = extractor or FakeExtractor(pixel_sums)
    return extract(images, fake, scales, store, **{"workers": 2, **more})


def content(path: Path) -> dict[str, Any]:
    """Return all that a store promises to hold, its shards' digests compared first."""
    store = FeatureStore(path)
    read = store.read(names=store.names, missing="nan", verify=True)
    return {
        "names": store.names,
        "failed": store.failed,
        **{column.path: values.tobytes() for column, values in read.items()},
    }


def rows(path: Path) -> dict[tuple[str, str], bytes]:
    """Return every descriptor of a store, by column and name."""
    store = FeatureStore(path)
    columns, names = list(store.columns), store.names
    held = store.has(columns, names)
    values = store.read(columns, names, missing="nan", verify=True)
    return {
        (column.path, names[row]): values[column][row].tobytes()
        for place, column in enumerate(columns)
        for row in np.flatnonzero(held[:, place])
    }
