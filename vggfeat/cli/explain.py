"""``vggfeat explain``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from vggfeat._io.atomic import make_folder, write_atomic
from vggfeat._io.text import counted
from vggfeat.cli import options
from vggfeat.cli.console import (
    Json,
    Quiet,
    count_progress,
    note,
    note_left_out,
    restart_hint,
    show_result,
    warn_of_failures,
)
from vggfeat.cli.predict import ModelWeights, failed_table, refuse_none
from vggfeat.cli.targets import check_drawings, check_file, check_table
from vggfeat.data.image import decode
from vggfeat.data.imageset import find_images
from vggfeat.errors import ImageError
from vggfeat.report.images import describe_exactness, draw_explanation
from vggfeat.report.tables import write_csv
from vggfeat.result import Cell, Result, Table, TableColumn
from vggfeat.settings import Execution

if TYPE_CHECKING:
    from vggfeat.attribution import Explanation
    from vggfeat.data.image import ImageLike
    from vggfeat.features.extractor import DenseExtractor
    from vggfeat.svm.model import SavedModel

BEST = 3  # classes that are explained where none are named

CLASSES = (
    TableColumn("image", "Image"),
    TableColumn("class", "Class"),
    TableColumn("score", "Score", "number", signed=True),
    TableColumn("sum", "Sum of locations", "number", signed=True),
    TableColumn("bias", "Bias", "number", signed=True),
    TableColumn("x", "Strongest at x", "number"),
    TableColumn("y", "y", "number"),
)
FIGURES = (
    *CLASSES,
    *(TableColumn(name, name) for name in ("exact", "why", "row_norm", "error")),
)


@options.with_options(execution=options.model_options(Execution, "device"))
def command(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="What `svm --save` wrote.")],
    sources: options.Images,
    relative_to: options.RelativeTo = None,
    path_column: options.PathColumn = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Class; repeat for several. The best 3 by default."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the drawings, IMAGE.png each.")
    ] = Path("evidence"),
    weights: ModelWeights = None,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Write the figures of every image and class.")
    ] = None,
    execution: Execution,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Draw which parts of an image speak for a class, and which against it.

    With average pooling a class score is a sum over the image's locations, plus a bias: the map
    shows the exact part of each, over all scales and both mirror images. Where the model's settings
    are not linear (a maximum, a power) the parts still add up, and the map is not called exact.

    For example:

        vggfeat explain model photo.jpg

        vggfeat explain model photos/ --class cat --class dog --out maps
    """
    from vggfeat.experiments.predict import describe_model, open_model

    check_file("--csv", table, made_by=(out,))
    columns = [column.name for column in FIGURES]
    check_table("--csv", table, columns)
    check_drawings("--out", out, columns)
    images = find_images(sources, relative_to, path_column=path_column)
    note_left_out(images.left_out, quiet=quiet)
    loaded, extractors = open_model(
        model,
        execution.device,
        weights or (),
        classes=classes,
        tell=partial(note, quiet=quiet),
    )
    done: list[_Drawn] = []

    def write() -> None:
        if table:
            make_folder(table.parent)  # where no image could be drawn, nobody has made it
            write_csv(_figures(done), table)

    with count_progress(
        "explain", quiet=quiet, hint=lambda: restart_hint(done, table, write)
    ) as progress:
        spots = places(images.names)
        for name, image, place in zip(images.names, images.images, spots, strict=True):
            done.append(_draw(loaded, name, image, extractors, classes, out / place))
            if progress is not None:
                progress(len(done), len(images))
    write()
    failed = {drawn.image: drawn.reason for drawn in done if drawn.explanation is None}
    tables = (*_tables(done), *failed_table(failed))
    result = Result("explanations", "Explanations", (), counted(len(done), "image"), tables)
    more = {"left_out": images.left_out.to_dict(), **describe_model(loaded, extractors)}
    show_result(result, as_json=as_json, **more)
    warn_of_failures(failed)
    refuse_none(len(failed) < len(done))


class _Drawn(NamedTuple):
    """An image, its explanation, and where it is drawn, or why it has none."""

    image: str
    explanation: Explanation | None = None
    drawing: str = ""
    reason: str = ""


def _draw(
    model: SavedModel,
    name: str,
    image: ImageLike,
    extractors: Sequence[DenseExtractor],
    classes: Sequence[str] | None,
    target: Path,
) -> _Drawn:
    from vggfeat.attribution import explain

    try:
        decoded = decode(image, extractors[0].extraction)
        best = BEST if classes is None else None
        explanation = explain(model, decoded, extractors, classes, best=best)
    except ImageError as error:
        return _Drawn(name, reason=str(error))
    make_folder(target.parent)
    write_atomic(target, draw_explanation(decoded, explanation))
    return _Drawn(name, explanation, str(target))


def places(names: Sequence[str], suffix: str = ".png") -> list[Path]:
    """Place drawings below a folder as their images lie below the folder that holds them all.

    Where two would have one place, also on disks that know no capitals, each has its whole name
    in it.

    Examples
    --------
    >>> [place.as_posix() for place in places(["photos/a.jpg", "photos/new/a.jpg"])]
    ['a.png', 'new/a.png']
    >>> [place.as_posix() for place in places(["a.jpg", "A.PNG", "b.jpg"])]
    ['a.jpg.png', 'A.PNG.png', 'b.png']
    """
    full = [os.path.abspath(name) for name in names]  # noqa: PTH100  # links are not followed
    above = os.path.commonpath([os.path.dirname(path) for path in full])  # noqa: PTH120
    below = [Path(os.path.relpath(path, above)) for path in full]
    chosen = [path.with_suffix(suffix) for path in below]
    whole = [path.with_name(path.name + suffix) for path in below]
    while True:
        count = Counter(str(path).casefold() for path in chosen)
        shared = [count[str(path).casefold()] > 1 for path in chosen]
        changed = [
            long if of else path for path, long, of in zip(chosen, whole, shared, strict=True)
        ]
        if changed == chosen:
            return chosen
        chosen = changed


def _tables(done: Sequence[_Drawn]) -> tuple[Table, ...]:
    """Lay out the classes of each image, what its map is divided by, and where it is drawn."""
    drawn = [(each.image, each.explanation, each.drawing) for each in done if each.explanation]
    classes = tuple(cells for name, found, _ in drawn for cells in _class_rows(name, found))
    drawings = tuple(
        (name, where, describe_exactness(found), found.row_norm) for name, found, where in drawn
    )
    norms = tuple(
        (name, share.descriptor.path, share.norm)
        for name, found, _ in drawn
        for share in found.shares
    )
    image, norm = TableColumn("image", "Image"), TableColumn("norm", "L2 norm", "number")
    return (
        Table("classes", "Classes", CLASSES, classes),
        Table(
            "drawings",
            "Drawings",
            (image, TableColumn("drawing", "Drawn"), TableColumn("exact", "The map is"), norm),
            drawings,
            "Maps are divided by the norm of the row, and of each descriptor.",
        ),
        Table("norms", "Norms", (image, TableColumn("column", "Column"), norm), norms, shown=0),
    )


def _figures(done: Sequence[_Drawn]) -> Table:
    """Lay out all figures in one table, with a row for each image that could not be read."""
    rows: list[tuple[Cell, ...]] = []
    for each in done:
        found = each.explanation
        if found is None:
            rows.append((each.image, *[None] * (len(CLASSES) + 2), each.reason))
            continue
        behind = (str(found.exact), found.why, found.row_norm, "")
        rows += [(*cells, *behind) for cells in _class_rows(each.image, found)]
    return Table("explanations", "Explanations", FIGURES, tuple(rows))


def _class_rows(name: str, explanation: Explanation) -> list[tuple[Cell, ...]]:
    return [
        (name, label, *(of_class[key] for key in ("score", "sum", "bias")), *of_class["strongest"])
        for label, of_class in explanation.to_dict()["classes"].items()
    ]
