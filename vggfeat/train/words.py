"""What goes into a training run beside its settings, what it tells, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggfeat.errors import ParameterError
from vggfeat.train.checkpoint import BEST


@dataclass
class Told:
    """What a run tells as it goes.

    Parameters
    ----------
    epoch, batch, batches : int
        Where it is: epoch from 0 on, updates done of it, and all of it.
    loss : float
        Mean over the epoch so far, with dropout and random crops.
    figures : dict of str to float
        Those of the task, top1 and top5 of a classification: means as well, from 0 to 1.
    learning_rate : float
    images_per_s : float
        Over all processes, since the run was begun or resumed.
    waited : float
        Share of the time that the device waited for images.
    """

    epoch: int
    batch: int
    batches: int
    loss: float
    figures: dict[str, float]
    learning_rate: float
    images_per_s: float
    waited: float


@dataclass(frozen=True)
class Trained:
    """What a run came to.

    Parameters
    ----------
    out : Path
        Its folder: ``best.safetensors``, ``last.safetensors``, ``metrics.csv``, ``classes.txt``.
    best : float
        Best top-1 accuracy in validation, or what else the task judges by.
    history : list of dict
        One row for each epoch.
    taken, drawn : tuple of str
        Layers taken from other weights, and drawn at random.
    failed : dict
        Reason by name of the images that could not be read.
    """

    out: Path
    best: float
    history: list[dict[str, Any]]
    taken: tuple[str, ...]
    drawn: tuple[str, ...]
    failed: dict[str, str]

    @property
    def weights(self) -> Path:
        """The best weights, as ``vggfeat extract --weights`` takes them."""
        return self.out / BEST


@dataclass(frozen=True)
class Engine:
    """How a run works; of it only the precision changes the weights that come out.

    Parameters
    ----------
    device, precision : str
        ``"auto"`` is bf16 on GPUs that have it, fp32 on CPUs.
    workers : int
        Processes that decode, for each process that trains.
    micro : int, optional
        Images that a process computes at a time; all of its share by default.
    compile : bool
        Whether ``torch.compile`` is used.
    minutes : float
        Between two checkpoints within an epoch.
    """

    device: str = "auto"
    precision: str = "auto"
    workers: int = 2
    micro: int | None = None
    compile: bool = False
    minutes: float = 30.0

    def __post_init__(self) -> None:
        if self.micro is not None and self.micro < 1:
            raise ParameterError.of("micro", "Engine", "an int of at least 1", self.micro)
