"""``vggfeat fuse``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggfeat._io.text import counted
from vggfeat.cli import options
from vggfeat.cli.classify import (
    Data,
    Likeliest,
    Results,
    ScoreOutputs,
    Top,
    read_labelled,
    show_posteriors,
)
from vggfeat.cli.console import Json, Quiet, note
from vggfeat.settings import Features


@options.with_options(typed=options.typed_options(Features, "Q"))
def command(
    *,
    stores: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORES", help="What `vggfeat classify --out` wrote, or packed files of it."
        ),
    ],
    data: Data = None,
    typed: options.Typed,
    top: Top = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write a store of the fused posteriors.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    table: Likeliest = None,
    results: Results = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Average the posteriors of several nets (Section 4.4), without running any of them again.

    Every net counts the same, however many scales and modes it has. The stores must be finished and
    have the same images, in whatever order.

    For example:

        vggfeat fuse scores-d scores-e --data ILSVRC2012

        vggfeat fuse scores-d.h5 scores-e.h5 --csv top5.csv
    """
    from vggfeat.experiments.classification import FusedPosteriors

    outputs = ScoreOutputs(top, table, results, out, quiet, as_json)
    outputs.check(data)
    posteriors = FusedPosteriors.open(stores, typed.get("Q"), out)
    labelled = None if data is None else read_labelled(data, quiet=quiet)
    validation = None if labelled is None else posteriors.match(labelled)
    show_posteriors(posteriors, validation, outputs)
    if out is not None:
        note(f"Fused scores of {counted(posteriors.write(out), 'image')}: {out}", quiet=quiet)
