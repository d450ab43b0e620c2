"""What the networks made for inference alone have in common."""

from __future__ import annotations

from copy import copy
from typing import Self

from vggfeat.nets.config import layers_until, resolve_layer
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
