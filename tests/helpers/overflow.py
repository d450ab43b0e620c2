"""Images and networks whose numbers overflow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from support import random_weights

from vggfeat.data.imageset import ImageSet
from vggfeat.features.extractor import DenseExtractor
from vggfeat.nets.weights import Weights

WEIGHTS = random_weights("A", ["pool3"])


def scaled(weights: Weights, layer: str, factor: float) -> Weights:
    """Make a layer's weights larger."""
    state = dict(weights.state)
    state[f"{layer}.weight"] = state[f"{layer}.weight"] * factor
    return replace(weights, state=state)


class Half(DenseExtractor):
    """Computes as fp16 does on a GPU, as far as its range goes: what is beyond is infinite.

    Images go through the network in fp32, and each layer's map through fp16.
    """

    def __init__(self, **more: object) -> None:
        super().__init__(
            "A", "pool3", weights=scaled(WEIGHTS, "conv1_1", 3e3), device="cpu",
            precision="fp32", runtime="torch", **more,
        )  # fmt: skip
        self.extraction = self.extraction.but(precision="fp16")
        compute = self.net._compute
        self.net._compute = lambda layer, x, **how: compute(layer, x, **how).half().float()


def dark_and_bright(count: int, bright: set[int]) -> ImageSet:
    """Images of the mean colour, whose activations are small, and white ones that overflow."""
    mean = np.array([124, 117, 104], np.uint8)
    some = [np.full((40, 40, 3), 255 if i in bright else mean, np.uint8) for i in range(count)]
    for i, one in enumerate(some):
        one[i % 40, 0] += 1
    return ImageSet(tuple(f"{i:03}" for i in range(count)), tuple(some))
