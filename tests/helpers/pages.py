"""Pages and tables of results, as a browser and a spreadsheet read them."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """Tags with their attributes, the text, and the cells of tables, without bars."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.cells: list[list[str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.in_cell = False
        self.feed(path.read_text(encoding="utf-8"))

    @property
    def rows(self) -> list[list[str]]:
        """Text of every cell, by row, spaces squeezed."""
        return [[" ".join(cell.split()) for cell in row] for row in self.cells]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag; open a table, a row or a cell."""
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "table":
            self.rows_of = self.tables[given.get("data-name") or ""] = []
        elif tag == "tr":
            self.cells.append([])
            self.rows_of.append(self.cells[-1])
        elif tag in ("td", "th") and given.get("class") != "bars":
            self.cells[-1].append("")
            self.in_cell = True

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += data
        if self.in_cell:
            self.cells[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        """Leave a cell."""
        self.in_cell = self.in_cell and tag not in ("td", "th")


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a table; names keep their bytes."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))
