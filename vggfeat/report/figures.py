"""Lines and heat maps as SVG for the page; their colours are the page's, by day and by night."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from vggfeat._io.text import printable, shorten
from vggfeat.report.tables import write_value
from vggfeat.result import Axis, Lines, Matrix, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT, PANEL = 460, 260, 100  # units of a drawing; a unit is about a pixel
MARGIN = 17  # of a panel, for the words at its axes
PANEL_POINTS = 200  # of a line in a panel: more than it has pixels
FEW = 12  # points of a line that are drawn one by one
COLOURS = 4  # lines have colours of their own, up to so many
LABELLED = 40  # classes of a heat map whose names stand beside it
SENTENCE = 4  # lines that are described in words

# Matplotlib takes these for colours; the page's style sheet knows what they are.
_PLACEHOLDERS = {
    "#010100": "var(--soft)",
    "#010101": "var(--line)",
    "#010102": "var(--page)",
    **{f"#01020{number}": f"var(--line{number})" for number in range(1, COLOURS + 1)},
}
_SOFT, _GRID, _PAGE, *_CYCLE = _PLACEHOLDERS
_RIGHT, _WRONG = (59, 111, 229), (217, 119, 6)  # of a confusion: both stand on light and on dark


def draw_lines(lines: Lines) -> str:
    """Draw all lines over the two axes.

    Parameters
    ----------
    lines : Lines

    Returns
    -------
    str
        An SVG element that says in a sentence what it shows.

    Examples
    --------
    >>> recall = Series("recall", (0.1, 1.0, 10.0), (0.5, 0.9, 0.8), marks=(1,))
    >>> svg = draw_lines(Lines("c", "Choice of C", Axis("C", log=True), Axis("Recall"), (recall,)))
    >>> svg[:4], "recall 0.5 at 0.1, 0.8 at 10, marked: 0.9 at 1" in svg
    ('<svg', True)
    """
    figure, axes = _axes(WIDTH, HEIGHT)
    _scale(axes, lines)
    for number, colour in enumerate(line_colours(lines.series)):
        _draw_series(axes, lines, number, _CYCLE[colour - 1] if colour else _SOFT)
    for place, word in lines.events:
        axes.axvline(place, color=_SOFT, linewidth=1, linestyle=(0, (2, 3)))
        top = (place, 1.0)
        axes.annotate(
            printable(word), top, (0, 3), xycoords=("data", "axes fraction"), ha="center",
            textcoords="offset points", color=_SOFT, fontsize=11, parse_math=False,
        )  # fmt: skip
    return _svg(figure, lines.name, _describe(lines), [series.name for series in lines.series])


def draw_panel(lines: Lines, place: int) -> str:
    """Draw one of the lines alone, in a small square from 0 to 1, with its area filled.

    Parameters
    ----------
    lines : Lines
    place : int
        Which of its series.

    Returns
    -------
    str
        An SVG element; empty where the line has no point.
    """
    series = lines.series[place]
    if not _points(series):
        return ""
    figure, axes = _axes(PANEL + MARGIN, PANEL + MARGIN, frame=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel(lines.x.title, color=_SOFT, fontsize=11, labelpad=2)
    axes.set_ylabel(lines.y.title, color=_SOFT, fontsize=11, labelpad=2)
    for half in (axes.axvline, axes.axhline):
        half(0.5, color=_GRID, linewidth=0.6)
    x, y = _thin(series)
    axes.fill_between(x, y, color=_CYCLE[0], alpha=0.16, linewidth=0)
    axes.plot(x, y, color=_CYCLE[0], linewidth=1.6, gid="series0")
    label = f"{lines.y.title} against {lines.x.title.lower()} of {series.name}"
    return _svg(figure, f"{lines.name}{place}", label, [series.name])


def _thin(series: Series) -> tuple[list[float], list[float]]:
    """Take points spread over the line; more than the drawing has pixels are not seen."""
    n = len(series.x)
    places = np.unique(np.linspace(0, n - 1, min(n, PANEL_POINTS)).round().astype(int))
    return [series.x[place] for place in places], [series.y[place] for place in places]


def draw_heat_map(matrix: Matrix) -> str:
    """Draw a confusion matrix: each row by shares of its sum, blue where right, else orange.

    Parameters
    ----------
    matrix : Matrix

    Returns
    -------
    str
        An SVG element.
    """
    n = len(matrix.rows)
    figure, axes = _axes(WIDTH, WIDTH)
    values = np.array(matrix.values, dtype=float)
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1e-12)
    pixels = np.zeros((*values.shape, 4), np.uint8)
    pixels[..., :3] = np.where(np.eye(n, dtype=bool)[..., None], _RIGHT, _WRONG)
    pixels[..., 3] = np.where(values > 0, np.rint(255 * (0.15 + 0.85 * shares)), 0)
    axes.imshow(pixels, interpolation="none")
    axes.set_xlabel("Predicted", color=_SOFT, fontsize=12)
    axes.set_ylabel("True", color=_SOFT, fontsize=12)
    shown = range(n) if n <= LABELLED else []
    small = min(10.0, 300 / n)
    axes.set_yticks(shown, [_short(matrix.rows[k]) for k in shown], fontsize=small)
    axes.set_xticks(shown, [_short(matrix.columns[k]) for k in shown], fontsize=small, rotation=90)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)  # a class may be called $x
    label = f"{matrix.title}: {n} classes as a map, true ones downwards, predicted ones across"
    return _svg(figure, matrix.name, label, [])


def line_colours(series: Sequence[Series]) -> list[int]:
    """Assign each line the number of its colour; 0 is the quiet one of thin lines.

    Examples
    --------
    >>> styles = ("line", "dashed", "line", "thin")
    >>> line_colours([Series("", (), (), style=style) for style in styles])
    [1, 1, 2, 0]
    """
    many = sum(line.style == "line" for line in series) > COLOURS
    colours = cycle([1] if many else range(1, COLOURS + 1))
    numbers: list[int] = []
    for line in series:
        if line.style == "thin":
            numbers.append(0)
        elif line.style == "dashed" and any(numbers):
            numbers.append(numbers[-1])
        else:
            numbers.append(next(colours))
    return numbers


def _axes(width: float, height: float, *, frame: bool = True) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # takes longer than the rest of a page

    size = (width / 72, height / 72)
    if not frame:
        figure = Figure(size)
        side = 0.98 * PANEL / width
        axes = figure.add_axes((0.99 - side, 0.99 - side, side, side))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(_GRID)
    else:
        figure = Figure(size, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, colors=_SOFT, labelsize=12)
        axes.set_axisbelow(True)
    return figure, axes


def _scale(axes: Axes, lines: Lines) -> None:
    """Give both axes titles, ticks in the words of the tables, and a grid of heights."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_xscale("log" if lines.x.log else "linear")
    axes.set_yscale("log" if lines.y.log else "linear")
    for axis, meaning in ((axes.xaxis, lines.x), (axes.yaxis, lines.y)):
        axis.set_label_text(_axis_title(meaning), color=_SOFT, fontsize=12)
        if meaning.log:
            axis.set_major_locator(LogLocator())
            axis.set_minor_locator(NullLocator())
        else:
            axis.set_major_locator(MaxNLocator(5, integer=meaning.kind == "int"))
        axis.set_major_formatter(FuncFormatter(lambda value, _, of=meaning: _tick(value, of)))
    axes.grid(axis="y", color=_GRID, linewidth=1)


def _draw_series(axes: Axes, lines: Lines, number: int, colour: str) -> None:
    series = lines.series[number]
    widths = {"thin": 1.0, "strong": 3.0}
    weight = 1.2 if len(lines.series) > COLOURS else 1.8
    thin = series.style == "thin"
    axes.plot(
        series.x,
        series.y,
        color=colour,
        linewidth=widths.get(series.style, weight),
        linestyle=(0, (5, 4)) if series.style == "dashed" else "-",
        alpha=0.5 if thin else 1,
        marker="o" if len(series.x) <= FEW and not thin else "",
        markersize=4,
        gid=f"series{number}",
    )
    axes.plot(
        [series.x[place] for place in series.marks],
        [series.y[place] for place in series.marks],
        color=colour,
        linestyle="",
        marker="o",
        markersize=6 if thin else 10,
        markerfacecolor=_PAGE,
        markeredgewidth=1.4 if thin else 2.5,
        clip_on=False,
    )


def _axis_title(axis: Axis) -> str:
    title = f"{axis.title}, %" if axis.kind == "percent" else axis.title
    return f"{title} (logarithmic)" if axis.log else title


def _tick(value: float, axis: Axis) -> str:
    if axis.kind == "percent":
        return shorten(100 * value)
    return write_value(value, axis.kind)


def _points(series: Series) -> list[tuple[float, float]]:
    pairs = zip(series.x, series.y, strict=True)
    return [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


def _describe(lines: Lines) -> str:
    """Say where the lines begin and end, and where their marks are."""

    def at(point: tuple[float, float]) -> str:
        return f"{write_value(point[1], lines.y.kind)} at {write_value(point[0], lines.x.kind)}"

    sentences = []
    for series in [line for line in lines.series if line.style != "thin"][:SENTENCE]:
        if points := _points(series):
            marked = [at((series.x[place], series.y[place])) for place in series.marks]
            ends = [at(points[0]), *([at(points[-1])] if len(points) > 1 else [])]
            marks = f", marked: {', '.join(marked)}" if marked else ""
            sentences.append(f"{series.name} {', '.join(ends)}{marks}")
    about = f"{lines.title}: {_axis_title(lines.y)} against {lines.x.title}"
    return f"{about}; {'; '.join(sentences)}" if sentences else about


def _short(name: str, most: int = 24) -> str:
    name = printable(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def write_figure(figure: Figure, kind: str, **settings: Any) -> bytes:
    """Write a figure of matplotlib's as a file, whatever a user's own settings of it are."""
    import matplotlib as mpl

    file = io.BytesIO()
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters that the font lacks
        mpl.rcdefaults()
        mpl.rcParams["svg.fonttype"] = "none"
        mpl.rcParams["svg.hashsalt"] = settings.pop("salt", "")
        figure.savefig(file, format=kind, **settings)
    return file.getvalue()


def _svg(figure: Figure, name: str, label: str, titles: Sequence[str]) -> str:
    """Write a drawing as an element of the page: no ids that meet twice, no colour of its own."""
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    svg = write_figure(figure, "svg", salt=name, transparent=True, metadata=nothing).decode()
    view = re.search(r'viewBox="([^"]+)"', svg)
    assert view is not None
    body = svg[svg.index(">", view.end()) + 1 :]
    body = re.sub(r"<!--.*?-->|<style.*?</style>|<metadata.*?</metadata>", "", body, flags=re.S)
    for number, title in enumerate(titles):
        group = f'<g class="series"><title>{escape(printable(title))}</title>'
        body = body.replace(f'<g id="series{number}">', group)
    body = re.sub(r'(<(?:g|image)\b[^>]*?) id="[^"]*"', r"\1", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)  # the page's own
    body = re.sub("|".join(_PLACEHOLDERS), lambda match: _PLACEHOLDERS[match[0]], body)
    body = re.sub(r"\s*\n\s*", " ", body)
    sentence = escape(printable(label), quote=True)
    return f'<svg viewBox="{view[1]}" role="img" aria-label="{sentence}">{body}'
