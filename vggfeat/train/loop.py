"""Training by the paper's recipe (Section 3.1), from the first batch to the last epoch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vggfeat.errors import DataError, StoreError, VggfeatError
from vggfeat.features.device import DTYPES, resolve_precision
from vggfeat.features.files import refusals, write_whole
from vggfeat.nets import formats
from vggfeat.nets.pixels import PixelConvention
from vggfeat.nets.vgg import VGG
from vggfeat.nets.weights import Weights
from vggfeat.train.augment import draw, to_input
from vggfeat.train.checkpoint import BEST, LAST, Position, read, restore, save
from vggfeat.train.colours import Colours, principal_components
from vggfeat.train.loader import Batch, Loader
from vggfeat.train.masks import Masks
from vggfeat.train.optimiser import Momentum, set_learning_rate, sgd
from vggfeat.train.processes import Processes, processes, stopping
from vggfeat.train.settings import Training
from vggfeat.train.start import Start, start
from vggfeat.train.trainset import TrainSet
from vggfeat.train.words import Engine, Told, Trained

CHECK = 10  # updates between two looks at the loss, each of which waits for the device
COLOURED = 2_000  # pictures of which mean and principal components are taken: to 0.1 of 255
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

    Returns
    -------
    Trained

    Raises
    ------
    StoreError
        If `out` holds another run and `resume` is not asked for, or its settings differ.
    VggfeatError
        If the loss is not finite; the last checkpoint is intact.
    """
    engine = engine or Engine()
    with processes(engine.device) as team, ExitStack() as at_end:
        stop = at_end.enter_context(stopping())
        run = _Run(
            settings, data, out, weights, resume, engine, team, progress, begin, at_end, stop
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
        at_end: ExitStack,
        stop: Event,
    ) -> None:
        self.stop = stop
        self.settings, self.data, self.out = settings, data, out
        self.engine, self.team = engine, team
        self.progress = progress if team.first else None
        source = weights.sha256 if weights else ""
        self.told = {
            "settings": settings.model_dump(mode="json"),
            "data": data.digest,
            "weights": source,
        }
        self.position, known = self._found(resume)
        self.colours, self.pixels = self._colours(weights, known)
        generator = torch.Generator().manual_seed(settings.seed)
        self.start = begin(
            settings.net,
            init=settings.init,
            from_weights=weights,
            num_classes=len(data.classes),
            dropout=0.0,  # masks of our own stand for it
            generator=generator,
        )
        self._place(self.start.net)
        self.schedule = settings.new_schedule()
        self.loader = at_end.enter_context(self._loader(augment=True))
        self.validation = at_end.enter_context(self._loader(augment=False))
        if known:
            restore(out / LAST, self.net, self.optimiser)
            self.schedule.load_state_dict(self.position.schedule)
        if team.first:
            with refusals(out):
                out.mkdir(parents=True, exist_ok=True)
            write_whole(out / CLASSES, "".join(f"{c}\n" for c in data.classes).encode())

    def _place(self, net: VGG) -> None:
        """Put the network on its device, and make what updates it."""
        settings, team = self.settings, self.team
        self.net = net.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
        if settings.freeze == "conv":
            for name, parameter in self.net.named_parameters():
                parameter.requires_grad_(not name.startswith("conv"))
        self.masks = Masks(self.net, settings.dropout, settings.seed)
        self.optimiser: Momentum = sgd(
            self.net, settings.learning_rate, settings.momentum, settings.weight_decay
        )
        wanted = self.engine.precision
        if wanted == "auto" and team.device.type == "cpu":
            wanted = "fp32"  # bf16 gradients on CPUs save little, and cost exactness
        self.precision = resolve_precision(wanted, team.device)
        self.model: nn.Module = self.net
        if team.world > 1:
            ids = [team.device] if team.device.type == "cuda" else None
            self.model = DistributedDataParallel(self.net, device_ids=ids)
        if self.engine.compile:
            self.model = torch.compile(self.model)  # type: ignore[assignment]  # it is called alike

    def _found(self, resume: bool) -> tuple[Position, dict[str, Any]]:
        """Find where the run stands, and refuse to mix two runs."""
        path = self.out / LAST
        if not path.exists():
            return Position(), {}
        position, told = read(path)
        if not resume:
            raise StoreError(
                f"{self.out} holds a training run of {position.epoch} epochs. Go on with --resume, "
                "or name another --out."
            )
        if wrong := [name for name, value in self.told.items() if told.get(name) != value]:
            theirs = told.get("settings", {})
            mine = self.settings.model_dump(mode="json")
            differ = [
                f"{k}: {theirs.get(k)!r} → {v!r}" for k, v in mine.items() if theirs.get(k) != v
            ]
            raise StoreError(
                f"{path} is of a run with other {', '.join(wrong)}. {'; '.join(differ)}\n"
                "Resume with the same settings, pictures and weights, or name another --out."
            )
        return position, told

    def _colours(
        self, weights: Weights | None, known: dict[str, Any]
    ) -> tuple[Colours, PixelConvention]:
        """Take mean and principal components of the training set; a resumed run has them."""
        if known:
            colours = Colours.from_dict(known["colours"])
            pixels = PixelConvention.from_json(known["pixels"])
        else:
            colours = self._measured()
            pixels = weights.pixels if weights else PixelConvention("RGB", 255.0, colours.mean)
        self.told |= {"colours": colours.to_dict(), "pixels": pixels.to_json()}
        # As they come back from a file: tuples have become lists.
        return Colours.from_dict(colours.to_dict()), pixels

    def _measured(self) -> Colours:
        n = len(self.data.train)
        rows = torch.randperm(n, generator=torch.Generator().manual_seed(self.settings.seed))
        some = self.data.train.take(rows[:COLOURED].sort().values.numpy())
        S = self.settings.S
        with Loader(some, batch_size=64, S=S, workers=self.engine.workers, augment=False) as loader:
            crops = (crop for batch in loader.batches() for crop in batch.pixels)
            return principal_components(crop.permute(1, 2, 0).numpy() for crop in crops)

    def _loader(self, *, augment: bool) -> Loader:
        engine, team, settings = self.engine, self.team, self.settings
        part = self.data.train if augment else self.data.val
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

    def epoch(self) -> None:
        """Train for an epoch, or what is left of it, validate, and keep both."""
        here = self.position
        begun = saved = perf_counter()
        # What was counted before an interruption is the first process's to add.
        counted = here.sums if self.team.first else [0.0] * 4
        sums = torch.tensor(counted, dtype=torch.float64, device=self.team.device)
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
                raise KeyboardInterrupt
        self._end_epoch(begun, here.batch - first)

    def _update(self, batch: Batch, k: int) -> Tensor:
        """Make one step of gradient descent; return this process's loss, hits and pictures."""
        total = self.loader.global_size(k)
        mine = len(batch.labels)
        size = self.engine.micro or mine
        sums = torch.zeros(4, dtype=torch.float64, device=self.team.device)
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
        losses = F.cross_entropy(
            scores.float(), labels, reduction="sum", label_smoothing=settings.label_smoothing
        )
        # Processes average their gradients, so that each multiplies its share by their number.
        (losses * team.world / total).backward()  # type: ignore[no-untyped-call]  # torch's
        return _counted(scores, labels, losses)

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
        """Whether Ctrl-C was typed; several processes agree when they look at the loss."""
        if self.team.world == 1:  # nobody to ask, and no device to wait for
            return self.stop.is_set()
        if self.position.batch % CHECK:
            return False
        asked = torch.tensor(float(self.stop.is_set()), device=self.team.device)
        return bool(self.team.total(asked) > 0)

    def _tell(self, begun: float, done: int) -> None:
        if self.progress is None:
            return
        loss, top1, top5, count = self.position.sums
        self.progress(
            Told(
                self.position.epoch,
                self.position.batch,
                len(self.loader),
                loss / count,
                top1 / count,
                top5 / count,
                self.schedule.learning_rate,
                done * self.settings.batch / (perf_counter() - begun),
                self.loader.waited,
            )
        )

    @torch.no_grad()
    def _validated(self) -> dict[str, float]:
        """Central crops, one for each picture (quicker than Section 3.2's protocols)."""
        self.model.eval()
        sums = torch.zeros(4, dtype=torch.float64, device=self.team.device)
        for batch in self.validation.batches():
            if not len(batch.labels):
                continue
            labels = batch.labels.to(self.team.device, non_blocking=True)
            x = to_input(batch.pixels.to(self.team.device, non_blocking=True), self.pixels)
            with self._autocast():
                scores = self.net(x)
            sums += _counted(
                scores, labels, F.cross_entropy(scores.float(), labels, reduction="sum")
            )
        loss, top1, top5, count = self._looked_at(sums)
        if not count:
            raise DataError("No validation picture can be read.")
        return {"val_loss": loss / count, "val_top1": top1 / count, "val_top5": top5 / count}

    def _end_epoch(self, begun: float, done: int) -> None:
        here = self.position
        seconds = perf_counter() - begun
        found = self._validated()
        loss, top1, top5, count = here.sums
        here.history.append(
            {
                "epoch": here.epoch + 1,
                "learning_rate": self.schedule.learning_rate,
                "loss": loss / count,
                "top1": top1 / count,
                "top5": top5 / count,
                **found,
                "images_per_s": done * self.settings.batch / seconds if done else None,
                "waited": self.loader.waited,
            }
        )
        here.epoch, here.batch, here.sums = here.epoch + 1, 0, [0.0] * 4
        self.schedule.step(found["val_top1"])
        better = found["val_top1"] > here.best
        here.best = max(here.best, found["val_top1"])
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
            save(self.out / LAST, self.net, self.optimiser, here, self.told)
            write_whole(self.out / METRICS, _csv(here.history))

    def _write_best(self) -> None:
        state = {name: value.detach() for name, value in self.net.state_dict().items()}
        with refusals(self.out):
            formats.write(
                self.out / BEST,
                state,
                self.pixels,
                net=self.settings.net,
                source=f"trained on {self.data.source}",
                licence="yours to say",
            )

    def result(self) -> Trained:
        """Return what came out."""
        failed = {**self.loader.failed, **self.validation.failed}
        begun = self.start
        return Trained(
            self.out, self.position.best, self.position.history, begun.taken, begun.drawn, failed
        )


def _counted(scores: Tensor, labels: Tensor, losses: Tensor) -> Tensor:
    """Loss, top-1 hits, top-5 hits and pictures of a batch."""
    best = scores.detach().topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
    counts = [
        losses.detach().double(),
        best[:, 0].sum(),
        best.any(1).sum(),
        labels.new_tensor(len(labels)),
    ]
    return torch.stack([one.double() for one in counts])


def _csv(history: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    if history:
        writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    return text.getvalue().encode()
