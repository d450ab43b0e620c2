"""``vggfeat predict``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggfeat._io.atomic import replacing
from vggfeat._io.text import counted
from vggfeat.cli import options
from vggfeat.cli.console import (
    Json,
    Quiet,
    note,
    note_left_out,
    show_result,
    warn_of_failures,
    work_progress,
)
from vggfeat.cli.targets import check_file, check_table
from vggfeat.data.imageset import find_images
from vggfeat.errors import DataError
from vggfeat.result import Cell, Result, Table, TableColumn
from vggfeat.settings import Execution

if TYPE_CHECKING:
    from vggfeat.experiments.predict import Prediction
    from vggfeat.svm.model import SavedModel

FIRST, LAST = ("name", "class"), ("remark", "error")  # columns beside the scores
NO_CLASS = "no class speaks for it"

ModelWeights = Annotated[
    list[str] | None,
    typer.Option("--weights", help="Where the weights of each net of the model lie, if moved."),
]


@options.with_options(
    execution=options.model_options(Execution, "device", "on_bad_image", "workers")
)
def command(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="What --save wrote.")],
    sources: options.Images,
    relative_to: options.RelativeTo = None,
    path_column: options.PathColumn = None,
    weights: ModelWeights = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes to show.")] = 1,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Write names, classes and all scores.")
    ] = None,
    execution: Execution,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Tell the classes of new images with a saved model.

    The network, layer, scales and aggregation are those the model was trained with. A score above
    0 means that the class's own SVM says yes; an image's class is the one of highest score. Where
    no score is above 0, no class speaks for the image, and a remark says so.

    For example:

        vggfeat predict model new_images/ --top 3

        vggfeat predict model new_images/ --csv scores.csv
    """
    from vggfeat.experiments.predict import describe_model, open_model, predict

    check_file("--csv", table)
    check_table("--csv", table, FIRST, LAST)
    images = find_images(sources, relative_to, path_column=path_column)
    note_left_out(images.left_out, quiet=quiet)
    loaded, extractors = open_model(
        model, execution.device, weights or (), tell=partial(note, quiet=quiet)
    )
    rows: list[tuple[Cell, ...]] = []
    failed: dict[str, str] = {}
    with work_progress("predict", quiet=quiet) as work, _score_file(table, loaded) as write:
        for prediction in predict(
            loaded,
            images,
            extractors,
            workers=execution.workers,
            on_bad_image=execution.on_bad_image,
            progress=work.images,
        ):
            write(prediction)
            best = enumerate(prediction.best(loaded, top).items(), 1)
            rows += [
                (prediction.name, rank, label, score, _remark(prediction) if rank == 1 else "")
                for rank, (label, score) in best
            ]
            if prediction.scores is None:
                failed[prediction.name] = prediction.reason
    result = _result(rows, failed, len(images))
    more = {"left_out": images.left_out.to_dict(), **describe_model(loaded, extractors)}
    show_result(result, as_json=as_json, **more)
    warn_of_failures(failed)
    refuse_none(len(failed) < len(images))


def _result(rows: Sequence[tuple[Cell, ...]], failed: Mapping[str, str], n: int) -> Result:
    silent = sum(row[-1] == NO_CLASS for row in rows)
    columns = (
        TableColumn("image", "Image"),
        TableColumn("rank", "Rank", "int"),
        TableColumn("class", "Class"),
        TableColumn("score", "Score", "number", signed=True),
        TableColumn("remark", "Remark", detail=not silent),
    )
    table = Table("predictions", "Predictions", columns, tuple(rows))
    notes = [
        f"No class speaks for {silent:,} of the images: all of their scores are at most 0, and "
        "the class that is named is only the least unlikely."
    ]
    return Result(
        "predictions",
        "Predictions",
        (),
        counted(n, "image"),
        (table, *failed_table(failed)),
        notes=tuple(notes if silent else ()),
    )


def _remark(prediction: Prediction) -> str:
    """Say of an image that none of the classes' SVMs says yes to it."""
    scores = prediction.scores
    return NO_CLASS if scores is not None and not (scores > 0).any() else ""


def failed_table(failed: Mapping[str, str]) -> list[Table]:
    """Name the images that could not be read, where there are any; the terminal warns of them."""
    columns = (TableColumn("image", "Image"), TableColumn("reason", "Reason"))
    table = Table("failed", "Could not be read", columns, tuple(failed.items()), shown=0)
    return [table] if failed else []


def refuse_none(readable: bool) -> None:
    """Let a command fail that has read no image at all.

    Raises
    ------
    DataError
        After the reason of each was shown.
    """
    if not readable:
        raise DataError("No image could be read, so that there is nothing to tell.")


@contextmanager
def _score_file(target: Path | None, model: SavedModel) -> Iterator[Callable[[Prediction], object]]:
    """Open the CSV of all scores before anything is computed; it is there whole or not at all."""
    if target is None:
        yield lambda prediction: None
        return

    with (
        replacing(target) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*FIRST, *model.classes, *LAST])

        def write(prediction: Prediction) -> None:
            given = prediction.scores
            scores = [""] * len(model.classes) if given is None else given.tolist()
            best = [*prediction.best(model, 1)] or [""]
            remark = _remark(prediction)
            writer.writerow([prediction.name, *best, *scores, remark, prediction.reason])

        yield write
