"""``vggfeat localize``: train, predict, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggfeat.cli import options
from vggfeat.cli.localizing import Boxes, Classes, evaluate_command, predict_command
from vggfeat.cli.output import Json, Quiet, first, warn_of
from vggfeat.cli.targets import check_folder
from vggfeat.errors import ParameterError
from vggfeat.nets.formats import read
from vggfeat.nets.registry import NAMES
from vggfeat.settings import Execution, checked
from vggfeat.train.distributed import world_size
from vggfeat.train.settings import Training

NET = "D"
BATCH = 256
PATIENCE = 5  # epochs
WAITED = 50  # updates
RECIPE = "The paper's recipe (Appendix A)"

group = typer.Typer(
    name="localize",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Find where objects are: train, use and test a net that predicts boxes (Appendix A).",
)
group.command("predict")(predict_command)
group.command("evaluate")(evaluate_command)


@group.command("train")
@options.of(execution=options.some(Execution, *options.NETWORK))
def train_command(
    *,
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
        float, typer.Option("--momentum", help=options.MOMENTUM, rich_help_panel=RECIPE)
    ] = 0.9,
    weight_decay: Annotated[
        float, typer.Option("--weight-decay", help=options.WEIGHT_DECAY, rich_help_panel=RECIPE)
    ] = 5e-4,
    dropout: Annotated[
        float, typer.Option("--dropout", help=options.DROPOUT, rich_help_panel=RECIPE)
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
            help=options.COLOUR_SHIFT,
            rich_help_panel=RECIPE,
        ),
    ] = True,
    seed: Annotated[int, typer.Option("--seed", help=options.SEED, rich_help_panel=RECIPE)] = 0,
    classes: Classes = None,
    boxes: Boxes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    tensorboard: options.TensorBoard = False,
    execution: Execution,
    workers: options.DecodingProcesses = 2,
    micro: options.Micro = None,
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
    from vggfeat.cli import training
    from vggfeat.cli.watching import Watched
    from vggfeat.ilsvrc.begin import begun
    from vggfeat.ilsvrc.regression import REGRESSIONS, BoxRegression

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
    engine = training.engine_of(execution, workers, micro, False)
    trainer = Watched(engine, quiet, tensorboard, "the same command with --resume")
    found = training.boxset_of(data, classes, boxes, quiet=quiet)
    size = max(world_size(), _batch_of(len(found.train))) if batch is None else batch
    waited = _patience_of(len(found.train), size) if patience is None else patience
    settings = settings.model_copy(update={"batch": size, "patience": waited})
    task = BoxRegression.on(found, regression, S, visible)
    classifying = training.starting_weights(init, settings.net, "fc7", quiet)
    training.warn_of_scale(classifying, S)
    weights = begun(classifying, task, balanced=balanced, seed=seed, device=execution.device)
    done = trainer(settings, found.trainset, out, weights=weights, resume=resume, task=task)
    if first():
        training.show_trained(done, as_json=as_json)
        warn_of(done.failed)


def _batch_of(images: int) -> int:
    """Take the paper's batch, or of a small set so few images that an epoch has four updates."""
    return min(BATCH, max(8, images // 4 // 8 * 8))


def _patience_of(images: int, batch: int) -> int:
    """Wait for some updates at least: a small set has few of them in an epoch."""
    return max(PATIENCE, WAITED // max(1, images // batch))


def _net(init: str, net: str | None) -> str:
    """Tell which net the weights to begin from are of; a file may not be of another."""
    if init in NAMES:
        return net or NET
    if not Path(init).expanduser().is_file():
        expected = f"one of {', '.join(map(repr, NAMES))}, or a file of weights"
        raise ParameterError.of("init", "localize train", expected, init)
    found = read(init).net
    if net not in (None, found):
        raise ParameterError(f"--net {net}: the file {init} is of net {found}. Leave out --net.")
    return found
