"""What the page says of a test by VOC's protocol: precisions, curves, rankings, C."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vggfeat.report.charts import PRDrawing, Series, pr_drawing, validation_curve
from vggfeat.report.thumbnails import EvidenceShown, Shown, Thumbnail, evidence_shown
from vggfeat.report.wanted import Evidence
from vggfeat.report.words import AP_NAMES, count, figure
from vggfeat.svm.rankings import Scored
from vggfeat.svm.voc_results import APResult


class ClassRow(NamedTuple):
    """A line of the per-class table; figures are NaN where there is none."""

    name: str
    bar: float
    headline: float
    other: float
    validation: float
    C: str
    at_edge: bool
    trained: int
    tested: int


class Group(NamedTuple):
    """Some rows of a class's ranking, under a heading."""

    heading: str
    tiles: list[Shown]


class ClassShown(NamedTuple):
    """A class with its curve and its rankings."""

    name: str
    figure: float
    drawing: PRDrawing | None
    groups: list[Group]
    evidence: list[EvidenceShown]


class ValidationRow(NamedTuple):
    """Validation figures of a class for every C, and which was chosen."""

    name: str
    cells: list[tuple[float, float, bool]]


def ap_view(
    result: APResult, thumbnail: Thumbnail, examples: int, evidence: Evidence
) -> dict[str, Any]:
    """Gather what the template of this kind of result shows."""
    other = "area" if result.ap == "ap11" else "ap11"
    scored = len(result.parts["test"]) > 0
    return {
        "body": "ap.html.j2",
        "sections": _sections(result.tested, scored),
        "tested": result.tested,
        "scored": scored,
        "kind": AP_NAMES[result.ap],
        "other": {"ap11": "11-point", "area": "Area"}[other],
        "validated": _validated(result),
        "classes": _classes(result),
        "curve": validation_curve(result.search.grid, _series(result)),
        "grid": result.search.grid,
        "validation": _validation(result),
        "shown": _shown(result, thumbnail, examples, evidence),
        "facts": _facts(result),
    }


def _sections(tested: bool, scored: bool) -> dict[str, str]:
    curves = {"curves": "Precision and recall"} if tested else {}
    images = {"images": "Images"} if scored else {}
    return {"classes": "Classes", **curves, "c": "Choice of C", **images}


def _validated(result: APResult) -> str:
    if result.settings["c_split"] == "cv3":
        return "in three folds of train and val"
    return "on val, trained on train"


def _classes(result: APResult) -> list[ClassRow]:
    other = result.area if result.ap == "ap11" else result.ap11
    validation = result.validation_per_class
    known = result.positives["train"] + result.positives["val"]
    return [
        ClassRow(
            name,
            float(result.per_class[c] if result.tested else validation[c]),
            float(result.per_class[c]),
            float(other[c]),
            float(validation[c]),
            "–" if np.isnan(result.C[c]) else figure(float(result.C[c])),
            bool(result.at_edge[c]),
            int(known[c]),
            int(result.positives["test"][c]),
        )
        for c, name in enumerate(result.class_names)
    ]


def _series(result: APResult) -> list[Series]:
    """One thin line for each class, and their mean; one C for all is a choice of the mean."""
    one = result.settings["shared_C"]
    mean = Series(result.search.overall, result.search.best if one else (), "mean", "mean")
    thin = [
        Series(
            result.validation[:, c],
            () if one else (float(result.C[c]),),
            result.class_names[c],
            "thin",
        )
        for c in np.flatnonzero(result.searched)
    ]
    return [*thin, mean]


def _validation(result: APResult) -> list[ValidationRow]:
    """Shade each class's row from its lowest to its highest figure: C is chosen within it."""
    rows = []
    for c in np.flatnonzero(result.searched):
        scores = result.validation[:, c]
        low, high = np.nanmin(scores), np.nanmax(scores)
        shades = (scores - low) / (high - low) if high > low else np.ones(len(scores))
        chosen = np.array(result.search.grid) == result.C[c]
        cells = list(zip(scores.tolist(), shades.tolist(), chosen.tolist(), strict=True))
        rows.append(ValidationRow(result.class_names[c], cells))
    return rows


def _shown(
    result: APResult, thumbnail: Thumbnail, examples: int, evidence: Evidence
) -> list[ClassShown]:
    figures = result.per_class if result.tested else result.validation_per_class
    return [
        ClassShown(
            name,
            float(figures[c]),
            pr_drawing(result.curves[c]) if result.tested else None,
            _groups(result, c, thumbnail, examples),
            evidence_shown(evidence, name),
        )
        for c, name in enumerate(result.class_names)
    ]


def _groups(result: APResult, c: int, thumbnail: Thumbnail, examples: int) -> list[Group]:
    def tiles(rows: Sequence[Scored], ranks: bool) -> list[Shown]:
        return [_tile(result, c, one, thumbnail, ranks) for one in rows]

    lists = result.rankings
    groups = [Group("Ranked first", tiles(lists.ranked[c][:examples], False))]
    if result.tested:
        half = max(1, examples // 2)
        groups.append(Group("Worst mistakes", tiles(lists.worst[c][:half], True)))
        groups.append(Group("Missed", tiles(lists.missed[c][:half], True)))
    return [group for group in groups if group.tiles]


def _tile(result: APResult, c: int, one: Scored, thumbnail: Thumbnail, ranks: bool) -> Shown:
    name = result.names[one.row]
    others = ", ".join(label for label in result.labels(one.row) if label != result.class_names[c])
    wrong = result.tested and one.truth < 0
    difficult = result.tested and one.truth == 0
    kind = "wrong" if wrong else "difficult" if difficult else ""
    told = "difficult" if difficult else (others or "none of the classes") if wrong else ""
    figure = f"rank {count(one.rank)}" if ranks else f"{one.score:+.2f}"
    return Shown(name, thumbnail(name), told, "", kind, figure)


def _facts(result: APResult) -> dict[str, str]:
    settings = result.settings
    grid = ", ".join(map(figure, settings["grid"]))
    how = "one for all classes" if settings["shared_C"] else "one for each class"
    loss = settings["loss"].replace("_", " ")
    parts = ", ".join(f"{part} {count(len(rows))}" for part, rows in result.parts.items())
    training = "left out of the class" if settings["difficult"] == "drop" else "negatives"
    return {
        "Classifier": f"one-vs-rest linear SVM, {loss} loss, solver {result.search.solver}",
        "Grid of C": f"{grid}; {how}, {_validated(result)}; then trained on train and val",
        "Parts": parts,
        "Average precision": f"{AP_NAMES[result.ap]}; equal scores in the order of the list",
        "Difficult objects": f"images with no other object of a class are {training} in "
        "training, and count as nothing in evaluation",
        "Seed": str(settings["random_state"]),
    }
