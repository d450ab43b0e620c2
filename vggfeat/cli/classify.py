"""``vggfeat classify``, and what ``vggfeat fuse`` has in common with it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggfeat._io.atomic import make_folder, replacing
from vggfeat._io.text import counted
from vggfeat.cli import options
from vggfeat.cli.console import (
    Json,
    Quiet,
    grid,
    note,
    note_left_out,
    show,
    show_result,
    warn_of_failures,
    work_progress,
)
from vggfeat.cli.targets import check_file, check_folder
from vggfeat.data.datasets.ilsvrc import read_val
from vggfeat.data.imageset import find_images
from vggfeat.data.partition import parse_partition
from vggfeat.errors import DataError, ParameterError
from vggfeat.nets.formats import read
from vggfeat.report.tables import write_files
from vggfeat.settings import Execution, Features, NetEvaluation

if TYPE_CHECKING:
    from vggfeat.classification.validation import Validation
    from vggfeat.cli.working import Work
    from vggfeat.data.datasets.ilsvrc import LabelledImages
    from vggfeat.data.imageset import ImageSet
    from vggfeat.data.partition import Partition
    from vggfeat.experiments.classification import ClassifiedImage, FusedPosteriors
    from vggfeat.features.extractor import DenseExtractor
    from vggfeat.features.summary import Summary

SHOWN = 100  # images that are printed; --csv and --json have all

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
Likeliest = Annotated[
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
        help="With --data: write result.json and classes.csv into this folder.",
        rich_help_panel=options.OUTPUT,
    ),
]


@dataclass(frozen=True)
class ScoreOutputs:
    """What is shown and written of posteriors, as the options of these names."""

    top: int
    table: Path | None
    results: Path | None
    out: Path | None
    quiet: bool
    as_json: bool

    def check(self, data: Path | None, *, made_first: Path | None = None) -> None:
        """Refuse, before anything is computed, what needs the true classes or cannot be written.

        Parameters
        ----------
        data : Path, optional
            Where the true classes are.
        made_first : Path, optional
            A folder that the command makes before the table, which may lie in it.

        Raises
        ------
        ParameterError
            If results are to be written without them.
        StoreError
            If a file or folder cannot be written.
        """
        if self.results and data is None:
            raise ParameterError(
                "--results is for errors, which need the true classes: add --data."
            )
        check_folder("--out", self.out)
        check_file("--csv", self.table, made_by=(self.results, made_first))
        check_folder("--results", self.results)


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
            "panel": options.EVALUATION,
        },
    ),
    evaluation=options.model_options(NetEvaluation),
    execution=options.model_options(Execution, *options.DESCRIBING),
)
def command(
    *,
    context: typer.Context,
    sources: Annotated[list[str] | None, options.IMAGES] = None,
    data: Data = None,
    relative_to: options.RelativeTo = None,
    path_column: options.PathColumn = None,
    label_column: options.LabelColumn = None,
    typed: options.Typed,
    evaluation: NetEvaluation,
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
    table: Likeliest = None,
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
    from vggfeat.cli.working import Work
    from vggfeat.experiments.classification import compute_posteriors

    if (data is None) == (not sources):
        raise ParameterError("Name either images, or images with their classes by --data.")
    if data is not None and relative_to is not None:
        raise ParameterError("--relative-to says nothing to --data. Leave it out.")
    outputs = ScoreOutputs(top, table, results, out, quiet, as_json)
    outputs.check(data, made_first=out)
    share = _read_share(shard, context)
    work = Work(execution, quiet)
    for name, mode in (("grid", "dense"), ("locations", "multicrop")):
        if evaluation.mode == mode and name in evaluation.model_fields_set:
            raise ParameterError(
                f"--{name} says nothing to --mode {mode}. Leave it out, or take another --mode."
            )
    if evaluation.multi_scale and "Q" in typed:
        raise ParameterError("--multi-scale says nothing to --Q. Leave out one of the two.")
    features = Features(layers=("fc8",)).but(**{"nets": _net_of(typed.get("weights")), **typed})
    images: LabelledImages | ImageSet
    columns = {"path_column": path_column, "label_column": label_column}
    if data is None:
        images = find_images(sources or [], relative_to, **columns)
        note_left_out(images.left_out, quiet=quiet)
    else:
        images = read_labelled(data, quiet=quiet, **columns)
    how: dict[str, Any] = {"on_bad_image": execution.on_bad_image, "workers": execution.workers}

    def open_net(features: Features, net: str) -> DenseExtractor:
        extractor = work.network_for(features, net, out)
        work.opened.clear()  # the next one needs the memory
        return extractor

    posteriors, validation = compute_posteriors(
        images,
        features,
        evaluation,
        open_net,
        scales=typed.get("Q"),
        folder=out,
        share=share,
        extract=partial(_extract, work, **how),
    )
    if shard is not None:
        _show_share(posteriors, share, len(images), as_json)
    else:
        show_posteriors(posteriors, validation, outputs)


def _extract(work: Work, *given: Any, **how: Any) -> Summary:
    """Compute what a store lacks, and show how it goes on."""
    with work_progress("classify", quiet=work.quiet) as progress:
        return work.extract(*given, **{**how, "progress": progress.images})


def read_labelled(data: Path, *, quiet: bool, **columns: str | None) -> LabelledImages:
    """Find images and their classes, and warn of those that have none."""
    labelled = read_val(data, **columns)
    note_left_out(labelled.left_out, quiet=quiet)
    return labelled


def show_posteriors(
    posteriors: FusedPosteriors, validation: Validation | None, outputs: ScoreOutputs
) -> None:
    """Print how often posteriors err; where no classes are known, the likeliest of each image."""
    columns = min(outputs.top, len(posteriors.classes))
    failed = posteriors.failed
    if failed and not any(posteriors.counts):
        warn_of_failures(failed)
        raise DataError("No image could be read, so that there is nothing to tell.")
    images: list[ClassifiedImage] = []  # that are printed
    count = 0
    with _likeliest_file(outputs.table, columns, failed, true=bool(validation)) as write:
        if validation is not None:
            result = posteriors.evaluate(validation, outputs.top, write)
        else:
            for count, image in enumerate(posteriors.likeliest(outputs.top), 1):
                if write:
                    write(image)
                if outputs.as_json or count <= SHOWN:
                    images.append(image)
    if validation is None:
        _show_images(posteriors, images, count, outputs)
    else:
        show_result(result, as_json=outputs.as_json)
        if outputs.results:
            written = write_files(result, outputs.results)
            note(f"Results: {', '.join(map(str, written))}", quiet=outputs.quiet)
    warn_of_failures(failed)


def _show_images(
    posteriors: FusedPosteriors,
    images: Sequence[ClassifiedImage],
    count: int,
    outputs: ScoreOutputs,
) -> None:
    if outputs.as_json:
        values: list[dict[str, Any]] = [
            {"image": image.name, "classes": [label.to_dict() for label in image.likeliest]}
            for image in images
        ]
        values += [{"image": name, "error": reason} for name, reason in posteriors.failed.items()]
        show({"images": values, "scores": posteriors.origin}, as_json=True)
        return
    lines: list[list[object]] = [
        [image.name if not rank else "", label.name, f"{100 * label.probability:.1f}"]
        for image in images
        for rank, label in enumerate(image.likeliest)
    ]
    show({}, grid(["image", "class", "%"], lines), as_json=False)
    if count > SHOWN:
        note(f"And {count - SHOWN:,} more images; --csv FILE writes all.")


@contextmanager
def _likeliest_file(
    table: Path | None, columns: int, failed: dict[str, str], *, true: bool
) -> Iterator[Callable[[ClassifiedImage], object] | None]:
    """Open the CSV of the likeliest classes; it is there whole or not at all."""
    if table is None:
        yield None
        return

    make_folder(table.parent)  # that of results is written to when the table is complete
    with (
        replacing(table) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        heads = [f"{word} {rank}" for rank in range(1, columns + 1) for word in ("class", "share")]
        writer.writerow(["name", *["true"] * true, *heads, "error"])

        def write(image: ClassifiedImage) -> None:
            label = [] if image.true is None else [image.true]
            cells = [
                cell for likely in image.likeliest for cell in (likely.name, likely.probability)
            ]
            writer.writerow([image.name, *label, *cells, ""])

        yield write
        blanks = [""] * (2 * columns + true)
        writer.writerows([name, *blanks, reason] for name, reason in failed.items())


def _net_of(weights: list[str] | None) -> list[str] | None:
    """Name the net of a file of weights, where it alone says what is meant."""
    if weights and len(weights) == 1 and Path(weights[0]).expanduser().is_file():
        return [read(weights[0]).net]
    return None


def _read_share(typed: str | None, context: typer.Context) -> Partition:
    """Read which share of how many; what tells of all images says nothing to one."""
    for name, option in (("table", "--csv"), ("results", "--results"), ("top", "--top")):
        if typed and options.is_typed(context, name):
            raise ParameterError(
                f"{option} says nothing to one share of the images. Give it to the "
                "last run, without --shard, which puts all shares together."
            )
    return parse_partition(typed)


def _show_share(posteriors: FusedPosteriors, share: Partition, images: int, as_json: bool) -> None:
    done, failed = min(posteriors.counts), posteriors.failed
    text = f"Share {share} is done: {counted(done, 'image')}."
    if not len(share.rows(images)):
        only = counted(images, "image")
        text = f"Share {share} is empty: only {only} to do. Nothing was done."
    show({"shard": str(share), "images": done, "failed": failed}, text, as_json=as_json)
    warn_of_failures(failed)
