"""Names of files and classes that act where they are shown: pages, tables, terminals, stores."""

from __future__ import annotations

import csv
import io
import random
from contextlib import redirect_stderr
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from helpers.rows import evaluate_splits
from rich.console import Console
from storing import make_store

from fuzz.campaign import Campaign
from vggfeat.cli.console import grid, note
from vggfeat.report.page import write_page
from vggfeat.report.tables import render_facts, render_result, write_files
from vggfeat.store.export import export
from vggfeat.store.store import FeatureStore

PIECES = (
    "<script>alert(1)</script>",
    '"',
    "'",
    "<!--",
    "&lt;",
    "</title>",
    "javascript:x",
    "{{7*7}}",
)
PIECES += ("\nModel: safe", "\u2028", "\u2029", "\x85", "\v", "\f")
PIECES += ("=1+1", "=cmd|' /C calc'!A0", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r", "\n", ",", ";")
PIECES += ("\x1b]0;owned\x07", "\x1b[2J", "\x9b31m", "\u202e", "\x08", "\x7f", "[red]", "[/]")
PIECES += (
    "\udce9",
    "\udcff",
    "-rf",
    "--help",
    "%s",
    "${x}",
    "`x`",
    "a.jpg",
    "é",
    "\U0001f600",
    " ",
)


class Elements(HTMLParser):
    """Collects what kinds of elements and attributes a page has, and where its links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.kinds: set[tuple[str, ...]] = set()
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.kinds |= {(tag,), *((tag, name) for name, _ in attrs)}
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]


class Names(Campaign):
    """Six images of two classes, all of whose names are hostile, reported in every way."""

    name = "names"
    cases = 500
    allowed = ("os.link",)  # with which a store's manifest gets its name

    def prepare(self) -> list[bytes]:
        self.X, self.labels = np.repeat(np.eye(2), 4, axis=0), np.repeat([0, 1], 4)
        self.plain: set[tuple[str, ...]] = set()
        page = self.case(random.Random(0), -1)
        result = self._result(page)
        self._page(result, page[:8], page[8:])
        self.lines = len(self._printed(result, page[:8]))
        return []

    def case(self, dice: random.Random, number: int) -> list[str]:
        if number < 0:
            return [f"image{at}.jpg" for at in range(8)] + ["cat", "dog"]
        made: dict[str, None] = {}
        while len(made) < 10:
            pieces = dice.choices(PIECES, k=dice.choice((1, 1, 2, 4)))
            made["".join(pieces).replace("\0", "")] = None
        return list(made)

    def attempt(self, case: list[str]) -> None:
        names, classes = case[:8], case[8:]
        result = self._result(case)
        self._page(result, names, classes)
        self._tables(result, classes)
        self._terminal(result, names)
        self._store(names)

    def _result(self, case: list[str]) -> Any:
        result = evaluate_splits(self.X, self.labels, case[8:], case[:8]).result
        told = {"weights": case[0]}
        return replace(result, title=case[8], settings=told, provenance=told)

    def _page(self, result: Any, names: list[str], classes: list[str]) -> None:
        page = self.folder / "page.html"
        write_page(result, page)
        found = Elements(page.read_text(encoding="utf-8"))
        self.plain = self.plain or found.kinds  # the first case has harmless names
        assert found.kinds <= self.plain, found.kinds - self.plain
        acting = [one for one in found.links if not one.startswith(("#", "data:image/"))]
        assert not acting, acting

    def _tables(self, result: Any, classes: list[str]) -> None:
        write_files(result, self.folder / "results")
        rows = self._rows(self.folder / "results" / "classes.csv")
        assert [row[0] for row in rows[1:]] == classes, rows

    def _rows(self, path: Path) -> list[list[str]]:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return list(csv.reader(file))

    def _terminal(self, result: Any, names: list[str]) -> None:
        lines = self._printed(result, names)
        acting = {one for line in lines for one in line if not one.isprintable()}
        assert not acting, f"it would act on a terminal: {acting}"
        assert len(lines) == self.lines, f"a name says a line of its own: {lines}"

    def _printed(self, result: Any, names: list[str]) -> list[str]:
        """Return the lines of all that names are in, on a terminal that is wide enough for all."""
        out = io.StringIO()
        console = Console(file=out, width=10_000, color_system=None, force_terminal=False)
        table = grid([names[0]], [[name] for name in names])
        for part in (render_result(result), render_facts({"names": " ".join(names)}), table):
            console.print(part)
        with redirect_stderr(out):
            for name in names:
                note(f"Warning: {name}: not an image")
        return out.getvalue().removesuffix("\n").split("\n")

    def _store(self, names: list[str]) -> None:
        where = self.folder / f"store{len(list(self.folder.iterdir()))}"
        failed = {names[7]: f"it is {names[0]}"}
        make_store(where, names=names, failed=failed)
        back = FeatureStore(where)
        assert back.names == names[:7], back.names
        assert back.failed == failed, back.failed
        table = self.folder / "table.csv"
        export(where, table)
        assert [row[0] for row in self._rows(table)[1:]] == names[:7]


CAMPAIGNS = (Names,)
