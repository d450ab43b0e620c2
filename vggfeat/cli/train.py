"""``vggfeat train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from vggfeat.cli import options
from vggfeat.cli.console import Json, Quiet, is_first_process, warn_of_failures
from vggfeat.cli.targets import check_folder
from vggfeat.errors import ParameterError
from vggfeat.nets.config import layers_of
from vggfeat.nets.formats import read
from vggfeat.nets.registry import NAMES
from vggfeat.settings import Execution, Training

DRAWN = get_args(Training.model_fields["init"].annotation)
FROM_ITSELF = 1e-3  # learning rate (Section 3.1)


@options.with_options(
    training=options.model_options(Training, without=["init"], net={"panel": ""}, S={"panel": ""}),
    execution=options.model_options(Execution, *options.NETWORK),
)
def command(
    *,
    data: Annotated[Path, typer.Option("--data", help=options.IMAGES)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    init: Annotated[
        str,
        typer.Option(
            "--init",
            help="glorot, paper, kaiming; or weights to begin from: a file of net A or of the same "
            "net, embedded, authors, torchvision.",
            rich_help_panel=options.PANELS[Training],
        ),
    ] = "glorot",
    training: Training,
    val: options.Val = None,
    val_fraction: options.ValFraction = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    tensorboard: options.TensorBoard = False,
    execution: Execution,
    workers: options.DecodingProcesses = 2,
    micro: options.Micro = None,
    compile_net: options.Compile = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a network of Table 1 by the paper's recipe, or fine-tune one.

    The best weights, best.safetensors, know their pixels and are ready for
    `vggfeat extract --weights`; report.html has the curves, from the first epoch on. Killed or
    stopped, a run goes on with --resume exactly where its last checkpoint was. Under torchrun it
    runs on several GPUs or machines, with the same batches.

    For example:

        vggfeat train --net A --S 256 --data ILSVRC2012 --out runs/a-256

        vggfeat train --net D --init runs/a-256/best.safetensors --data ILSVRC2012 --out runs/d-256

        vggfeat train --net D --init embedded --freeze conv --data my_folder --out runs/mine
    """
    from vggfeat.cli.training import engine_of, images_of, show_trained, starting_weights
    from vggfeat.cli.watching import MonitoredTrainer
    from vggfeat.train.distributed import world_size

    typed = training.model_fields_set
    if {"steps", "patience"} <= typed:
        raise ParameterError(
            "--patience says nothing to --step, which names the epochs after which the rate drops. "
            "Leave out one of the two."
        )
    check_folder("--out", out)
    layers_of(training.net)  # which refuses a net that there is not
    settings = training
    if init in DRAWN:
        settings = settings.but(init=init)
    else:
        _check_source(init)
    if "learning_rate" not in typed and _net_of(init, training.net) == training.net:
        settings = settings.but(learning_rate=FROM_ITSELF)
    engine = engine_of(execution, workers, micro, compile_net)
    trainer = MonitoredTrainer(engine, quiet, tensorboard, "the same command with --resume")
    found = images_of(data, val, val_fraction, settings.seed, quiet=quiet)
    if "batch" not in typed:
        settings = settings.but(batch=max(world_size(), _batch_of(len(found.train))))
    weights = None
    if init not in DRAWN:  # a file may be of net A
        net = _net_of(init, settings.net) or settings.net
        weights = starting_weights(init, net, "fc8", quiet)
    done = trainer(settings, found, out, weights=weights, resume=resume)
    if is_first_process():
        show_trained(trainer, done, as_json=as_json)
        warn_of_failures(done.failed)


def _batch_of(images: int) -> int:
    """Take the paper's batch, or of a small set so few images that an epoch has eight updates."""
    return min(Training().batch, max(8, images // 8 // 8 * 8))


def _check_source(init: str) -> None:
    """Refuse what is neither an initialisation nor weights, before any image is read."""
    if init not in NAMES and not Path(init).expanduser().is_file():
        known = ", ".join(map(repr, (*DRAWN, *NAMES)))
        raise ParameterError.of("init", "train", f"one of {known}, or a file of weights", init)


def _net_of(init: str, net: str) -> str | None:
    """Tell which net the weights to begin from are of; None where they are drawn."""
    if init in DRAWN:
        return None
    path = Path(init).expanduser()
    if not path.is_file():  # a source by its name has each net's own
        return net

    return read(path).net
