"""Tables 8 to 10: their recipes, run row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vggfeat.classification.classes import CARD, ilsvrc_classes
from vggfeat.classification.tables import TableRun, failed_row
from vggfeat.data.datasets import load_card
from vggfeat.errors import DataError, VggfeatError
from vggfeat.localization.classifiers import ClassSubset, NetClassifier, StoredLabels
from vggfeat.localization.data import BoxSet
from vggfeat.localization.evaluate import evaluate
from vggfeat.localization.predict import LocalizationSystem, Localizer
from vggfeat.recipes.localization import LocalizationRecipe, LocalizationRow
from vggfeat.recipes.networks import find_weights
from vggfeat.result import Measure, Published, Result

Open = Callable[[str], Localizer]
"""Opens a net that predicts boxes."""
OpenClassifier = Callable[[str, str], NetClassifier]
"""Opens a classification net by its configuration and its weights."""


def check_whole(data: BoxSet, *, allow_partial: bool) -> None:
    """Refuse validation images of ILSVRC of which some are missing, unless a part will do.

    Raises
    ------
    DataError
        With how many there are.
    """
    whole, images = load_card(CARD).counts["val"], sum(1 for _ in data.test.images())
    if images != whole and not allow_partial:
        raise DataError(
            f"{data.source} has {images:,} of {whole:,} validation images with boxes. Restore the "
            "others, or use it as it is with --allow-partial."
        )


def localize_rows(
    recipe: LocalizationRecipe,
    data: BoxSet,
    run: TableRun,
    open_boxes: Open,
    open_classifier: OpenClassifier,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[LocalizationRow, Result, VggfeatError | None]]:
    """Test every row; no failure of one stops the others.

    The labels of protocol 2 are computed once, into the stores of scores that Tables 3 to 7 have.

    Parameters
    ----------
    recipe : LocalizationRecipe
    data : BoxSet
        With ILSVRC's validation images for test images.
    run : TableRun
        What the classification system of the recipe is run by.
    open_boxes, open_classifier : callable
    progress : callable, optional
        Called with images done and all images.

    Yields
    ------
    row, result, error
        After each row.
    """
    labels: StoredLabels | None = None
    for row in recipe.rows:
        tell = run.progress(row.name)
        try:
            files = [find_weights(recipe.boxes, use.net, run.runs, run.weights) for use in row.uses]
            classifier = None
            if recipe.labels:
                windows = find_weights(recipe.nets, recipe.labels.windows, run.runs, run.weights)
                if labels is None:
                    of = recipe.labels
                    scores = run.score(recipe.nets, of.uses, of.mode, tell)
                    labels = StoredLabels(scores, ilsvrc_classes().keys)
                net = open_classifier(recipe.nets[recipe.labels.windows].net, windows)
                classifier = ClassSubset(net, data.classes)
            system = LocalizationSystem(
                [open_boxes(file) for file in files],
                [use.Q for use in row.uses],
                classifier,
                labels,
                recipe.merging,
            )
            result = evaluate(
                data,
                system,
                labels_from=_describe_labels(recipe),
                paper={recipe.measure: _figures(row)},
                progress=progress,
            )
        except VggfeatError as error:
            title = "top-5 localisation error" if recipe.labels else "localisation error"
            measure = Measure(recipe.measure, title, float("nan"), paper=_figures(row))
            yield row, failed_row(row.name, (measure,), error), error
        else:
            yield row, result, None


def _figures(row: LocalizationRow) -> tuple[Published, ...]:
    return () if row.paper is None else (Published(row.name, row.paper / 100),)


def _describe_labels(recipe: LocalizationRecipe) -> str:
    if recipe.labels is None:
        return ""
    nets = " & ".join(use.net for use in recipe.labels.uses)
    return f"{nets}, {recipe.labels.mode}; windows: {recipe.labels.windows}"
