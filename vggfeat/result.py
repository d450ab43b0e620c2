"""What was measured, as data: terminal, CSV, JSON and page all draw the same :class:`Result`.

Values are never rounded here. The kind of a column or measure says how terminal and page write
its values; CSV and JSON hold them as they are, so the two are equal by construction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

Kind = Literal["text", "int", "number", "percent", "seconds"]
"""How a value is written: a percent is a share from 0 to 1, written times 100."""
Cell = str | int | float | None
"""A value of a table; NaN and None are no value."""


@dataclass(frozen=True)
class Published:
    """A figure of the paper to stand beside a measure.

    Parameters
    ----------
    name : str
        Which row of which table: ``"D & E (Table 11)"``.
    value : float
        In the unit of the measure, so a share for a percent.
    spread : float, optional
        Its standard deviation, where the paper gives one.
    unlike : str
        Why a difference from it would mean nothing; empty where it means something.
    """

    name: str
    value: float
    spread: float | None = None
    unlike: str = ""


@dataclass(frozen=True)
class Measure:
    """A figure that sums up a result.

    Parameters
    ----------
    name : str
        Its key in JSON: ``"mean_class_recall"``.
    title : str
        What people call it: ``"mean class recall"``.
    value : float
        NaN where there is none, as the top-5 error of three classes.
    kind : str
        How it is written.
    spread : float, optional
        Its standard deviation over repetitions.
    paper : tuple of Published
        What the paper has for the same.
    reference : bool
        Whether it is no measurement but what to hold others against, as chance; tables of several
        results leave it out.
    """

    name: str
    title: str
    value: float
    kind: Kind = "percent"
    spread: float | None = None
    paper: tuple[Published, ...] = ()
    reference: bool = False


@dataclass(frozen=True)
class TableColumn:
    """A column of a table: its key in CSV and JSON, its heading, how its values are written.

    ``bar`` asks terminal and page for a bar of the share beside the figure; a figure that is
    ``signed``, as a difference, is written with its sign. A ``detail`` is left out on a terminal,
    which is narrow.
    """

    name: str
    title: str
    kind: Kind = "text"
    bar: bool = False
    signed: bool = False
    detail: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of values under columns.

    Parameters
    ----------
    name : str
        Its key in JSON, and the name of its CSV file.
    title : str
        Its heading.
    columns : tuple of TableColumn
    rows : tuple of tuple
        A value for each column.
    note : str
        One or two sentences for the reader.
    shown : int, optional
        Most rows on terminal and page, 0 for none; CSV and JSON have all. All by default.
    emphasis : tuple of int
        Numbers of the rows that stand out, such as the best epoch.
    section : str
        Heading that it shares with its neighbours on the page; its own title by default.

    Examples
    --------
    >>> recall = TableColumn("recall", "Recall", "percent", bar=True)
    >>> columns = (TableColumn("class", "Class"), recall)
    >>> Table("classes", "Classes", columns, (("cat", 0.75), ("dog", float("nan")))).records()
    [{'class': 'cat', 'recall': 0.75}, {'class': 'dog', 'recall': None}]
    """

    name: str
    title: str
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    shown: int | None = None
    emphasis: tuple[int, ...] = ()
    section: str = ""

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.name

    def records(self) -> list[dict[str, Cell]]:
        """Return the rows as plain JSON types, keyed by column; no value is None."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, map(plain, row), strict=True)) for row in self.rows]

    def column(self, name: str) -> list[Cell]:
        """Return the values of a column, top to bottom."""
        place = [column.name for column in self.columns].index(name)
        return [row[place] for row in self.rows]


@dataclass(frozen=True)
class Axis:
    """An axis of a drawing: what it measures, how its values are written, and its scale."""

    title: str
    kind: Kind = "number"
    log: bool = False


@dataclass(frozen=True)
class Series:
    """A line of a drawing; ``marks`` are positions of points that stand out, as the chosen C.

    A dashed line has the colour of the line before it, as training beside validation.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    marks: tuple[int, ...] = ()
    style: Literal["line", "thin", "strong", "dashed"] = "line"


@dataclass(frozen=True)
class Lines:
    """Lines over two axes, all in one drawing, or each in a small one of its own (``panels``).

    ``events`` are places on the x axis with a word each, such as the drops of a learning rate.
    """

    name: str
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    note: str = ""
    panels: bool = False
    events: tuple[tuple[float, str], ...] = ()
    section: str = ""

    def to_table(self) -> Table:
        """Return the points of all lines as rows, for a CSV file."""
        columns = (
            TableColumn("series", "Series"),
            TableColumn("x", self.x.title, self.x.kind),
            TableColumn("y", self.y.title, self.y.kind),
        )
        rows = tuple(
            (line.name, x, y) for line in self.series for x, y in zip(line.x, line.y, strict=True)
        )
        return Table(self.name, self.title, columns, rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the lines as plain JSON types."""
        return {
            "x": self.x.title,
            "y": self.y.title,
            "series": [
                {
                    "name": line.name,
                    "x": [plain(value) for value in line.x],
                    "y": [plain(value) for value in line.y],
                    "marks": list(line.marks),
                }
                for line in self.series
            ],
        }


@dataclass(frozen=True)
class Matrix:
    """A table of one kind of value, as a confusion matrix: row labels by column labels.

    ``marks`` are the places (row, column) of values that stand out, as the chosen C.
    """

    name: str
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    kind: Kind = "int"
    note: str = ""
    marks: tuple[tuple[int, int], ...] = ()
    section: str = ""

    def to_table(self) -> Table:
        """Return a row for each of its rows, for a CSV file."""
        columns = (
            TableColumn("row", "Row"),
            *(TableColumn(name, name, self.kind) for name in self.columns),
        )
        rows: list[tuple[Cell, ...]] = [
            (name, *row) for name, row in zip(self.rows, self.values, strict=True)
        ]
        return Table(self.name, self.title, columns, tuple(rows))

    def to_dict(self) -> dict[str, Any]:
        """Return the matrix as plain JSON types."""
        return {
            "rows": list(self.rows),
            "columns": list(self.columns),
            "values": [[plain(value) for value in row] for row in self.values],
            "marks": [list(place) for place in self.marks],
        }


@dataclass(frozen=True)
class BoxMark:
    """A box to draw on an image: (x0, y0, x1, y1) in its pixels, and what the box is."""

    box: tuple[float, float, float, float]
    kind: Literal["true", "predicted", "window", "single"]
    label: str = ""


@dataclass(frozen=True)
class GalleryImage:
    """An image with a caption.

    Parameters
    ----------
    image : str
        Its name.
    caption : str
    kind : {"", "wrong", "difficult"}
        How it is framed.
    boxes : tuple of BoxMark
        Drawn on it.
    jpeg : bytes, optional
        A drawing to show instead of the image, such as a heat map over it.
    """

    image: str
    caption: str = ""
    kind: Literal["", "wrong", "difficult"] = ""
    boxes: tuple[BoxMark, ...] = ()
    jpeg: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Strip:
    """Images in a row under a heading."""

    title: str
    tiles: tuple[GalleryImage, ...]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Strips of images; only the page draws them, what they show stands in the tables.

    ``size`` is the side of an image on the page, in CSS pixels.
    """

    name: str
    title: str
    strips: tuple[Strip, ...]
    note: str = ""
    size: int = 88
    section: str = ""


Part = Table | Lines | Matrix | Gallery


@dataclass(frozen=True)
class Result:
    """A measurement and all that stands behind it.

    Parameters
    ----------
    name : str
        Of what was measured: a data set, a run, a row of a recipe.
    title : str
        The same for people.
    headline : tuple of Measure
        The figure that counts, and others like it.
    about : str
        One phrase on what the headline was measured: ``"over 3 random splits"``.
    parts : tuple of Table, Lines, Matrix or Gallery
        In the order of the page.
    settings : mapping
        What a reader asks for first: data, network, descriptor, C.
    provenance : mapping
        The rest: versions, digests, seeds.
    seconds : mapping of str to float
        Time of each stage.
    notes : tuple of str
        Warnings.
    partial : tuple of str
        Why the figures compare with nothing published, as images that are missing; empty where
        they do.
    failed : str
        Why there is no figure, of a row of a recipe that could not be measured.

    Examples
    --------
    >>> paper = (Published("D (Table 11)", 0.918),)
    >>> recall = Measure("mean_class_recall", "mean class recall", 0.93, paper=paper)
    >>> result = Result("caltech101", "Caltech-101", (recall,), "over 3 random splits")
    >>> result.to_dict()["measures"]["mean_class_recall"]["value"]
    0.93
    >>> [round(value, 3) for value in result.beside_paper().rows[0][1:]]
    [0.93, 0.918, 0.012]
    """

    name: str
    title: str
    headline: tuple[Measure, ...]
    about: str = ""
    parts: tuple[Part, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    failed: str = ""

    @property
    def tables(self) -> dict[str, Table]:
        """Tables by name, in the order of the page."""
        return {part.name: part for part in self.parts if isinstance(part, Table)}

    @property
    def figures(self) -> dict[str, Lines | Matrix | Gallery]:
        """Figures by name, in the order of the page."""
        return {part.name: part for part in self.parts if not isinstance(part, Table)}

    def beside_paper(self) -> Table | None:
        """Set the headline beside the paper's figures; None where the paper has none."""
        if not any(measure.paper for measure in self.headline):
            return None
        return beside_paper([(None, self)])

    def to_dict(self) -> dict[str, Any]:
        """Return everything but galleries as plain JSON types; NaN becomes None."""
        figures = {
            name: figure.to_dict()
            for name, figure in self.figures.items()
            if not isinstance(figure, Gallery)
        }
        return {
            "name": self.name,
            "title": self.title,
            "measures": {
                measure.name: {
                    "title": measure.title,
                    "value": plain(measure.value),
                    "spread": plain(measure.spread),
                    "reference": measure.reference,
                    "paper": [
                        {
                            "name": figure.name,
                            "value": figure.value,
                            "spread": figure.spread,
                            "unlike": figure.unlike,
                        }
                        for figure in measure.paper
                    ],
                }
                for measure in self.headline
            },
            "about": self.about,
            "tables": {name: table.records() for name, table in self.tables.items()},
            "figures": figures,
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
            "seconds": dict(self.seconds),
            "notes": list(self.notes),
            "partial": list(self.partial),
            "failed": self.failed,
        }


def beside_paper(results: Sequence[tuple[str | None, Result]], title: str = "") -> Table:
    """Set results beside the paper's figures: measured, published, difference.

    Parameters
    ----------
    results : sequence of (row name or None, Result)
        A named result has one row, as a line of a recipe, beside the first figure that the paper
        has for it. One without a name has a row for each figure of the paper.
    title : str
        Heading of the table.

    Returns
    -------
    Table
        For each measure its value, the paper's and the difference, with spreads where there are
        any; of a measure that the paper has for no row the value alone, and that of named rows
        only. There is no difference where data are partial or the paper's figure is of something
        else; the last column says why. Where any data are partial, there are no bars.
    """
    named = {
        measure.name: measure
        for _, result in results
        for measure in result.headline
        if not measure.reference
    }
    compared = {m.name for _, result in results for m in result.headline if m.paper}
    measures = [
        measure
        for name, measure in named.items()
        if name in compared or any(row is not None for row, _ in results)
    ]
    columns = [TableColumn("row", "row" if title else "paper's row")]
    whole = not any(result.partial for _, result in results)  # else bars would compare
    for measure in measures:
        bar = whole and len(compared) <= 1 and measure.kind == "percent" and measure is measures[0]
        columns += [
            TableColumn(measure.name, measure.title, measure.kind, bar=bar),
            TableColumn(f"{measure.name}_spread", "±", measure.kind),
            TableColumn(f"{measure.name}_paper", "paper", measure.kind, bar=bar),
            TableColumn(f"{measure.name}_paper_spread", "±", measure.kind),
            TableColumn(f"{measure.name}_difference", "difference", measure.kind, signed=True),
        ]
    rows = [
        cells
        for name, result in results
        for cells in _rows_beside_paper(name, result, [measure.name for measure in measures])
    ]
    columns.append(TableColumn("remark", "remark"))
    places = [
        place
        for place, column in enumerate(columns)
        if not column.name.endswith(("_spread", "_paper", "_difference", "remark"))
        or column.name.removesuffix("_paper").removesuffix("_difference") in compared
        or any(row[place] not in ("", None) for row in rows)
    ]
    return Table(
        "paper",
        title or "Beside the paper",
        tuple(columns[place] for place in places),
        tuple(tuple(row[place] for place in places) for row in rows),
    )


def _rows_beside_paper(
    name: str | None, result: Result, measures: Sequence[str]
) -> Iterable[tuple[Cell, ...]]:
    own = {measure.name: measure for measure in result.headline}
    most = max((len(measure.paper) for measure in result.headline), default=0)
    for place in range(most if name is None else 1):
        cells: list[Cell] = []
        figures = []
        for measure_name in measures:
            measure = own.get(measure_name, Measure(measure_name, measure_name, math.nan))
            figure = measure.paper[place] if place < len(measure.paper) else None
            unlike = bool(result.partial) or figure is None or bool(figure.unlike)
            difference = None if unlike or figure is None else measure.value - figure.value
            published = (figure.value, figure.spread) if figure else (None, None)
            spread = measure.spread if name else None  # else the headline says it
            cells += [measure.value, spread, *published, difference]
            figures += [figure] if figure else []
        remark = next((figure.unlike for figure in figures if figure.unlike), "")
        if result.partial and figures:
            remark = "partial data"
        if result.failed:
            remark = "failed"
        yield (name or (figures[0].name if figures else result.name), *cells, remark)


def plain(value: Any) -> Cell:
    """Turn a number of NumPy's into one of Python's; one that is not finite becomes None.

    Examples
    --------
    >>> plain(float("nan")), plain(0.5), plain(3), plain("cat")
    (None, 0.5, 3, 'cat')
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None
