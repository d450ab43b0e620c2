"""Tables of the paper that are of features and linear SVMs, row by row, beside its figures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vggfeat.cli.console import note, note_error, show
from vggfeat.cli.experiment import evaluate_svm
from vggfeat.cli.showing import Outcome, comparison, show_run, submit, write_report
from vggfeat.errors import VggfeatError
from vggfeat.experiments.submission import check_submission
from vggfeat.report.words import headline

if TYPE_CHECKING:
    from vggfeat.cli.options import Typed
    from vggfeat.cli.working import Work
    from vggfeat.recipes import SVMRecipe


@dataclass(frozen=True)
class Overrides:
    """What was typed instead of a table's own, and what to write of every row."""

    dataset: str | None
    root: Path | None
    allow_partial: bool
    typed: Typed
    features: Path | None
    submission: Path | None


def run_table(
    loaded: SVMRecipe,
    work: Work,
    asked: Overrides,
    report: Path | None,
    evidence: bool,
    as_json: bool,
) -> None:
    """Run a recipe of features, and print its rows beside the figures that are expected."""
    card, images = work.dataset(asked.dataset or loaded.dataset, asked.root, asked.allow_partial)
    several = len(loaded.rows) > 1
    submission = asked.submission
    if submission:
        check_submission(card, images)
    done: list[Outcome] = []
    for row in loaded.table():
        note("", f"{loaded.name}, {row.name}", quiet=work.quiet)
        try:
            chosen = row.features.but(**asked.typed)
            run = evaluate_svm(work, card, images, chosen, loaded.classifier, asked.features)
            if not as_json:
                show_run(run, as_json=False)
            done.append(Outcome(row, headline(run.result), run.to_dict()))
            if submission:
                submit(run, submission / _slug(row.name) if several else submission)
            if report:
                target = report.with_stem(f"{report.stem}-{_slug(row.name)}") if several else report
                write_report(run, target, work, evidence=evidence)
        except VggfeatError as error:  # the other rows are as good without this one
            note_error(f"Error: {row.name}", error)
            done = [one for one in done if one.line is not row]
            done.append(Outcome(row, None, {"error": str(error)}, error.exit_status))
    result = {"recipe": loaded.name, "rows": [{"row": o.line.name, **o.plain} for o in done]}
    show(result, comparison(card, done, same=asked.dataset is None), as_json=as_json)
    if worst := max(one.status for one in done):
        raise typer.Exit(worst)


def _slug(name: str) -> str:
    """Make a part of a file's name of a row's: ``D & E, image`` becomes ``d-e-image``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
