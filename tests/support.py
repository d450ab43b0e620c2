"""Images and weights that tests make for themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggfeat.nets.config import layers_until
from vggfeat.nets.weights import Weights, load


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Draw a smooth random image (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def random_state(net: str, names: Sequence[str], seed: int = 0) -> dict[str, Tensor]:
    """Draw numbers so that activations neither die nor explode, biases included."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for layer in layers_until(net, names):
        if layer.kind in ("conv", "fc"):
            scale = (2 / int(np.prod(layer.shape[1:]))) ** 0.5
            state[f"{layer.name}.weight"] = torch.randn(layer.shape, generator=generator) * scale
            state[f"{layer.name}.bias"] = torch.randn(layer.outputs, generator=generator) * 0.1
    return state


def random_weights(net: str, layers: Sequence[str], seed: int = 0) -> Weights:
    """Draw weights, in the pixel convention of the embedded ones."""
    pixels = load("embedded", "D", ["conv1_1"]).pixels
    return Weights(net, random_state(net, layers, seed), pixels, "random", "none")
