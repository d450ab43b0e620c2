"""Training by the paper's recipe (Section 3.1), from the first batch to the last epoch."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from vggfeat._io.atomic import explain_os_errors, make_folder, write_atomic
from vggfeat.errors import DataError, StoreError, VggfeatError
from vggfeat.nets import formats
from vggfeat.nets.runtimes import DTYPES
from vggfeat.nets.weights import Weights
from vggfeat.train.augment import Draw, draw, to_input
from vggfeat.train.checkpoint import BEST, LAST, restore, save
from vggfeat.train.loader import Batch, decoding
from vggfeat.train.masks import Masks
from vggfeat.train.optimiser import Momentum, set_learning_rate, sgd
from vggfeat.train.prepare import (
    colours_of,
    found,
    freeze,
    level,
    loader_of,
    parallel,
    precision_of,
)
from vggfeat.train.processes import Processes, Stop, processes, stopping
from vggfeat.train.settings import Training
from vggfeat.train.start import Start, start
from vggfeat.train.task import Classification, Task
from vggfeat.train.trainset import TrainSet
from vggfeat.train.words import Engine, Told, Trained

CHECK = 10  # updates between two looks at the loss, each of which waits for the device
METRICS = "metrics.csv"
CLASSES = "classes.txt"


def train(
    settings: Training,
    data: TrainSet,
    out: Path,
    *,
    weights: Weights | None = None,
    resume: bool = False,
    engine: Engine | None = None,
    progress: Callable[[Told], None] | None = None,
    begin: Callable[..., Start] = start,
    task: Task | None = None,
) -> Trained:
    """Train a network; started by torchrun, together with the other processes.

    Parameters
    ----------
    settings : Training
        All that determines the weights.
    data : TrainSet
        As from :func:`~vggfeat.train.trainset.open_trainset`.
    out : Path
        Folder for checkpoints, the best weights and the metrics.
    weights : Weights, optional
        What the network begins from: its own at another S, net A's, or the embedded ones.
    resume : bool
        Go on from the last checkpoint, exactly as if the run had never stopped.
    engine : Engine, optional
        Where and how it runs.
    progress : callable, optional
        Called with :class:`Told` every few updates.
    begin : callable
        Builds the network; :func:`~vggfeat.train.start.start`.
    task : Task, optional
        What the last layer is to say; the classes of the images by default.

    Returns
    -------
    Trained

    Raises
    ------
    StoreError
        If `out` holds another run and `resume` is not asked for, or its settings differ.
    DataError
        If too many images cannot be read, or a decoding process is killed.
    VggfeatError
        If the loss is not finite; the last checkpoint is intact.
    """
    engine = engine or Engine()
    with decoding(), processes(engine.device) as team, ExitStack() as at_end:
        stop = at_end.enter_context(stopping())
        run = _Run(
            settings, data, out, weights, resume, engine, team, progress, begin, task, at_end, stop
        )
        while not run.schedule.finished:
            run.epoch()
        return run.result()


class _Run:
    """One run of :func:`train`."""

    def __init__(
        self,
        settings: Training,
        data: TrainSet,
        out: Path,
        weights: Weights | None,
        resume: bool,
        engine: Engine,
        team: Processes,
        progress: Callable[[Told], None] | None,
        begin: Callable[..., Start],
        task: Task | None,
        at_end: ExitStack,
        stop: Stop,
    ) -> None:
        self.stop = stop
        self.settings, self.data, self.out = settings, data, out
        self.task = task or Classification(len(data.classes), settings.label_smoothing)
        self.engine, self.team = engine, team
        self.progress = progress if team.first else None
        told = {
            "settings": settings.model_dump(mode="json"),
            "data": data.digest,
            "weights": weights.sha256 if weights else "",
            "task": dict(self.task.about),
        }
        self.position, known = found(out, told, resume=resume)
        self.colours, self.pixels = colours_of(known, data.train, settings, weights, engine.workers)
        self.told = told | {"colours": self.colours.to_dict(), "pixels": self.pixels.to_json()}
        self.start = begin(
            settings.net,
            init=settings.init,
            from_weights=weights,
            num_classes=self.task.outputs,
            dropout=0.0,  # masks of our own stand for it
            generator=torch.Generator().manual_seed(settings.seed),
        )
        self.names = ("loss", *self.task.figures)
        # Apple's devices have no float64.
        self.exact = torch.float32 if team.device.type == "mps" else torch.float64
        self.net = self.start.net.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
        if not known:
            level(self.start, data.train, settings, self.pixels, weights)
        freeze(self.net, settings.freeze)
        self.masks = Masks(self.net, settings.dropout, settings.seed)
        self.optimiser: Momentum = sgd(
            self.net, settings.learning_rate, settings.momentum, settings.weight_decay
        )
        self.precision = precision_of(engine, team.device)
        self.model = parallel(self.net, engine, team)
        self.schedule = settings.new_schedule()
        if known:
            restore(out / LAST, self.net, self.optimiser)
            self.schedule.load_state_dict(self.position.schedule)
        parts = ((data.train, True), (data.val, False))
        self.loader, self.validation = (
            at_end.enter_context(loader_of(part, settings, engine, team, augment=augment))
            for part, augment in parts
        )
        if team.first:
            make_folder(out)
            # A folder's name may hold bytes that are no UTF-8: they are written as they are.
            listed = "".join(f"{c}\n" for c in data.classes)
            write_atomic(out / CLASSES, listed.encode("utf-8", "surrogateescape"))

    def epoch(self) -> None:
        """Train for an epoch, or what is left of it, validate, and keep both."""
        here = self.position
        begun = saved = perf_counter()
        # What was counted before an interruption is the first process's to add.
        counted = here.sums if self.team.first else [0.0] * 4
        sums = torch.tensor(counted, dtype=self.exact, device=self.team.device)
        first = here.batch
        set_learning_rate(self.optimiser, self.schedule.learning_rate)
        self.model.train()
        for k, batch in enumerate(self.loader.batches(here.epoch, first), first):
            sums += self._update(batch, k)
            here.batch, here.step = k + 1, here.step + 1
            last = here.batch == len(self.loader)
            if here.batch % CHECK == 0 or last:
                here.sums = self._looked_at(sums)
                self._tell(begun, here.batch - first)
                if perf_counter() - saved > 60 * self.engine.minutes and not last:
                    self._keep()
                    begun = saved = perf_counter()
                    first = here.batch
            if self._asked_to_stop():
                here.sums = self._looked_at(sums)
                self._keep()
                raise self.stop.why
        self._end_epoch(begun, here.batch - first)

    def _update(self, batch: Batch, k: int) -> Tensor:
        """Make one step of gradient descent; return this process's loss, hits and images."""
        total = self.loader.global_size(k)
        mine = len(batch.labels)
        size = self.engine.micro or mine
        sums = torch.zeros(4, dtype=self.exact, device=self.team.device)
        self.optimiser.zero_grad(set_to_none=True)
        for first in range(0, mine, size):
            rows = slice(first, min(first + size, mine))
            # Gradients meet once for a step, not once for each part of it.
            apart = rows.stop < mine and isinstance(self.model, DistributedDataParallel)
            with self.model.no_sync() if apart else nullcontext():  # type: ignore[operator]  # of DDP
                sums += self._gradients(batch, rows, total)
        self.optimiser.step()
        return sums

    def _gradients(self, batch: Batch, rows: slice, total: int) -> Tensor:
        here, settings, team = self.position, self.settings, self.team
        labels = batch.labels[rows].to(team.device, non_blocking=True)
        draws = [draw(settings.seed, here.epoch, int(row)) for row in batch.rows[rows]]
        crops = batch.pixels[rows].to(team.device, non_blocking=True)
        x = to_input(crops, self.pixels, draws, self.colours if settings.colour_shift else None)
        offset = total * team.rank // team.world
        places = slice(offset + rows.start, offset + rows.stop)
        self.masks.place(here.step, places, total)
        with self._autocast():
            scores = self.model(x)  # (B, classes)
        scores = scores.float()
        losses = self.task.losses(scores, labels, batch.rows[rows], draws)
        # Processes average their gradients, so that each multiplies its share by their number.
        (losses * team.world / total).backward()  # type: ignore[no-untyped-call]  # torch's
        return self._counted(scores.detach(), labels, batch.rows[rows], draws, losses.detach())

    def _counted(
        self,
        scores: Tensor,
        labels: Tensor,
        rows: Tensor,
        draws: Sequence[Draw] | None,
        losses: Tensor,
    ) -> Tensor:
        """Return loss, the task's two figures, and images of a batch, each a sum."""
        counts = self.task.counts(scores, labels, rows, draws)
        return torch.cat([losses[None], counts, counts.new_tensor([len(labels)])]).to(self.exact)

    def _autocast(self) -> Any:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.team.device.type, DTYPES[self.precision])

    def _looked_at(self, sums: Tensor) -> list[float]:
        """Sum over processes, and stop where the loss is no number."""
        total: list[float] = self.team.total(sums.clone()).tolist()
        if not all(map(math.isfinite, total)):
            raise VggfeatError(
                f"The loss is {total[0]} after {self.position.step} updates: training diverged. "
                f"The last checkpoint in {self.out} is intact. Begin anew with a smaller "
                "--learning-rate, with --init glorot, or from the weights of net A."
            )
        return total

    def _asked_to_stop(self) -> bool:
        """Whether Ctrl-C or SIGTERM came; several processes agree when they look at the loss."""
        if self.team.world == 1:  # nobody to ask, and no device to wait for
            return self.stop.is_set()
        if self.position.batch % CHECK:
            return False
        asked = torch.tensor(float(self.stop.is_set()), device=self.team.device)
        return bool(self.team.total(asked) > 0)

    def _tell(self, begun: float, done: int) -> None:
        if self.progress is None:
            return
        figures = self._means(self.position.sums)
        self.progress(
            Told(
                self.position.epoch,
                self.position.batch,
                len(self.loader),
                figures.pop("loss"),
                figures,
                self.schedule.learning_rate,
                done * self.settings.batch / (perf_counter() - begun),
                self.loader.waited,
            )
        )

    @torch.no_grad()
    def _validated(self) -> dict[str, float]:
        """Central crops, one for each image (quicker than Section 3.2's protocols)."""
        self.model.eval()
        sums = torch.zeros(4, dtype=self.exact, device=self.team.device)
        for batch in self.validation.batches():
            if not len(batch.labels):
                continue
            labels = batch.labels.to(self.team.device, non_blocking=True)
            x = to_input(batch.pixels.to(self.team.device, non_blocking=True), self.pixels)
            with self._autocast():
                scores = self.net(x)
            scores = scores.float()
            losses = self.task.losses(scores, labels, batch.rows, None)
            sums += self._counted(scores, labels, batch.rows, None, losses)
        total = self._looked_at(sums)
        if not total[-1]:
            raise DataError("No validation image can be read.")
        return {f"val_{name}": value for name, value in self._means(total).items()}

    def _means(self, sums: list[float]) -> dict[str, float]:
        """Divide loss and figures by the number of images."""
        return {name: value / sums[-1] for name, value in zip(self.names, sums, strict=False)}

    def _end_epoch(self, begun: float, done: int) -> None:
        here = self.position
        seconds = perf_counter() - begun
        judged = self._validated()
        here.history.append(
            {
                "epoch": here.epoch + 1,
                "learning_rate": self.schedule.learning_rate,
                **self._means(here.sums),
                **judged,
                "images_per_s": done * self.settings.batch / seconds if done else None,
                "waited": self.loader.waited,
            }
        )
        here.epoch, here.batch, here.sums = here.epoch + 1, 0, [0.0] * 4
        reached = judged[f"val_{self.task.figures[0]}"]
        self.schedule.step(reached)
        better = reached > here.best
        here.best = max(here.best, reached)
        # Before the checkpoint that tells of it: killed in between, the epoch is run again.
        if better and self.team.first:
            self._write_best()
        self._keep()
        self.team.wait()  # what is written may be the next run's to read

    def _keep(self) -> None:
        """Write the checkpoint, then what follows from it.

        Nobody waits here: within an epoch each process goes by its own clock, so that one may
        come here when another does not.
        """
        here = self.position
        here.schedule = self.schedule.state_dict()
        if self.team.first:
            if not (self.out / CLASSES).is_file():
                raise StoreError(
                    f"{self.out} was deleted or emptied while the run was at work. Begin it anew, "
                    "or put its files back and go on with --resume."
                )
            save(self.out / LAST, self.net, self.optimiser, here, self.told)
            write_atomic(self.out / METRICS, _csv(here.history))

    def _write_best(self) -> None:
        state = {name: value.detach() for name, value in self.net.state_dict().items()}
        with explain_os_errors(self.out):
            formats.write(
                self.out / BEST,
                state,
                self.pixels,
                net=self.settings.net,
                source=f"trained on {self.data.source}",
                licence="yours to say",
                about={
                    "classes": json.dumps(self.data.classes),
                    "S": json.dumps(self.settings.S),
                    **self.task.about,
                },
            )

    def result(self) -> Trained:
        """Return what came out."""
        failed = {**self.loader.failed, **self.validation.failed}
        begun = self.start
        return Trained(
            self.out, self.position.best, self.position.history, begun.taken, begun.drawn, failed
        )


def _csv(history: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    if history:
        writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    return text.getvalue().encode()
