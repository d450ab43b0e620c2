"""Run the paper's tables on what is here, and set each figure beside the paper's.

    python benchmarks/paper.py --root data
    python benchmarks/paper.py --root data --only table11-voc2007 --markdown voc2007.md
    python benchmarks/paper.py --ilsvrc ILSVRC2012 --runs runs --only table04-multi-scale

Each table is one `vggfeat run TABLE --json`. A row without a figure says why: its data or weights
are not on this machine (--fetch brings them), or something went wrong. Words after -- go to every
`vggfeat run`: -- --device cuda --allow-partial.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from vggfeat.data.datasets.fetch import data_folder
from vggfeat.recipes import open_recipe, recipe_names
from vggfeat.recipes.svm import SVMRecipe
from vggfeat.report.tables import render_table, write_cell
from vggfeat.result import Table, TableColumn

COLUMNS = (
    TableColumn("table", "Table"),
    TableColumn("row", "Row"),
    TableColumn("measure", "Measure"),
    TableColumn("here", "Here", "percent"),
    TableColumn("paper", "Paper", "percent"),
    TableColumn("difference", "Difference", "percent", signed=True),
    TableColumn("remark", "Remark"),
)

REASONS = {3: "data absent or not whole: see above", 4: "weights absent: see above"}


class Outcome(NamedTuple):
    """What a recipe printed as JSON, or why it printed none."""

    title: str
    rows: list[dict[str, Any]]
    error: str = ""


def run(name: str, words: Sequence[str]) -> Outcome:
    """Run a recipe in a process of its own, whose progress is seen."""
    command = [sys.executable, "-m", "vggfeat", "run", name, "--json", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own command
    title = open_recipe(name).title or name
    if not done.stdout:
        return Outcome(title, [], REASONS.get(done.returncode, "failed: see above"))
    return Outcome(title, json.loads(done.stdout)["rows"])


def lines(outcome: Outcome) -> Iterator[tuple[Any, ...]]:
    """Give a line for each figure that the paper has, or could be compared with."""
    if outcome.error:
        yield (outcome.title, "all", "", None, None, None, outcome.error)
    for row in outcome.rows:
        partial = "; ".join(row["partial"])
        for measure in row["measures"].values():
            if measure["reference"]:  # as chance, which the paper leaves unsaid
                continue
            paper = measure["paper"][0] if measure["paper"] else {"value": None, "unlike": ""}
            here, published = measure["value"], paper["value"]
            remark = row["failed"] or partial or paper["unlike"]
            difference = None if remark or None in (here, published) else here - published
            yield (
                outcome.title, row["row"], measure["title"], here, published, difference, remark
            )  # fmt: skip


def markdown(table: Table) -> str:
    """Write a table in Markdown."""
    heads = [column.title for column in table.columns]
    cells = [
        [write_cell(value, column) for value, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    rows = [heads, ["---"] * len(heads), *cells]
    return "".join(f"| {' | '.join(c.replace('|', '/') for c in row)} |\n" for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, and write what was asked for."""
    tables = [name for name in recipe_names() if name.startswith("table")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="where the data are; VGGFEAT_DATA or ./data")
    parser.add_argument("--ilsvrc", type=Path, help="where ILSVRC-2012 is; ROOT/ilsvrc2012")
    parser.add_argument("--runs", default="runs", help="where networks are that were trained here")
    parser.add_argument("--fetch", action="store_true", help="download absent data and weights")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=tables, help="recipes")
    parser.add_argument("--json", type=Path, help="write all that was printed, with provenance")
    parser.add_argument("--markdown", type=Path, help="write the table")
    parser.add_argument("words", nargs="*", help="after --, options of vggfeat run")
    given = parser.parse_args(argv)
    if not given.fetch:
        os.environ["VGGFEAT_OFFLINE"] = "1"
    ilsvrc = given.ilsvrc or (given.root or data_folder()) / "ilsvrc2012"
    outcomes = {}
    for name in given.only:
        words = ["--data", str(ilsvrc), "--runs", given.runs]
        if isinstance(open_recipe(name), SVMRecipe):
            words = ["--root", str(given.root)] if given.root else []
        print(f"{name} …", file=sys.stderr)
        outcomes[name] = run(name, [*words, *given.words])
    rows = tuple(line for outcome in outcomes.values() for line in lines(outcome))
    table = Table("paper", "The paper's tables", COLUMNS, rows)
    Console(highlight=False).print(render_table(table))
    if given.markdown:
        given.markdown.write_text(markdown(table), encoding="utf-8")
    if given.json:
        given.json.write_text(
            json.dumps({name: outcome._asdict() for name, outcome in outcomes.items()}, indent=1)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
