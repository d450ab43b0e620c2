"""A network for the CPU: convolutions packed for its matrix units and fused with their ReLUs.

torch's eager convolution reorders its weights at every call and writes its output twice, before
and after the ReLU. oneDNN, which computes both, can do neither: torch's own compiler calls it so,
through the two operators used here. They need no compilation, so images may be of any shape.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vggfeat.errors import ParameterError
from vggfeat.nets.config import Layer
from vggfeat.nets.runtimes import Runtime, register
from vggfeat.nets.runtimes.inference import Inference, place
from vggfeat.nets.vgg import VGG

ONE = [1, 1]
TYPICAL = (384, 512)  # an image for which weights are packed; others are computed as well


def can_pack() -> bool:
    """Tell whether this build of torch has oneDNN and its fused convolution."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    needed = ("_convolution_pointwise", "_reorder_convolution_weight")
    return all(hasattr(torch.ops.mkldnn, name) for name in needed)


class PackedVGG(Inference):
    """A dense network on the CPU with packed weights, for inference alone.

    Nothing is shared with `net`, which is in the precision to compute in.

    Examples
    --------
    >>> net = VGG("A", layers="pool2", dense=True).eval().requires_grad_(False)
    >>> x = torch.rand(1, 3, 32, 48)
    >>> with torch.inference_mode():
    ...     torch.allclose(PackedVGG(net)(x), net(x), rtol=1e-4, atol=1e-5)
    True
    """

    def __init__(self, net: VGG) -> None:
        super().__init__(net)
        height, width = TYPICAL
        self._weights: dict[str, tuple[Tensor, Tensor]] = {}
        for layer in self.layers:
            if layer.has_parameters:
                own = getattr(net, layer.name)
                shape = [1, layer.inputs, max(height, layer.kernel), max(width, layer.kernel)]
                packed = torch.ops.mkldnn._reorder_convolution_weight(
                    own.weight, _padding(layer), ONE, ONE, 1, shape
                )
                self._weights[layer.name] = packed, own.bias
            height, width = layer.output_side(height), layer.output_side(width)

    def _compute(self, layer: Layer, x: Tensor, *, rectify: bool) -> Tensor:
        if layer.name not in self._weights:
            return super()._compute(layer, x, rectify=rectify)
        weight, bias = self._weights[layer.name]
        convolve = torch.ops.mkldnn._convolution_pointwise
        after = "relu" if rectify else "none"
        found: Tensor = convolve(x, weight, bias, _padding(layer), ONE, ONE, 1, after, [], "")
        return found


def _padding(layer: Layer) -> list[int]:
    return [layer.padding] * 2


def _check() -> None:
    if not can_pack():
        raise ParameterError(
            "This build of torch has no oneDNN, which the runtime 'packed' needs. "
            "Use 'auto' or 'torch'."
        )


def _build(net: VGG, device: torch.device, dtype: torch.dtype) -> VGG:
    return PackedVGG(place(net, device, dtype))


register(Runtime("packed", 1, _build, _check))
