"""torch itself as a runtime, and what networks made for inference alone have in common."""

from __future__ import annotations

from copy import copy
from typing import Self

import torch

from vggfeat.nets.config import layers_until, resolve_layer
from vggfeat.nets.runtimes import Runtime, register
from vggfeat.nets.vgg import VGG


class Inference(VGG):
    """A dense network like another one, without its numbers: subclasses keep them their way.

    Parameters
    ----------
    net : VGG
        Dense, with its weights.
    """

    def __init__(self, net: VGG) -> None:
        super().__init__(
            net.net,
            layers=net.wanted,
            dense=True,
            num_classes=net.num_classes,
            pool_rounding=net.pool_rounding,
            init=None,
        )
        self.eval()

    def truncated(self, *layers: str) -> Self:
        """Return the network up to the last of `layers`, sharing its numbers."""
        other = copy(self)
        other.wanted = tuple(dict.fromkeys(resolve_layer(self.net, layer) for layer in layers))
        other.layers = layers_until(self.net, other.wanted, self.num_classes)
        return other


def place(net: VGG, device: torch.device, dtype: torch.dtype) -> VGG:
    """Put a network on a device, in the layout in memory that convolutions are fastest in."""
    return net.to(device, dtype).to(memory_format=torch.channels_last)


register(Runtime("torch", 0, place, devices=("cpu", "cuda", "mps")))
