"""What the page says of a test over random splits: recalls, confusions, mistakes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vggfeat.report.charts import Series, validation_curve
from vggfeat.report.thumbnails import Shown, Thumbnail, evidence_shown
from vggfeat.report.wanted import Evidence
from vggfeat.report.words import figure
from vggfeat.svm.results import Mistake, SVMResult

TABLE_CLASSES = 12  # up to so many, the confusion matrix is a table of figures; above, a map


class ClassRow(NamedTuple):
    """A line of the per-class table."""

    name: str
    recall: float
    spread: float
    images: int
    taken_for: str


class PairShown(NamedTuple):
    """Two classes taken for each other, with examples."""

    true: str
    predicted: str
    images: int
    of: int
    examples: list[Shown]


def recall_view(
    result: SVMResult, thumbnail: Thumbnail, examples: int, mistakes: int, evidence: Evidence
) -> dict[str, Any]:
    """Gather what the template of this kind of result shows."""
    everything = result.mistakes()
    shown = [_mistake(result, one, thumbnail) for one in everything[:mistakes]]
    series = [Series(split.search.overall, split.search.best) for split in result.splits]
    return {
        "body": "recall.html.j2",
        "sections": _sections(bool(shown)),
        "classes": _classes(result),
        "confusion": result.confusion,
        "as_table": len(result.class_names) <= TABLE_CLASSES,
        "pairs": _pairs(result, thumbnail),
        "validated": _validated(result),
        "curve": validation_curve(result.splits[0].search.grid, series),
        "ranked": _ranked(result, thumbnail, examples),
        "evidence": [evidence_shown(evidence, name) for name in result.class_names],
        "mistakes": shown,
        "n_mistakes": len(everything),
        "facts": _facts(result),
    }


def _sections(mistakes: bool) -> dict[str, str]:
    sections = {
        "classes": "Classes",
        "confusion": "Confusion",
        "c": "Choice of C",
        "ranked": "Ranked first",
    }
    return {**sections, "mistakes": "Mistakes"} if mistakes else sections


def _validated(result: SVMResult) -> str:
    share = result.settings["validation"]
    if share is None:
        return "in cross-validation within the training images"
    return f"on the {100 * share:g} % of the training images that were put aside to choose C"


def _facts(result: SVMResult) -> dict[str, str]:
    settings = result.settings
    grid = ", ".join(map(figure, settings["grid"]))
    share = settings["validation"]
    how = f"{settings['folds']} stratified folds" if share is None else f"{100 * share:g} % aside"
    splits = [f"{split.n_train} to train, {split.n_test} to test" for split in result.splits]
    loss = settings["loss"].replace("_", " ")
    return {
        "Classifier": f"one-vs-rest linear SVM, {loss} loss, solver "
        f"{result.splits[0].search.solver}",
        "Grid of C": f"{grid}; {how}",
        "Splits": "; ".join(splits),
        "Seed": str(settings["random_state"]),
    }


def _classes(result: SVMResult) -> list[ClassRow]:
    confusion = result.confusion
    recalls = np.array([split.recalls for split in result.splits])
    wrong = confusion - np.diag(confusion.diagonal())
    several = len(result.splits) > 1
    spreads = recalls.std(axis=0, ddof=1) if several else np.full(len(wrong), np.nan)
    return [
        ClassRow(
            name,
            float(result.recalls[c]),
            float(spreads[c]),
            int(confusion[c].sum()),
            result.class_names[wrong[c].argmax()] if wrong[c].any() else "",
        )
        for c, name in enumerate(result.class_names)
    ]


def _pairs(result: SVMResult, thumbnail: Thumbnail, most: int = 6) -> list[PairShown]:
    found = result.mistakes()
    pairs = []
    for pair in result.most_confused(most):
        alike = [one for one in found if (one.true, one.predicted) == (pair.true, pair.predicted)]
        pairs.append(
            PairShown(
                result.class_names[pair.true],
                result.class_names[pair.predicted],
                pair.images,
                pair.of,
                [_mistake(result, one, thumbnail) for one in alike[:4]],
            )
        )
    return pairs


def _ranked(result: SVMResult, thumbnail: Thumbnail, most: int) -> list[list[Shown]]:
    """Show the first split's: scores of different classifiers have no common order."""
    rows = []
    for c, best in enumerate(result.splits[0].ranked):
        shown = []
        for one in best[:most]:
            name, true = result.names[one.row], result.class_names[one.true]
            kind = "wrong" if one.true != c else ""
            shown.append(Shown(name, thumbnail(name), true, "", kind, f"{one.score:+.2f}"))
        rows.append(shown)
    return rows


def _mistake(result: SVMResult, one: Mistake, thumbnail: Thumbnail) -> Shown:
    name = result.names[one.row]
    true, predicted = result.class_names[one.true], result.class_names[one.predicted]
    return Shown(name, thumbnail(name), true, predicted, "wrong", f"{one.margin:.2f}")
