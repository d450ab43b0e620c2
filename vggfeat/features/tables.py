"""CSV files whose cells are texts wherever they are opened, and never formulas."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from typing import IO

# A cell that begins with one of these is computed by a spreadsheet, and may start programs; the
# mark in front of such a cell is itself marked, so that a reader knows which to take away.
_ACTING = ("=", "+", "-", "@", "\t", "\r", "'")
_BOTH = "\r\n"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?(inf|nan)", re.IGNORECASE)


def harmless(cell: object) -> object:
    """Put an apostrophe before a text that a spreadsheet would compute.

    Examples
    --------
    >>> [harmless(cell) for cell in ("=1+1", "-a.jpg", "'a", "a=b", "-0.5", -0.5)]
    ["'=1+1", "'-a.jpg", "''a", 'a=b', '-0.5', -0.5]
    """
    if isinstance(cell, str) and cell.startswith(_ACTING) and not _NUMBER.fullmatch(cell):
        return "'" + cell
    return cell


def as_written(cell: str) -> str:
    """Inverse of :func:`harmless`.

    Examples
    --------
    >>> as_written("'=1+1"), as_written("a")
    ('=1+1', 'a')
    """
    return cell.removeprefix("'")


class Writer:
    """A writer of CSV, as :func:`csv.writer` makes it, of harmless cells.

    Parameters
    ----------
    file : text file
    lineterminator : str
        What ends a line.
    """

    def __init__(self, file: IO[str], lineterminator: str = "\r\n") -> None:
        self._file, self._end = file, lineterminator
        # It puts into quotes what ends a line by its own reckoning alone; a reader knows both.
        self._writer = csv.writer(self, lineterminator=_BOTH)

    def write(self, line: str) -> None:
        """Write a line that is made already."""
        self._file.write(line.removesuffix(_BOTH) + self._end)

    def writerow(self, row: Iterable[object]) -> None:
        """Write a row."""
        self._writer.writerow(list(map(harmless, row)))

    def writerows(self, rows: Iterable[Iterable[object]]) -> None:
        """Write rows."""
        for row in rows:
            self.writerow(row)


def dict_writer(file: IO[str], columns: Sequence[str]) -> csv.DictWriter[str]:
    """Make a :class:`csv.DictWriter` of harmless cells."""
    writer = csv.DictWriter(file, columns)
    writer.writer = Writer(file)  # type: ignore[assignment]
    return writer
