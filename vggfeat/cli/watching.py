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
from vggfeat.report.training_page import title_of, write_training_page
from vggfeat.train.checkpoint import BEST, LAST, Position, read
from vggfeat.train.init import start
from vggfeat.train.loop import train
from vggfeat.train.monitor import FOLDER, Board, writer_class
from vggfeat.train.task import TITLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import TaskID

    from vggfeat.nets.weights import Weights
    from vggfeat.settings import Training
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
                return train(settings, data, out, **given, begin=start)
            _announce(settings, weights, len(data.train), self.quiet)
            watch = _Watch(settings, data, out, weights, self)
            with _bar(self.quiet) as watch.shown, watch.open():
                done = train(settings, data, out, **given, progress=watch.tell, begin=watch.begin)
                watch.end(done)
        note(f"Report: {out / PAGE}", quiet=self.quiet)
        return done


@dataclass
class _Watch:
    """Follows a run by its reports, and by its checkpoint at the end of every epoch."""

    settings: Training
    data: TrainSet
    out: Path
    weights: Weights | None
    how: Watched
    started: Start | None = None
    board: Board | None = None
    shown: Callable[[TrainingProgress], None] | None = None
    epochs: int = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Close what was opened, however the run ends."""
        try:
            yield
        finally:
            if self.board:
                self.board.close()

    def begin(self, net: str, **how: Any) -> Start:
        """Build the network, as the run does once its folder is known to be its own."""
        self.started = start(net, **how)
        there = (self.out / LAST).is_file()
        position = read(self.out / LAST)[0] if there else Position()
        self.epochs = position.epoch
        if self.how.tensorboard:
            self.board = Board(self.out / FOLDER, position)
        return self.started

    def tell(self, told: TrainingProgress) -> None:
        """Show a report of progress."""
        if told.epoch > self.epochs:  # one has ended, and its checkpoint is written
            self._history(read(self.out / LAST)[0].history)
        if self.board:
            self.board.update(told)
        if self.shown:
            self.shown(told)

    def end(self, done: TrainingResult) -> None:
        """Show what came out."""
        self._history(done.history, done)

    def _history(self, history: list[dict[str, Any]], done: TrainingResult | None = None) -> None:
        if self.board:
            for row in history[self.epochs :]:
                self.board.epoch(row)
        self.epochs = len(history)
        write_training_page(
            self.out / PAGE,
            self.settings,
            history,
            classes=len(self.data.classes),
            finished=done is not None,
            taken=self.started.taken if self.started else (),
            drawn=self.started.drawn if self.started else (),
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
