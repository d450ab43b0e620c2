"""What the networks made for inference alone have in common."""

from __future__ import annotations

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
