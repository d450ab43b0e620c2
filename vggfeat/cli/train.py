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
from vggfeat.settings import Execution, Training

DRAWN = get_args(Training.model_fields["init"].annotation)
FROM_ITSELF = 1e-3  # learning rate (Section 3.1)
UPDATES = 8  # in an epoch of a small set, at least


@options.with_options(
    training=options.model_options(Training, without=["init"], net={"panel": ""}, S={"panel": ""}),
    execution=options.model_options(Execution, *options.NETWORK),
)
def command(
    *,
    data: Annotated[Path, typer.Option("--data", help=options.LABELLED)],
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
    path_column: options.PathColumn = None,
    label_column: options.LabelColumn = None,
    val: options.Val = None,
    val_fraction: options.ValFraction = None,
    resume: options.Resume = False,
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
    from vggfeat.cli.training import images_of, open_trainer, show_trained, starting_weights
    from vggfeat.experiments.training import default_batch, net_of_init

    typed = training.model_fields_set
    if {"steps", "patience"} <= typed:
        raise ParameterError(
            "--patience says nothing to --step, which names the epochs after which the rate drops. "
            "Leave out one of the two."
        )
    check_folder("--out", out)
    layers_of(training.net)  # which refuses a net that there is not
    origin = net_of_init(init, training.net, "train", DRAWN)
    settings = training.but(init=init) if origin is None else training
    if "learning_rate" not in typed and origin == training.net:
        settings = settings.but(learning_rate=FROM_ITSELF)
    trainer = open_trainer(
        execution,
        workers,
        micro,
        compile_net,
        quiet=quiet,
        tensorboard=tensorboard,
        resume_hint="the same command with --resume",
    )
    images = images_of(
        data,
        val,
        val_fraction,
        settings.seed,
        path_column=path_column,
        label_column=label_column,
        quiet=quiet,
    )
    if "batch" not in typed:
        settings = settings.but(batch=default_batch(len(images.train), UPDATES))
    weights = starting_weights(init, origin, "fc8", quiet) if origin else None
    done = trainer(settings, images, out, weights=weights, resume=resume)
    if is_first_process():
        show_trained(trainer, done, as_json=as_json, left_out=images.left_out.to_dict())
        warn_of_failures(done.failed)
