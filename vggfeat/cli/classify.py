"""``vggfeat classify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggfeat._io.text import counted
from vggfeat.cli import options
from vggfeat.cli.console import Json, Quiet, note, show, warn_of_failures, work_progress
from vggfeat.data.datasets.ilsvrc import read_val
from vggfeat.data.imageset import find_images
from vggfeat.data.partition import parse_partition
from vggfeat.errors import ParameterError
from vggfeat.nets.formats import read
from vggfeat.settings import Execution, Features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vggfeat.classification.scores import Scores
    from vggfeat.classification.validation import Validation
    from vggfeat.cli.working import Work
    from vggfeat.data.datasets.ilsvrc import LabelledImages
    from vggfeat.data.imageset import ImageSet
    from vggfeat.data.partition import Partition
    from vggfeat.features.extractor import DenseExtractor

EVALUATION = "Evaluation (Section 3.2)"
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Images with their classes: ILSVRC's folder with val/, a folder of class folders, "
        "or a CSV with path and label. The errors are told.",
        rich_help_panel=options.DATA,
    ),
]
Top = Annotated[
    int, typer.Option("--top", min=1, help="Classes to show.", rich_help_panel=options.OUTPUT)
]
Table = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        help="Write every image's likeliest classes with their probabilities.",
        rich_help_panel=options.OUTPUT,
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(
        "--results",
        help="With --data: write results.json and classes.csv into this folder.",
        rich_help_panel=options.OUTPUT,
    ),
]


@options.with_options(
    typed=options.typed_options(
        Features,
        without=("layers", "pool", "aggregate", "normalize", "power", "views"),
        nets={
            "help": "Configuration of Table 1; D by default, or that of --weights FILE. Repeat it: "
            "the posteriors of several nets are averaged."
        },
        Q={
            "help": "Test scales, averaged. By default each net's own: its S where that is "
            "fixed; 256, 384 and 512 where it was jittered, or is not known.",
            "panel": EVALUATION,
        },
    ),
    execution=options.model_options(Execution, *options.DESCRIBING),
)
def command(
    *,
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES", help="What `vggfeat extract` takes."),
    ] = None,
    data: Data = None,
    relative_to: options.RelativeTo = None,
    typed: options.Typed,
    multi_scale: Annotated[
        bool,
        typer.Option(
            "--multi-scale",
            help="Test a net trained at a fixed S at S − 32, S and S + 32.",
            rich_help_panel=EVALUATION,
        ),
    ] = False,
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            help="dense; multicrop; or both, the mean of the two.",
            rich_help_panel=EVALUATION,
        ),
    ] = "dense",
    locations: Annotated[
        str,
        typer.Option(
            "--locations",
            help="What of the dense map is averaged: scores, as in the paper, or posteriors.",
            rich_help_panel=EVALUATION,
        ),
    ] = "scores",
    grid: Annotated[
        int,
        typer.Option(
            "--grid", help="Crops along each side, with multicrop.", rich_help_panel=EVALUATION
        ),
    ] = 5,
    top: Top = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Store of the scores, for `vggfeat fuse`; in VGGFEAT_HOME by default. What it has "
            "is not computed again, whatever the mode, nor after an interruption.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    table: Table = None,
    results: Results = None,
    shard: options.Shard = None,
    execution: Execution,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Tell what is in images with a whole network; or, where that is known, how often it errs.

    The network runs densely over the image at each scale Q; class scores are averaged over
    locations, then posteriors over mirror image, scales and nets. The authors' nets know ILSVRC's
    1,000 classes; one of `vggfeat train` knows its own.

    For example:

        vggfeat classify holiday/ --net D

        vggfeat classify images/ --weights runs/mine/best.safetensors --Q 224 --Q 256 --Q 288

        vggfeat classify --data ILSVRC2012 --net D --net E --mode both --out scores
    """
    from vggfeat.classification.classes import classes_of
    from vggfeat.classification.evaluate import pools_of
    from vggfeat.classification.scales import find_test_scales
    from vggfeat.classification.validation import match_classes
    from vggfeat.cli.verdicts import Asked, tell_errors, tell_images
    from vggfeat.cli.working import Work

    if (data is None) == (not sources):
        raise ParameterError("Name either images, or images with their classes by --data.")
    if data is not None and relative_to is not None:
        raise ParameterError("--relative-to says nothing to --data. Leave it out.")
    asked = Asked(top, table, results, out, quiet, as_json)
    asked.check(data, made_first=out)
    share = _share(shard, context)
    work = Work(execution, quiet)
    base = Features(layers=("fc8",), pool="+".join(pools_of(mode, locations, grid)))
    _refuse_unused(context, mode)
    if multi_scale and "Q" in typed:
        raise ParameterError("--multi-scale says nothing to --Q. Leave out one of the two.")
    features = base.but(**{"nets": _net_of(typed.get("weights")), **typed})
    known = labelled(data) if data is not None else None
    images = known.image_set() if known else find_images(sources or [], relative_to)
    found: Validation | None = None
    scores: list[Scores] = []
    for one in features.nets:
        extractor = work.network_for(features, one, out)
        work.opened.clear()  # the next one needs the memory
        if known and found is None:
            found = match_classes(known, classes_of(extractor.weights))
        scales = typed.get("Q") or find_test_scales(extractor.weights, multi_scale=multi_scale)
        scores += _score(work, images, extractor, scales, out, share)
    if shard is not None:
        _tell_share(scores, share, len(images), as_json)
        return
    if found is not None:
        tell_errors(scores, found, asked)
    else:
        tell_images(scores, asked)


def _refuse_unused(context: typer.Context, mode: str) -> None:
    """Refuse what is of the other mode alone."""
    for name, unused in (("grid", "dense"), ("locations", "multicrop")):
        if mode == unused and options.is_typed(context, name):
            raise ParameterError(
                f"--{name} says nothing to --mode {mode}. Leave it out, or take another --mode."
            )


def labelled(data: Path) -> LabelledImages:
    """Find images and their classes, and tell of those that have none."""
    found = read_val(data)
    if found.loose:
        note(
            f"Warning: {found.where} has {counted(found.loose, 'image')} beside the class "
            "folders, which are of no class and left out."
        )
    return found


def _score(
    work: Work,
    images: ImageSet,
    extractor: DenseExtractor,
    scales: Sequence[int],
    out: Path | None,
    share: Partition,
) -> list[Scores]:
    from vggfeat.classification.evaluate import score

    with work_progress("classify", quiet=work.quiet) as progress:
        scores, _ = score(
            images,
            extractor,
            scales,
            out,
            shard=share,
            on_bad_image=work.execution.on_bad_image,
            workers=work.execution.workers,
            progress=progress.images,
        )
    return scores


def _net_of(weights: list[str] | None) -> list[str] | None:
    """Name the net of a file of weights, where it alone says what is meant."""
    if weights and len(weights) == 1 and Path(weights[0]).expanduser().is_file():
        return [read(weights[0]).net]
    return None


def _share(typed: str | None, context: typer.Context) -> Partition:
    """Read which share of how many; what tells of all images says nothing to one."""
    for name, option in (("table", "--csv"), ("results", "--results"), ("top", "--top")):
        if typed and options.is_typed(context, name):
            raise ParameterError(
                f"{option} says nothing to one share of the images. Give it to the "
                "last run, without --shard, which puts all shares together."
            )
    return parse_partition(typed)


def _tell_share(scores: list[Scores], share: Partition, images: int, as_json: bool) -> None:
    done = min(len(one.names) for one in scores)
    failed = {name: why for one in scores for name, why in one.failed.items()}
    said = f"Share {share} is done: {counted(done, 'image')}."
    if not len(share.rows(images)):
        only = counted(images, "image")
        said = f"Share {share} is empty: only {only} to do. Nothing was done."
    show({"shard": str(share), "images": done, "failed": failed}, said, as_json=as_json)
    warn_of_failures(failed)
