"""Images of plain classes, and a net that knows their colours: its weights in closed form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from helpers.networks import write_weights
from vggfeat.features.extractor import DenseExtractor
from vggfeat.nets.config import layers_of
from vggfeat.nets.preprocessing import PixelConvention
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
PIXELS = PixelConvention("RGB", 255.0, (0.0, 0.0, 0.0))
SPREAD = 100.0
"""Distance of two colours at which the posterior of the nearer one is e^(1/2) times the other's."""
SHARPNESS = {"A": 1.0, "D": 0.5, "E": 0.2, "tiny": 1.0}
"""Factors of the scores of each net, so that a mean of several can be told from its parts."""
NEVER = -1e4
"""Score of a class that no colour has."""


def two_classes(root: Path, each: int = 5, *, grainy: bool = False) -> Path:
    """Draw two classes that are told apart by their brightness, smooth or of grainy pixels.

    Smooth images have neighbours so alike that rounding decides which is a window's maximum.
    """
    rng = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 190)):
        (root / label).mkdir(parents=True)
        for number in range(each):
            noise = rng.integers(-50, 50, (230, 260, 3) if grainy else (6, 7, 3)) + level
            image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
            image.resize((260, 230)).save(root / label / f"{number}.png")
    return root


def paint(path: Path, colour: str, seed: int = 0) -> Path:
    """Draw an image of about one colour, which differs in the image's parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(seed).integers(-25, 26, (12, 14, 3))
    pixels = np.array(COLOURS[colour]) + grain
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def colour_weights(
    net: str = "tiny",
    keys: Sequence[str] = CLASSES,
    sharpness: float | None = None,
    pixels: PixelConvention = PIXELS,
) -> Weights:
    """Make weights of a net whose class scores are those of the nearest colour.

    Every convolution passes red, green and blue on, so that pool5 has the brightest of each in
    32×32 pixels, without any rounding; fc6 averages 7×7 of them, and fc8 measures distances.

    Parameters
    ----------
    net : str
        Configuration of Table 1.
    keys : sequence of str
        What the classes are called: the first ones are the colours, the others are never seen.
    sharpness : float, optional
        Factor of all scores; by default the net's.
    pixels : PixelConvention
        How pixels come in; the first layer undoes it.
    """
    sharpness = SHARPNESS[net] if sharpness is None else sharpness
    state = {}
    for layer in layers_of(net, len(keys)):
        if layer.kind not in ("conv", "fc"):
            continue
        weight = torch.zeros(layer.outputs, layer.inputs, layer.kernel, layer.kernel)
        bias = torch.zeros(layer.outputs)
        if layer.name == "fc8":
            shown = [COLOURS[name] for name in CLASSES[: len(keys)]]
            known = torch.tensor(shown, dtype=torch.float32)
            scale = sharpness / SPREAD**2
            weight[: len(known), :3, 0, 0] = known * scale
            bias[:] = NEVER
            bias[: len(known)] = -known.square().sum(1) / 2 * scale
        elif layer.name == "conv1_1":
            order = range(3) if pixels.channels == "RGB" else (2, 1, 0)
            mean, std = (
                torch.tensor(values) * 255 / pixels.range for values in (pixels.mean, pixels.std)
            )
            weight[order, range(3), 1, 1] = std
            bias[list(order)] = mean
        elif layer.name == "fc6":
            weight[range(3), range(3)] = 1 / 49
        else:
            weight[range(3), range(3), layer.kernel // 2, layer.kernel // 2] = 1
        state[f"{layer.name}.weight"] = weight.reshape(layer.shape)
        state[f"{layer.name}.bias"] = bias
    about = {"classes": json.dumps(list(keys))}
    return Weights(net, state, pixels, "colours", "none", about=about)


def write_colours(
    path: Path,
    net: str = "tiny",
    keys: Sequence[str] = CLASSES,
    pixels: PixelConvention = PIXELS,
    **about: str,
) -> Path:
    """Write weights that know colours as a file, with what else it is to say of them."""
    return write_weights(path, colour_weights(net, keys, pixels=pixels), **about)


def colour_net(net: str = "tiny", pool: str = "softmax", **how: Any) -> DenseExtractor:
    """Open a net that knows colours."""
    weights = colour_weights(net)
    return DenseExtractor(net, "fc8", weights=weights, pool=pool, precision="fp32", **how)


def brightest(pixels: np.ndarray) -> np.ndarray:
    """Take what pool5 has of an image (H, W, 3): the brightest of each colour in 32×32 pixels."""
    h, w = (side // 32 for side in pixels.shape[:2])
    blocks = pixels[: 32 * h, : 32 * w].reshape(h, 32, w, 32, 3)
    return blocks.max((1, 3)).astype(np.float64)


def colour_posteriors(pixels: np.ndarray, sharpness: float = 1.0) -> np.ndarray:
    """Reckon by distances what the net says of an image (H, W, 3): the mean with its mirror image.

    Scores are averaged over all windows of 7×7 numbers of pool5, then comes the soft-max.
    """
    known = np.array([COLOURS[name] for name in CLASSES], dtype=np.float64)
    both = []
    for seen in (pixels, pixels[:, ::-1]):
        windows = sliding_window_view(brightest(seen), (7, 7), (0, 1)).mean((-2, -1))
        distances = np.square(windows[:, :, None] - known).sum(-1)
        scores = -sharpness * distances.mean((0, 1)) / 2 / SPREAD**2
        raised = np.exp(scores - scores.max())
        both.append(raised / raised.sum())
    return np.mean(both, axis=0)
