"""What stands before the first update: a run is found or begun, its colours and network made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vggfeat.nets.preprocessing import PixelConvention
from vggfeat.nets.weights import Weights
from vggfeat.train.augment import to_input
from vggfeat.train.colours import Colours, principal_components
from vggfeat.train.loader import Loader
from vggfeat.train.part import Part
from vggfeat.train.settings import Training
from vggfeat.train.start import Start

COLOURED = 2_000  # images of which mean and principal components are taken: to 0.1 of 255
LEVELLED = 32  # images on which the size of pool5 is measured: to a few percent


def colours_of(
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
    with Loader(some, batch_size=64, S=settings.S, workers=workers) as loader:
        crops = (crop for batch in loader.batches() for crop in batch.pixels)
        return principal_components(crop.permute(1, 2, 0).numpy() for crop in crops)


@torch.no_grad()
def level(
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
    with Loader(some, batch_size=8, S=settings.S) as loader:
        device = next(net.parameters()).device
        maps = [net(to_input(batch.pixels.to(device), pixels)) for batch in loader.batches()]
    size = torch.cat(maps).square().mean().sqrt()
    if size > 0:
        for parameter in getattr(begun.net, last).parameters():
            parameter /= size
