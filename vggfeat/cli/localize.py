"""``vggfeat localize``: train, predict, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggfeat._io.text import counted
from vggfeat.cli import options, training
from vggfeat.cli.localizing import Boxes, Classes, evaluate_command, predict_command
from vggfeat.cli.output import Json, Quiet, download_progress, note
from vggfeat.cli.targets import check_folder
from vggfeat.cli.train import show_trained
from vggfeat.cli.watching import Watched

if TYPE_CHECKING:
    from vggfeat.ilsvrc.boxset import BoxSet
    from vggfeat.nets.weights import Weights

NET = "D"
BATCH = 256
PATIENCE = 5  # epochs
WAITED = 50  # updates
RECIPE = "The paper's recipe (Appendix A)"

localize_app = typer.Typer(
    name="localize",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Find where objects are: train, use and test a net that predicts boxes (Appendix A).",
)
localize_app.command("predict")(predict_command)
localize_app.command("evaluate")(evaluate_command)


@localize_app.command("train")
def train_command(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="A year of VOC (VOCdevkit/VOC2007), ILSVRC's folder, or sample-voc.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    init: Annotated[
        str,
        typer.Option(
            "--init",
            help="The classification net to begin from: a file, best of the same S; authors, "
            "torchvision; or embedded, whose fc6 and fc7 are drawn.",
            rich_help_panel=RECIPE,
        ),
    ] = "embedded",
    net: Annotated[
        str | None,
        typer.Option(
            "--net",
            help="Configuration of a named source; D by default. A file says its own.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    S: Annotated[int, typer.Option("--S", help="Training scale.", rich_help_panel=RECIPE)] = 256,
    regression: Annotated[
        str,
        typer.Option(
            "--regression",
            help="pcr: a box for each class; scr: one for all.",
            rich_help_panel=RECIPE,
        ),
    ] = "pcr",
    freeze: Annotated[
        str,
        typer.Option(
            "--freeze",
            help="none: all layers are fine-tuned; conv: fc6, fc7 and fc8 alone.",
            rich_help_panel=RECIPE,
        ),
    ] = "none",
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            help="Images of an update: 256, or a fourth of fewer than 1024.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    learning_rate: Annotated[
        float,
        typer.Option(
            "--learning-rate",
            "--lr",
            help="Of the first updates; it drops tenfold as validation says.",
            rich_help_panel=RECIPE,
        ),
    ] = 1e-3,
    momentum: Annotated[
        float, typer.Option("--momentum", help=training.MOMENTUM, rich_help_panel=RECIPE)
    ] = 0.9,
    weight_decay: Annotated[
        float, typer.Option("--weight-decay", help=training.WEIGHT_DECAY, rich_help_panel=RECIPE)
    ] = 5e-4,
    dropout: Annotated[
        float, typer.Option("--dropout", help=training.DROPOUT, rich_help_panel=RECIPE)
    ] = 0.5,
    epochs: Annotated[int, typer.Option("--epochs", help="At most.", rich_help_panel=RECIPE)] = 40,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            help="Epochs without a better mean IoU in validation before the rate drops: 5, or of "
            "a small set as many as make 50 updates.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    visible: Annotated[
        float,
        typer.Option(
            "--visible",
            min=0,
            max=1,
            help="Crops that show less of the box than this share teach nothing.",
            rich_help_panel=RECIPE,
        ),
    ] = 0.5,
    balanced: Annotated[
        bool,
        typer.Option(
            "--balanced/--as-it-is",
            help="Scale the layers against each other, so that one rate suits any net.",
            rich_help_panel=RECIPE,
        ),
    ] = True,
    colour_shift: Annotated[
        bool,
        typer.Option(
            "--colour-shift/--no-colour-shift",
            help=training.COLOUR_SHIFT,
            rich_help_panel=RECIPE,
        ),
    ] = True,
    seed: Annotated[int, typer.Option("--seed", help=training.SEED, rich_help_panel=RECIPE)] = 0,
    classes: Classes = None,
    boxes: Boxes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    tensorboard: training.TensorBoard = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: training.Workers = 2,
    micro: training.Micro = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a net whose last layer predicts a box, from a classification net.

    The crops, the mirror images and the schedule are those of `vggfeat train`; the loss is the
    squared distance of the box, and what is judged by is its mean intersection over union with the
    true one, of validation images.

    For example:

        vggfeat localize train --data VOCdevkit/VOC2007 --freeze conv --out runs/boxes

        vggfeat localize train --data sample-voc --class bird --class boat --out runs/two

        vggfeat localize train --data ILSVRC2012 --init runs/d-256/best.safetensors --out runs/d-box
    """
    from vggfeat.errors import ParameterError
    from vggfeat.ilsvrc.begin import begun
    from vggfeat.ilsvrc.regression import REGRESSIONS, BoxRegression
    from vggfeat.settings import checked
    from vggfeat.train.settings import Training

    check_folder("--out", out)
    settings = checked(
        Training,
        net=_net(init, net),
        S=S,
        batch=BATCH if batch is None else batch,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        dropout=dropout,
        patience=PATIENCE if patience is None else patience,
        epochs=epochs,
        freeze=freeze,
        colour_shift=colour_shift,
        seed=seed,
    )
    if regression not in REGRESSIONS:
        raise ParameterError.not_one_of("regression", "localize train", REGRESSIONS, regression)
    engine = training.engine_of(device, precision, workers, micro, False, "pillow")
    trainer = Watched(engine, quiet, tensorboard, "the same command with --resume")
    found = boxset_of(data, classes, boxes, quiet=quiet)
    size = _batch_of(len(found.train)) if batch is None else batch
    waited = _patience_of(len(found.train), size) if patience is None else patience
    settings = settings.model_copy(update={"batch": size, "patience": waited})
    task = BoxRegression.on(found, regression, S, visible)
    classifying = _weights(init, settings.net, quiet)
    _warn_of_scale(classifying, S)
    weights = begun(classifying, task, balanced=balanced, seed=seed, device=device)
    done = trainer(settings, found.trainset, out, weights=weights, resume=resume, task=task)
    if training.first():
        show_trained(done, as_json=as_json)
        training.warn_of(done.failed)


def boxset_of(
    data: str, classes: list[str] | None, boxes: list[Path] | None, *, quiet: bool
) -> BoxSet:
    """Open images with boxes, and say what they are."""
    from vggfeat.ilsvrc.boxset import open_boxset

    with download_progress(quiet=quiet or not training.first()) as reading:
        found = open_boxset(data, classes=classes or (), boxes=boxes or (), progress=reading)
    if training.first():
        note(
            f"{counted(len(found.train), 'object')} to train, {len(found.val):,} to validate, "
            f"{counted(len(found.classes), 'class')}, {found.source}.",
            quiet=quiet,
        )
        training.warn_of(found.left_out)
    return found


def _batch_of(images: int) -> int:
    """Take the paper's batch, or of a small set so few images that an epoch has four updates."""
    return min(BATCH, max(8, images // 4 // 8 * 8))  # eights, which processes can share


def _patience_of(images: int, batch: int) -> int:
    """Wait for some updates at least: a small set has few of them in an epoch."""
    return max(PATIENCE, WAITED // max(1, images // batch))


def _warn_of_scale(weights: Weights, S: int) -> None:
    theirs = weights.about.get("S", str(S))
    if theirs != str(S) and training.first():
        note(
            f"Warning: the classification net was trained at S = {theirs}, its boxes are to be at "
            f"S = {S}. The paper takes the net of the same S: --S {theirs}, or another --init."
        )


def _net(init: str, net: str | None) -> str:
    """Tell which net the weights to begin from are of; a file may not be of another."""
    from vggfeat.errors import ParameterError
    from vggfeat.nets.formats import read
    from vggfeat.nets.registry import NAMES

    if init in NAMES:
        return net or NET
    if not Path(init).expanduser().is_file():
        expected = f"one of {', '.join(map(repr, NAMES))}, or a file of weights"
        raise ParameterError.of("init", "localize train", expected, init)
    found = read(init).net
    if net not in (None, found):
        raise ParameterError(f"--net {net}: the file {init} is of net {found}. Leave out --net.")
    return found


def _weights(init: str, net: str, quiet: bool) -> Weights:
    from vggfeat.nets.weights import load

    layers: Any = ["pool5"] if init == "embedded" else ["fc7"]
    with download_progress(quiet=quiet) as progress:
        return load(init, net, layers, progress=progress)
