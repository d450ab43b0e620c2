"""Training in sight: progress on the terminal, a page of curves, TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggfeat._io.progress import progress_bar
from vggfeat._io.text import counted
from vggfeat.cli.console import interruptible, is_first_process, note, settle
from vggfeat.features.provenance import versions
from vggfeat.nets.runtimes import describe_device, resolve_device
from vggfeat.recipes.networks import BEST
from vggfeat.report.page import write_page
from vggfeat.train.checkpoint import LAST
from vggfeat.train.loop import train
from vggfeat.train.monitor import (
    FOLDER,
    Board,
    Monitor,
    writer_class,
)
from vggfeat.train.summary import describe_figure, summarize_training, title_of

if TYPE_CHECKING:
    from rich.progress import TaskID

    from vggfeat.nets.weights import Weights
    from vggfeat.result import Result
    from vggfeat.settings import Training
    from vggfeat.train.checkpoint import Position
    from vggfeat.train.data import TrainSet
    from vggfeat.train.init import Start
    from vggfeat.train.loop import Engine, TrainingResult
    from vggfeat.train.monitor import TrainingProgress
    from vggfeat.train.task import Task

PAGE = "report.html"


@dataclass
class MonitoredTrainer:
    """Trains as :func:`~vggfeat.train.loop.train` does, and shows how it goes.

    Parameters
    ----------
    engine : Engine
    quiet, tensorboard : bool
        As the options of these names.
    resume_hint : str
        How an interrupted run goes on.
    result : Result, optional
        What the last run came to.
    """

    engine: Engine
    quiet: bool
    tensorboard: bool
    resume_hint: str = "the same command"
    result: Result | None = None

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

        def hint() -> str:
            if (out / LAST).is_file():
                return f"Run {self.resume_hint} to go on from the last checkpoint in {out}."
            return "There is no checkpoint yet: the same command begins anew."

        with interruptible(hint if is_first_process() else None):
            if not is_first_process():
                return train(
                    settings, data, out,
                    weights=weights, resume=resume, engine=self.engine, task=task,
                )  # fmt: skip
            _announce(settings, weights, len(data.train), self.quiet)
            with _bar(self.quiet) as show:
                monitor = TrainingMonitor(settings, data, out, self.engine.device, weights, show)
                monitor.tensorboard = self.tensorboard
                with monitor:
                    done = train(
                        settings, data, out, weights=weights, resume=resume,
                        engine=self.engine, task=task, monitor=monitor,
                    )  # fmt: skip
                self.result = monitor.write_page(done.history, done)
        note(f"Report: {out / PAGE}", quiet=self.quiet)
        return done


@dataclass
class TrainingMonitor(Monitor):
    """Shows a run: a line of progress, and after every epoch the page and TensorBoard."""

    settings: Training
    data: TrainSet
    out: Path
    device: str
    weights: Weights | None
    show: Callable[[TrainingProgress], None] | None
    tensorboard: bool = False
    start: Start | None = None
    board: Board | None = None

    def __enter__(self) -> TrainingMonitor:
        return self

    def __exit__(self, *error: object) -> None:
        if self.board:
            self.board.close()

    def begin(self, network: Start, position: Position) -> None:
        """Go on from the epochs that there are."""
        self.start = network
        if self.tensorboard:
            self.board = Board(self.out / FOLDER, len(self.data.classes), position)

    def progress(self, progress: TrainingProgress) -> None:
        """Show some updates."""
        if self.board:
            self.board.update(progress)
        if self.show:
            self.show(progress)

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Show an epoch."""
        if self.board:
            self.board.epoch(history[-1])
        self.write_page(history)

    def write_page(
        self, history: Sequence[Mapping[str, Any]], done: TrainingResult | None = None
    ) -> Result:
        """Write the page of a run that is under way, or done, and return what it shows."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        device = describe_device(resolve_device(self.device))
        origin = self.weights
        result = summarize_training(
            self.settings,
            history,
            self.data,
            start=self.start,
            finished=done is not None,
            failed=done.failed if done else None,
            device=f"{world} × {device}" if world > 1 else device,
            provenance={
                "began_from": origin and f"{origin.source}, net {origin.net} ({origin.sha256})",
                "weights": str(self.out / BEST),
                "versions": versions(),
            },
        )
        write_page(result, self.out / PAGE)
        return result


def _announce(settings: Training, weights: Weights | None, images: int, quiet: bool) -> None:
    source = f"from {weights.source}, net {weights.net}" if weights else "at random"
    note(f"{title_of(settings)}; the network begins {source}.", quiet=quiet)
    if images < 4 * settings.batch:
        updates = counted(max(1, images // settings.batch), "update")
        note(
            f"{counted(images, 'image')} make {updates} an epoch with --batch {settings.batch}; "
            "a smaller one makes more.",
            quiet=quiet,
        )


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[TrainingProgress], None] | None]:
    """Show loss, error, rate and time left."""
    if quiet:
        yield None
        return
    tasks: dict[int, TaskID] = {}
    with progress_bar("figures", width=10) as bar:

        def show(progress: TrainingProgress) -> None:
            if progress.epoch not in tasks:
                settle(bar)
                tasks[progress.epoch] = bar.add_task(f"epoch {progress.epoch + 1}", figures="")
            name, value = next(iter(progress.figures.items()))
            text = (
                f"loss {progress.loss:.3f}, {describe_figure(name, value)}, "
                f"{progress.images_per_s:.1f} images/s, waited {100 * progress.waited:.0f} %"
            )
            done, total = progress.batch, progress.batches
            bar.update(tasks[progress.epoch], completed=done, total=total, figures=text)

        yield show
