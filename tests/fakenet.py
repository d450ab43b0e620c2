"""A network that knows colours alone, where a test cannot afford a VGG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from tinynet import PIXELS
from torch import Tensor

from vggfeat.features.extraction import Extraction, Part
from vggfeat.nets.weights import Weights

COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 200),
    "grey": (90, 90, 90),
    "white": (250, 250, 250),
    "yellow": (210, 200, 20),
}
CLASSES = tuple(sorted(COLOURS))


def logits(pixels: Tensor, sharpness: float = 1.0) -> Tensor:
    """Score pictures (B, 3, H, W) by how near their mean colour is to each class's."""
    known = torch.tensor([COLOURS[name] for name in CLASSES], dtype=torch.float32)
    distance = (pixels.float().mean((2, 3))[:, None] - known).norm(dim=2)
    return -sharpness * distance / 40


class Colours:
    """What of a DenseExtractor the commands rely on.

    Its posteriors differ by net, pooling and scale, so that a mean can be told from its parts.
    """

    pixel_budget = 1_000_000
    device = torch.device("cpu")
    runtime = "torch"
    device_name = "CPU"
    cluster = None
    deterministic = False

    def __init__(
        self, net: str, pool: str, classes: Sequence[str] = CLASSES, origin: str = "", **more: Any
    ) -> None:
        bias = torch.zeros(len(classes))
        about = {} if origin else {"classes": str(list(classes)).replace("'", '"')}
        self.weights = Weights(
            net, {"fc8.bias": bias}, PIXELS, "colours", "none", origin=origin, about=about
        )
        self.extraction = Extraction(net, f"colours of {net}", ("fc8",), pool=pool, **more)
        self.width = len(classes)
        self.done: list[str] = []  # the pooling of every picture that was run; copies share it

    @property
    def runs(self) -> int:
        return len(self.done)

    def sharpness(self, pool: str, Q: int) -> float:
        return {"A": 1.0, "D": 0.5, "E": 0.2}[self.weights.net] * Q / (300 + 50 * len(pool))

    def check_scales(self, scales: Sequence[int]) -> None:
        pass

    @property
    def store_key(self) -> str:
        return self.extraction.fingerprint[:16]

    def describe_finite(self, pixels: Tensor) -> tuple[Tensor, dict[tuple[str, str], Tensor]]:
        return torch.arange(len(pixels)), self.describe(pixels)

    def describe(self, pixels: Tensor) -> dict[tuple[str, str], Tensor]:
        self.done += [self.extraction.pool] * len(pixels)
        Q = min(pixels.shape[2:])
        found = {}
        for pool in self.extraction.pools:
            known = logits(pixels, self.sharpness(pool, Q)).softmax(1)
            rest = torch.zeros(len(pixels), self.width - len(CLASSES))
            found["fc8", pool] = torch.cat([known, rest], 1)
        return found

    def part(self, key: tuple[str, str], Q: int) -> Part:
        return Part(self.extraction.net, *key, Q)


def paint(path: Any, colour: str, seed: int = 0) -> None:
    """Draw a picture of about one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(seed).integers(-25, 26, (12, 14, 3))
    pixels = np.array(COLOURS[colour]) + grain
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
