"""Training by commands and recipes: how it works, what with, and what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat._io.text import counted
from vggfeat.classification.evaluate import TOP
from vggfeat.cli.console import (
    download_progress,
    is_first_process,
    note,
    note_left_out,
    show,
    warn_of_failures,
)
from vggfeat.cli.watching import PAGE, MonitoredTrainer
from vggfeat.experiments.training import lacking_layers, load_start
from vggfeat.localization.data import open_boxset
from vggfeat.nets.runtimes import check_machine
from vggfeat.recipes.networks import BEST
from vggfeat.report.tables import render_facts, render_result, render_table
from vggfeat.result import Table, TableColumn
from vggfeat.train.chain import train_chain
from vggfeat.train.data import open_trainset
from vggfeat.train.distributed import meet
from vggfeat.train.loop import Engine

if TYPE_CHECKING:
    from vggfeat.localization.data import BoxSet
    from vggfeat.nets.weights import Weights
    from vggfeat.recipes.training import TrainingRecipe
    from vggfeat.settings import Decoding, Execution
    from vggfeat.train.chain import Linked
    from vggfeat.train.data import TrainSet
    from vggfeat.train.loop import TrainingResult

ILSVRC = 1000  # classes: with others, the paper's errors say nothing


def open_trainer(
    execution: Execution,
    workers: int,
    micro: int | None,
    compiled: bool,
    *,
    quiet: bool,
    tensorboard: bool,
    resume_hint: str,
) -> MonitoredTrainer:
    """Make what trains and shows how it goes, and refuse wrong choices before any image is read.

    Processes that torchrun started meet here.

    Raises
    ------
    ParameterError, DeviceError
        Naming the option.
    """
    engine = engine_of(execution, workers, micro, compiled)
    return MonitoredTrainer(engine, quiet, tensorboard, resume_hint)


def engine_of(execution: Execution, workers: int, micro: int | None, compiled: bool) -> Engine:
    """Say how a run works, and refuse what is none of the choices before any image is read.

    Processes that torchrun started meet here.

    Raises
    ------
    ParameterError, DeviceError
        Naming the option.
    """
    check_machine(execution)
    engine = Engine(execution.device, execution.precision, workers, micro, compiled)
    meet()
    return engine


def images_of(
    data: Path,
    val: Path | None,
    val_fraction: float | None,
    seed: int,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    quiet: bool,
) -> TrainSet:
    """Open the images to train with, and say what they are."""
    with download_progress(quiet=quiet or not is_first_process()) as reading:
        found = open_trainset(
            data,
            val=val,
            val_fraction=val_fraction,
            seed=seed,
            path_column=path_column,
            label_column=label_column,
            progress=reading,
        )
    if is_first_process():
        note(
            f"{counted(len(found.train), 'image')} to train, {len(found.val):,} to validate, "
            f"{counted(len(found.classes), 'class')}, {found.source}.",
            quiet=quiet,
        )
        note_left_out(found.left_out, quiet=quiet)
        if found.unvalidated:
            note(f"Warning: no validation image of {', '.join(found.unvalidated)}.")
    return found


def boxset_of(
    data: str,
    classes: list[str] | None,
    boxes: list[Path] | None,
    decoding: Decoding,
    *,
    quiet: bool,
) -> BoxSet:
    """Open images with boxes, and say what they are."""
    with download_progress(quiet=quiet or not is_first_process()) as reading:
        found = open_boxset(
            data, classes=classes or (), boxes=boxes or (), decoding=decoding, progress=reading
        )
    if is_first_process():
        note(
            f"{counted(len(found.train), 'object')} to train, {len(found.val):,} to validate, "
            f"{counted(len(found.classes), 'class')}, {found.source}.",
            quiet=quiet,
        )
        warn_of_failures(found.left_out)
    return found


def warn_of_scale(weights: Weights, S: int) -> None:
    """Warn of boxes at another scale than that of the classification net."""
    theirs = json.loads(weights.about.get("S", str(S)))
    if theirs == S or not is_first_process():
        return
    scales = theirs if isinstance(theirs, list) else [theirs]
    typed = " ".join(f"--S {scale}" for scale in scales)
    advice = "another --init" if len(scales) > 1 else f"{typed}, or another --init"
    note(
        f"Warning: the classification net was trained by {typed}, its boxes are to be at S = {S}. "
        f"The paper takes the net of the same S: {advice}."
    )


def starting_weights(init: str, net: str, layer: str, quiet: bool) -> Weights:
    """Load what a network begins from, as far as a layer, and say which layers it lacks."""
    with download_progress(quiet=quiet) as progress:
        weights = load_start(init, net, layer, progress)
    missing = lacking_layers(weights, layer)
    if missing and is_first_process():
        note(f"{init} has no {', '.join(missing)}: randomly initialised.", quiet=quiet)
    return weights


def show_trained(
    trainer: MonitoredTrainer, done: TrainingResult, *, as_json: bool, **more: object
) -> None:
    """Print a run's epochs, what came out, and where it is; a machine is given `more`, too."""
    result = trainer.result
    assert result is not None
    files: dict[str, object] = {"weights": str(done.weights), "report": str(done.out / PAGE)}
    shown = [render_facts(files), "", render_result(result)]
    show({**result.to_dict(), **files, **more}, *shown, as_json=as_json)


def run_chain(
    chain: TrainingRecipe,
    trainer: MonitoredTrainer,
    data: Path,
    out: Path,
    val: Path | None,
    val_fraction: float | None,
    as_json: bool,
) -> None:
    """Train the links of a chain that are not trained, and print what came out of each."""
    seed = chain.runs()[0].settings.seed
    found = images_of(data, val, val_fraction, seed, quiet=trainer.quiet)
    done = []
    for linked in train_chain(chain, found, out, trainer=trainer):
        done.append(linked)
        state = "is trained already" if linked.skipped else "is trained"
        if is_first_process():
            note(f"{linked.run.name} {state}: {linked.out}", quiet=trainer.quiet)
    if is_first_process():
        _show_chain(chain, done, len(found.classes), as_json)


def _show_chain(chain: TrainingRecipe, done: list[Linked], classes: int, as_json: bool) -> None:
    columns = (
        TableColumn("name", "Link"),
        TableColumn("trained", "Trained"),
        TableColumn("epochs", "Epochs", "int"),
        TableColumn("top1_error", "Top-1 error", "percent"),
        TableColumn("top5_error", "Top-5 error", "percent"),
        TableColumn("top1_error_paper", "Paper, dense: top-1 error", "percent"),
        TableColumn("top5_error_paper", "Top-5 error", "percent"),
    )
    rows = []
    for linked in done:
        top1, top5 = (1 - linked.best[key] for key in ("val_top1", "val_top5"))
        known = classes == ILSVRC and linked.run.paper
        paper = [error / 100 for error in linked.run.paper or ()] if known else [None, None]
        state = "before" if linked.skipped else "now"
        epochs = len(linked.history)
        rows.append((linked.run.name, state, epochs, top1, top5 if classes > TOP else None, *paper))
    about = "Errors are of central crops; Table 3's are of the dense network, and lower for it."
    table = Table("links", chain.title, columns, tuple(rows), about)
    links = [
        {**record, "skipped": linked.skipped, "weights": str(linked.out / BEST)}
        for record, linked in zip(table.records(), done, strict=True)
    ]
    shown = {"recipe": chain.name, "links": links}
    show(shown, render_table(table), about, as_json=as_json)
