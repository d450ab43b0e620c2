"""The networks of Table 1 as torch modules: whole, fully convolutional, or truncated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggfeat.errors import ImageTooSmall, ParameterError, WeightsError
from vggfeat.nets.config import (
    INPUT_SIDE,
    ROUNDINGS,
    Layer,
    layers_until,
    resolve_layer,
    smallest_side,
)
from vggfeat.settings import net_name

INITIALISATIONS = ("glorot", "paper", "kaiming")


class VGG(nn.Module):
    """A configuration of Table 1, computed as far as the layers asked for.

    Parameters
    ----------
    net : str
        ``"A"``, ``"A-LRN"``, ``"B"``, ``"C"``, ``"D"``, ``"E"``, or the ablation ``"B-5x5"``.
    layers : str or sequence of str
        Layers whose activations are returned; nothing after the last of them is built.
    dense : bool
        Whether fc6, fc7 and fc8 are convolutions (7×7, 1×1, 1×1) over an image of any size
        (Section 3.2), or full connections over a 224×224 crop.
    num_classes : int
        Outputs of fc8.
    pool_rounding : {"floor", "ceil"}
        How max-pools round an odd side; it belongs to the weights.
    dropout : float
        Dropout ratio after fc6 and fc7 in training (Section 3.1).
    init : {"glorot", "paper", "kaiming"} or None
        Random initialisation: Glorot & Bengio's, which the paper adds works without
        pre-training; N(0, variance 1e-2) as in Section 3.1; or He et al.'s. Biases are 0.
        With None the network has no numbers before :meth:`load`.

    Examples
    --------
    >>> import torch
    >>> net = VGG("A", layers=("pool4", "pool5"), dense=True).eval()
    >>> {name: tuple(m.shape) for name, m in net.maps(torch.zeros(1, 3, 64, 96)).items()}
    {'pool4': (1, 512, 4, 6), 'pool5': (1, 512, 2, 3)}
    """

    def __init__(
        self,
        net: str = "D",
        *,
        layers: str | Sequence[str] = "fc8",
        dense: bool = False,
        num_classes: int = 1000,
        pool_rounding: str = "floor",
        dropout: float = 0.5,
        init: str | None = "glorot",
    ) -> None:
        super().__init__()
        if pool_rounding not in ROUNDINGS:
            raise ParameterError.not_one_of("pool_rounding", "VGG", ROUNDINGS, pool_rounding)
        wanted = [layers] if isinstance(layers, str) else list(layers)
        if not wanted:
            raise ParameterError.of("layers", "VGG", "one or more layer names", layers)
        self.net = net = net_name(net)
        self.wanted = tuple(dict.fromkeys(resolve_layer(net, name) for name in wanted))
        self.dense = dense
        self.pool_rounding = pool_rounding
        self.dropout = dropout
        self.layers = layers_until(net, wanted, num_classes)
        self.num_classes = num_classes
        # torch would draw every module's numbers once in vain: fc6 alone has 103 million.
        with torch.device("meta"):
            for layer in self.layers:
                if layer.has_parameters:
                    self.add_module(layer.name, _module(layer, dense))
        if init is not None:
            self.to_empty(device="cpu")
            initialise(self, init)

    @property
    def smallest_side(self) -> int:
        """Smallest side of an image, in pixels, that gives every layer one location."""
        return smallest_side(self.layers, self.pool_rounding)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the activations of the last layer asked for; see :meth:`maps`."""
        return self.maps(pixels)[self.wanted[-1]]

    def maps(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the activations of every layer asked for, computed in one pass.

        Parameters
        ----------
        pixels : Tensor (B, 3, H, W)
            Images in the pixel convention of the weights.

        Returns
        -------
        dict of Tensor (B, D, h, w), or (B, D) of fc layers that are not dense

        Raises
        ------
        ImageTooSmall
            If a layer would have no location.
        """
        self._check_size(pixels)
        found: dict[str, Tensor] = {}
        x = pixels
        for layer in self.layers:
            before_relu = layer.name + "_pre"
            x = self._compute(layer, x, rectify=layer.relu and before_relu not in self.wanted)
            if before_relu in self.wanted:
                found[before_relu] = x
                x = F.relu(x)
            if layer.kind == "fc" and layer.relu:
                x = F.dropout(x, self.dropout, self.training)
            if layer.name in self.wanted:
                found[layer.name] = x
        return {name: found[name] for name in self.wanted}

    def fully_convolutional(self) -> VGG:
        """Return the same network with fc6, fc7 and fc8 as convolutions, sharing its weights."""
        return self._like(dense=True, layers=self.wanted)

    def truncated(self, *layers: str) -> VGG:
        """Return the network up to the last of `layers`, sharing its weights."""
        return self._like(dense=self.dense, layers=layers)

    def load(self, state: Mapping[str, Tensor]) -> VGG:
        """Adopt parameters by name, without copying them; those of later layers are left out.

        Parameters
        ----------
        state : mapping
            Weights (out, in, k, k), or (out, in·k·k) of full connections, and biases (out,).

        Raises
        ------
        WeightsError
            If a parameter is missing or of another shape.
        """
        own = self.state_dict()
        if missing := sorted(own.keys() - state.keys()):
            raise WeightsError(
                f"The weights lack {', '.join(missing)} of net {self.net}. "
                f"They hold {', '.join(sorted(state)) or 'nothing'}."
            )
        adopted = {}
        for name, parameter in own.items():
            if state[name].numel() != parameter.numel():
                raise WeightsError(
                    f"{name} of net {self.net} has the shape {tuple(parameter.shape)}, "
                    f"in the weights {tuple(state[name].shape)}. Is this another configuration?"
                )
            adopted[name] = state[name].reshape(parameter.shape)
        self.load_state_dict(adopted, assign=True)
        return self

    def _like(self, *, dense: bool, layers: Sequence[str]) -> VGG:
        other = VGG(
            self.net,
            layers=layers,
            dense=dense,
            num_classes=self.num_classes,
            pool_rounding=self.pool_rounding,
            dropout=self.dropout,
            init=None,
        )
        return other.load(self.state_dict()).train(self.training)

    def _compute(self, layer: Layer, x: Tensor, *, rectify: bool) -> Tensor:
        """Apply a layer, with its ReLU if ``rectify``."""
        x = self._linear(layer, x)
        return F.relu(x, inplace=not self.training) if rectify else x

    def _linear(self, layer: Layer, x: Tensor) -> Tensor:
        """Apply a layer up to its ReLU."""
        if layer.kind == "pool":
            return F.max_pool2d(
                x, layer.kernel, layer.stride, ceil_mode=self.pool_rounding == "ceil"
            )
        if layer.kind == "lrn":
            # Krizhevsky's k, n, α, β. torch divides α by n, his formula does not: hence α·n.
            # Squares want more than half precision, and torch's pooling has none on CPUs.
            normed = F.local_response_norm(x.float(), size=5, alpha=5e-4, beta=0.75, k=2.0)
            return normed.to(x.dtype)
        if layer.kind == "prob":
            return x.softmax(1)
        if layer.kind == "fc" and not self.dense:
            x = x.flatten(1)
        module: nn.Module = getattr(self, layer.name)
        return module(x)  # type: ignore[no-any-return]  # a module's call is untyped

    def _check_size(self, pixels: Tensor) -> None:
        height, width = pixels.shape[-2:]
        if min(height, width) < self.smallest_side:
            raise ImageTooSmall(
                f"An image of {height}×{width} is too small for {self.wanted[-1]} of net "
                f"{self.net}: its smallest side must be at least {self.smallest_side}."
            )
        is_crop = height == width == INPUT_SIDE
        if not self.dense and self.layers[-1].kind in ("fc", "prob") and not is_crop:
            raise ImageTooSmall(
                f"The fully-connected form of net {self.net} takes 224×224 crops, not "
                f"{height}×{width}. Use .fully_convolutional() for images of any size."
            )


def initialise(net: nn.Module, how: str, generator: torch.Generator | None = None) -> None:
    """Draw the weights of a module's convolutions and full connections as :class:`VGG` says.

    Biases become 0; the module is changed in place.
    """
    if how not in INITIALISATIONS:
        raise ParameterError.not_one_of("init", "VGG", INITIALISATIONS, how)
    for module in net.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if how == "glorot":
            nn.init.xavier_uniform_(module.weight, generator=generator)
        elif how == "paper":
            nn.init.normal_(module.weight, std=0.1, generator=generator)
        else:
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _module(layer: Layer, dense: bool) -> nn.Module:
    if layer.kind == "conv":
        return nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, padding=layer.padding)
    if dense:
        return nn.Conv2d(layer.inputs, layer.outputs, layer.kernel)
    return nn.Linear(layer.shape[1], layer.outputs)
