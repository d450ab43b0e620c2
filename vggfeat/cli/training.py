"""What ``vggfeat train`` and the recipes that train have in common: options, and how they work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggfeat._io.text import counted
from vggfeat.cli.options import WORK
from vggfeat.cli.output import download_progress, note

if TYPE_CHECKING:
    from vggfeat.train.trainset import TrainSet
    from vggfeat.train.words import Engine

PANEL = "Training"
IMAGES = (
    "ILSVRC's folder (its tar files, or unpacked), a folder with train/ and val/, a folder of "
    "class folders, or a CSV file with path, label and split."
)
MOMENTUM = "Share of each update that the next one keeps."
WEIGHT_DECAY = "L2 penalty on all parameters."
DROPOUT = "Ratio of fc6's and fc7's outputs that are dropped."
COLOUR_SHIFT = "Shift the colours of each crop along their principal components."
SEED = "Of the order, the crops, the shifts, dropout and what is drawn at the start."
Workers = Annotated[
    int,
    typer.Option("--workers", min=0, help="Decoding processes.", rich_help_panel=WORK),
]
Val = Annotated[
    Path | None,
    typer.Option("--val", help="Validation images, if they lie elsewhere.", rich_help_panel=PANEL),
]
ValFraction = Annotated[
    float | None,
    typer.Option(
        "--val-fraction", help="Share of the images drawn to validate.", rich_help_panel=PANEL
    ),
]
Micro = Annotated[
    int | None,
    typer.Option(
        "--micro",
        min=1,
        help="Images computed at a time, if memory is short.",
        rich_help_panel=PANEL,
    ),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Use torch.compile.", rich_help_panel=PANEL)
]
Decoder = Annotated[
    str, typer.Option("--decoder", help="pillow, or nvjpeg on a GPU.", rich_help_panel=PANEL)
]
TensorBoard = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="Write for TensorBoard too, in the run's folder tensorboard/.",
        rich_help_panel=PANEL,
    ),
]


def first() -> bool:
    """Tell whether this process is the one that speaks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def engine_of(
    device: str, precision: str, workers: int, micro: int | None, compiled: bool, decoder: str
) -> Engine:
    """Say how a run works, and refuse what is none of the choices before any image is read.

    Raises
    ------
    ParameterError, DeviceError
        Naming the option.
    """
    from vggfeat.cli.working import check_machine
    from vggfeat.errors import ParameterError
    from vggfeat.train.loader import DECODERS
    from vggfeat.train.words import Engine

    if decoder not in DECODERS:
        raise ParameterError.not_one_of("decoder", "train", DECODERS, decoder)
    check_machine(device, precision)
    return Engine(device, precision, workers, micro, compiled, decoder)  # type: ignore[arg-type]  # it is one of them


def images_of(
    data: Path, val: Path | None, val_fraction: float | None, seed: int, *, quiet: bool
) -> TrainSet:
    """Open the images to train with, and say what they are."""
    from vggfeat.train.trainset import open_trainset

    with download_progress(quiet=quiet or not first()) as reading:
        found = open_trainset(data, val=val, val_fraction=val_fraction, seed=seed, progress=reading)
    if first():
        note(
            f"{counted(len(found.train), 'image')} to train, {len(found.val):,} to validate, "
            f"{counted(len(found.classes), 'class')}, {found.source}.",
            quiet=quiet,
        )
        if found.unvalidated:
            note(f"Warning: no validation image of {', '.join(found.unvalidated)}.")
    return found


def warn_of(failed: Mapping[str, str]) -> None:
    """Name the images that could not be read."""
    for name, reason in list(failed.items())[:10]:
        note(f"Warning: {name}: {reason}")
    if len(failed) > 10:
        note(f"Warning: and {counted(len(failed) - 10, 'more image')} that could not be read.")
