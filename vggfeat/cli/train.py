"""``vggfeat train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vggfeat.cli import options
from vggfeat.cli.output import Json, Quiet, first, warn_of
from vggfeat.cli.targets import check_folder
from vggfeat.errors import ParameterError
from vggfeat.nets.formats import read
from vggfeat.nets.registry import NAMES
from vggfeat.settings import Execution, checked
from vggfeat.train.distributed import world_size
from vggfeat.train.settings import Training

DRAWN = ("glorot", "paper", "kaiming")
BATCH = 256
PATIENCE = 3  # epochs
ANEW, FROM_ITSELF = 1e-2, 1e-3  # learning rates (Section 3.1)
RECIPE = "The paper's recipe (Section 3.1)"


@options.of(execution=options.some(Execution, *options.NETWORK))
def command(
    *,
    data: Annotated[Path, typer.Option("--data", help=options.IMAGES)],
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
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            help="Images of an update, over all processes: 256, or an eighth of fewer than 2048.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            "--lr",
            help="0.01; 0.001 where the network begins from weights of its own configuration, as "
            "in the paper at another S.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    momentum: Annotated[
        float, typer.Option("--momentum", help=options.MOMENTUM, rich_help_panel=RECIPE)
    ] = 0.9,
    weight_decay: Annotated[
        float, typer.Option("--weight-decay", help=options.WEIGHT_DECAY, rich_help_panel=RECIPE)
    ] = 5e-4,
    dropout: Annotated[
        float, typer.Option("--dropout", help=options.DROPOUT, rich_help_panel=RECIPE)
    ] = 0.5,
    epochs: Annotated[int, typer.Option("--epochs", help="At most.", rich_help_panel=RECIPE)] = 74,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            help="Epochs without a better validation accuracy before the rate drops; 3 by default.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    step: Annotated[
        list[int] | None,
        typer.Option(
            "--step", help="Drop the rate after this epoch instead.", rich_help_panel=RECIPE
        ),
    ] = None,
    freeze: Annotated[
        str, typer.Option("--freeze", help="none, or conv.", rich_help_panel=RECIPE)
    ] = "none",
    label_smoothing: Annotated[
        float,
        typer.Option(
            "--label-smoothing",
            help="Share of each target that is spread over all classes; 0 in the paper.",
            rich_help_panel=RECIPE,
        ),
    ] = 0.0,
    colour_shift: Annotated[
        bool,
        typer.Option(
            "--colour-shift/--no-colour-shift",
            help=options.COLOUR_SHIFT,
            rich_help_panel=RECIPE,
        ),
    ] = True,
    seed: Annotated[int, typer.Option("--seed", help=options.SEED, rich_help_panel=RECIPE)] = 0,
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
    from vggfeat.cli import training
    from vggfeat.cli.watching import Watched

    if step and patience is not None:
        raise ParameterError(
            "--patience says nothing to --step, which names the epochs after which the rate drops. "
            "Leave out one of the two."
        )
    check_folder("--out", out)
    if init not in DRAWN:
        _check_source(init)
    if learning_rate is None:
        learning_rate = FROM_ITSELF if _net_of(init, net) == net else ANEW
    settings = checked(
        Training,
        net=net,
        S=_scale(S),
        batch=BATCH if batch is None else batch,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        dropout=dropout,
        init=init if init in DRAWN else "glorot",
        schedule="step" if step else "plateau",
        patience=PATIENCE if patience is None else patience,
        steps=tuple(step or ()),
        epochs=epochs,
        freeze=freeze,
        label_smoothing=label_smoothing,
        colour_shift=colour_shift,
        seed=seed,
    )
    engine = training.engine_of(execution, workers, micro, compile_net)
    trainer = Watched(engine, quiet, tensorboard, "the same command with --resume")
    found = training.images_of(data, val, val_fraction, seed, quiet=quiet)
    if batch is None:
        settings = settings.model_copy(
            update={"batch": max(world_size(), _batch_of(len(found.train)))}
        )
    weights = None
    if init not in DRAWN:  # a file may be of net A
        weights = training.starting_weights(init, _net_of(init, net) or net, "fc8", quiet)
    done = trainer(settings, found, out, weights=weights, resume=resume)
    if first():
        training.show_trained(done, as_json=as_json)
        warn_of(done.failed)


def _scale(S: list[int] | None) -> Any:
    """Read S, or S_min and S_max."""
    given = S or [256]
    if len(given) > 2:
        raise ParameterError.of("S", "train", "one scale, or S_min and S_max", given)
    return given[0] if len(given) == 1 else tuple(sorted(given))


def _batch_of(images: int) -> int:
    """Take the paper's batch, or of a small set so few images that an epoch has eight updates."""
    return min(BATCH, max(8, images // 8 // 8 * 8))


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
