"""What a training run reports as it goes, and what TensorBoard shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggfeat.errors import MissingExtra
from vggfeat.train.checkpoint import Position
from vggfeat.train.init import Start
from vggfeat.train.task import TITLES, figures_in, informative

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


@dataclass
class TrainingProgress:
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


class Monitor:
    """Follows a run, in the first of its processes; this one does nothing of it."""

    def begin(self, network: Start, position: Position) -> None:
        """Learn of the network, and where the run stands."""

    def progress(self, progress: TrainingProgress) -> None:
        """Learn of some updates."""

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Learn of an epoch, the last of the history, whose checkpoint is written."""


def writer_class() -> type[SummaryWriter]:
    """Import TensorBoard's writer.

    Raises
    ------
    MissingExtra
        If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra.of("Writing for TensorBoard", "tensorboard", "tensorboard") from error
    return SummaryWriter


class Board:
    """Writes scalars, against updates and against epochs, each in a folder of its own.

    A resumed run takes back what was written after its checkpoint, so that no update is seen
    twice, and writes its epochs anew.

    Parameters
    ----------
    folder : Path
        What ``tensorboard --logdir`` is given.
    classes : int
        How many a network tells apart: of five there is no top-5 error.
    position : Position, optional
        Where a resumed run goes on.

    Raises
    ------
    MissingExtra
        If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, classes: int, position: Position | None = None) -> None:
        writer = writer_class()
        here = position or Position()
        self._classes = classes
        self._updates = writer(str(folder / "updates"), purge_step=here.step + 1)
        self._epochs = writer(str(folder / "epochs"), purge_step=0)
        for row in here.history:
            self.epoch(row)

    def update(self, told: TrainingProgress) -> None:
        """Write a report of progress; errors in percent, over the epoch so far."""
        step = told.epoch * told.batches + told.batch
        values = {
            "train/loss": told.loss,
            **self._errors("train", told.figures),
            "learning rate": told.learning_rate,
            "speed/images per s": told.images_per_s,
            "speed/waited, percent": 100 * told.waited,
        }
        for name, value in values.items():
            self._updates.add_scalar(name, value, step)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Write an epoch of a run's history; errors in percent."""
        values = {
            "train/loss": row["loss"],
            **self._errors("train", {name: row[name] for name in figures_in(row)}),
            "val/loss": row["val_loss"],
            **self._errors("val", {name: row[f"val_{name}"] for name in figures_in(row)}),
            "learning rate": row["learning_rate"],
        }
        for name, value in values.items():
            self._epochs.add_scalar(name, value, row["epoch"])
        self._epochs.flush()

    def close(self) -> None:
        """Write what is not written yet."""
        self._updates.close()
        self._epochs.close()

    def _errors(self, part: str, figures: Mapping[str, float]) -> dict[str, float]:
        return {
            f"{part}/{TITLES.get(name, name)} error": 100 * (1 - figures[name])
            for name in informative([*figures], self._classes)
        }
