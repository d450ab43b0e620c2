"""What training begins from, and settings that follow from the number of images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from vggfeat._io.download import Progress
from vggfeat.errors import ParameterError
from vggfeat.nets.formats import read
from vggfeat.nets.formats.parameters import FC
from vggfeat.nets.registry import NAMES
from vggfeat.nets.weights import Weights, load
from vggfeat.settings import Training
from vggfeat.train.distributed import world_size


def default_batch(images: int, updates: int) -> int:
    """Return the paper's batch, or so few images that an epoch of a small set has some updates.

    Parameters
    ----------
    images : int
        To train with.
    updates : int
        In an epoch, at least; a batch is a multiple of eight images.

    Returns
    -------
    int
        At least an image for each process.

    Examples
    --------
    >>> default_batch(150, 8), default_batch(1_281_167, 8)
    (16, 256)
    """
    return max(world_size(), min(Training().batch, max(8, images // updates // 8 * 8)))


def net_of_init(init: str, net: str, command: str, drawn: Sequence[str] = ()) -> str | None:
    """Name the net of Table 1 that the weights to begin from are of; None where they are drawn.

    Parameters
    ----------
    init : str
        A file, the name of a source, which has weights of each net, or one of `drawn`.
    net : str
        The net that is trained.
    command : str
        What the setting belongs to.
    drawn : sequence of str
        The random initialisations.

    Raises
    ------
    ParameterError
        If it is none of these.
    WeightsError
        If it is a file of something else.

    Examples
    --------
    >>> net_of_init("embedded", "D", "train"), net_of_init("glorot", "D", "train", ["glorot"])
    ('D', None)
    """
    if init in drawn:
        return None
    if init in NAMES:
        return net
    if not (path := Path(init).expanduser()).is_file():
        names = ", ".join(map(repr, (*drawn, *NAMES)))
        raise ParameterError.of("init", command, f"one of {names}, or a file of weights", init)
    return read(path).net


def load_start(init: str, net: str, layer: str, progress: Progress | None = None) -> Weights:
    """Load what a network begins from, as far as a layer; of convolutions alone, all of these.

    Parameters
    ----------
    init : str
        A file, or the name of a source.
    net : str
        The net that it is of.
    layer : {"fc7", "fc8"}
        The last layer that is taken. :func:`lacking_layers` names those that are not there.
    progress : callable, optional
        Called with bytes done and all bytes of a download.

    Raises
    ------
    WeightsError
        If the weights lack a convolution.
    """
    last = "pool5" if init == "embedded" else layer
    if init not in NAMES:
        held = read(Path(init).expanduser(), net).parameters
        full = takewhile(lambda name: f"{name}.weight" in held, FC[: FC.index(layer) + 1])
        last = ["pool5", *full][-1]
    return load(init, net, [last], progress=progress)


def lacking_layers(weights: Weights, layer: str) -> list[str]:
    """Name the fully connected layers up to one that weights do not have."""
    wanted = FC[: FC.index(layer) + 1]
    return [name for name in wanted if f"{name}.weight" not in weights.state]
