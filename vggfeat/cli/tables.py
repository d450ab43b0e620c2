"""Tables of the paper that are of features and linear SVMs, row by row, beside its figures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vggfeat.cli.console import console, note, note_error, show
from vggfeat.cli.experiment import Outputs, evaluate_svm
from vggfeat.data.datasets.card import PaperFigure
from vggfeat.errors import VggfeatError
from vggfeat.report.tables import render_result, render_table
from vggfeat.result import Measure, Result, beside_paper
from vggfeat.svm.protocols import protocol_of
from vggfeat.svm.protocols.base import published

if TYPE_CHECKING:
    from vggfeat.cli.options import Typed
    from vggfeat.cli.working import Work
    from vggfeat.data.datasets.card import DatasetCard
    from vggfeat.recipes import ResolvedRow, SVMRecipe


@dataclass(frozen=True)
class Overrides:
    """What was typed instead of a table's own."""

    dataset: str | None
    root: Path | None
    allow_partial: bool
    typed: Typed
    features: Path | None


def run_table(
    recipe: SVMRecipe, work: Work, overrides: Overrides, outputs: Outputs, *, as_json: bool
) -> None:
    """Run a recipe of features, and print its rows beside the figures that are expected."""
    card, images = work.dataset(
        overrides.dataset or recipe.dataset,
        overrides.root,
        overrides.allow_partial,
        recipe.classifier,
    )
    protocol_of(card).check(card, images, recipe.classifier)
    if outputs.submission:
        protocol_of(card).check_submission(card, images)
    rows: list[tuple[str, Result]] = []
    records: list[dict[str, Any]] = []
    worst = 0
    for row in recipe.table():
        note("", f"{recipe.name}, {row.name}", quiet=work.quiet)
        own = _card_of(row, card, same=overrides.dataset is None)
        background: dict[str, Any] = {}
        try:
            features = row.features.but(**overrides.typed)
            run = evaluate_svm(work, own, images, features, recipe.classifier, overrides.features)
        except VggfeatError as error:  # the other rows are as good without this one
            note_error(f"Error: {row.name}", error)
            result, status = _failed(row, own, error), error.exit_status
        else:
            result, background = run.result, run.background()
            if not as_json:
                console().print(render_result(result))
            several = len(recipe.rows) > 1
            status = (outputs.below(_slug(row.name)) if several else outputs).write(run, work)
        rows.append((row.name, result))
        records.append({"row": row.name, **result.to_dict(), **background})
        worst = max(worst, status)
    table = beside_paper(rows, recipe.title or recipe.name)
    whole = {
        "recipe": recipe.name,
        "title": recipe.title,
        "rows": records,
        "paper": table.records(),
    }
    show(whole, render_table(table), as_json=as_json)
    if worst:
        raise typer.Exit(worst)


def _card_of(row: ResolvedRow, card: DatasetCard, *, same: bool) -> DatasetCard:
    """Put the figure that is expected of a row in the place of the card's."""
    figures: tuple[PaperFigure, ...] = ()
    if row.expected is not None and same:
        figures = (PaperFigure(method=row.name, value=row.expected),)
    return card.model_copy(update={"paper": figures})


def _failed(row: ResolvedRow, card: DatasetCard, error: VggfeatError) -> Result:
    protocol = protocol_of(card)
    measure = Measure(protocol.measure, protocol.metric, float("nan"), paper=published(card))
    return Result(row.name, row.name, (measure,), failed=str(error))


def _slug(name: str) -> str:
    """Make a part of a file's name of a row's: ``D & E, image`` becomes ``d-e-image``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
