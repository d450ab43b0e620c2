"""What a localisation net begins with (Appendix A): a classification net, and a new last layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggfeat.data.image import Pixels
from vggfeat.errors import DataError, ImageError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.localization.boxed import Boxed
from vggfeat.localization.training import BoxRegression
from vggfeat.nets.config import layers_of
from vggfeat.nets.vgg import initialise
from vggfeat.nets.weights import Weights
from vggfeat.train.augment import CENTRE, Scale, crop

HIDDEN = ("fc6", "fc7")
SPREAD = 1e-3
"""Standard deviation of the new layer's weights."""
LEVEL = 0.3
"""Root mean square of the activations of pool5, fc6 and fc7 in a balanced net, to a factor √2."""
SEEN = 32
"""Training crops that activations are measured on."""


def begun(
    weights: Weights,
    task: BoxRegression,
    *,
    init: str = "glorot",
    balanced: bool = True,
    seed: int = 0,
    device: str = "auto",
) -> Weights:
    """Make the weights that a localisation net begins with.

    Parameters
    ----------
    weights : Weights
        Of a classification net of the same S; or its convolutions alone, as the embedded ones
        are: then fc6 and fc7 are drawn at random.
    task : BoxRegression
        What is trained.
    init : {"glorot", "paper", "kaiming"}
        How fc6 and fc7 are drawn where the weights lack them.
    balanced : bool
        Whether the layers are scaled against each other; see the notes.
    seed : int
        Of what is drawn.
    device : str
        Where activations are measured.

    Returns
    -------
    Weights
        With all layers, fc8 having the outputs of the task.

    Raises
    ------
    DataError
        If none of the images that activations are measured on can be read.

    Notes
    -----
    The last layer is random, as in the paper: its weights from N(0, σ = 0.001), its biases the
    mean box of the training crops, so that what begins to be learnt is how a box differs from it.

    With a Euclidean loss the highest rate that does not diverge is 2(1 + μ)/‖a‖² for inputs a of
    the last layer and momentum μ, and nets differ widely in ‖a‖². The authors' convolutions make
    activations of pool5 whose root mean square is 10; under full connections that Glorot's rule
    draws, ‖a‖² of fc7 is 180,000, and 1e-3, the paper's rate, ends in NaN after ten updates.
    A balanced net computes the same activations but for a factor, with pool5, fc6 and fc7 brought
    to a root mean square near 0.3 (‖a‖² of some 400): ReLU and maximum commute with positive
    factors, so that what one layer is multiplied with the next is divided by. Then 1e-3 suits any
    net. The factors are powers of two, which change no digit, on whatever machine.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {name: value for name, value in weights.state.items() if not name.startswith("fc8.")}
    pooled = _pooled(weights, task.train, task.S, device)
    for layer in layers_of(weights.net)[-4:]:
        if layer.name in HIDDEN and f"{layer.name}.weight" not in state:
            drawn = nn.Linear(layer.shape[1], layer.shape[0])
            initialise(drawn, init, generator)
            state |= {f"{layer.name}.{part}": p.detach() for part, p in drawn.named_parameters()}
    if balanced:
        state = _balanced(state, pooled, HIDDEN if "fc6.weight" in weights.state else ())
    width = state["fc7.weight"].shape[0]
    means = np.nan_to_num(task.mean_boxes(), nan=0.5)
    last = torch.empty(task.outputs, width).normal_(0, SPREAD, generator=generator)
    state |= {"fc8.weight": last, "fc8.bias": torch.from_numpy(means.astype(np.float32).ravel())}
    hidden = [name for name in HIDDEN if f"{name}.weight" not in weights.state]
    return replace(weights, state=state, about={}, drawn=(*hidden, "fc8"))


def _balanced(
    state: Mapping[str, Tensor], pooled: Tensor, given: Sequence[str]
) -> dict[str, Tensor]:
    """Bring the activations of pool5, fc6 and fc7 to one level; those given compute as before."""
    scaled = dict(state)
    last = max(name for name in state if name.startswith("conv")).rpartition(".")[0]
    factor = _factor(pooled)
    for part in ("weight", "bias"):
        scaled[f"{last}.{part}"] = state[f"{last}.{part}"] * factor
    x = pooled * factor
    for name in HIDDEN:
        weight, bias = scaled[f"{name}.weight"], scaled[f"{name}.bias"]
        if name in given:
            weight = weight / factor
        x = F.relu(F.linear(x, weight, bias))
        factor = _factor(x)
        scaled[f"{name}.weight"], scaled[f"{name}.bias"] = weight * factor, bias * factor
        x = x * factor
    return scaled


def _factor(activations: Tensor) -> float:
    """Power of two that brings activations near the level; 1 where there are none."""
    size = float(activations.square().mean().sqrt())
    return 2.0 ** round(math.log2(LEVEL / size)) if size > 0 else 1.0


def _pooled(weights: Weights, part: Boxed, S: Scale, device: str) -> Tensor:
    """Compute pool5 of some central training crops: (B, 25088)."""
    extractor = DenseExtractor(
        weights.net, "pool5", weights=weights, flip=False, device=device, precision="fp32"
    )
    rows = np.linspace(0, len(part) - 1, min(SEEN, len(part))).round().astype(int)
    crops: list[Pixels] = []
    reason = ""
    for row in rows:
        try:
            crops.append(crop(part.part.read(row), S, CENTRE, decoding=part.decoding))
        except ImageError as error:  # training will name it
            reason = f"{part.part.name(row)}: {error}"
    if not crops:
        raise DataError(
            f"None of {len(rows)} training images could be read, as {reason}. See whether they "
            "are whole."
        )
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    starts = range(0, len(pixels), 8)
    maps = [extractor.maps(pixels[start : start + 8])["pool5"] for start in starts]
    return torch.cat(maps).flatten(1)
