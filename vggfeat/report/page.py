"""A result as one HTML page that needs nothing but itself: no network, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vggfeat._io.atomic import make_folder, write_atomic
from vggfeat._io.text import printable
from vggfeat.report.figures import draw_heat_map, draw_lines, draw_panel, line_colours
from vggfeat.report.images import OpenImage, tile_address
from vggfeat.report.tables import (
    bar_shares,
    write_cell,
    write_fact,
    write_heading,
    write_measure,
    write_value,
)
from vggfeat.result import Cell, GalleryImage, Matrix, Part, Result, Table, TableColumn

if TYPE_CHECKING:
    from jinja2 import Environment

LONG = 30  # rows; a longer table scrolls in a box
FIGURES = 12  # classes; up to so many, a confusion matrix is a table of figures, above a heat map
LARGE = 120  # CSS pixels: an image of a gallery that is larger keeps its shape
WIDE = 6  # columns; a matrix of so many is wider than a telephone


class Section(NamedTuple):
    """Parts of a page under one heading; ``anchor`` is where links lead."""

    anchor: str
    title: str
    parts: list[Part]


def write_page(result: Result, target: Path, images: OpenImage | None = None) -> Path:
    """Write the page, whole or not at all.

    Parameters
    ----------
    result : Result
    target : Path
        The page; its folder is made.
    images : callable, optional
        Opens an image by its name; one that it cannot open is shown by its name.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    StoreError
        If the disk is full or the folder may not be written.

    Examples
    --------
    >>> import tempfile
    >>> from vggfeat.result import Measure
    >>> result = Result("pets", "Pets", (Measure("recall", "mean class recall", 0.93),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_page(result, Path(folder) / "page.html").read_text()
    >>> page[page.index("<title>") : page.index("</title>")]
    '<title>Pets: 93.0 % mean class recall'
    """

    @cache
    def address(tile: GalleryImage, size: int) -> str | None:
        return tile_address(tile, images, 2 * size)  # so that it is crisp on dense screens

    times = Table(
        "times",
        "Times",
        (TableColumn("stage", "Stage"), TableColumn("seconds", "Time", "seconds", bar=True)),
        tuple(result.seconds.items()),
        f"{write_value(sum(result.seconds.values()), 'seconds')} in all.",
    )
    context = {
        "result": result,
        "paper": result.beside_paper(),
        "sections": _sections(result.parts),
        "times": times if result.seconds else None,
        "address": lambda tile, size: address(replace(tile, caption="", kind=""), size),
    }
    page = _environment().get_template("page.html.j2").render(context)
    make_folder(target.parent)
    write_atomic(target, page.encode())
    return target


def _environment() -> Environment:
    import jinja2  # which --help does not need

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files and classes are a stranger's words
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters.update(
        measure=write_measure,
        heading=write_heading,
        value=write_value,
        fact=write_fact,
        kind=lambda part: type(part).__name__.lower(),
    )
    environment.globals.update(
        bars=_bars,
        cell=write_cell,
        colours=line_colours,
        draw_heat_map=draw_heat_map,
        draw_lines=draw_lines,
        draw_panel=draw_panel,
        as_map=_as_map,
        shades=_shades,
        LONG=LONG,
        LARGE=LARGE,
        WIDE=WIDE,
        flatten=_flatten,
    )
    return environment


def _sections(parts: Sequence[Part]) -> list[Section]:
    """Put neighbours that share a heading under it."""
    shown = [part for part in parts if not (isinstance(part, Table) and part.shown == 0)]
    return [
        Section(part.name, title, [part, *others])
        for title, (part, *others) in groupby(shown, lambda part: part.section or part.title)
    ]


def _bars(table: Table, rows: Sequence[Sequence[Cell]]) -> list[list[float]]:
    """Return for each row the lengths of its bars, from 0 to 1."""
    columns = [(place, column) for place, column in enumerate(table.columns) if column.bar]
    lengths = [bar_shares(column, [row[place] for row in rows]) for place, column in columns]
    return [list(of_row) for of_row in zip(*lengths, strict=True)] if columns else [[]] * len(rows)


def _flatten(value: object, key: str = "") -> list[tuple[str, str]]:
    """List what is behind a result as rows: the path of keys, and the value in words."""
    inner: list[tuple[object, object]] = []
    if isinstance(value, Mapping):
        inner = list(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        inner = list(enumerate(value, 1))
    if not inner:
        return [(key, write_fact(value))]
    return [
        row for name, of in inner for row in _flatten(of, f"{key}, {name}" if key else str(name))
    ]


def _is_confusion(matrix: Matrix) -> bool:
    return matrix.rows == matrix.columns


def _as_map(matrix: Matrix) -> bool:
    return _is_confusion(matrix) and len(matrix.rows) > FIGURES


def _shades(matrix: Matrix, row: Sequence[float]) -> list[float]:
    """Shade values from 0 to 1: counts by their share of the row, others within its range."""
    known = [value for value in row if value == value]
    if _is_confusion(matrix):
        return [value / max(sum(known), 1) for value in row]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return [
        0.0 if value != value else 0.4 * (value - low) / (high - low) if high > low else 0.4
        for value in row
    ]
