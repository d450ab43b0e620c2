"""Table 1 of the paper as data: the layers of every configuration, and how large their maps are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from vggfeat.errors import ParameterError
from vggfeat.settings import OTHER_NAMES, net_name

# A stage a group of "|", a convolution an entry: channels, and its kernel where that is not 3×3.
# Every stage ends in a 2×2 max-pool. After them the widths of fc6 and fc7. B-5x5 is the ablation
# of Section 4.1.
TABLE_1 = {
    "A": "64 | 128 | 256 256 | 512 512 | 512 512 | FC 4096 4096",
    "A-LRN": "64 LRN | 128 | 256 256 | 512 512 | 512 512 | FC 4096 4096",
    "B": "64 64 | 128 128 | 256 256 | 512 512 | 512 512 | FC 4096 4096",
    "B-5x5": "64/5 | 128/5 | 256/5 | 512/5 | 512/5 | FC 4096 4096",
    "C": "64 64 | 128 128 | 256 256 256/1 | 512 512 512/1 | 512 512 512/1 | FC 4096 4096",
    "D": "64 64 | 128 128 | 256 256 256 | 512 512 512 | 512 512 512 | FC 4096 4096",
    "E": "64 64 | 128 128 | 256 256 256 256 | 512 512 512 512 | 512 512 512 512 | FC 4096 4096",
}
DEEPER = ("B", "C", "D", "E")
"""Nets that take layers from the trained A (Section 3.1)."""
ROUNDINGS = ("floor", "ceil")
FC_SIDE = 7  # fc6 looks at 7×7 locations of pool5
STRIDE = 32  # pixels between two locations of pool5; the strides of all layers divide it
INPUT_SIDE = 224  # pixels of the crops that the networks were trained on (Section 2.1)


@dataclass(frozen=True)
class Layer:
    """One layer of a configuration, ReLU included."""

    name: str  # conv1_1 … pool5, fc6, fc7, fc8, prob
    kind: str  # conv, lrn, pool, fc or prob
    inputs: int  # channels
    outputs: int
    kernel: int = 1  # side of its window in locations of its input
    relu: bool = False  # whether one follows

    @property
    def has_parameters(self) -> bool:
        """Whether it has a weight and a bias."""
        return self.kind in ("conv", "fc")

    @property
    def stride(self) -> int:
        """Locations of its input between two of its output."""
        return 2 if self.kind == "pool" else 1

    @property
    def padding(self) -> int:
        """Zeros on each side of its input."""
        return self.kernel // 2 if self.kind == "conv" else 0

    def output_side(self, side: int, rounding: str = "floor") -> int:
        """Locations along one side of its map of an input with so many."""
        free = side + 2 * self.padding - self.kernel
        steps = -(-free // self.stride) if rounding == "ceil" else free // self.stride
        return steps + 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight: (out, in, k, k) of a convolution, (out, in) of a full connection."""
        if self.kind == "fc":
            return (self.outputs, self.inputs * self.kernel**2)
        return (self.outputs, self.inputs, self.kernel, self.kernel)


def layers_of(net: str, num_classes: int = 1000) -> tuple[Layer, ...]:
    """List the layers of a configuration of Table 1, in order.

    Raises
    ------
    ParameterError
        If there is no such configuration.

    Examples
    --------
    >>> [layer.name for layer in layers_of("A")[:5]]
    ['conv1_1', 'pool1', 'conv2_1', 'pool2', 'conv3_1']
    >>> layers_of("C")[8]
    Layer(name='conv3_3', kind='conv', inputs=256, outputs=256, kernel=1, relu=True)
    """
    net = net_name(net)
    if net not in TABLE_1:
        raise ParameterError.not_one_of("net", "VGG", (*TABLE_1, *OTHER_NAMES), net)
    return _layers(TABLE_1[net], num_classes)


@cache
def _layers(row: str, num_classes: int) -> tuple[Layer, ...]:
    """List the layers that a row of Table 1 stands for."""
    *stages, connections = row.split("|")
    found: list[Layer] = []
    channels = 3
    for stage, entries in enumerate(stages, start=1):
        convolutions = 0
        for entry in entries.split():
            if entry == "LRN":
                found.append(Layer(f"lrn{stage}", "lrn", channels, channels))
                continue
            width, _, kernel = entry.partition("/")
            convolutions += 1
            name = f"conv{stage}_{convolutions}"
            found.append(Layer(name, "conv", channels, int(width), int(kernel or 3), relu=True))
            channels = int(width)
        found.append(Layer(f"pool{stage}", "pool", channels, channels, 2))
    fc6, fc7 = map(int, connections.split()[1:])
    return (
        *found,
        Layer("fc6", "fc", channels, fc6, FC_SIDE, relu=True),
        Layer("fc7", "fc", fc6, fc7, relu=True),
        Layer("fc8", "fc", fc7, num_classes),
        Layer("prob", "prob", num_classes, num_classes),
    )


def layers_until(net: str, names: Iterable[str], num_classes: int = 1000) -> tuple[Layer, ...]:
    """List the layers that must run so that all of `names` are computed.

    Examples
    --------
    >>> [layer.name for layer in layers_until("D", ["conv1_2", "pool1"])]
    ['conv1_1', 'conv1_2', 'pool1']
    """
    order = [layer.name for layer in layers_of(net)]
    last = max(order.index(resolve_layer(net, name).removesuffix("_pre")) for name in names)
    return layers_of(net, num_classes)[: last + 1]


def convolutions(net: str) -> list[Layer]:
    """List the convolutions of a configuration."""
    return [layer for layer in layers_of(net) if layer.kind == "conv"]


def parameter_layers(net: str, names: Iterable[str]) -> list[str]:
    """Names of the layers with parameters that `names` need."""
    return [layer.name for layer in layers_until(net, names) if layer.has_parameters]


def resolve_layer(net: str, name: str) -> str:
    """Turn a layer's name, or torchvision's name of it, into ours.

    A layer's name means its activations after the ReLU, as a Caffe blob does, and as the paper
    means "fc7"; ``conv5_3_pre`` are those before it. Of torchvision's modules ``features.28`` of
    ``vgg16`` is such a convolution alone, and ``features.29`` the ReLU that follows it.

    Raises
    ------
    ParameterError
        If the configuration has no such layer.

    Examples
    --------
    >>> resolve_layer("D", "features.29"), resolve_layer("D", "features.28")
    ('conv5_3', 'conv5_3_pre')
    >>> resolve_layer("E", "classifier.4")
    'fc7'
    """
    layers = {layer.name: layer for layer in layers_of(net)}
    before_relu = layers.get(name.removesuffix("_pre"))
    if name in layers or (name.endswith("_pre") and before_relu and before_relu.relu):
        return name
    aliases = torchvision_names(net)
    if name in aliases:
        return aliases[name]
    raise ParameterError.not_one_of("layer", f"net {net}", layers, name)


def torchvision_names(net: str) -> dict[str, str]:
    """Map the module names of torchvision's VGG to ours.

    torchvision counts convolution, ReLU and pool as modules of ``features`` and full connection,
    ReLU and dropout as modules of ``classifier``.
    """
    names: dict[str, str] = {}
    position = {"features": 0, "classifier": 0}
    for layer in layers_of(net):
        if layer.kind == "prob":
            continue
        part = "classifier" if layer.kind == "fc" else "features"
        modules = [layer.name + "_pre", layer.name] if layer.relu else [layer.name]
        modules += [layer.name] if layer.kind == "fc" and layer.relu else []  # its dropout
        for module in modules:
            names[f"{part}.{position[part]}"] = module
            position[part] += 1
    return names


def map_side(side: int, layers: Sequence[Layer], rounding: str = "floor") -> int:
    """Locations along one side of the map that `layers` make of an image's side in pixels.

    They are 0 or less where the image is too small.

    Examples
    --------
    >>> map_side(384, layers_of("D")), map_side(223, layers_of("D"), "ceil")
    (6, 1)
    """
    for layer in layers:
        side = layer.output_side(side, rounding)
    return side


def smallest_side(layers: Sequence[Layer], rounding: str = "floor") -> int:
    """Smallest side in pixels of which `layers` make at least one location.

    Examples
    --------
    >>> smallest_side(layers_of("D")), smallest_side(layers_of("D"), "ceil")
    (224, 193)
    """
    side = 1
    while map_side(side, layers, rounding) < 1:
        side += 1
    return side


def stride_of(name: str, layers: Sequence[Layer]) -> int:
    """Pixels between two locations of a layer's map.

    Examples
    --------
    >>> stride_of("conv3_1", layers_of("D")), stride_of("fc7", layers_of("D"))
    (4, 32)
    """
    return math.prod(layer.stride for layer in _until(name, layers))


def window_of(name: str, layers: Sequence[Layer]) -> int:
    """Pixels along a side that a location of a layer's map stands for.

    They are the stride's, and of a full connection those of the 7 cells of pool5 that fc6 looks at
    (Section 3.2). What it sees reaches further: zero padding is not counted.

    Examples
    --------
    >>> window_of("pool5", layers_of("D")), window_of("fc7", layers_of("D"))
    (32, 224)
    """
    until = _until(name, layers)
    return stride_of(name, layers) + _reach(until)[1]


def margins(layers: Sequence[Layer]) -> tuple[int, int]:
    """Pixels that a tile needs before and after it so that its map equals the whole image's.

    Zero padding at a cut reaches as far inwards as the convolutions see; fc6 looks ahead by six
    locations. Both are rounded up to the stride.

    Examples
    --------
    >>> margins(layers_until("E", ["pool5"])), margins(layers_of("E"))
    ((128, 128), (128, 320))
    """
    padded, ahead = (math.ceil(pixels / STRIDE) * STRIDE for pixels in _reach(layers))
    return padded, padded + ahead


def _reach(layers: Sequence[Layer]) -> tuple[int, int]:
    """Count the pixels by which layers look around a location in their padding, and ahead of it."""
    padded = ahead = 0
    stride = 1
    for layer in layers:
        padded += layer.padding * stride
        ahead += (layer.kernel - layer.stride - 2 * layer.padding) * stride
        stride *= layer.stride
    return padded, ahead


def _until(name: str, layers: Sequence[Layer]) -> Sequence[Layer]:
    names = [layer.name for layer in layers]
    if name.removesuffix("_pre") not in names:
        raise ParameterError.not_one_of("layer", "stride_of", names, name)
    return layers[: names.index(name.removesuffix("_pre")) + 1]
