"""Run the paper's tables on what is here, and set each figure beside the paper's.

    python benchmarks/paper.py --root data
    python benchmarks/paper.py --root data --only table11-voc2007 --markdown voc2007.md
    python benchmarks/paper.py --root data --allow-partial --weights D=vgg16.pth E=vgg19.pth
    python benchmarks/paper.py --ilsvrc ILSVRC2012 --runs runs --only table04-multi-scale

A cell without a figure says why: the data or the weights are not on this machine (--fetch brings
them), or something went wrong. A figure of validation, where the test labels are the evaluation
server's alone, stands in brackets; one of data that are not whole has no difference. --weights also
serves Tables 3 to 7: D=FILE is every net of configuration D that is not trained in --runs, without
a difference, for nothing says at which scale S it was trained; d-256=FILE is that net alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from vggfeat.classification.recipe import Classification
from vggfeat.classification.tables import Open, Outcome, keeping_one, open_ilsvrc, run_table
from vggfeat.data.datasets import open_dataset
from vggfeat.data.datasets.card import DatasetCard, VocProtocol
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError, DataNotFound, VggfeatError, WeightsNotFound
from vggfeat.experiments.submission import write_submission
from vggfeat.experiments.svm import SVMRun, run_svm
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import Summary
from vggfeat.features.provenance import versions
from vggfeat.nets.config import TABLE_1
from vggfeat.nets.runtimes import describe_device, resolve_device
from vggfeat.recipes import Line, Recipe, load_recipe, open_recipe, recipe_names
from vggfeat.settings import Features
from vggfeat.svm.results import SVMResult
from vggfeat.svm.voc_results import APResult

COLUMNS = ("table", "row", "here %", "paper %", "difference", "")
Tell = Callable[[Summary], None]


@dataclass(frozen=True)
class Cell:
    """One figure of a table of the paper, or why it is not there.

    Parameters
    ----------
    recipe, title, row : str
        Where it stands.
    paper : float or None
        The paper's figure, in percent.
    measured, spread : float or None
        What was measured here, in percent; the spread over random splits.
    validation : bool
        Whether it was measured on the validation part, for want of test labels.
    why : str
        Why there is no figure, or none that compares with the paper's.
    detail : str
        The whole message behind `why`.
    provenance : dict or None
        Of each net: weights, device, versions.
    """

    recipe: str
    title: str
    row: str
    paper: float | None
    measured: float | None = None
    spread: float | None = None
    validation: bool = False
    why: str = ""
    detail: str = ""
    provenance: dict[str, Any] | None = None

    @property
    def difference(self) -> float | None:
        """Measured less the paper's, where both are figures of the same thing."""
        if self.measured is None or self.paper is None or self.why:
            return None
        return self.measured - self.paper

    @property
    def shown(self) -> list[str]:
        """The cell in the columns of the table."""
        here = "" if self.measured is None else f"{self.measured:.1f}"
        here += "" if self.spread is None else f" ± {self.spread:.1f}"
        paper = "–" if self.paper is None else f"{self.paper:.1f}"
        difference = "" if self.difference is None else f"{self.difference:+.1f}"
        here = f"({here})" if self.validation and here else here
        return [self.title, self.row, here, paper, difference, self.why]


@dataclass(frozen=True)
class Settings:
    """What is run, and on what.

    Parameters
    ----------
    recipes : tuple of str
        Names of shipped recipes, or files.
    root : Path or None
        Where the data are.
    ilsvrc : Path or None
        Where ILSVRC-2012 is, if not there in ``ilsvrc2012``.
    runs : Path
        Where the networks are that were trained here.
    allow_partial, fetch : bool
        Whether data that are not whole will do; whether what is absent is downloaded.
    weights : tuple of str
        Sources or files, of one configuration as ``NET=FILE``.
    trained : dict
        Files by the names of the nets of Tables 3 to 7.
    submission : Path or None
        Where the evaluation servers' files go.
    device : str
    jobs : int
    """

    recipes: tuple[str, ...]
    root: Path | None = None
    ilsvrc: Path | None = None
    runs: Path = Path("runs")
    allow_partial: bool = False
    fetch: bool = False
    weights: tuple[str, ...] | None = None
    trained: Mapping[str, str] = field(default_factory=dict)
    submission: Path | None = None
    device: str = "auto"
    jobs: int = -1


def cells(settings: Settings, tell: Callable[[str], Tell]) -> Iterator[Cell]:
    """Run every row of every recipe; no failure of one of them stops the others."""
    opened: dict[Any, DenseExtractor] = {}
    opener = keeping_one(partial(scoring, settings.device))
    for name in settings.recipes:
        tested = open_recipe(name)
        if isinstance(tested, Classification):
            yield from errors(tested, settings, opener, tell)
            continue
        recipe = load_recipe(name)
        empty = [
            Cell(recipe.name, recipe.title or recipe.name, line.name, line.expected)
            for line in recipe.table()
        ]
        try:
            card, images = open_dataset(
                recipe.dataset,
                settings.root,
                allow_partial=settings.allow_partial,
                fetch=settings.fetch,
            )
        except VggfeatError as error:
            yield from (failed(cell, error) for cell in empty)
            continue
        for cell, line in zip(empty, recipe.table(), strict=True):
            heard = tell(f"{recipe.name}, {line.name}")
            yield measured(cell, recipe, line, card, images, settings, opened, heard)


def errors(
    table: Classification, settings: Settings, opener: Open, tell: Callable[[str], Tell]
) -> Iterator[Cell]:
    """Run a table of errors on ILSVRC: two cells for each row."""
    data = Path(settings.root or os.environ.get("VGGFEAT_DATA") or "data")
    try:
        found = open_ilsvrc(
            settings.ilsvrc or data / "ilsvrc2012", allow_partial=settings.allow_partial
        )
    except VggfeatError as error:
        for row in table.rows:
            yield from of_errors(table, Outcome(row, failed=error))
        return
    weights, unlike = weights_for(table, settings)
    for done in run_table(
        table,
        found,
        opener,
        runs=settings.runs,
        weights=weights,
        progress=lambda row: tell(f"{table.name}, {row}"),
    ):
        cells_of = of_errors(table, done)
        if done.measured and not done.partial and unlike & {use.net for use in done.row.uses}:
            cells_of = (replace(cell, why="S of --weights not known") for cell in cells_of)
        yield from cells_of


def weights_for(table: Classification, settings: Settings) -> tuple[dict[str, str], set[str]]:
    """Say what each net of a table takes of --weights, and of which of them the S is not known."""
    typed = {} if settings.weights is None else dict(map(parted, settings.weights))
    weights = {name: source for name, source in settings.trained.items() if name in table.nets}
    unlike = set()
    for name, net in table.nets.items():
        source = typed.get(net.net) or typed.get("")
        if source and name not in weights and not table.trained(name, settings.runs).is_file():
            weights[name] = source
            unlike |= {name} if source != net.weights else set()
    return weights, unlike


def parted(typed: str, names: Collection[str] = TABLE_1) -> tuple[str, str]:
    """Part ``NET=SOURCE``; a source of all nets has no name."""
    name, equals, source = typed.partition("=")
    return (name, source) if equals and name in names else ("", typed)


def scoring(device: str, net: str, source: str, pool: str, folder: Path | None) -> DenseExtractor:
    """Open a network whose class scores are wanted; none are stored, so that no folder counts."""
    features = Features(nets=(net,), weights=(source,), layers=("fc8",), pool=pool)
    return network(net, features, device, {})


def of_errors(table: Classification, done: Outcome) -> Iterator[Cell]:
    """Make the cells of top-1 and top-5 error of a row."""
    for place, name in enumerate(("top-1 error", "top-5 error")):
        paper = done.row.paper[place] if done.row.paper else None
        cell = Cell(table.name, table.title or table.name, f"{done.row.name}, {name}", paper)
        if done.failed:
            yield failed(cell, done.failed)
        elif done.measured:
            yield replace(
                cell,
                measured=done.measured[place],
                why="partial" if done.partial else "",
                detail=done.partial,
                provenance=done.provenance,
            )


def measured(
    cell: Cell,
    recipe: Recipe,
    line: Line,
    card: DatasetCard,
    images: ImageSet,
    settings: Settings,
    opened: dict[Any, DenseExtractor],
    tell: Tell,
) -> Cell:
    """Run one row and fill its cell."""
    try:
        features = line.features.but(weights=settings.weights)
        run = run_svm(
            card,
            images,
            features,
            lambda net, _: network(net, features, settings.device, opened),
            recipe.classifier,
            n_jobs=settings.jobs,
            progress=tell,
        )
        return filled(cell, run, settings.submission)
    except VggfeatError as error:
        return failed(cell, error)


def filled(cell: Cell, run: SVMRun, submission: Path | None) -> Cell:
    """Put a result into a cell, with what keeps it from being compared."""
    value, spread, tested = figure(run.result)
    server = isinstance(run.card.protocol, VocProtocol) and bool(run.card.protocol.server_file)
    why = ["partial"] if run.card.partial else []
    if not tested:
        why.append("server only: mAP on val" if server else "test labels absent: mAP on val")
    cell = replace(
        cell, measured=value, spread=spread, validation=not tested, provenance=run.provenance
    )
    if submission and server and not tested:
        folder = submission / cell.recipe / re.sub(r"[^a-z0-9]+", "-", cell.row.lower()).strip("-")
        try:
            write_submission(run, folder)
            why.append(f"submission in {folder}")
        except VggfeatError as error:
            why.append(reason(error))
            cell = replace(cell, detail=str(error))
    return replace(cell, why="; ".join(why))


def figure(result: SVMResult | APResult) -> tuple[float | None, float | None, bool]:
    """Return figure and spread in percent, and whether they are of the test part."""
    if isinstance(result, SVMResult):
        return percent(result.mean_class_recall), percent(result.std), True
    value = result.mAP if result.tested else result.validation_mAP
    return percent(value), None, result.tested


def percent(share: float) -> float | None:
    """Make a share a percentage, and one that is none None."""
    return None if math.isnan(share) else 100 * share


def failed(cell: Cell, error: VggfeatError) -> Cell:
    """Leave a cell empty, and say why."""
    return replace(cell, why=reason(error), detail=str(error))


def reason(error: VggfeatError) -> str:
    """Say in a few words what stands in the way; the whole message goes to --json."""
    if isinstance(error, DataError) and "--allow-partial" in str(error):
        return "data not whole"
    if isinstance(error, DataNotFound):
        return "data absent"
    if isinstance(error, WeightsNotFound):
        return "weights absent"
    return re.split(r"[:;.]\s|\n", str(error))[0].removesuffix(".")


def network(
    net: str, features: Features, device: str, opened: dict[Any, DenseExtractor]
) -> DenseExtractor:
    """Open a network once for all rows and tables that use it alike."""
    key = features.of(net)
    if key not in opened:
        opened[key] = DenseExtractor(key, device=device)
    return opened[key]


def behind(found: Sequence[Cell], device: str) -> dict[str, Any]:
    """Say with what the figures were measured."""
    weights = {
        f"net {told.get('settings', {}).get('net', net)}: {told['weights']['source']} "
        f"({told['weights']['sha256'][:12]})": None
        for cell in found
        for net, told in (cell.provenance or {}).items()
    }
    return {
        "device": describe_device(resolve_device(device)),
        "versions": versions(),
        "weights": list(weights),
    }


def sentence(provenance: Mapping[str, Any]) -> str:
    """Write provenance as one line."""
    packages = ", ".join(f"{name} {number}" for name, number in provenance["versions"].items())
    weights = "; ".join(provenance["weights"]) or "none were used"
    return f"Device: {provenance['device']}. Weights: {weights}. Versions: {packages}."


def as_table(found: Sequence[Cell]) -> Table:
    """Lay the cells out for the terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in COLUMNS:
        number = "%" in column or column == "difference"
        table.add_column(
            column, overflow="fold", justify="right" if number else "left", no_wrap=number
        )
    for cell in found:
        table.add_row(*map(Text, cell.shown))
    return table


def as_markdown(found: Sequence[Cell], provenance: Mapping[str, Any]) -> str:
    """Write the cells as a table in Markdown, provenance below."""
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *(cell.shown for cell in found)]
    lines = ["| " + " | ".join(one.replace("|", "\\|") for one in row) + " |" for row in rows]
    return "\n".join([*lines, "", sentence(provenance), ""])


def as_json(found: Sequence[Cell], provenance: Mapping[str, Any]) -> str:
    """Write the cells with all that is behind them."""
    told = [{**asdict(cell), "difference": cell.difference} for cell in found]
    return json.dumps({"cells": told, "provenance": provenance}, indent=2) + "\n"


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and refuse what would otherwise look like absent data."""
    tables = [name for name in recipe_names() if name.startswith("table")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="where the data are; VGGFEAT_DATA or ./data")
    parser.add_argument("--ilsvrc", type=Path, help="where ILSVRC-2012 is; ROOT/ilsvrc2012")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where networks are that were trained here"
    )
    parser.add_argument("--allow-partial", action="store_true", help="use data that are not whole")
    parser.add_argument("--fetch", action="store_true", help="download absent data and weights")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"of {', '.join(tables)}, or files"
    )
    parser.add_argument(
        "--weights", nargs="+", metavar="[NET=]SOURCE", default=[], action="extend",
        help="other weights than the authors', for all nets or for some",
    )  # fmt: skip
    parser.add_argument("--submission", type=Path, help="where the servers' files go")
    parser.add_argument("--json", type=Path, help="write cells and provenance")
    parser.add_argument("--markdown", type=Path, help="write the table")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=-1, help="processes that train; -1 for all")
    given = parser.parse_args(argv)
    given.only = given.only or tables
    if unknown := [n for n in given.only if n not in recipe_names() and not Path(n).is_file()]:
        parser.error(f"there is no recipe {unknown[0]!r}; there are {', '.join(tables)}, or files")
    tested = [one for one in map(open_recipe, given.only) if isinstance(one, Classification)]
    named = {name for table in tested for name in table.nets}
    given.trained = dict(parted(one, named) for one in given.weights)
    given.trained.pop("", None)
    given.weights = [one for one in given.weights if not parted(one, named)[0]]
    for one in given.weights:
        if "=" in one and not (parted(one)[0] or Path(one).is_file()):
            known = ", ".join(sorted({*TABLE_1, *named}))
            parser.error(f"--weights {one}: there is no such net or file; the nets are {known}")
    if given.root is not None and not given.root.is_dir():
        parser.error(f"there is no folder {given.root}")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write what was asked for."""
    given = parsed(argv)
    if not given.fetch:
        os.environ["VGGFEAT_OFFLINE"] = "1"
    settings = Settings(
        tuple(given.only),
        given.root,
        given.ilsvrc,
        given.runs,
        given.allow_partial,
        given.fetch,
        tuple(given.weights) or None,
        given.trained,
        given.submission,
        given.device,
        given.jobs,
    )
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def tell(what: str) -> Tell:
            bar.update(task, description=what, total=None, completed=0)
            return lambda done: bar.update(
                task, total=done.images, completed=done.present + done.computed + done.failed
            )

        found = list(cells(settings, tell))
    provenance = behind(found, given.device)
    console = Console(highlight=False)
    console.print(as_table(found))
    console.print(sentence(provenance), markup=False)
    for path, text in (
        (given.json, as_json(found, provenance)),
        (given.markdown, as_markdown(found, provenance)),
    ):
        if path:
            path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
