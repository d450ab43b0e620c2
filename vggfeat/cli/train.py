"""``vggfeat train``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggfeat.cli import options
from vggfeat.cli.output import Json, Quiet, download_progress, facts, grid, note, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from vggfeat.nets.weights import Weights
    from vggfeat.train.trainset import TrainSet
    from vggfeat.train.words import Told, Trained

DRAWN = ("glorot", "paper", "kaiming")
RECIPE, PACE = "The paper's recipe (Section 3.1)", "Where and how it runs"


def train_command(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="ILSVRC's folder (its tar files, or unpacked), a folder with train/ and val/, a "
            "folder of class folders, or a CSV file with path, label and split.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    net: Annotated[str, typer.Option("--net", help="Configuration of Table 1.")] = "A",
    S: Annotated[
        list[int] | None,
        typer.Option("--S", help="Training scale; twice for a range: --S 256 --S 512."),
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            "--init",
            help="glorot, paper, kaiming; or weights to begin from: a file of net A or of the same "
            "net, embedded, authors, torchvision.",
            rich_help_panel=RECIPE,
        ),
    ] = "glorot",
    batch: Annotated[int, typer.Option("--batch", rich_help_panel=RECIPE)] = 256,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", "--lr", rich_help_panel=RECIPE)
    ] = 1e-2,
    momentum: Annotated[float, typer.Option("--momentum", rich_help_panel=RECIPE)] = 0.9,
    weight_decay: Annotated[float, typer.Option("--weight-decay", rich_help_panel=RECIPE)] = 5e-4,
    dropout: Annotated[float, typer.Option("--dropout", rich_help_panel=RECIPE)] = 0.5,
    epochs: Annotated[int, typer.Option("--epochs", help="At most.", rich_help_panel=RECIPE)] = 74,
    patience: Annotated[
        int,
        typer.Option(
            "--patience",
            help="Epochs without a better validation accuracy before the rate drops.",
            rich_help_panel=RECIPE,
        ),
    ] = 3,
    step: Annotated[
        list[int] | None,
        typer.Option(
            "--step", help="Drop the rate after this epoch instead.", rich_help_panel=RECIPE
        ),
    ] = None,
    freeze: Annotated[
        str, typer.Option("--freeze", help="none, or conv.", rich_help_panel=RECIPE)
    ] = "none",
    label_smoothing: Annotated[float, typer.Option(rich_help_panel=RECIPE)] = 0.0,
    colour_shift: Annotated[
        bool, typer.Option("--colour-shift/--no-colour-shift", rich_help_panel=RECIPE)
    ] = True,
    seed: Annotated[int, typer.Option("--seed", rich_help_panel=RECIPE)] = 0,
    val: Annotated[
        Path | None, typer.Option("--val", help="Validation pictures, if they lie elsewhere.")
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option("--val-fraction", help="Share of the pictures drawn to validate."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: Annotated[
        int, typer.Option("--workers", help="Decoding processes.", rich_help_panel=PACE)
    ] = 2,
    micro: Annotated[
        int | None,
        typer.Option(
            "--micro", help="Pictures computed at a time, if memory is short.", rich_help_panel=PACE
        ),
    ] = None,
    compile_net: Annotated[bool, typer.Option("--compile", rich_help_panel=PACE)] = False,
    decoder: Annotated[
        str, typer.Option("--decoder", help="pillow, or nvjpeg on a GPU.", rich_help_panel=PACE)
    ] = "pillow",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a network of Table 1 by the paper's recipe, or fine-tune one.

    The best weights, best.safetensors, know their pixels and are ready for
    `vggfeat extract --weights`. Killed or stopped, a run goes on with --resume exactly where its
    last checkpoint was. Under torchrun it runs on several GPUs or machines, with the same batches.

    For example:

        vggfeat train --net A --S 256 --data ILSVRC2012 --out runs/a-256

        vggfeat train --net D --init runs/a-256/best.safetensors --data ILSVRC2012 --out runs/d-256

        vggfeat train --net D --init embedded --freeze conv --data my_folder --out runs/mine
    """
    from vggfeat.data.settings import checked
    from vggfeat.train.loop import train
    from vggfeat.train.settings import Training
    from vggfeat.train.trainset import open_trainset
    from vggfeat.train.words import Engine

    settings = checked(
        Training,
        net=net,
        S=_scale(S),
        batch=batch,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        dropout=dropout,
        init=init if init in DRAWN else "glorot",
        schedule="step" if step else "plateau",
        patience=patience,
        steps=tuple(step or ()),
        epochs=epochs,
        freeze=freeze,
        label_smoothing=label_smoothing,
        colour_shift=colour_shift,
        seed=seed,
    )
    with download_progress(quiet=quiet) as fetching:
        found = open_trainset(
            data, val=val, val_fraction=val_fraction, seed=seed, progress=fetching
        )
    weights = None if init in DRAWN else _weights(init, net, quiet)
    _announce(found, weights, quiet)
    engine = Engine(device, precision, workers, micro, compile_net, decoder)  # type: ignore[arg-type]  # the loader checks the decoder
    with _watched(quiet) as tell:
        done = train(
            settings, found, out, weights=weights, resume=resume, engine=engine, progress=tell
        )
    _show(done, as_json)


def _scale(S: list[int] | None) -> Any:
    """Read S, or S_min and S_max."""
    from vggfeat.errors import ParameterError

    given = S or [256]
    if len(given) > 2:
        raise ParameterError.of("S", "train", "one scale, or S_min and S_max", given)
    return given[0] if len(given) == 1 else tuple(sorted(given))


def _weights(init: str, net: str, quiet: bool) -> Weights:
    """Load what the network begins from; a file may be of net A."""
    from vggfeat.nets.weights import describe, load

    path = Path(init).expanduser()
    of = describe(path).net if path.is_file() else net
    layers = ["pool5"] if init == "embedded" else ["fc8"]
    with download_progress(quiet=quiet) as progress:
        return load(init, of, layers, progress=progress)


def _announce(found: TrainSet, weights: Weights | None, quiet: bool) -> None:
    source = f"from {weights.source}, net {weights.net}" if weights else "at random"
    note(
        f"{len(found.train):,} pictures to train, {len(found.val):,} to validate, "
        f"{len(found.classes)} classes, {found.source}; the network begins {source}.",
        quiet=quiet,
    )
    if found.unvalidated:
        note(f"Warning: no validation picture of {', '.join(found.unvalidated)}.")


@contextmanager
def _watched(quiet: bool) -> Iterator[Callable[[Told], None] | None]:
    """Show loss, accuracy, rate and time left; Ctrl-C ends with a checkpoint."""
    from vggfeat.cli.output import console, interruptible

    if quiet:
        with interruptible():
            yield None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    tasks: dict[int, TaskID] = {}
    with interruptible(), Progress(*columns, console=console(stderr=True)) as bar:

        def tell(told: Told) -> None:
            if told.epoch not in tasks:
                tasks[told.epoch] = bar.add_task(f"epoch {told.epoch + 1}", told="")
            text = (
                f"loss {told.loss:.3f}, top-1 {100 * told.top1:.1f} %, "
                f"{told.images_per_s:.1f} images/s, waited {100 * told.waited:.0f} %"
            )
            bar.update(tasks[told.epoch], completed=told.batch, total=told.batches, told=text)

        yield tell


def _show(done: Trained, as_json: bool) -> None:
    rows: list[list[object]] = [
        [
            row["epoch"],
            f"{row['learning_rate']:g}",
            f"{row['loss']:.3f}",
            f"{100 * row['top1']:.1f}",
            f"{row['val_loss']:.3f}",
            f"{100 * row['val_top1']:.1f}",
            f"{100 * row['val_top5']:.1f}",
        ]
        for row in done.history
    ]
    told: dict[str, object] = {
        "best": f"top-1 {100 * done.best:.1f} % in validation, central crops",
        "weights": done.weights,
        "taken": ", ".join(done.taken) or "nothing",
        "drawn": ", ".join(done.drawn) or "nothing",
    }
    columns = ["epoch", "rate", "loss", "top-1 %", "val loss", "val top-1 %", "val top-5 %"]
    result = {
        "best": done.best,
        "weights": str(done.weights),
        "history": done.history,
        "taken": done.taken,
        "drawn": done.drawn,
        "failed": done.failed,
    }
    show(result, grid(columns, rows), facts(told), as_json=as_json)
    for name, reason in list(done.failed.items())[:10]:
        note(f"Warning: {name}: {reason}")
    if len(done.failed) > 10:
        note(f"Warning: and {len(done.failed) - 10} more pictures that could not be read.")
