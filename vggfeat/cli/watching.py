"""Training in sight: progress on the terminal, a page of curves, TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggfeat._io.text import counted
from vggfeat.cli.output import counted_bar, first, interruptible, note, settle
from vggfeat.features.provenance import versions
from vggfeat.nets.runtimes import describe_device, resolve_device
from vggfeat.recipes import BEST
from vggfeat.report.training_page import title_of, write_training_page
from vggfeat.train.loop import train
from vggfeat.train.monitor import FOLDER, Board, Monitor, writer_class
from vggfeat.train.task import TITLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.progress import TaskID

    from vggfeat.nets.weights import Weights
    from vggfeat.settings import Training
    from vggfeat.train.checkpoint import Position
    from vggfeat.train.data import TrainSet
    from vggfeat.train.init import Start
    from vggfeat.train.loop import Engine, TrainingResult
    from vggfeat.train.monitor import TrainingProgress
    from vggfeat.train.task import Task

PAGE = "report.html"


@dataclass(frozen=True)
class Watched:
    """Trains as :func:`~vggfeat.train.loop.train` does, in sight: progress, page, TensorBoard.

    Parameters
    ----------
    engine : Engine
    quiet, tensorboard : bool
        As the options of these names.
    again : str
        How an interrupted run goes on.
    """

    engine: Engine
    quiet: bool
    tensorboard: bool
    again: str = "the same command"

    def __post_init__(self) -> None:
        if self.tensorboard:
            writer_class()  # or it would be missed after hours of reading

    def __call__(
        self,
        settings: Training,
        data: TrainSet,
        out: Path,
        *,
        weights: Weights | None = None,
        resume: bool = False,
        task: Task | None = None,
    ) -> TrainingResult:
        """Train; the first process speaks and writes, the others only train."""
        given: dict[str, Any] = {
            "weights": weights,
            "resume": resume,
            "engine": self.engine,
            "task": task,
        }
        go_on = f"Run {self.again} to go on from the last checkpoint in {out}."
        with interruptible((lambda: go_on) if first() else None):
            if not first():
                return train(settings, data, out, **given)
            _announce(settings, weights, len(data.train), self.quiet)
            watch = _Watch(settings, data, out, weights, self)
            with _bar(self.quiet) as watch.shown, watch.open():
                done = train(settings, data, out, **given, monitor=watch)
                watch.write_page(done.history, done)
        note(f"Report: {out / PAGE}", quiet=self.quiet)
        return done


@dataclass
class _Watch(Monitor):
    """Shows a run: a line of progress, the page and TensorBoard after every epoch."""

    settings: Training
    data: TrainSet
    out: Path
    weights: Weights | None
    how: Watched
    network: Start | None = None
    board: Board | None = None
    shown: Callable[[TrainingProgress], None] | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Close what was opened, however the run ends."""
        try:
            yield
        finally:
            if self.board:
                self.board.close()

    def begin(self, network: Start, position: Position) -> None:
        """Go on from the epochs that there are."""
        self.network = network
        if self.how.tensorboard:
            self.board = Board(self.out / FOLDER, position)

    def progress(self, progress: TrainingProgress) -> None:
        """Show some updates."""
        if self.board:
            self.board.update(progress)
        if self.shown:
            self.shown(progress)

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Show an epoch."""
        if self.board:
            self.board.epoch(history[-1])
        self.write_page(history)

    def write_page(
        self, history: Sequence[Mapping[str, Any]], done: TrainingResult | None = None
    ) -> None:
        """Write the page of a run that is under way, or done."""
        write_training_page(
            self.out / PAGE,
            self.settings,
            history,
            classes=len(self.data.classes),
            finished=done is not None,
            taken=self.network.taken if self.network else (),
            drawn=self.network.drawn if self.network else (),
            run={
                "data": f"{counted(len(self.data.train), 'image')} to train, "
                f"{len(self.data.val):,} to validate, {counted(len(self.data.classes), 'class')}",
                "device": self._device(),
            },
            provenance=self._provenance(),
            failed=done.failed if done else {},
        )

    def _device(self) -> str:
        world = int(os.environ.get("WORLD_SIZE", "1"))
        count = f"{world} × " if world > 1 else ""
        return f"{count}{describe_device(resolve_device(self.how.engine.device))}"

    def _provenance(self) -> dict[str, object]:

        told = self.weights
        versions_ = ", ".join(f"{name} {number}" for name, number in versions().items())
        return {
            "began from": f"{told.source}, net {told.net} ({told.sha256[:12]})" if told else "–",
            "images": self.data.source,
            "their names and labels": self.data.digest,
            "weights": self.out / BEST,
            "versions": versions_,
        }


def _announce(settings: Training, weights: Weights | None, images: int, quiet: bool) -> None:
    source = f"from {weights.source}, net {weights.net}" if weights else "at random"
    note(f"{title_of(settings)}; the network begins {source}.", quiet=quiet)
    if images < 4 * settings.batch:
        note(
            f"{images} images make {max(1, images // settings.batch)} updates an epoch with "
            f"--batch {settings.batch}; a smaller one makes more.",
            quiet=quiet,
        )


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[TrainingProgress], None] | None]:
    """Show loss, accuracy, rate and time left."""
    if quiet:
        yield None
        return
    tasks: dict[int, TaskID] = {}
    with counted_bar("told", width=10) as bar:

        def tell(told: TrainingProgress) -> None:
            if told.epoch not in tasks:
                settle(bar)
                tasks[told.epoch] = bar.add_task(f"epoch {told.epoch + 1}", told="")
            name, value = next(iter(told.figures.items()))
            text = (
                f"loss {told.loss:.3f}, {TITLES.get(name, name)} {100 * value:.1f} %, "
                f"{told.images_per_s:.1f} images/s, waited {100 * told.waited:.0f} %"
            )
            bar.update(tasks[told.epoch], completed=told.batch, total=told.batches, told=text)

        yield tell
