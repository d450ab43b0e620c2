"""Training by the paper's recipe (Section 3.1), from the first batch to the last epoch."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from vggfeat._io.atomic import explain_os_errors, write_atomic
from vggfeat.errors import DataError, ParameterError, StoreError, VggfeatError
from vggfeat.nets import formats
from vggfeat.nets.preprocessing import PixelConvention
from vggfeat.nets.runtimes import DTYPES, resolve_precision
from vggfeat.nets.weights import Weights
from vggfeat.recipes.networks import BEST
from vggfeat.settings import Training
from vggfeat.train.augment import Colours, Draw, draw, to_input
from vggfeat.train.checkpoint import LAST, Position, load_position, only_run_in, restore, save
from vggfeat.train.data import Part, TrainSet
from vggfeat.train.distributed import Processes, Stop, parallel, processes, stopping, unsynchronised
from vggfeat.train.init import measure_colours, rescale_activations, start
from vggfeat.train.loader import Batch, Loader, explain_dead_workers
from vggfeat.train.monitor import Monitor, TrainingProgress
from vggfeat.train.task import Classification, Task

CHECK = 10  # updates between two looks at the loss, each of which waits for the device
FACTOR = 0.1  # of a drop of the learning rate, in the paper
METRICS = "metrics.csv"
CLASSES = "classes.txt"


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


@dataclass(frozen=True)
class TrainingResult:
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


def train(
    settings: Training,
    data: TrainSet,
    out: Path,
    *,
    weights: Weights | None = None,
    resume: bool = False,
    engine: Engine | None = None,
    monitor: Monitor | None = None,
    task: Task | None = None,
) -> TrainingResult:
    """Train a network; started by torchrun, together with the other processes.

    Parameters
    ----------
    settings : Training
        All that determines the weights.
    data : TrainSet
        As from :func:`~vggfeat.train.data.open_trainset`.
    out : Path
        Folder for checkpoints, the best weights and the metrics.
    weights : Weights, optional
        What the network begins from: its own at another S, net A's, or the embedded ones.
    resume : bool
        Go on from the last checkpoint, exactly as if the run had never stopped. Settings but for
        ``epochs``, images, weights and task must be those that it was begun with.
    engine : Engine, optional
        Where and how it runs.
    monitor : Monitor, optional
        Learns how the run goes.
    task : Task, optional
        What the last layer is to say; the classes of the images by default.

    Returns
    -------
    TrainingResult

    Raises
    ------
    StoreError
        If `out` holds another run and `resume` is not asked for, or its settings differ; if
        another process trains there.
    DataError
        If too many images cannot be read, there are fewer than processes, or a decoding process
        is killed.
    VggfeatError
        If the loss is not finite; the last checkpoint, if there is one, is intact.
    """
    engine = engine or Engine()
    task = task or Classification(len(data.classes), settings.label_smoothing)
    with ExitStack() as at_end:
        at_end.enter_context(explain_dead_workers(out / LAST))
        team = at_end.enter_context(processes(engine.device))
        stop = at_end.enter_context(stopping())
        devices = [team.device] if team.device.type == "cuda" else []
        at_end.enter_context(torch.random.fork_rng(devices))  # dropout sets torch's random state
        if team.first:
            at_end.enter_context(only_run_in(out))

        # Where the run stands, and what it is trained on
        facts = {
            "settings": settings.model_dump(mode="json"),
            "data": data.digest,
            "weights": weights.sha256 if weights else "",
            "task": dict(task.about),
        }
        position, known = load_position(out, facts, resume=resume)
        colours, pixels = measure_colours(known, data.train, settings, weights, engine.workers)
        facts |= {"colours": colours.to_dict(), "pixels": pixels.to_json()}
        loader, validation = [
            at_end.enter_context(make_loader(part, settings, engine, team, seed=seed))
            for part, seed in ((data.train, settings.seed), (data.val, None))
        ]

        # Network, optimiser and schedule
        begun = start(
            settings.net,
            init=settings.init,
            from_weights=weights,
            num_classes=task.outputs,
            dropout=settings.dropout,
            generator=torch.Generator().manual_seed(settings.seed),
        )
        net: nn.Module = begun.net.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
        if not known:
            rescale_activations(begun, data.train, settings, pixels, weights)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(settings.freeze != "conv" or not name.startswith("conv"))
        precision = training_precision(engine.precision, team.device)
        optimiser = make_optimiser(settings, net)
        scheduler = make_scheduler(settings, optimiser)
        # Gradients of fp16 are scaled, lest the small ones become 0; other precisions need none.
        scaler = torch.amp.GradScaler(team.device.type, enabled=precision == "fp16")
        if known:
            restore(out / LAST, net, optimiser)
            scheduler.load_state_dict(position.scheduler)
            if position.scaler:  # a run of another precision has none
                scaler.load_state_dict(position.scaler)
            for group in optimiser.param_groups:
                group["lr"] = position.learning_rate
        position.learning_rate = optimiser.param_groups[0]["lr"]

        run = TrainingRun(
            settings, data, out, task, engine, team, stop, (team.first and monitor) or Monitor(),
            facts, position, pixels, colours if settings.colour_shift else None,
            loader, validation, net, parallel(net, team, compiled=engine.compile), precision,
            optimiser, scheduler, scaler,
        )  # fmt: skip
        if team.first:
            # A folder's name may hold bytes that are no UTF-8: they are written as they are.
            listed = "".join(f"{c}\n" for c in data.classes)
            write_atomic(out / CLASSES, listed.encode("utf-8", "surrogateescape"))

        run.monitor.begin(begun, position)
        while not finished(settings, position):
            trained = train_epoch(run)
            validated = validate(run)
            end_epoch(run, trained | validated)

        failed = {**run.loader.failed, **run.validation.failed}
        best, history = position.best, position.history
        return TrainingResult(out, best, history, begun.taken, begun.drawn, failed)


@dataclass
class TrainingRun:
    """What a run has, in the order in which :func:`train` makes it."""

    settings: Training
    data: TrainSet
    out: Path
    task: Task
    engine: Engine
    team: Processes
    stop: Stop
    monitor: Monitor
    facts: Mapping[str, Any]  # what must be the same to go on
    position: Position
    pixels: PixelConvention
    colours: Colours | None
    loader: Loader
    validation: Loader
    net: nn.Module
    model: nn.Module  # the same, compiled and in parallel if that is asked for
    precision: str
    optimiser: torch.optim.SGD
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler

    @property
    def dtype_of_sums(self) -> torch.dtype:
        """Exact for as many images as there are; Apple's devices have no float64."""
        return torch.float32 if self.team.device.type == "mps" else torch.float64

    def to_sums(self, values: Sequence[float] = (0.0,) * 4) -> Tensor:
        """Make a tensor of loss, the task's two figures, and images, each a sum: (4,)."""
        return torch.tensor(values, dtype=self.dtype_of_sums, device=self.team.device)

    def means(self, sums: Sequence[float]) -> dict[str, float]:
        """Divide loss and figures by the number of images."""
        names = ("loss", *self.task.figures)
        return {name: value / sums[-1] for name, value in zip(names, sums, strict=False)}


def make_optimiser(settings: Training, net: nn.Module) -> torch.optim.SGD:
    """Make the paper's optimiser: momentum 0.9, L2 5e-4, for all parameters that are not frozen.

    Weights and biases have the same rate and the same penalty, as the text reads. (Model files of
    the time often doubled the rate of biases and left them without penalty, which the paper does
    not mention.) So do layers taken from net A.
    """
    free = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not free:
        raise ParameterError("All parameters are frozen: there is nothing to train.")
    return torch.optim.SGD(
        free, settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )


def make_scheduler(settings: Training, optimiser: torch.optim.Optimizer) -> LRScheduler:
    """Make the schedule of the learning rate; it is stepped after each epoch.

    The paper divided the rate by 10, three times, when validation accuracy stopped improving; what
    "stopped" means it leaves open.
    """
    if settings.schedule == "step":
        return MultiStepLR(optimiser, settings.steps, FACTOR)
    if settings.schedule == "cosine":
        warmup = settings.warmup
        rise = LinearLR(optimiser, 1 / (warmup + 1), total_iters=warmup)
        fall = CosineAnnealingLR(optimiser, settings.epochs - warmup)
        return SequentialLR(optimiser, [rise, fall], [warmup])
    return ReduceLROnPlateau(
        optimiser,
        mode="max",
        factor=FACTOR,
        patience=settings.patience - 1,
        threshold=settings.threshold,
        threshold_mode="abs",
        eps=0.0,
    )


def step_scheduler(
    scheduler: LRScheduler, optimiser: torch.optim.Optimizer, accuracy: float
) -> float:
    """Count an epoch of this validation accuracy; return the rate of the next.

    Krizhevsky's velocity v ← μ·v − ε·(g + λ·w) has the rate ε in it, and runs on when ε drops.
    torch keeps ε outside, and would shrink what was gathered before along with it: so its buffer
    is divided by the factor by which ε drops.
    """
    before = optimiser.param_groups[0]["lr"]
    with warnings.catch_warnings():
        # Of an epoch without updates, all of which were made before an interruption.
        warnings.simplefilter("ignore", UserWarning)
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(accuracy)
        else:
            scheduler.step()
    after = float(optimiser.param_groups[0]["lr"])
    if after not in (before, 0.0):
        for state in optimiser.state.values():
            if state.get("momentum_buffer") is not None:
                state["momentum_buffer"] *= before / after
    return after


def finished(settings: Training, position: Position) -> bool:
    """Whether all epochs are over, or accuracy stopped improving at the last rate, too."""
    last = settings.learning_rate * FACTOR**settings.drops
    at_an_end = settings.schedule == "plateau" and position.learning_rate < last / 2
    return position.epoch >= settings.epochs or (position.epoch > 0 and at_an_end)


def train_epoch(run: TrainingRun) -> dict[str, Any]:
    """Train for an epoch, or what is left of it; return what its row of the history says."""
    here, team = run.position, run.team
    begun = saved = perf_counter()
    first = here.batch
    # What was counted before an interruption is the first process's to add.
    sums = run.to_sums(here.sums if team.first else (0.0,) * 4)
    run.model.train()
    for k, batch in enumerate(run.loader.batches(here.epoch, first), first):
        sums += update(run, batch, run.loader.global_size(k))
        here.batch, here.step = k + 1, here.step + 1
        last = here.batch == len(run.loader)
        if here.batch % CHECK == 0 or last:
            here.sums = total(run, sums)
            speed = (here.batch - first) * run.settings.batch / (perf_counter() - begun)
            tell(run, speed)
            if perf_counter() - saved > 60 * run.engine.minutes and not last:
                save_checkpoint(run)
                begun = saved = perf_counter()
                first = here.batch
        if asked_to_stop(run):
            here.sums = total(run, sums)
            save_checkpoint(run)
            raise run.stop.why
    done = here.batch - first
    return {
        "epoch": here.epoch + 1,
        "learning_rate": here.learning_rate,
        **run.means(here.sums),
        "images_per_s": done * run.settings.batch / (perf_counter() - begun) if done else None,
        "waited": run.loader.waited,
    }


def update(run: TrainingRun, batch: Batch, size: int) -> Tensor:
    """Make one step of gradient descent; return this process's loss, figures and images, summed.

    The gradient is that of the sum of the losses over all processes, divided by the `size` of the
    global batch: each image counts the same, however a batch is shared.
    """
    here, settings, team = run.position, run.settings, run.team
    sums = run.to_sums()
    run.optimiser.zero_grad(set_to_none=True)
    # Dropout draws anew in each step and process, and the same when a step is made again.
    torch.manual_seed(dropout_seed(settings.seed, here.step, team.rank))
    parts = split(batch, run.engine.micro)
    for part in parts:
        draws = [draw(settings.seed, here.epoch, row) for row in part.rows.tolist()]
        labels = part.labels.to(team.device, non_blocking=True)  # (B,)
        crops = part.pixels.to(team.device, non_blocking=True)  # (B, 3, 224, 224)
        x = to_input(crops, run.pixels, draws, run.colours)
        # Gradients meet once for a step, not once for each part of it.
        with unsynchronised(run.model) if part is not parts[-1] else nullcontext():
            with autocast(run):
                scores = run.model(x)  # (B, outputs)
            scores = scores.float()
            losses = run.task.losses(scores, labels, part.rows, draws)
            # Processes average their gradients, so that each multiplies its share by their number.
            run.scaler.scale(losses * team.world / size).backward()  # type: ignore[no-untyped-call]  # torch's
        sums += count(run, scores.detach(), labels, part.rows, draws, losses.detach())
    run.scaler.step(run.optimiser)
    run.scaler.update()
    return sums


@torch.no_grad()
def validate(run: TrainingRun) -> dict[str, float]:
    """Judge by central crops, one for each image (quicker than Section 3.2's protocols)."""
    device = run.team.device
    run.model.eval()
    sums = run.to_sums()
    for batch in run.validation.batches():
        for part in split(batch, run.engine.micro) if len(batch.rows) else ():
            labels = part.labels.to(device, non_blocking=True)
            x = to_input(part.pixels.to(device, non_blocking=True), run.pixels)
            with autocast(run):
                scores = run.net(x)
            scores = scores.float()
            losses = run.task.losses(scores, labels, part.rows, None)
            sums += count(run, scores, labels, part.rows, None, losses)
    totals = total(run, sums)
    if not totals[-1]:
        raise DataError("No validation image can be read.")
    return {f"val_{name}": value for name, value in run.means(totals).items()}


def end_epoch(run: TrainingRun, row: dict[str, Any]) -> None:
    """Keep what an epoch came to, and let the schedule set the rate of the next."""
    here = run.position
    here.history.append(row)
    here.epoch, here.batch, here.sums = here.epoch + 1, 0, [0.0] * 4
    accuracy = row[f"val_{run.task.figures[0]}"]
    here.learning_rate = step_scheduler(run.scheduler, run.optimiser, accuracy)
    better = accuracy > here.best
    here.best = max(here.best, accuracy)
    # Before the checkpoint that tells of it: killed in between, the epoch is run again.
    if better and run.team.first:
        write_best(run)
    save_checkpoint(run)
    run.monitor.epoch(here.history)
    run.team.wait()  # what is written may be the next run's to read


def save_checkpoint(run: TrainingRun) -> None:
    """Write the checkpoint, then what follows from it.

    Nobody waits here: within an epoch each process goes by its own clock, so that one may
    come here when another does not.
    """
    if not run.team.first:
        return
    here = run.position
    # The milestones are in the settings, and no JSON.
    state = run.scheduler.state_dict()
    here.scheduler = {name: value for name, value in state.items() if name != "milestones"}
    here.scaler = run.scaler.state_dict()
    if not (run.out / CLASSES).is_file():
        raise StoreError(
            f"{run.out} was deleted or emptied while the run was at work. Begin it anew, "
            "or put its files back and go on with --resume."
        )
    save(run.out / LAST, run.net, run.optimiser, here, run.facts)
    text = io.StringIO()
    if here.history:
        writer = csv.DictWriter(text, list(here.history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(here.history)
    write_atomic(run.out / METRICS, text.getvalue().encode())


def write_best(run: TrainingRun) -> None:
    """Write the weights as `vggfeat extract --weights` takes them."""
    with explain_os_errors(run.out):
        formats.write(
            run.out / BEST,
            {name: value.detach() for name, value in run.net.state_dict().items()},
            run.pixels,
            net=run.settings.net,
            source=f"trained on {run.data.source}",
            licence="yours to say",
            about={
                "classes": json.dumps(run.data.classes),
                "S": json.dumps(run.settings.S),
                **run.task.about,
            },
        )


def make_loader(
    part: Part, settings: Training, engine: Engine, team: Processes, *, seed: int | None
) -> Loader:
    """Make the loader of a part: augmented from a seed to train, central crops to validate."""
    return Loader(
        part,
        batch_size=settings.batch,
        S=settings.S,
        workers=engine.workers,
        seed=seed,
        rank=team.rank,
        world=team.world,
        decoding=settings,
    )


def training_precision(wanted: str, device: torch.device) -> str:
    """Resolve the precision; a CPU's is fp32 unless another is asked for."""
    if wanted == "auto" and device.type == "cpu":
        return "fp32"  # bf16 gradients on CPUs save little, and cost exactness
    return resolve_precision(wanted, device)


def autocast(run: TrainingRun) -> AbstractContextManager[Any]:
    """Compute in the precision of the run."""
    if run.precision == "fp32":
        return nullcontext()
    return torch.autocast(run.team.device.type, DTYPES[run.precision])


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Mix three numbers into 32 bits, of which torch's generator for CPUs takes no more."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])


def split(batch: Batch, size: int | None) -> list[Batch]:
    """Cut a batch into parts of so many images, if memory is short; an empty one is one part."""
    if size is None or len(batch.rows) <= size:
        return [batch]
    starts = range(0, len(batch.rows), size)
    return [Batch(*(values[start : start + size] for values in batch)) for start in starts]


def count(
    run: TrainingRun,
    scores: Tensor,
    labels: Tensor,
    rows: Tensor,
    draws: Sequence[Draw] | None,
    losses: Tensor,
) -> Tensor:
    """Sum loss, the task's two figures, and images of a batch: (4,)."""
    counts = run.task.counts(scores, labels, rows, draws)
    sums = torch.cat([losses[None], counts, counts.new_tensor([len(labels)])])
    return sums.to(run.dtype_of_sums)


def total(run: TrainingRun, sums: Tensor) -> list[float]:
    """Sum over processes, and stop where the loss is no number."""
    totals: list[float] = run.team.total(sums.clone()).tolist()
    if not all(map(math.isfinite, totals)):
        intact = f"The last checkpoint in {run.out} is intact. " * (run.out / LAST).is_file()
        raise VggfeatError(
            f"The loss is {totals[0]} after {run.position.step} updates: training diverged. "
            f"{intact}Begin anew with a smaller --learning-rate, with --init glorot, or from the "
            "weights of net A."
        )
    return totals


def tell(run: TrainingRun, speed: float) -> None:
    """Report progress, in images per second among others."""
    here = run.position
    if run.team.first and here.sums[-1]:
        figures = run.means(here.sums)
        progress = TrainingProgress(
            epoch=here.epoch,
            batch=here.batch,
            batches=len(run.loader),
            loss=figures.pop("loss"),
            figures=figures,
            learning_rate=here.learning_rate,
            images_per_s=speed,
            waited=run.loader.waited,
        )
        run.monitor.progress(progress)


def asked_to_stop(run: TrainingRun) -> bool:
    """Whether Ctrl-C or SIGTERM came; several processes agree when they look at the loss."""
    if run.team.world == 1:  # nobody to ask, and no device to wait for
        return run.stop.is_set()
    if run.position.batch % CHECK:
        return False
    signalled = torch.tensor(float(run.stop.is_set()), device=run.team.device)
    return bool(run.team.total(signalled) > 0)
