"""What stands before the first update: a run is found or begun, its colours and network made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vggfeat.errors import StoreError
from vggfeat.nets.preprocessing import PixelConvention
from vggfeat.nets.runtimes import resolve_precision
from vggfeat.nets.weights import Weights
from vggfeat.train.augment import to_input
from vggfeat.train.checkpoint import LAST, Position, read
from vggfeat.train.colours import Colours, principal_components
from vggfeat.train.loader import Loader
from vggfeat.train.part import Part
from vggfeat.train.processes import Processes
from vggfeat.train.settings import Training
from vggfeat.train.start import Start
from vggfeat.train.words import Engine

COLOURED = 2_000  # images of which mean and principal components are taken: to 0.1 of 255
DESCRIBED = ("settings", "task")  # what must be the same, and is no digest
LONG = 40  # characters of what differs that are shown; a digest has more
LEVELLED = 32  # images on which the size of pool5 is measured: to a few percent


def found(out: Path, told: Mapping[str, Any], *, resume: bool) -> tuple[Position, dict[str, Any]]:
    """Find where a run stands, and refuse to mix two runs.

    Parameters
    ----------
    out : Path
        Its folder.
    told : mapping
        What must be the same to go on.
    resume : bool
        Whether going on is asked for.

    Returns
    -------
    Position
    dict
        What the run was told; empty where there is none.

    Raises
    ------
    StoreError
        If there is a run, and it is another or not to be gone on with.
    """
    path = out / LAST
    if not path.exists():
        return Position(), {}
    position, known = read(path)
    if not resume:
        raise StoreError(
            f"{out} holds a training run of {position.epoch} epochs. Go on with --resume, or name "
            "another --out."
        )
    if wrong := [name for name, value in told.items() if known.get(name, value) != value]:
        differ = [line for name in DESCRIBED for line in _differing(known.get(name), told[name])]
        which = f" ({'; '.join(differ)})" if differ else ""
        raise StoreError(
            f"{path} is of a run with other {', '.join(wrong)}{which}.",
            "Resume with the same settings, images and weights, or name another --out.",
        )
    return position, known


def _differing(theirs: Mapping[str, Any] | None, mine: Mapping[str, Any]) -> list[str]:
    """Say what has changed from the run's to what is asked for."""
    known = theirs or {}
    return [
        f"{name}: {known.get(name)!r:.{LONG}} → {value!r:.{LONG}}"
        for name, value in mine.items()
        if known.get(name) != value
    ]


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
    with Loader(some, batch_size=64, S=settings.S, workers=workers, augment=False) as loader:
        crops = (crop for batch in loader.batches() for crop in batch.pixels)
        return principal_components(crop.permute(1, 2, 0).numpy() for crop in crops)


def loader_of(
    part: Part, settings: Training, engine: Engine, team: Processes, *, augment: bool
) -> Loader:
    """Make the loader of a part: augmented to train, central crops to validate."""
    return Loader(
        part,
        batch_size=settings.batch,
        S=settings.S,
        workers=engine.workers,
        seed=settings.seed,
        rank=team.rank,
        world=team.world,
        augment=augment,
        decoder=engine.decoder,
        device=team.device,
    )


def freeze(net: nn.Module, what: str) -> None:
    """Leave the convolutions as they are, if that is asked for."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(what != "conv" or not name.startswith("conv"))


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
    with Loader(some, batch_size=8, S=settings.S, augment=False) as loader:
        device = next(net.parameters()).device
        maps = [net(to_input(batch.pixels.to(device), pixels)) for batch in loader.batches()]
    size = torch.cat(maps).square().mean().sqrt()
    if size > 0:
        for parameter in getattr(begun.net, last).parameters():
            parameter /= size


def precision_of(engine: Engine, device: torch.device) -> str:
    """Resolve the precision; a CPU's is fp32 unless another is asked for."""
    wanted = engine.precision
    if wanted == "auto" and device.type == "cpu":
        wanted = "fp32"  # bf16 gradients on CPUs save little, and cost exactness
    return resolve_precision(wanted, device)


def parallel(net: nn.Module, engine: Engine, team: Processes) -> nn.Module:
    """Wrap a network so that processes share gradients, and compile it if that is asked for."""
    model = net
    if team.world > 1:
        ids = [team.device] if team.device.type == "cuda" else None
        model = DistributedDataParallel(net, device_ids=ids)
    if engine.compile:
        model = torch.compile(model)  # type: ignore[assignment]  # it is called alike
    return model
