"""``vggfeat explain``."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggfeat._io.atomic import make_folder, replacing, write_atomic
from vggfeat.cli import options
from vggfeat.cli.console import Json, Quiet, grid, interruptible, note_error, restart_hint, show
from vggfeat.cli.predict import ModelWeights, refuse_none
from vggfeat.cli.targets import check_file, check_folder
from vggfeat.data.image import decode
from vggfeat.data.imageset import find_images
from vggfeat.errors import ImageError
from vggfeat.report.tables import render_facts
from vggfeat.settings import Execution

if TYPE_CHECKING:
    from vggfeat.attribution import Explanation
    from vggfeat.data.image import ImageLike
    from vggfeat.features.extractor import DenseExtractor
    from vggfeat.svm.model import SavedModel

BEST = 3  # classes that are explained where none are named

Explained = tuple[str, "Explanation | None", str]
"""An image's name, its explanation, and where it is drawn, or why it has none."""


@options.with_options(execution=options.model_options(Execution, "device"))
def command(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="What `svm --save` wrote.")],
    sources: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES", help="What `vggfeat extract` takes."),
    ],
    relative_to: options.RelativeTo = None,
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
    from vggfeat.attribution import rows_of
    from vggfeat.cli.experiment import open_networks
    from vggfeat.svm.model import load, refuse_boxes

    check_folder("--out", out)
    check_file("--csv", table, made_by=(out,))
    images = find_images(sources, relative_to)
    loaded = load(model)
    refuse_boxes(loaded)
    rows_of(classes, loaded.classes)
    extractors = open_networks(loaded, execution.device, weights, quiet=quiet)
    done: list[Explained] = []

    def write() -> None:
        if table:
            _write_table(table, done)

    with interruptible(lambda: restart_hint(done, table, write)):
        spots = places(images.names)
        for name, image, place in zip(images.names, images.images, spots, strict=True):
            done.append(_explained(loaded, name, image, extractors, classes, out / place))
            if not as_json:
                _tell(done[-1])
    write()
    if as_json:
        typer.echo(json.dumps([_plain(one) for one in done], indent=2))
    refuse_none(any(found is not None for _, found, _ in done))


def _explained(
    model: SavedModel,
    name: str,
    image: ImageLike,
    extractors: Sequence[DenseExtractor],
    classes: Sequence[str] | None,
    target: Path,
) -> Explained:
    from vggfeat.attribution import explain
    from vggfeat.report.images import draw_explanation

    try:
        decoded = decode(image, extractors[0].extraction)
        best = BEST if classes is None else None
        found = explain(model, decoded, extractors, classes, best=best)
    except ImageError as error:
        note_error(f"Warning: {name}", error)
        return name, None, str(error)
    make_folder(target.parent)
    write_atomic(target, draw_explanation(decoded, found))
    return name, found, str(target)


def places(names: Sequence[str], suffix: str = ".png") -> list[Path]:
    """Place drawings below a folder as their images lie below the folder that holds them all.

    Examples
    --------
    >>> [place.as_posix() for place in places(["photos/a.jpg", "photos/new/a.jpg"])]
    ['a.jpg.png', 'new/a.jpg.png']
    """
    full = [os.path.abspath(name) for name in names]  # noqa: PTH100  # links are not followed
    above = os.path.commonpath([os.path.dirname(path) for path in full])  # noqa: PTH120
    return [Path(os.path.relpath(path, above) + suffix) for path in full]


def _tell(one: Explained) -> None:
    name, found, where = one
    if found is None:
        return
    from vggfeat.report.images import describe_exactness

    headings = ["class", "score", "sum of locations", "bias", "strongest at x, y"]
    rows: list[list[object]] = [
        [row["class"], *(f"{row[key]:+.4f}" for key in ("score", "sum", "bias")), place]
        for row in _rows(name, found)
        for place in [f"{row['x']:.0f}, {row['y']:.0f}"]
    ]
    told = {
        "image": name,
        "drawn": where,
        "map": describe_exactness(found),
        "L2 norms": _norms(found),
    }
    show({}, render_facts(told), grid(headings, rows), as_json=False)


def _norms(found: Explanation) -> str:
    """Say what the map was divided by; these follow from the whole image."""
    each = ", ".join(
        f"{net} {layer} {pool} Q{Q} {norm:.4g}" for (net, layer, pool, Q), norm, _ in found.shares
    )
    return f"{each}; row {found.row_norm:.4g} (the map is divided by them)"


def _rows(name: str, found: Explanation) -> list[dict[str, Any]]:
    return [
        {
            "image": name,
            "class": label,
            **{key: of_class[key] for key in ("score", "sum", "bias")},
            "x": of_class["strongest"][0],
            "y": of_class["strongest"][1],
            "exact": found.exact,
            "why": found.why,
            "row_norm": found.row_norm,
        }
        for label, of_class in found.to_dict()["classes"].items()
    ]


def _plain(one: Explained) -> Mapping[str, Any]:
    name, found, where = one
    if found is None:
        return {"image": name, "error": where}
    return {"image": name, "drawing": where, **found.to_dict()}


def _write_table(target: Path, done: Sequence[Explained]) -> None:
    columns = ("image", "class", "score", "sum", "bias", "x", "y", "exact", "why", "row_norm")
    make_folder(target.parent)  # where no image could be drawn, nobody has made it
    with (
        replacing(target) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, (*columns, "error"))
        writer.writeheader()
        for name, found, where in done:
            rows = [{"image": name, "error": where}] if found is None else _rows(name, found)
            writer.writerows(rows)
