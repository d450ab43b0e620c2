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
    show_scores,
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
    from vggfeat.classification.scores import (
        check_target,
        describe_origin,
        open_scores,
        same_classes,
        same_images,
        write_fused,
    )
    from vggfeat.classification.validation import match_classes
    from vggfeat.features.provenance import versions

    outputs = ScoreOutputs(top, table, results, out, quiet, as_json)
    outputs.check(data)
    if out is not None:
        check_target(out, stores)
    scores = [of_net for path in stores for of_net in open_scores(path, typed.get("Q"))]
    classes = same_classes(scores)
    validation = match_classes(read_labelled(data), classes) if data is not None else None
    show_scores(scores, validation, outputs)
    if out is not None:
        names = same_images(scores)
        made_of = {"fused": describe_origin(scores), "versions": versions()}
        write_fused(out, scores, names, made_of)
        note(f"Fused scores of {counted(len(names), 'image')}: {out}", quiet=quiet)
