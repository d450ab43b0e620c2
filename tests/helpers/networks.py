"""Networks for tests: a tiny configuration of Table 1, weights by a formula, and a fake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from vggfeat.nets.config import TABLE_1, layers_until
from vggfeat.nets.formats import write
from vggfeat.nets.preprocessing import PixelConvention
from vggfeat.nets.weights import Weights
from vggfeat.settings import Extraction, Hardware
from vggfeat.store.column import Column, Descriptor

TINY = "4 | 4 | 8 | 8 | 8 | FC 6 5"
"""Some 4,000 numbers with the geometry of all others: stride 32, 224 pixels, 7×7 under fc6."""
SMALL = {
    "A": "4 | 4 | 8 8 | 8 8 | 8 8 | FC 6 5",
    "D": "4 4 | 4 4 | 8 8 8 | 8 8 8 | 8 8 8 | FC 6 5",
    "E": "4 4 | 4 4 | 8 8 8 8 | 8 8 8 8 | 8 8 8 8 | FC 6 5",
}
"""Nets of the paper with few channels, where several nets meet, or one begins from another."""
PIXELS = PixelConvention("RGB", 255.0, (120.0, 120.0, 120.0), (60.0, 60.0, 60.0))
CHUNK = 1 << 22  # numbers made at a time: fc6 has 103 million


@contextmanager
def configured(rows: Mapping[str, str]) -> Iterator[None]:
    """Add rows to Table 1, or put them in the place of those of its own, for a while."""
    with mock.patch.dict(TABLE_1, rows):
        yield


def formula_numbers(count: int, seed: int = 0) -> np.ndarray:
    """Spread numbers over [-1, 1): the same on every machine, whatever the versions."""
    numbers = np.empty(count, np.float32)
    for first in range(0, count, CHUNK):
        mixed = np.arange(first, min(first + CHUNK, count), dtype=np.uint32)
        mixed += np.uint32(seed * 40503)
        mixed *= np.uint32(2654435761)
        mixed ^= mixed >> 15
        mixed *= np.uint32(2246822519)
        mixed ^= mixed >> 13
        numbers[first : first + len(mixed)] = mixed / np.float32(2**31) - 1
    return numbers


def formula_state(
    net: str, layers: Sequence[str] = ("fc8",), num_classes: int = 10, seed: int = 0
) -> dict[str, Tensor]:
    """Make the parameters that some layers need; activations neither die nor explode."""
    state = {}
    for number, layer in enumerate(layers_until(net, layers, num_classes)):
        if layer.kind in ("conv", "fc"):
            key = 1000 * seed + number
            scale = (6 / int(np.prod(layer.shape[1:]))) ** 0.5  # keeps the square mean, after ReLU
            weight = torch.from_numpy(formula_numbers(int(np.prod(layer.shape)), key))
            state[f"{layer.name}.weight"] = weight.reshape(layer.shape).mul_(scale)
            bias = torch.from_numpy(formula_numbers(layer.outputs, key + 500))
            state[f"{layer.name}.bias"] = bias.mul_(0.1)
    return state


def formula_weights(
    net: str, layers: Sequence[str] = ("fc8",), num_classes: int = 10, seed: int = 0
) -> Weights:
    """Make weights by :func:`formula_state`."""
    return Weights(net, formula_state(net, layers, num_classes, seed), PIXELS, "formula", "none")


def write_weights(path: Path, weights: Weights, **about: str) -> Path:
    """Write weights as a file of ours, with what else it is to say of them."""
    return write(
        path,
        weights.state,
        weights.pixels,
        net=weights.net,
        source=weights.source,
        licence=weights.licence,
        about=weights.about | about,
    )


def forward(state: dict[str, Tensor], net: str, x: Tensor) -> dict[str, Tensor]:
    """Compute every layer by torch's functions alone: dense maps (B, C, h, w) by name.

    Parameters
    ----------
    state : dict
        Parameters by name.
    net : str
        Configuration of Table 1, without LRN.
    x : Tensor (B, 3, H, W)
        Normalised pixels.
    """
    maps = {}
    for layer in layers_until(net, ["fc8"], len(state["fc8.bias"])):
        if layer.kind == "pool":
            x = torch.nn.functional.max_pool2d(x, 2)
        else:
            weight, bias = state[f"{layer.name}.weight"], state[f"{layer.name}.bias"]
            kernel = weight.reshape(layer.outputs, layer.inputs, layer.kernel, layer.kernel)
            padding = layer.kernel // 2 if layer.kind == "conv" else 0
            x = torch.nn.functional.conv2d(x, kernel, bias, padding=padding)
            x = x.relu() if layer.relu else x
        maps[layer.name] = x
    return maps


def pixel_sums(pixels: Tensor, width: int = 16) -> Tensor:
    """Describe images (B, 3, H, W) by whole numbers, whatever the batch: (B, width)."""
    sums = pixels.numpy().astype(np.int64).sum((1, 2, 3))[:, None]
    return torch.from_numpy((sums % (7 + np.arange(width))).astype(np.float32))


class FakeExtractor:
    """What of a DenseExtractor others rely on, where a network must not cost even the tiny one.

    Parameters
    ----------
    describe : callable
        Makes of pixels (B, 3, H, W) of uint8 descriptors (B, D), or dense maps (B, D, h, w).
    layer : str
        What they are said to be of.
    """

    pixel_budget = 2_000
    device = torch.device("cpu")
    runtime = "torch"
    device_name = "CPU"
    hardware = Hardware(device="cpu", runtime="torch")

    def __init__(self, describe: Callable[[Tensor], Tensor], layer: str = "fc7") -> None:
        self.compute = describe
        self.layer = layer
        self.extraction = Extraction(layers=layer, precision="fp32")
        state = {f"conv1_1.{name}": torch.zeros(1) for name in ("weight", "bias")}
        self.weights = Weights("D", state, PIXELS, "fake", "none")

    def check_scales(self, scales: Any) -> None:
        """Take any scale."""

    def columns(self, scales: Iterable[int], outputs: Sequence[str] = ()) -> list[Column]:
        """List the columns, whose weights are the name of what describes."""
        width = self.compute(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).shape[1]
        settings = {"weights": self.compute.__name__}
        return [Column(name, settings, width, tuple(outputs)) for name in self.descriptors(scales)]

    def descriptors(self, scales: Iterable[int]) -> list[Descriptor]:
        """Name the columns."""
        return [Descriptor(self.extraction.net, self.layer, "average", Q) for Q in scales]

    def describe_finite(
        self, pixels: Tensor, wanted: object = None
    ) -> tuple[Tensor, dict[tuple[str, str], Tensor]]:
        """Describe images of one shape."""
        return torch.arange(len(pixels)), {(self.layer, "average"): self.compute(pixels)}

    def maps(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the dense maps of images of one shape."""
        return {self.layer: self.compute(pixels)}
