"""Weights and biases on their way from a file to a network: read late, named as in Table 1."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vggfeat.errors import WeightsError
from vggfeat.nets.config import FC_SIDE, TABLE_1, convolutions, layers_of
from vggfeat.nets.preprocessing import CAFFE, PixelConvention
from vggfeat.settings import net_name

if TYPE_CHECKING:  # torch takes a second to import
    from torch import Tensor

FLOATS = ("float16", "bfloat16", "float32", "float64")
FC = ("fc6", "fc7", "fc8")


@dataclass(frozen=True)
class Parameter:
    """A weight or bias in a file, whose numbers are read when they are wanted.

    Examples
    --------
    >>> import torch
    >>> bias = Parameter((1, 2), "float16", lambda: torch.ones(1, 2, dtype=torch.float16))
    >>> bias.reshaped(2).tensor()
    tensor([1., 1.])
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]

    def __post_init__(self) -> None:
        if self.dtype not in FLOATS:
            raise WeightsError(f"its numbers are {self.dtype}, not one of {', '.join(FLOATS)}")

    def reshaped(self, *shape: int) -> Parameter:
        """Return the same numbers in another shape."""
        if math.prod(shape) != math.prod(self.shape):
            raise WeightsError(f"a parameter of shape {self.shape} cannot be one of {shape}")
        return Parameter(shape, self.dtype, lambda: self.read().reshape(shape))

    def permuted(self, *order: int) -> Parameter:
        """Return the numbers with their dimensions in another order."""
        if len(order) != len(self.shape):
            raise WeightsError(f"a parameter has the shape {self.shape}, not {len(order)} sides")
        shape = tuple(self.shape[i] for i in order)
        return Parameter(shape, self.dtype, lambda: self.read().permute(order))

    def channels_first(self) -> Parameter:
        """Reorder the inputs of fc6 (out, 7·7·512) from height, width, channel to torch's order."""
        out, inputs = self.shape[0], math.prod(self.shape[1:])
        channels = inputs // FC_SIDE**2
        spatial = self.reshaped(out, FC_SIDE, FC_SIDE, channels).permuted(0, 3, 1, 2)
        return spatial.reshaped(out, inputs)

    def tensor(self) -> Tensor:
        """Read the numbers as a contiguous float32 tensor."""
        return self.read().float().contiguous()


class Pair(NamedTuple):
    """The parameters of one layer."""

    weight: Parameter
    bias: Parameter


@dataclass
class Contents:
    """What a reader found in a file."""

    pairs: dict[str, Pair]  # by layer; weights (out, in, k, k) or (out, in)
    ignored: list[str] = field(default_factory=list)  # parameters of no layer of a VGG net
    usual: PixelConvention = CAFFE  # of files of this kind, where one does not state its own
    pixels: PixelConvention | None = None  # that the file states
    metadata: dict[str, str] = field(default_factory=dict)  # its net, source, licence


def map_file(path: Path) -> memoryview:
    """Map a file into memory; its pages are read when they are touched."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise WeightsError("it is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def pair(parts_of: Mapping[str, Mapping[str, Parameter]]) -> dict[str, Pair]:
    """Put the weight and the bias of every layer together."""
    pairs = {}
    for layer, parts in parts_of.items():
        missing = {"weight", "bias"} - parts.keys()
        if missing:
            raise WeightsError(f"layer {layer} has no {missing.pop()}")
        pairs[layer] = Pair(parts["weight"], parts["bias"])
    return pairs


def name_by_order(in_order: Sequence[Pair], connections: Sequence[Pair]) -> dict[str, Pair]:
    """Name layers that are known by their order only: the shapes tell which are which."""
    shapes = [pair.weight.shape for pair in in_order]
    if len(connections) > len(FC):
        raise WeightsError(f"it has {len(connections)} full connections, a VGG net has {len(FC)}")
    for net in TABLE_1:
        layers = convolutions(net)[: len(shapes)]
        if [layer.shape for layer in layers] == shapes:
            names = [layer.name for layer in layers]
            return {
                **dict(zip(names, in_order, strict=True)),
                **dict(zip(FC, connections, strict=False)),
            }
    raise WeightsError(
        f"its {len(shapes)} convolutions are those of no configuration of Table 1: "
        + ", ".join("×".join(map(str, shape)) for shape in shapes[:4])
        + (", …" if len(shapes) > 4 else "")
    )


def identify(pairs: Mapping[str, Pair], net: str | None, stated: str | None = None) -> str:
    """Tell of which configuration these layers are: `net`, if one is wanted.

    What the file has `stated` is believed where the shapes allow it.
    """
    found = [(name, p.weight.shape) for name, p in sorted(pairs.items()) if name not in FC]
    tables = {n: [(layer.name, layer.shape) for layer in convolutions(n)] for n in TABLE_1}
    candidates = [n for n in TABLE_1 if tables[n][: len(found)] == found]
    whole = [n for n in candidates if len(tables[n]) == len(found)]
    if net is not None:
        net = net_name(net)
        layers_of(net)  # raises ParameterError if there is none of this name
        if net in candidates:
            return net
        these = " or ".join(whole or candidates) or "no configuration of Table 1"
        raise WeightsError(f"its weights are those of {these}, not of net {net}")
    if stated in candidates:
        return str(stated)
    if whole or (candidates and all(tables[n] == tables[candidates[0]] for n in candidates)):
        return (whole or candidates)[0]  # A's parameters are A-LRN's, too; A is the better net
    if candidates:
        which = " or ".join(f"net={candidate!r}" for candidate in candidates)
        raise WeightsError(f"it may be of several nets; say which with {which}")
    raise WeightsError("its convolutions are those of no configuration of Table 1")


def name_parameters(pairs: Mapping[str, Pair], net: str) -> dict[str, Parameter]:
    """Name and shape the parameters as our state dict does, and check that they fit together.

    Full connections may be narrower than the paper's 4096 and fc8 may have any classes.
    """
    state: dict[str, Parameter] = {}
    inputs: int | None = layers_of(net)[-4].shape[1]  # of fc6
    for name in sorted(pairs):
        weight, bias = pairs[name]
        out = weight.shape[0] if weight.shape else 0
        if name in FC:
            width = math.prod(weight.shape[1:])
            weight = weight.reshaped(out, width)
            before = FC[FC.index(name) - 1]
            expected = inputs if name == "fc6" or before in pairs else width
            if width != expected:
                raise WeightsError(f"{name} takes {width:,} inputs, expected {expected:,}")
            inputs = out
        if math.prod(bias.shape) != out:
            raise WeightsError(f"{name} has {out} outputs and a bias of shape {bias.shape}")
        state[f"{name}.weight"] = weight
        state[f"{name}.bias"] = bias.reshaped(out)
    return state
