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
from vggfeat.settings import Execution, Features, NetEvaluation

if TYPE_CHECKING:
    from vggfeat.classification.classes import Classes
    from vggfeat.classification.scores import Floats, Scores
    from vggfeat.classification.validation import Validation
    from vggfeat.data.datasets.ilsvrc import LabelledImages
    from vggfeat.data.partition import Partition

SHOWN = 100  # images that are printed; --csv and --json have all
Best = list[tuple[int, float]]
"""Classes and their probabilities, the likeliest first."""

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
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES", help="What `vggfeat extract` takes."),
    ] = None,
    data: Data = None,
    relative_to: options.RelativeTo = None,
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
    from vggfeat.classification.classes import classes_of
    from vggfeat.classification.modes import find_pools, find_test_scales, score
    from vggfeat.classification.validation import match_classes
    from vggfeat.cli.working import Work

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
    base = Features(layers=("fc8",), pool="+".join(find_pools(evaluation)))
    features = base.but(**{"nets": _net_of(typed.get("weights")), **typed})
    labelled = read_labelled(data) if data is not None else None
    images = labelled.image_set() if labelled else find_images(sources or [], relative_to)
    how: dict[str, Any] = {"on_bad_image": execution.on_bad_image, "workers": execution.workers}
    validation: Validation | None = None
    scores: list[Scores] = []
    for net in features.nets:
        extractor = work.network_for(features, net, out)
        work.opened.clear()  # the next one needs the memory
        if labelled and validation is None:
            validation = match_classes(labelled, classes_of(extractor.weights))
        scales = typed.get("Q") or find_test_scales(
            extractor.weights, multi_scale=evaluation.multi_scale
        )
        with work_progress("classify", quiet=quiet) as progress:
            scores += score(
                images,
                extractor,
                scales,
                out,
                shard=share,
                progress=progress.images,
                extract=partial(work.extract, **how),
            )[0]
    if shard is not None:
        _show_share(scores, share, len(images), as_json)
    else:
        show_scores(scores, validation, outputs)


def read_labelled(data: Path) -> LabelledImages:
    """Find images and their classes, and warn of those that have none."""
    labelled = read_val(data)
    if labelled.loose:
        note(
            f"Warning: {labelled.where} has {counted(labelled.loose, 'image')} beside the class "
            "folders, which are of no class and left out."
        )
    return labelled


def show_scores(
    scores: Sequence[Scores], validation: Validation | None, outputs: ScoreOutputs
) -> None:
    """Print the errors of posteriors; where no classes are known, the likeliest of each image."""
    from vggfeat.classification.evaluate import evaluate
    from vggfeat.classification.scores import same_classes
    from vggfeat.report.tables import write_files

    classes = same_classes(scores)
    failed = {name: reason for of_net in scores for name, reason in of_net.failed.items()}
    if failed and not any(of_net.names for of_net in scores):
        warn_of_failures(failed)
        raise DataError("No image could be read, so that there is nothing to tell.")
    if validation is None:
        _show_images(scores, classes, failed, outputs)
    else:
        with _likeliest(outputs, classes, failed, validation) as write:
            result = evaluate(scores, validation, watch=write)
        show_result(result, as_json=outputs.as_json)
        if outputs.results:
            written = write_files(result, outputs.results)
            note(f"Results: {', '.join(map(str, written))}", quiet=outputs.quiet)
    warn_of_failures(failed)


def _show_images(
    scores: Sequence[Scores], classes: Classes, failed: dict[str, str], outputs: ScoreOutputs
) -> None:
    from vggfeat.classification.scores import describe_origin, posteriors, same_images

    names = same_images(scores)
    best: list[Best] = []  # of those that are printed
    with _likeliest(outputs, classes, failed, None) as write:
        start = 0
        for block in posteriors(scores, names):
            write(names[start : start + len(block)], block)
            shown = len(block) if outputs.as_json else max(0, SHOWN - start)
            best += _best(block[:shown], outputs.top)
            start += len(block)
    if outputs.as_json:
        images: list[dict[str, Any]] = [
            {"image": name, "classes": [_plain(classes, *pair) for pair in likeliest]}
            for name, likeliest in zip(names, best, strict=True)
        ]
        images += [{"image": name, "error": reason} for name, reason in failed.items()]
        show({"images": images, "scores": describe_origin(scores)}, as_json=True)
        return
    lines: list[list[object]] = [
        [name if not rank else "", classes.names[place], f"{100 * share:.1f}"]
        for name, likeliest in zip(names, best, strict=False)
        for rank, (place, share) in enumerate(likeliest)
    ]
    show({}, grid(["image", "class", "%"], lines), as_json=False)
    if len(names) > SHOWN:
        note(f"And {len(names) - SHOWN:,} more images; --csv FILE writes all.")


def _best(block: Floats, top: int) -> list[Best]:
    from vggfeat.classification.evaluate import top_k

    places = top_k(block, top)
    return [
        [(int(place), float(row[place])) for place in likeliest]
        for row, likeliest in zip(block, places, strict=True)
    ]


def _plain(classes: Classes, place: int, probability: float) -> dict[str, Any]:
    return {
        "class": classes.names[place],
        "key": classes.keys[place],
        "index": place,
        "probability": probability,
    }


@contextmanager
def _likeliest(
    outputs: ScoreOutputs, classes: Classes, failed: dict[str, str], validation: Validation | None
) -> Iterator[Callable[[Sequence[str], Floats], None]]:
    """Open the CSV of the likeliest classes; it is there whole or not at all."""
    if outputs.table is None:
        yield lambda names, block: None
        return

    true = bool(validation)
    columns = min(outputs.top, len(classes))
    make_folder(outputs.table.parent)  # that of results is written to when the table is complete
    with (
        replacing(outputs.table) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        heads = [f"{word} {rank}" for rank in range(1, columns + 1) for word in ("class", "share")]
        writer.writerow(["name", *["true"] * true, *heads, "error"])

        def write(names: Sequence[str], block: Floats) -> None:
            labels = validation.labels_of(names).tolist() if validation else []
            own = [[classes.names[label]] for label in labels] or [[] for _ in names]
            for name, label, likeliest in zip(names, own, _best(block, outputs.top), strict=True):
                cells = [cell for place, p in likeliest for cell in (classes.names[place], p)]
                writer.writerow([name, *label, *cells, ""])

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


def _show_share(scores: list[Scores], share: Partition, images: int, as_json: bool) -> None:
    done = min(len(of_net.names) for of_net in scores)
    failed = {name: reason for of_net in scores for name, reason in of_net.failed.items()}
    text = f"Share {share} is done: {counted(done, 'image')}."
    if not len(share.rows(images)):
        only = counted(images, "image")
        text = f"Share {share} is empty: only {only} to do. Nothing was done."
    show({"shard": str(share), "images": done, "failed": failed}, text, as_json=as_json)
    warn_of_failures(failed)
