"""Tables of whole networks on ILSVRC, row by row, beside the paper's figures: 3 to 10."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggfeat.classification.tables import TableRun, classify_rows, keeping_last, open_ilsvrc
from vggfeat.cli.console import (
    count_progress,
    download_progress,
    note,
    warn_of_failures,
    work_progress,
)
from vggfeat.cli.tables import FinishedRow, show_rows
from vggfeat.cli.working import Work
from vggfeat.errors import ParameterError, VggfeatError
from vggfeat.localization.classifiers import FC8, NetClassifier
from vggfeat.localization.data import open_boxset
from vggfeat.localization.predict import Localizer
from vggfeat.localization.tables import check_whole, localize_rows
from vggfeat.nets.weights import load
from vggfeat.recipes.classification import ClassificationRecipe
from vggfeat.recipes.localization import LocalizationRecipe
from vggfeat.result import Result
from vggfeat.settings import Features

if TYPE_CHECKING:
    from vggfeat.classification.tables import Open
    from vggfeat.features.extractor import DenseExtractor
    from vggfeat.features.summary import Progress
    from vggfeat.recipes.classification import ClassificationRow
    from vggfeat.recipes.localization import LocalizationRow

Rows = Iterable[tuple["ClassificationRow | LocalizationRow", Result, VggfeatError | None]]


@dataclass(frozen=True)
class TableInputs:
    """What was typed for a table of whole networks, as the options of these names."""

    data: Path
    runs: Path
    weights: list[str]
    features: Path | None
    boxes: list[Path]
    allow_partial: bool


def run_networks(
    recipe: ClassificationRecipe | LocalizationRecipe,
    work: Work,
    inputs: TableInputs,
    *,
    as_json: bool,
) -> None:
    """Run a recipe of whole networks, and print its rows beside the paper's figures."""
    boxes = recipe.boxes if isinstance(recipe, LocalizationRecipe) else {}
    weights = _read_weights(recipe.name, (*recipe.nets, *boxes), inputs.weights)
    validation = open_ilsvrc(inputs.data, allow_partial=inputs.allow_partial)
    if validation.partial:
        note(
            f"Warning: {validation.where} has {validation.partial}: errors compare with nothing "
            "published."
        )
    how: dict[str, Any] = {
        "on_bad_image": work.execution.on_bad_image,
        "workers": work.execution.workers,
    }
    with _progress_of_rows(recipe.name, work) as progress:
        run = TableRun(
            validation,
            open_one(work),
            inputs.runs,
            weights,
            inputs.features,
            progress,
            partial(work.extract, **how),
        )
        if isinstance(recipe, ClassificationRecipe):
            rows: Rows = classify_rows(recipe, run)
        else:
            rows = _localization_rows(recipe, run, work, inputs)
        finished = (FinishedRow(row.name, result, error) for row, result, error in rows)
        show_rows(recipe, finished, each=isinstance(recipe, LocalizationRecipe), as_json=as_json)


def open_one(work: Work) -> Open:
    """Make what opens a network of a row, keeping one at a time in memory."""

    def open_net(net: str, source: str, pool: str, folder: Path | None) -> DenseExtractor:
        work.opened.clear()
        features = Features(nets=(net,), weights=(source,), layers=(FC8,), pool=pool)
        return work.network_for(features, net, folder)

    return keeping_last(open_net)


def _localization_rows(
    recipe: LocalizationRecipe, run: TableRun, work: Work, inputs: TableInputs
) -> Rows:
    how = {"device": work.execution.device, "precision": work.execution.precision}
    with download_progress(quiet=work.quiet) as reading:
        boxset = open_boxset(
            str(inputs.data),
            classes=run.data.classes.keys,
            boxes=inputs.boxes,
            parts=("test",),
            decoding=recipe.decoding,
            progress=reading,
        )
    warn_of_failures(boxset.left_out)
    check_whole(boxset, allow_partial=inputs.allow_partial)

    def open_classifier(net: str, source: str) -> NetClassifier:
        with download_progress(quiet=work.quiet) as progress:
            weights = load(source, net, [FC8], progress=progress)
        return NetClassifier.open(weights, windows_only=True, **how)

    def hint() -> str:
        """Say what an interrupt leaves of the rows."""
        left = "Only the scores of labels are kept" if recipe.labels else "Nothing is kept"
        return f"{left}, and rows that are finished are printed. The same command begins anew."

    with count_progress("localize", quiet=work.quiet, hint=hint) as tell:
        yield from localize_rows(
            recipe, boxset, run, lambda file: Localizer.open(file, **how), open_classifier, tell
        )


@contextmanager
def _progress_of_rows(recipe: str, work: Work) -> Iterator[Callable[[str], Progress | None]]:
    """Show how rows go on, each with a bar of its own."""
    with ExitStack() as bars:

        def begin(row: str) -> Progress | None:
            bars.close()  # that of the row before
            note("", f"{recipe}, {row}", quiet=work.quiet)
            return bars.enter_context(work_progress("classify", quiet=work.quiet)).images

        yield begin


def _read_weights(recipe: str, nets: Iterable[str], typed: list[str]) -> Mapping[str, str]:
    """Read weights as they are typed: the name of one of the table's nets, and a file."""
    names = list(nets)
    weights = dict(word.partition("=")[::2] for word in typed)
    if wrong := [name for name, source in weights.items() if name not in names or not source]:
        right = ", ".join(f"{name}=FILE" for name in names)
        raise ParameterError.of("weights", recipe, f"of {right}", wrong[0])
    return weights
