"""A result as text: tables on the terminal, CSV and JSON files, and how values are written."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.bar import Bar
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from vggfeat._io.atomic import make_folder, write_atomic
from vggfeat._io.text import printable, shorten
from vggfeat.result import Cell, Gallery, Kind, Measure, Result, Table, TableColumn, plain

NOTHING = "–"
RESULT = "result.json"
MANY = 8  # numbers of a setting; of more the first and the last are written
BAR = 24  # characters, of all bars of a row; half of it in a table of many columns
NAME = 12  # characters that a name has at least, however narrow the terminal is


def write_value(value: Cell, kind: Kind = "text", *, signed: bool = False) -> str:
    """Write a value as people read it; a dash where there is none.

    Examples
    --------
    >>> write_value(0.9274, "percent"), write_value(4952, "int"), write_value(None, "percent")
    ('92.7', '4,952', '–')
    >>> write_value(0.00316227766, "number"), write_value(1350.4, "number")
    ('0.00316', '1,350')
    >>> write_value(0.00001, "number")
    '10⁻⁵'
    >>> write_value(0.0123, "seconds"), write_value(7.25, "seconds"), write_value(754, "seconds")
    ('12 ms', '7.2 s', '12 min 34 s')
    >>> write_value(-0.012, "percent", signed=True)
    '−1.2'
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, str) or kind == "text":
        return printable(value)
    if kind == "seconds":
        return _duration(value)
    sign = "+" if signed else ""
    if kind == "percent":
        text = f"{100 * value:{sign}.1f}"
    elif kind == "int":
        text = f"{value:{sign},.0f}"
    else:
        text = f"{value:{sign},.0f}"
        if abs(value) < 100:
            text = f"{sign if value >= 0 else ''}{shorten(value)}"
    return f"−{text[1:]}" if text.startswith("-") else text


def write_cell(value: Cell, column: TableColumn) -> str:
    """Write a value of a column."""
    return write_value(value, column.kind, signed=column.signed)


def write_heading(column: TableColumn) -> str:
    """Write the heading of a column, with the unit of its values.

    Examples
    --------
    >>> write_heading(TableColumn("recall", "Recall", "percent"))
    'Recall, %'
    """
    unit = column.kind == "percent" and not column.signed and column.title != "±"
    return f"{column.title}, %" if unit else column.title


def write_measure(measure: Measure) -> str:
    """Write a measure with its spread and its unit.

    Examples
    --------
    >>> write_measure(Measure("recall", "mean class recall", 0.9274, spread=0.005))
    '92.7 ± 0.5 %'
    """
    text = write_value(measure.value, measure.kind)
    if plain(measure.spread) is not None:
        text += f" ± {write_value(measure.spread, measure.kind)}"
    return f"{text} %" if measure.kind == "percent" and text != NOTHING else text


def write_fact(value: object) -> str:
    """Write a setting: a number, a text, or several of them.

    Examples
    --------
    >>> write_fact([256, 384]), write_fact(0.1), write_fact({"net": "D", "flip": True})
    ('256, 384', '0.1', 'net: D, flip: yes')
    >>> write_fact([10.0**power for power in range(-4, 5)])
    '0.0001 … 10000 (9 values)'
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(name)}: {write_fact(of)}" for name, of in value.items())
    if isinstance(value, list | tuple):
        if len(value) > MANY and all(isinstance(item, int | float) for item in value):
            return f"{write_fact(value[0])} … {write_fact(value[-1])} ({len(value)} values)"
        texts = list(map(write_fact, value))
        return ("; " if any(", " in text for text in texts) else ", ").join(texts) or NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return NOTHING
    return shorten(value, 4) if isinstance(value, float) else printable(value)


def bar_shares(column: TableColumn, values: Sequence[Cell]) -> list[float]:
    """Return the length of each value's bar, from 0 to 1: a percent is one already.

    Examples
    --------
    >>> bar_shares(TableColumn("n", "Images", "int", bar=True), [5, None, 10])
    [0.5, 0.0, 1.0]
    """
    known = [plain(value) for value in values]
    numbers = [float(value) if isinstance(value, int | float) else 0.0 for value in known]
    whole = 1.0 if column.kind == "percent" else max(numbers, default=0.0)
    return [min(max(number / whole, 0.0), 1.0) if whole > 0 else 0.0 for number in numbers]


def render_table(table: Table) -> RenderableType:
    """Lay out a table for the terminal, with bars, and at most the rows that are to be shown.

    Parameters
    ----------
    table : Table

    Returns
    -------
    rich renderable

    Examples
    --------
    >>> from rich.console import Console
    >>> columns = (TableColumn("class", "Class"), TableColumn("recall", "Recall", "percent"))
    >>> table = Table("classes", "Classes", columns, (("cat", 0.75), ("dog", None)), shown=1)
    >>> Console(width=40, color_system=None).print(render_table(table))
    Classes
    Class  Recall, %
    cat         75.0
    and 1 more row
    """
    rows = table.rows[: table.shown]
    shown = [place for place, column in enumerate(table.columns) if not column.detail]
    grid = Grid(box=None, pad_edge=False, header_style="dim")
    bars: dict[int, list[float]] = {}
    room = NAME if len(shown) <= 6 else NAME // 3
    for place in shown:
        column = table.columns[place]
        text = column.kind == "text"
        longest = max((len(write_cell(row[place], column)) for row in rows), default=0)
        grid.add_column(
            Text(write_heading(column)),
            justify="left" if text else "right",
            overflow="fold",
            min_width=min(longest, room) if text else longest,  # a number is never cut
        )
        if column.bar:
            bars[place] = bar_shares(column, [row[place] for row in rows])
            grid.add_column("")
    width = BAR // max(1, len(bars)) // (2 if len(shown) > 5 else 1)
    for number, row in enumerate(rows):
        cells: list[RenderableType] = []
        for place in shown:
            cells.append(Text(write_cell(row[place], table.columns[place])))
            if place in bars:
                cells.append(_ShareBar(1, 0, bars[place][number], width=width, color="cyan"))
        grid.add_row(*cells, style="bold" if number in table.emphasis else None)
    parts: list[RenderableType] = [Text(table.title, style="bold"), grid]
    if more := len(table.rows) - len(rows):
        parts.append(Text(f"and {more:,} more row{'s' if more > 1 else ''}", style="dim"))
    return Group(*parts)


class _ShareBar(Bar):
    """A bar of blocks, or of ``#`` for an encoding that has no blocks."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not options.ascii_only:
            yield from super().__rich_console__(console, options)
        else:
            yield Text("#" * round((self.width or 0) * self.end / self.size), self.style)


def render_result(result: Result) -> RenderableType:
    """Lay out everything of a result that fits a terminal; the headline is its last line.

    Parameters
    ----------
    result : Result

    Returns
    -------
    rich renderable

    Examples
    --------
    >>> from rich.console import Console
    >>> recall = Measure("recall", "mean class recall", 0.93, spread=0.01)
    >>> result = Result("pets", "Pets", (recall,), "over 3 random splits", settings={"C": 0.1})
    >>> Console(width=72, color_system=None).print(render_result(result))
    C  0.1
    <BLANKLINE>
    Mean class recall 93.0 ± 1.0 %  (over 3 random splits)
    """
    parts = [render_facts(result.settings)] if result.settings else []
    parts += [render_table(table) for table in result.tables.values() if table.shown != 0]
    if (beside := result.beside_paper()) is not None:
        parts.append(render_table(beside))
    if result.seconds:
        times = ", ".join(
            f"{printable(stage)} {_duration(value)}" for stage, value in result.seconds.items()
        )
        parts.append(Text(f"Times: {times}", style="dim"))
    if result.partial:
        why = "; ".join(map(printable, result.partial))
        parts.append(Text(f"Partial, so that nothing compares with it: {why}", style="yellow"))
    parts += [Text(printable(note), style="yellow") for note in result.notes]
    if result.failed:
        parts.append(Text(f"Failed: {printable(result.failed)}", style="red"))
    parts.append(_headline(result))
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts[:-1]), parts[-1])


def render_facts(facts: Mapping[str, object]) -> RenderableType:
    """Lay out names and values in two columns; texts of a list stand one below the other."""
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        texts = value if isinstance(value, list) else []
        lines = [printable(text) for text in texts if isinstance(text, str)] or [write_fact(value)]
        grid.add_row(Text(printable(name)), Text("\n".join(lines)))
    return grid


def write_csv(table: Table, path: Path) -> Path:
    """Write all rows of a table, unrounded; names keep their bytes, and no value is empty.

    Raises
    ------
    StoreError
        If the disk is full or the folder may not be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # which quotes \r and \n in names
    writer.writerow([column.name for column in table.columns])
    writer.writerows(map(plain, row) for row in table.rows)
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))
    return path


def write_files(result: Result, folder: Path) -> list[Path]:
    """Write a result for other programs: CSV of tables, lines and matrices, and ``result.json``.

    Parameters
    ----------
    result : Result
    folder : Path
        Where to; made if absent. Files of an earlier result are replaced, or go where this one has
        no such table.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    StoreError
        If the disk is full or the folder may not be written.

    Examples
    --------
    >>> import tempfile
    >>> table = Table("classes", "Classes", (TableColumn("class", "Class"),), (("cat",), ("dog",)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = write_files(Result("pets", "Pets", (), parts=(table,)), Path(folder))
    ...     print([file.name for file in files], files[0].read_text().split())
    ['classes.csv', 'result.json'] ['class', 'cat', 'dog']
    """
    make_folder(folder)
    figures = [part for part in result.figures.values() if not isinstance(part, Gallery)]
    tables = {figure.name: figure.to_table() for figure in figures} | result.tables
    earlier = _table_names(folder / RESULT)
    files = [write_csv(table, folder / f"{name}.csv") for name, table in tables.items()]
    text = json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n"
    write_atomic(folder / RESULT, text.encode())
    for name in earlier - {*tables}:
        (folder / f"{name}.csv").unlink(missing_ok=True)
    return [*files, folder / RESULT]


def _table_names(path: Path) -> set[str]:
    """Name the tables of an earlier result, if there is one."""
    try:
        content = json.loads(path.read_bytes())
        return {
            name for part in ("tables", "figures") for name in content[part] if name.isidentifier()
        }
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _headline(result: Result) -> Text:
    line = Text()
    for measure in result.headline:
        title = printable(measure.title)
        title = title if line or title[1:2].isupper() else title[:1].upper() + title[1:]
        line.append(f"{', ' if line else ''}{title} ")
        line.append(write_measure(measure), style="bold cyan")
    return line.append(f"  ({printable(result.about)})" if result.about else "", style="dim")


def _duration(value: float) -> str:
    """Write seconds with as much detail as they deserve."""
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
