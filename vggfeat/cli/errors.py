"""Tables 3 to 7 on the terminal: errors on ILSVRC, row by row, beside the paper's."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vggfeat.classification.tables import keeping_one, open_ilsvrc, run_table
from vggfeat.cli.console import grid, note, note_error, show, work_progress
from vggfeat.cli.working import Work
from vggfeat.errors import ParameterError, WeightsNotFound
from vggfeat.settings import Features

if TYPE_CHECKING:
    from vggfeat.classification.tables import Open, Outcome
    from vggfeat.features.extractor import DenseExtractor
    from vggfeat.features.pipeline import Progress
    from vggfeat.recipes import ClassificationRecipe


def run_errors(
    table: ClassificationRecipe,
    work: Work,
    data: Path,
    runs: Path,
    weights: list[str] | None,
    folder: Path | None,
    allow_partial: bool,
    as_json: bool,
) -> None:
    """Run a recipe of classification errors, and print it beside the paper's figures."""
    given = _named(table, weights or [])
    found = open_ilsvrc(data, allow_partial=allow_partial)
    if found.partial:
        note(f"Warning: {found.where} has {found.partial}: errors compare with nothing published.")
    done: list[Outcome] = []
    with ExitStack() as bars:

        def progress(row: str) -> Progress | None:
            bars.close()  # that of the row before
            note("", f"{table.name}, {row}", quiet=work.quiet)
            return bars.enter_context(work_progress("classify", quiet=work.quiet)).images

        for one in run_table(
            table,
            found,
            opener(work),
            runs=runs,
            weights=given,
            folder=folder,
            on_bad_image=work.execution.on_bad_image,
            workers=work.execution.workers,
            progress=progress,
            extract=work.extract,
        ):
            done.append(one)
            if one.failed:
                note_error(f"Error: {one.row.name}", one.failed)
    result = {"recipe": table.name, "rows": [one.to_dict() for one in done]}
    columns = [table.title, "top-1/top-5 error %", "paper %", "difference"]
    show(result, grid(columns, [_line(one) for one in done]), as_json=as_json)
    if worst := max(one.failed.exit_status if one.failed else 0 for one in done):
        raise typer.Exit(worst)


def opener(work: Work) -> Open:
    """Make what opens a network of a row, keeping one at a time in memory."""

    def open_net(net: str, source: str, pool: str, folder: Path | None) -> DenseExtractor:
        work.opened.clear()
        features = Features(nets=(net,), weights=(source,), layers=("fc8",), pool=pool)
        return work.network_for(features, net, folder)

    return keeping_one(open_net)


def _named(table: ClassificationRecipe, weights: list[str]) -> dict[str, str]:
    """Read weights as they are typed: the name of one of the table's nets, and a file."""
    given = dict(one.partition("=")[::2] for one in weights)
    if wrong := [name for name, source in given.items() if name not in table.nets or not source]:
        known = ", ".join(f"{name}=FILE" for name in table.nets)
        raise ParameterError.of("weights", table.name, f"of {known}", wrong[0])
    return given


def _line(one: Outcome) -> list[object]:
    def both(pair: tuple[float, float] | None, how: str = ".1f") -> str:
        return "/".join(f"{value:{how}}" for value in pair) if pair else "–"

    why = one.partial
    if one.failed:
        why = "weights absent" if isinstance(one.failed, WeightsNotFound) else "failed: see above"
    away = why or both(one.difference, "+.1f")
    return [one.row.name, both(one.measured), both(one.row.paper), away]
