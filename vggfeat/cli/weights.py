"""``vggfeat weights``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggfeat._io.text import size
from vggfeat.cli.console import Json, Quiet, download_progress, grid, note, show
from vggfeat.cli.targets import check_file
from vggfeat.errors import ParameterError, WeightsNotFound
from vggfeat.nets.registry import NAMES, cached, fetch, listing, source_of
from vggfeat.report.tables import render_facts

if TYPE_CHECKING:
    from vggfeat.nets.weights import Description

group = typer.Typer(
    no_args_is_help=True, help="List, fetch, show and convert weights.", rich_markup_mode="markdown"
)
OwnNet = Annotated[
    str | None, typer.Option("--net", help="Its configuration, if the shapes leave it open.")
]
OwnPixels = Annotated[
    str | None,
    typer.Option(
        "--pixels",
        help="Its pixel convention, if it states none: caffe (BGR 0–255 minus the mean) or "
        "torchvision (RGB 0–1, mean and std).",
    ),
]


@group.command("list")
def list_weights(as_json: Json = False) -> None:
    """List the named weights, their licences, and which are on this machine.

    For example:

        vggfeat weights list
    """
    rows = listing()
    cells: list[list[object]] = [
        [
            row.source,
            row.net,
            row.file,
            size(row.bytes) if row.bytes else "?",
            row.licence,
            "yes" if row.cached else "no",
        ]
        for row in rows
    ]
    table = grid(["source", "net", "file", "size", "licence", "here"], cells)
    show({"weights": [asdict(row) for row in rows]}, table, as_json=as_json)


@group.command("fetch")
def fetch_weights(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="authors or torchvision.")],
    net: Annotated[str, typer.Option("--net", help="Configuration of Table 1.")] = "D",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Download weights once, resumed where it stopped, with their checksum verified.

    For example:

        vggfeat weights fetch authors --net E
    """
    if source not in (known := NAMES[1:]):  # auto is of a layer, which nobody names here
        raise ParameterError.not_one_of("source", "weights fetch", known, source)
    with download_progress(quiet=quiet) as progress:
        path = fetch(source, net, progress)
    show({"path": str(path)}, str(path), as_json=as_json)


@group.command("show")
def show_weights(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A weights file of any format that is read; or embedded, authors, torchvision, if "
            "they are on this machine.",
        ),
    ],
    net: OwnNet = None,
    as_json: Json = False,
) -> None:
    """Show what weights hold: format, net, layers, pixel convention, digest.

    For example:

        vggfeat weights show my_vgg.safetensors

        vggfeat weights show embedded
    """
    from vggfeat.nets.weights import describe

    if file in NAMES[1:]:
        entry = source_of(file, net or "D")
        if (path := cached(entry)) is None:
            raise WeightsNotFound(
                f"The weights {file} of net {entry.net} are not on this machine. Fetch them: "
                f"vggfeat weights fetch {file} --net {entry.net}"
            )
        file = str(path)
    _show_description(describe(file, net), as_json)


@group.command("convert")
def convert_weights(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A weights file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="*.safetensors or *.pth.")],
    net: OwnNet = None,
    pixels: OwnPixels = None,
    as_json: Json = False,
) -> None:
    """Convert weights to safetensors, with their pixel convention, or to torchvision's .pth.

    Reads .safetensors, .pth, .caffemodel, MatConvNet's .mat, Keras's .h5 and .onnx. Of most of them
    --pixels says the convention; without it the copy of a file that states none states none either.

    For example:

        vggfeat weights convert VGG_ILSVRC_19_layers.caffemodel vgg_e.safetensors --pixels caffe
    """
    from vggfeat.nets.weights import convert

    check_file("OUT", target, makes_folder=True)
    _show_description(convert(source, target, net, pixels), as_json)
    note(f"Wrote {target}.")


def _show_description(found: Description, as_json: bool) -> None:
    values = asdict(found) | {"path": str(found.path)}
    pixels = found.pixels
    rows: dict[str, object] = {
        "file": found.path,
        "format": found.format,
        "net": found.net,
        "layers": ", ".join(found.layers),
        "parameters": f"{found.parameters:,} ({found.dtype})",
        "numbers": f"sha256 {found.sha256}, the same in any format",
        "pixels": f"{pixels.channels}, 0–{pixels.range:g}, mean {pixels.mean}, std {pixels.std}, "
        f"pools round by {pixels.pool_rounding}"
        + (" (assumed: the file does not say)" if found.assumed else ""),
        "source": found.source,
        "licence": found.licence,
    }
    if found.ignored:
        rows["ignored"] = ", ".join(found.ignored)
    show(values, render_facts(rows), as_json=as_json)
