"""How a network begins: drawn at random, from the trained net A, or from itself at another S.

And what its pixels and activations are scaled by, so that it can be trained from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vggfeat.errors import ParameterError, WeightsError
from vggfeat.nets.config import DEEPER, layers_of
from vggfeat.nets.formats.parameters import FC
from vggfeat.nets.preprocessing import PixelConvention
from vggfeat.nets.vgg import INITIALISATIONS, VGG, initialise
from vggfeat.nets.weights import Weights
from vggfeat.settings import Training
from vggfeat.train.augment import Colours, principal_components, to_input
from vggfeat.train.data import Part
from vggfeat.train.loader import Loader

FIRST_CONVOLUTIONS = 4
COLOURED = 2_000  # images of which mean and principal components are taken: to 0.1 of 255
LEVELLED = 32  # images on which the size of pool5 is measured: to a few percent


class Start(NamedTuple):
    """A network ready to be trained, and where its numbers come from.

    Parameters
    ----------
    net : VGG
        Whole, not dense, on the CPU, float32, in training mode; nothing shares its memory.
    taken : tuple of str
        Layers copied from other weights, in order.
    drawn : tuple of str
        Layers drawn at random, in order, be it here or by who made the weights.
    """

    net: VGG
    taken: tuple[str, ...]
    drawn: tuple[str, ...]


def taken_from_a(net: str) -> tuple[str, ...]:
    """Name the layers that a deeper net takes from the trained A's layers of the same name.

    They are the first four convolutions and the three full connections of Section 3.1. The four
    are counted in A, where they are 3→64, 64→128, 128→256 and 256→256 channels, so that they
    fit conv1_1, conv2_1, conv3_1 and conv3_2 of the deeper net; the deeper net's own first four
    (3→64, 64→64, …) would not.

    Raises
    ------
    ParameterError
        If the net is not B, C, D or E.

    Examples
    --------
    >>> taken_from_a("E")
    ('conv1_1', 'conv2_1', 'conv3_1', 'conv3_2', 'fc6', 'fc7', 'fc8')
    """
    if net not in DEEPER:
        raise ParameterError.not_one_of("net", "taken_from_a", DEEPER, net)
    convolutions = [layer.name for layer in layers_of("A") if layer.kind == "conv"]
    return (*convolutions[:FIRST_CONVOLUTIONS], *FC)


def start(
    net: str,
    *,
    init: str = "glorot",
    from_weights: Weights | Mapping[str, Tensor] | None = None,
    of: str | None = None,
    num_classes: int = 1000,
    dropout: float = 0.5,
    generator: torch.Generator | None = None,
) -> Start:
    """Build a network with the numbers that training begins with (Section 3.1).

    Without `from_weights` all layers are drawn. From weights of net A, nets B to E take the
    layers of :func:`taken_from_a`; from weights of itself, at another S say, a net takes all
    layers. Full connections that the weights lack, as the embedded ones do, and an fc8 of other
    classes are drawn. Layers taken are copied: training leaves `from_weights` as they are.

    Parameters
    ----------
    net : str
        Configuration of Table 1.
    init : {"glorot", "paper", "kaiming"}
        How layers are drawn; see the notes.
    from_weights : Weights or mapping of str to Tensor, optional
        Parameters by name: ``conv1_1.weight`` (out, in, k, k), ``conv1_1.bias`` (out,), …
    of : str, optional
        The configuration they belong to; needed where they do not say it.
    num_classes : int
        Outputs of fc8.
    dropout : float
        Dropout ratio after fc6 and fc7.
    generator : torch.Generator, optional
        Source of the random numbers, on the CPU.

    Raises
    ------
    ParameterError
        If the weights are of a net that this one cannot begin from, or an initialisation is not
        known.
    WeightsError
        If the weights lack a convolution, or hold a layer of another shape.

    Notes
    -----
    The paper draws net A from N(0, variance 1e-2), so σ = 0.1, and adds that Glorot & Bengio's
    initialisation spares the pre-training. A layer of fan-in n multiplies the root mean square of
    its rectified inputs by σ·√(n/2), and at σ = 0.1 that is more than 1 from conv2_1 on: 1.7 at
    n = 576, 2.4 at 1152, 3.4 at 2304, 4.8 at 4608, 11.2 at fc6's 25088 and 4.5 at 4096. Over the
    eleven layers of A it is 6e5: pixels of root mean square 77 became scores of 7e7, a loss of
    that size, and gradients that no rate near 1e-2 survives. Glorot's variance
    2/(in + out) multiplies by 0.6 to 0.9 a layer, and the same pixels became scores of 1.2. So it
    is the default, with pixels divided by their deviation besides, see
    :func:`~vggfeat.train.init.measure_colours`; the paper's stays available by name. Kaiming keeps
    the root mean square; its scores are of the size of the pixels, 1 after that division.

    Examples
    --------
    >>> from vggfeat.nets.weights import load
    >>> begun = start("D", from_weights=load("embedded", layers=["pool5"]), num_classes=10)
    >>> len(begun.taken), begun.drawn
    (13, ('fc6', 'fc7', 'fc8'))
    """
    if init not in INITIALISATIONS:
        raise ParameterError.not_one_of("init", "start", INITIALISATIONS, init)
    model = VGG(
        net,
        num_classes=num_classes,
        pool_rounding=_pool_rounding(from_weights),
        dropout=dropout,
        init=None,
    ).to_empty(device="cpu")
    state = from_weights.state if isinstance(from_weights, Weights) else from_weights or {}
    taken = _taken(net, _source(from_weights, of), state, num_classes)
    names = [layer.name for layer in layers_of(net) if layer.has_parameters]
    for name in names:
        if name in taken:
            _copy(model, name, state)
        else:
            initialise(getattr(model, name), init, generator)
    before = from_weights.drawn if isinstance(from_weights, Weights) else ()
    trained = tuple(name for name in taken if name not in before)
    return Start(model.train(), trained, tuple(name for name in names if name not in trained))


def _pool_rounding(weights: Weights | Mapping[str, Tensor] | None) -> str:
    """Return the rounding of the weights; it matters where 32 does not divide an image."""
    return weights.pixels.pool_rounding if isinstance(weights, Weights) else "floor"


def _source(weights: Weights | Mapping[str, Tensor] | None, of: str | None) -> str | None:
    if weights is None:
        return None
    if of is None and not isinstance(weights, Weights):
        raise ParameterError.of("of", "start", "the net that the weights are of", of)
    return of or (weights.net if isinstance(weights, Weights) else None)


def _taken(
    net: str, source: str | None, state: Mapping[str, Tensor], num_classes: int
) -> tuple[str, ...]:
    """Name the layers that are copied, having checked that the weights hold them."""
    if source is None:
        return ()
    if source == net:
        wanted = tuple(layer.name for layer in layers_of(net) if layer.has_parameters)
    elif source == "A" and net in DEEPER:
        wanted = taken_from_a(net)
    else:
        others = f"{net} or of A" if net in DEEPER else net
        raise ParameterError(
            f"Net {net} can begin from weights of {others}, not from those of {source}."
        )
    lacking = [name for name in wanted if f"{name}.weight" not in state]
    if convolutions := [name for name in lacking if name not in FC]:
        raise WeightsError(
            f"The weights of net {source} lack {', '.join(convolutions)}, which net {net} begins "
            "from. Name a file with all convolutions, or begin at random: leave the weights out."
        )
    if "fc8" not in lacking and len(state["fc8.weight"]) != num_classes:
        lacking.append("fc8")
    return tuple(name for name in wanted if name not in lacking)


@torch.no_grad()
def _copy(model: VGG, layer: str, state: Mapping[str, Tensor]) -> None:
    for part, parameter in getattr(model, layer).named_parameters():
        name = f"{layer}.{part}"
        if name not in state or state[name].numel() != parameter.numel():
            shape = tuple(state[name].shape) if name in state else "none"
            raise WeightsError(
                f"{name} of net {model.net} has the shape {tuple(parameter.shape)}, in the "
                f"weights {shape}. Are they of another configuration?"
            )
        parameter.copy_(state[name].reshape(parameter.shape))


def measure_colours(
    known: Mapping[str, Any],
    part: Part,
    settings: Training,
    weights: Weights | None,
    workers: int,
) -> tuple[Colours, PixelConvention]:
    """Take mean and principal components of the training set; a resumed run has them.

    A network that is drawn gets pixels divided by their deviation, one number for all channels.
    The paper only subtracts the mean, and that is the same network, with conv1_1 as many times
    larger; but the gradient of conv1_1 grows with the size of pixels, 70 or so, and at a rate of
    1e-2 its steps grow with the square: from the default initialisation training diverged in the
    first epoch. With ``init="paper"`` pixels stay as in the paper.
    """
    if known:
        return Colours.from_dict(known["colours"]), PixelConvention.from_json(known["pixels"])
    measured = _measured(part, settings, workers)
    divided = settings.init != "paper" and measured.deviation > 0
    std = (measured.deviation if divided else 1.0,) * 3
    pixels = weights.pixels if weights else PixelConvention("RGB", 255.0, measured.mean, std)
    # As they come back from a file: tuples have become lists.
    return Colours.from_dict(measured.to_dict()), pixels


def _measured(part: Part, settings: Training, workers: int) -> Colours:
    rows = torch.randperm(len(part), generator=torch.Generator().manual_seed(settings.seed))
    some = part.take(rows[:COLOURED].sort().values.numpy())
    with Loader(some, batch_size=64, S=settings.S, workers=workers, decoding=settings) as loader:
        crops = (crop for batch in loader.batches() for crop in batch.pixels)
        return principal_components(crop.permute(1, 2, 0).numpy() for crop in crops)


@torch.no_grad()
def rescale_activations(
    begun: Start,
    part: Part,
    settings: Training,
    pixels: PixelConvention,
    weights: Weights | None,
) -> None:
    """Scale what drawn full connections see to a root mean square of 1.

    The convolutions of trained weights have activations of any size, those of the authors' net D
    8 at pool5; drawn full connections expect 1, and the size of their steps grows with its
    square: at the paper's rates training would diverge. Since ReLU and pooling pass a factor on,
    the last convolution, weights and biases, is divided by the root mean square that pool5 has on
    central crops of some training images. Nothing else changes; L2-normalised descriptors of
    pool5 stay the same.

    Parameters
    ----------
    begun : Start
        Changed in place where convolutions were taken, and fc6 was drawn for them.
    part : Part
        Images to train with.
    settings : Training
    pixels : PixelConvention
        What the network takes.
    weights : Weights, optional
        What was taken; an fc6 of theirs suits their convolutions already.
    """
    if weights is None or "fc6.weight" in weights.state:
        return
    last = [name for name in begun.taken if name.startswith("conv")][-1]
    rows = torch.randperm(len(part), generator=torch.Generator().manual_seed(settings.seed))
    some = part.take(rows[:LEVELLED].numpy())
    net = begun.net.truncated("pool5")
    with Loader(some, batch_size=8, S=settings.S, decoding=settings) as loader:
        device = next(net.parameters()).device
        maps = [net(to_input(batch.pixels.to(device), pixels)) for batch in loader.batches()]
    size = torch.cat(maps).square().mean().sqrt()
    if size > 0:
        for parameter in getattr(begun.net, last).parameters():
            parameter /= size
