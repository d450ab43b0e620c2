"""``vggfeat predict``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggfeat._io.atomic import replacing
from vggfeat.cli import options
from vggfeat.cli.console import Json, Quiet, grid, note, show, work_progress
from vggfeat.cli.targets import check_file
from vggfeat.data.imageset import find_images
from vggfeat.errors import DataError
from vggfeat.settings import Execution

if TYPE_CHECKING:
    from vggfeat.experiments.predict import Prediction
    from vggfeat.svm.model import SavedModel

ModelWeights = Annotated[
    list[str] | None,
    typer.Option("--weights", help="Where the weights of each net of the model lie, if moved."),
]
Best = tuple[str, dict[str, float], str]
"""An image's name, its best classes with their scores, and why it has none."""


@options.with_options(
    execution=options.model_options(Execution, "device", "on_bad_image", "workers")
)
def command(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="What --save wrote.")],
    sources: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES", help="What `vggfeat extract` takes."),
    ],
    relative_to: options.RelativeTo = None,
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
    0 means that the class's own SVM says yes; an image's class is the one of highest score.

    For example:

        vggfeat predict model new_images/ --top 3

        vggfeat predict model new_images/ --csv scores.csv
    """
    from vggfeat.cli.experiment import open_networks
    from vggfeat.experiments.predict import predict
    from vggfeat.svm.model import load, refuse_boxes

    check_file("--csv", table)
    images = find_images(sources, relative_to)
    loaded = load(model)
    refuse_boxes(loaded)
    extractors = open_networks(loaded, execution.device, weights, quiet=quiet)
    with work_progress("predict", quiet=quiet) as work, _score_table(table, loaded) as write:
        best: list[Best] = []
        for one in predict(
            loaded,
            images,
            extractors,
            workers=execution.workers,
            on_bad_image=execution.on_bad_image,
            progress=work.images,
        ):
            write(one)
            best.append((one.name, _best(loaded, one, top), one.reason))
    _show_predictions(best, as_json)
    refuse_none(any(not reason for _, _, reason in best))


def _best(model: SavedModel, one: Prediction, top: int) -> dict[str, float]:
    if one.scores is None:
        return {}
    order = one.scores.argsort()[::-1][:top]
    return {model.classes[c]: float(one.scores[c]) for c in order}


def _show_predictions(best: list[Best], as_json: bool) -> None:
    if as_json:
        rows = [
            {"image": name, "error": reason} if reason else {"image": name, "classes": classes}
            for name, classes, reason in best
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    lines: list[list[object]] = [
        ["" if rank else name, label, f"{score:+.2f}"]
        for name, classes, _ in best
        for rank, (label, score) in enumerate(classes.items())
    ]
    show({}, grid(["image", "class", "score"], lines), as_json=False)
    for name, _, reason in best:
        if reason:
            note(f"Warning: {name}: {reason}")


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
def _score_table(
    target: Path | None, model: SavedModel
) -> Iterator[Callable[[Prediction], object]]:
    """Open the CSV of all scores before anything is computed; it is there whole or not at all."""
    if target is None:
        yield lambda one: None
        return

    with (
        replacing(target) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["name", "class", *model.classes, "error"])

        def write(one: Prediction) -> None:
            scores = [""] * len(model.classes) if one.scores is None else one.scores
            writer.writerow([one.name, *(_best(model, one, 1) or [""]), *scores, one.reason])

        yield write
