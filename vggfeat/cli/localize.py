"""``vggfeat localize``: train, predict, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggfeat.cli import options
from vggfeat.cli.console import Json, Quiet, is_first_process, warn_of_failures
from vggfeat.cli.localizing import Boxes, Classes, evaluate_command, predict_command
from vggfeat.cli.targets import check_folder
from vggfeat.errors import ParameterError
from vggfeat.nets.config import layers_of
from vggfeat.nets.formats import read
from vggfeat.nets.registry import NAMES
from vggfeat.settings import BoxTraining, Execution, Localization

WAITED = 50  # updates

group = typer.Typer(
    name="localize",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Find where objects are: train, use and test a net that predicts boxes (Appendix A).",
)
group.command("predict")(predict_command)
group.command("evaluate")(evaluate_command)


@group.command("train")
@options.with_options(
    training=options.model_options(
        BoxTraining,
        *("net", "S", "freeze", "batch", "learning_rate", "momentum", "weight_decay", "dropout"),
        *("epochs", "patience", "colour_shift", "seed", "exif"),
    ),
    localization=options.model_options(Localization),
    execution=options.model_options(Execution, *options.NETWORK),
)
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
            rich_help_panel=options.PANELS[BoxTraining],
        ),
    ] = "embedded",
    training: BoxTraining,
    localization: Localization,
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
    from vggfeat.cli.training import (
        boxset_of,
        engine_of,
        show_trained,
        starting_weights,
        warn_of_scale,
    )
    from vggfeat.cli.watching import MonitoredTrainer
    from vggfeat.localization.begin import begun
    from vggfeat.localization.training import BoxRegression
    from vggfeat.train.distributed import world_size

    typed = training.model_fields_set
    check_folder("--out", out)
    settings = training.but(net=_net(init, training.net if "net" in typed else None))
    engine = engine_of(execution, workers, micro, False)
    trainer = MonitoredTrainer(engine, quiet, tensorboard, "the same command with --resume")
    found = boxset_of(data, classes, boxes, settings, quiet=quiet)
    if "batch" not in typed:
        settings = settings.but(batch=max(world_size(), _batch_of(len(found.train))))
    if "patience" not in typed:
        settings = settings.but(patience=_patience_of(len(found.train), settings.batch))
    task = BoxRegression.on(found, localization.regression, training.S, localization.visible)
    classifying = starting_weights(init, settings.net, "fc7", quiet)
    warn_of_scale(classifying, training.S)
    weights = begun(
        classifying,
        task,
        balanced=localization.balanced,
        seed=settings.seed,
        device=execution.device,
    )
    done = trainer(settings, found.trainset, out, weights=weights, resume=resume, task=task)
    if is_first_process():
        show_trained(trainer, done, as_json=as_json)
        warn_of_failures(done.failed)


def _batch_of(images: int) -> int:
    """Take the paper's batch, or of a small set so few images that an epoch has four updates."""
    return min(BoxTraining().batch, max(8, images // 4 // 8 * 8))


def _patience_of(images: int, batch: int) -> int:
    """Wait for some updates at least: a small set has few of them in an epoch."""
    return max(BoxTraining().patience, WAITED // max(1, images // batch))


def _net(init: str, net: str | None) -> str:
    """Tell which net the weights to begin from are of; a file may not be of another."""
    if init in NAMES:
        layers_of(net := net or BoxTraining().net)  # which refuses a net that there is not
        return net
    if not Path(init).expanduser().is_file():
        expected = f"one of {', '.join(map(repr, NAMES))}, or a file of weights"
        raise ParameterError.of("init", "localize train", expected, init)
    found = read(init).net
    if net not in (None, found):
        raise ParameterError(f"--net {net}: the file {init} is of net {found}. Leave out --net.")
    return found
