"""How large the numbers in a network can become, whatever the picture: proven from its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vggfeat.errors import WeightsError
from vggfeat.nets.vgg import VGG

ROWS = 256  # of a layer's weights at a time: fc6 has 0.4 GB of them
BEYOND = 1e38  # what is larger is taken as this: the answer is known by then


def largest_number(net: VGG, darkest: Tensor, brightest: Tensor) -> float:
    """Bound every number that a dense network computes, sums within a convolution included.

    Every channel is followed through the layers as an interval: no picture reaches its ends, but
    none gets beyond them.

    Parameters
    ----------
    net : VGG
        Dense, with its weights, on the CPU.
    darkest, brightest : Tensor (3,)
        Between which the channels of a normalised picture lie.

    Raises
    ------
    WeightsError
        If a parameter is not a finite number.

    Examples
    --------
    >>> net = VGG("A", layers="conv1_1", dense=True)
    >>> _ = nn.init.ones_(net.conv1_1.weight)  # 3×3×3 numbers, each times a pixel
    >>> largest_number(net, torch.zeros(3), torch.full((3,), 10.0))
    270.0
    """
    # Beyond the border of a map are zeros.
    low, high = darkest.float().clamp(max=0), brightest.float().clamp(min=0)
    largest = float(torch.maximum(-low, high).max())
    for layer in net.layers:
        if layer.kind in ("conv", "fc"):
            low, high = _convolved(layer.name, getattr(net, layer.name), low, high)
        elif layer.kind == "prob":
            low, high = torch.zeros_like(low), torch.ones_like(high)
        reach = float(torch.maximum(-low, high).max())
        largest = max(largest, 5 * reach**2 if layer.kind == "lrn" else reach)  # LRN squares them
        low = torch.zeros_like(low) if layer.relu else low.clamp(-BEYOND, 0)
        high = high.clamp(0, BEYOND)
    return largest


def _convolved(name: str, module: nn.Conv2d, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of what a convolution makes of numbers between two ends (C,)."""
    weight = module.weight.detach().flatten(1)
    bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach()
    each = weight.shape[1] // len(low)
    low, high = low.repeat_interleave(each), high.repeat_interleave(each)
    ends = []
    for some in torch.split(weight, ROWS):
        down, up = some.clamp(max=0), some.clamp(min=0)
        ends.append(torch.stack([down @ high + up @ low, up @ high + down @ low]))
    lowest, highest = torch.cat(ends, 1)
    unbounded = not (lowest.isfinite().all() and highest.isfinite().all())
    if not bias.isfinite().all() or (unbounded and not weight.isfinite().all()):
        raise WeightsError(
            f"{name} holds numbers that are NaN or infinite: the weights are damaged, or of a "
            "training that diverged. Fetch them again, or take an earlier checkpoint."
        )
    return lowest + bias.clamp(max=0), highest + bias.clamp(min=0)
