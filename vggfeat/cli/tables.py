"""A table of the paper, row by row, beside its figures: printed as far as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import typer

from vggfeat.cli.console import note, note_error, show
from vggfeat.errors import VggfeatError
from vggfeat.recipes.classification import ClassificationRecipe
from vggfeat.recipes.localization import LocalizationRecipe
from vggfeat.recipes.svm import SVMRecipe
from vggfeat.report.tables import render_result, render_table
from vggfeat.result import Result, beside_paper


@dataclass(frozen=True)
class FinishedRow:
    """A row of a recipe that is measured, or failed.

    Parameters
    ----------
    name : str
    result : Result
        Without figures where it failed.
    error : VggfeatError, optional
        Why it failed.
    more : mapping
        What ``--json`` has of it beside the result.
    write : callable, optional
        Writes the files of the row, and returns the exit status.
    """

    name: str
    result: Result
    error: VggfeatError | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    write: Callable[[], int] | None = None


def show_rows(
    recipe: SVMRecipe | ClassificationRecipe | LocalizationRecipe,
    rows: Iterable[FinishedRow],
    *,
    each: bool,
    as_json: bool,
) -> None:
    """Print what came out of all rows, or of those before an interrupt; exit with the worst's.

    Parameters
    ----------
    recipe : SVMRecipe, ClassificationRecipe or LocalizationRecipe
    rows : iterable of FinishedRow
    each : bool
        Whether the whole result of each row is printed as well.
    as_json : bool
        As the option of this name.
    """
    finished: list[FinishedRow] = []
    said: dict[tuple[str, ...], str] = {}  # which row an error was shown of
    worst = 0
    try:
        for row in rows:
            finished.append(row)
            if row.write:  # before anything is shown that a terminal may refuse
                worst = max(worst, row.write())
            if row.error:
                first = said.setdefault(tuple(row.error.lines), row.name)
                if first == row.name:
                    note_error(f"Error: {row.name}", row.error)
                else:
                    note(f"Error: {row.name}: the same as of {first}.")
                worst = max(worst, row.error.exit_status)
            elif each and not as_json:
                show({}, render_result(row.result), as_json=False)
    except (KeyboardInterrupt, typer.Exit):
        if finished:
            _show_table(recipe, finished, as_json=as_json)
        raise
    _show_table(recipe, finished, as_json=as_json)
    if worst:
        raise typer.Exit(worst)


def _show_table(
    recipe: SVMRecipe | ClassificationRecipe | LocalizationRecipe,
    rows: Iterable[FinishedRow],
    *,
    as_json: bool,
) -> None:
    table = beside_paper([(row.name, row.result) for row in rows], recipe.title or recipe.name)
    content = {
        "recipe": recipe.name,
        "title": recipe.title,
        "rows": [{"row": row.name, **row.result.to_dict(), **row.more} for row in rows],
        "paper": table.records(),
    }
    show(content, render_table(table), as_json=as_json)
