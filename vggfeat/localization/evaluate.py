"""The result of a test of localisation (Appendix A): tables, images and the paper's errors.

``protocols.py`` computes the errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.text import counted
from vggfeat.classification.classes import CARD, ilsvrc_classes
from vggfeat.data.datasets import load_card
from vggfeat.features.provenance import versions
from vggfeat.localization.boxes import Floats, as_annotated
from vggfeat.localization.data import BoxSet
from vggfeat.localization.predict import (
    LocalizationSystem,
)
from vggfeat.localization.protocols import BoxEvaluation, evaluate_objects
from vggfeat.localization.training import CORRECT
from vggfeat.recipes import open_recipe, recipe_names
from vggfeat.recipes.localization import LocalizationRecipe
from vggfeat.recipes.networks import Use
from vggfeat.result import (
    BoxMark,
    Cell,
    Gallery,
    GalleryImage,
    Measure,
    Part,
    Published,
    Result,
    Strip,
    Table,
    TableColumn,
)

Ints = NDArray[np.int64]
LONG = 30  # classes; of more those of the highest error are shown
# A page is to open on any machine: of a thousand classes it shows images of some.
CLASSES, EXAMPLES, OF_A_CLASS, PAIRS = 20, 40, 6, 10
KEPT = 100  # objects whose windows are kept, for a page to choose from
SIDE = 220  # CSS pixels of an image
EDGES = ("xmin", "ymin", "xmax", "ymax")


def evaluate(
    data: BoxSet,
    system: LocalizationSystem,
    *,
    limit: int | None = None,
    labels_from: str = "",
    paper: Mapping[str, Sequence[Published]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Test localisation by protocol 1, and with a classification system by protocol 2.

    Parameters
    ----------
    data : BoxSet
        With test images.
    system : LocalizationSystem
    limit : int, optional
        So many objects at most.
    labels_from : str
        What the classification system is called.
    paper : mapping of str to sequence of Published, optional
        Its figures by the measure; by default all of the protocol, where the classes are ILSVRC's.
    progress : callable, optional
        Called with images done and all images.

    Returns
    -------
    Result
        With errors over all objects and by class, what merging did, and images with boxes.

    Raises
    ------
    DataError
        If a net, or the classification system, knows other classes, or no image can be read.

    Notes
    -----
    A label is right if fewer than five classes of the classification system are likelier, be they
    localised or not. A box is correct if its intersection over union with any object of the class
    is more than 0.5. An image of VOC that shows two classes counts once for each of them.
    """
    n = len(data.test)
    tested = data.test if limit is None else data.test.take(range(min(limit, n)))
    kept = spread_over_classes(tested.part.labels.tolist(), KEPT)
    evaluation = evaluate_objects(tested, data.classes, system, windows_of=kept, progress=progress)
    of_ilsvrc = list(evaluation.classes) == list(ilsvrc_classes().keys)
    if paper is None:
        paper = find_published() if of_ilsvrc else {}
    notes = [
        f"{name} was left out: {reason}" for name, reason in list(evaluation.failed.items())[:5]
    ]
    if len(evaluation.failed) > len(notes):
        notes.append(f"{len(evaluation.failed) - len(notes):,} more images were left out.")
    nets = system.describe()
    return Result(
        name=data.source,
        title=f"Localisation, {data.source}",
        headline=_headline(evaluation, paper),
        about=f"{counted(len(evaluation.objects), 'object')} in "
        f"{counted(len({item.name for item in evaluation.objects}), 'image')}",
        parts=_parts(evaluation, data.left_out),
        settings={
            "data": data.source,
            "part": data.tested,
            "nets": [
                f"{net['net']}, S = {net['S']}, {net['regression'].upper()}, "
                f"Q = {', '.join(map(str, net['Q']))}"
                for net in nets
            ],
            "classification": labels_from or "none: the class is given",
            "merging": system.merging.model_dump(),
            "decoding": data.test.decoding.model_dump(),
            "classes": len(evaluation.classes),
        },
        provenance={"nets": nets, "versions": versions(system.nets[0].extractor)},
        notes=tuple(notes),
        partial=_lacking(evaluation, len(tested), n, data.left_out, of_ilsvrc),
    )


def find_published() -> dict[str, list[Published]]:
    """Find the paper's errors of localisation, by the measure that they are of.

    Examples
    --------
    >>> [(figure.name, figure.value) for figure in find_published()["central"]][:1]
    [('Table 8: fc6–7 fine-tuned, SCR', 0.364)]
    """
    published: dict[str, dict[tuple[Use, ...] | str, Published]] = {"central": {}, "top5": {}}
    for recipe in map(open_recipe, recipe_names()):
        if not isinstance(recipe, LocalizationRecipe):
            continue
        figures = published[recipe.measure]
        table = recipe.title.partition(",")[0]
        for row in recipe.rows:
            if row.paper is not None:  # a line that two tables share has the same nets
                line = Published(f"{table}: {row.name}", row.paper / 100)
                figures.setdefault(row.uses, line)
        for other in recipe.others:
            line = Published(f"{table}: {other.name}", other.paper / 100, unlike=other.unlike)
            figures.setdefault(other.name, line)
    return {measure: list(figures.values()) for measure, figures in published.items()}


def spread_over_classes(labels: Sequence[int], most: int) -> set[int]:
    """Choose rows of as many classes as can be: of each its first one, then its second, ….

    Examples
    --------
    >>> sorted(spread_over_classes([0, 0, 0, 1, 2, 2], 4))
    [0, 1, 3, 4]
    """
    seen: dict[int, int] = {}
    turns = []
    for row, label in enumerate(labels):
        turns.append((seen.get(label, 0), row))
        seen[label] = turns[-1][0] + 1
    ordered = [row for _, row in sorted(turns)]
    first = ordered[: len(seen)]
    if len(first) > most:  # spread over the classes
        return {first[k * len(first) // most] for k in range(most)}
    return set(ordered[:most])


def _headline(
    evaluation: BoxEvaluation, paper: Mapping[str, Sequence[Published]]
) -> tuple[Measure, ...]:
    """Name the errors over all objects, the one that counts first."""
    errors, top = evaluation.errors(), f"top{evaluation.top}"
    central = Measure(
        "central", "error of the central crop, the class given", errors.central,
        paper=() if evaluation.dense else tuple(paper.get("central", ())),
    )  # fmt: skip
    if not evaluation.dense:
        return (central,)
    figures = tuple(paper.get("top5", ()))
    best = Measure(top, f"top-{evaluation.top} localisation error", errors.top5, paper=figures)
    measures = (
        best,
        Measure("top1", "top-1 localisation error", errors.top1),
        Measure("box", "box error, the class given", errors.box),
        Measure("single", "box error without merging", errors.single),
        central,
    )
    return tuple({measure.name: measure for measure in measures}.values())


def _lacking(
    evaluation: BoxEvaluation,
    tested: int,
    of: int,
    left_out: Mapping[str, str],
    of_ilsvrc: bool,
) -> tuple[str, ...]:
    """Say what of the test images was not tested, if anything."""
    reasons = []
    if tested < of:
        reasons.append(f"the first {tested:,} of {of:,} objects (--limit)")
    for names, why in ((left_out, ": boxes cannot be placed"), (evaluation.failed, "")):
        if names:
            reasons.append(f"{counted(len(names), 'image')} left out{why}")
    whole = load_card(CARD).counts["val"]
    images = len({item.name for item in evaluation.objects})
    if of_ilsvrc and images != whole:
        reasons.append(f"{images:,} of {whole:,} validation images")
    return tuple(reasons)


def _parts(evaluation: BoxEvaluation, left_out: Mapping[str, str]) -> tuple[Part, ...]:
    parts: list[Part] = [_class_table(evaluation), _example_gallery(evaluation)]
    if evaluation.dense:
        parts += [_merging_table(evaluation), _merging_gallery(evaluation)]
    if absent := {**left_out, **evaluation.failed}:
        columns = (TableColumn("image", "Image"), TableColumn("reason", "Reason"))
        rows = tuple(absent.items())
        parts.append(Table("left_out", "Images left out", columns, rows, shown=20))
    return (*parts, _object_table(evaluation))


def _counting_error(evaluation: BoxEvaluation, label: int) -> float:
    """Return the error of a class that counts, of protocol 2 where it was run; 0 of none."""
    errors = evaluation.errors(label)
    return float(np.nan_to_num(errors.top5 if evaluation.dense else errors.central))


def _class_table(evaluation: BoxEvaluation) -> Table:
    top = f"top{evaluation.top}"
    titles = {
        top: f"Top-{evaluation.top} error",
        "top1": "Top-1 error",
        "box": "Box error",
        "single": "Error without merging",
        "central": "Central-crop error",
    }
    best = top if evaluation.dense else "central"
    columns = [TableColumn("class", "Class"), TableColumn("key", "Key")]
    columns += [
        TableColumn(name, title, "percent", bar=name == best)
        for name, title in titles.items()
        if evaluation.dense or name == "central"
    ]
    names = [column.name for column in columns[2:]]
    columns.append(TableColumn("objects", "Objects", "int"))
    order = list(range(len(evaluation.classes)))
    if long := len(order) > LONG:
        order.sort(key=lambda label: -_counting_error(evaluation, label))
    rows: list[tuple[Cell, ...]] = []
    for label in order:
        errors = evaluation.errors(label)
        figures = {**errors._asdict(), top: errors.top5}
        row = [figures[name] for name in names]
        rows.append((evaluation.names[label], evaluation.classes[label], *row, errors.objects))
    note = (
        "A box is wrong if its intersection over union with every object of the class is 0.5 or "
        "less. Central crop: the box of the true class from one crop (protocol 1)."
    )
    if evaluation.dense:
        note += (
            " Top-1 and top-5: labels of the classification system, boxes of all windows merged "
            "(protocol 2). Box: the same boxes, the class being given; without merging: the box of "
            "the one window of highest score."
        )
    return Table(
        "classes", f"Errors of classes{', the worst first' * long}", tuple(columns), tuple(rows),
        note, shown=LONG if long else None,
    )  # fmt: skip


def _merging_table(evaluation: BoxEvaluation) -> Table:
    errors = evaluation.errors()
    _, merged, single = (evaluation.ious > CORRECT).T
    _, mean_merged, mean_single = evaluation.ious.mean(axis=0).tolist()
    detections = [item.detection for item in evaluation.objects if item.detection]
    used, left = (
        np.mean([(item.windows, item.boxes_left) for item in detections], axis=0).tolist()
        if detections
        else (0.0, 0.0)
    )
    columns = (
        TableColumn("figure", "Figure"),
        TableColumn("merged", "Merged", "percent"),
        TableColumn("single", "Single window", "percent"),
    )
    rows = (
        (f"top-{evaluation.top} error", errors.top5, errors.single5),
        ("top-1 error", errors.top1, errors.single1),
        ("box error", errors.box, errors.single),
        ("mean IoU", mean_merged, mean_single),
    )
    note = (
        f"Merging made {(merged & ~single).sum():,} boxes right and {(single & ~merged).sum():,} "
        f"wrong. On average the best box stands for {used:.1f} windows, and {left:.1f} boxes are "
        "left."
    )
    return Table("merging", "What merging did", columns, rows, note)


def _object_table(evaluation: BoxEvaluation) -> Table:
    """Lay out all objects; boxes are in pixels from 1 on, ends included."""
    names = [("image", "text"), ("class", "text"), ("key", "text"), ("true", "text")]
    kinds = ("central", "box", "single") if evaluation.dense else ("central",)
    for kind in kinds:
        names += [(f"{kind}_{edge}", "number") for edge in EDGES] + [(f"{kind}_iou", "number")]
    if evaluation.dense:
        names += [("first_label", "text"), ("rank", "int"), ("score", "number")]
        names += [("windows", "int"), ("boxes_left", "int")]
    columns = tuple(TableColumn(name, name.replace("_", " "), kind) for name, kind in names)  # type: ignore[arg-type]
    return Table("objects", "Objects", columns, tuple(_object_rows(evaluation)), shown=0)


def _object_rows(evaluation: BoxEvaluation) -> list[tuple[Cell, ...]]:
    rows = []
    for item in evaluation.objects:
        truths = "; ".join(
            " ".join(f"{edge:g}" for edge in as_annotated(box)) for box in item.truths
        )
        row: list[Cell] = [
            item.name,
            evaluation.names[item.label],
            evaluation.classes[item.label],
            truths,
        ]
        boxes = [item.central]
        if item.detection:
            boxes += [item.detection.box, item.detection.single]
        for box, share in zip(boxes, item.ious, strict=False):
            row += [*as_annotated(box), share]
        if item.detection:
            row += [evaluation.names[item.first], item.rank, item.detection.score]
            row += [item.detection.windows, item.detection.boxes_left]
        rows.append(tuple(row))
    return rows


def _mark(box: Floats, kind: str, label: str = "") -> BoxMark:
    left, top, right, bottom = box.tolist()
    return BoxMark((left, top, right, bottom), kind, label)  # type: ignore[arg-type]


def _example_gallery(evaluation: BoxEvaluation) -> Gallery:
    """Show of each class the clearest right and wrong objects, by the score of their box."""
    right = evaluation.right[2 if evaluation.dense else 0]
    score = np.array(
        [item.detection.score if item.detection else 0.0 for item in evaluation.objects]
    )
    classes = np.unique(evaluation.labels).tolist()
    some = len(classes) > CLASSES
    if some:  # the worst and the best
        classes.sort(key=lambda label: -_counting_error(evaluation, label))
        classes = classes[: CLASSES // 2] + classes[-CLASSES // 2 :]
    most = min(OF_A_CLASS, max(2, EXAMPLES // len(classes)))
    half = most // 2
    strips = []
    for label in classes:
        rows = np.flatnonzero(evaluation.labels == label)
        rows = rows[np.argsort(-score[rows], kind="stable")]
        hits, misses = rows[right[rows]].tolist(), rows[~right[rows]].tolist()
        chosen = hits[: max(half, most - len(misses))] + misses[: max(half, most - len(hits))]
        tiles = tuple(_example(evaluation, row, wrong=not right[row]) for row in chosen[:most])
        strips.append(Strip(evaluation.names[label], tiles))
    note = "The true box is dashed, the predicted one is not. The clearest right and wrong ones" + (
        ", of the classes of the highest and of the lowest error." if some else " of each class."
    )
    return Gallery("examples", "Images", tuple(strips), note, SIDE)


def _example(evaluation: BoxEvaluation, row: int, *, wrong: bool) -> GalleryImage:
    item = evaluation.objects[row]
    boxes = [_mark(box, "true") for box in item.truths]
    boxes.append(_mark(item.detection.box if item.detection else item.central, "predicted"))
    caption = f"IoU {item.ious[1 if item.detection else 0]:.2f}"
    if item.rank:  # its first label may be of a class that is not localised
        other = "another class" if item.first == item.label else evaluation.names[item.first]
        place = f"{evaluation.names[item.label]} in place {item.rank + 1}"
        caption += f"; taken for {other} first, for {place}"
    return GalleryImage(item.name, caption, "wrong" if wrong else "", tuple(boxes))


def _merging_gallery(evaluation: BoxEvaluation) -> Gallery:
    """Show what merging did, from where it helped most to where it did most harm."""
    rows = sorted(
        evaluation.windows, key=lambda row: evaluation.ious[row, 2] - evaluation.ious[row, 1]
    )
    places = np.linspace(0, len(rows) - 1, min(PAIRS, len(rows))).round().astype(int)
    strips = []
    for row in (rows[place] for place in places):
        item, windows = evaluation.objects[row], evaluation.windows[row]
        assert item.detection is not None
        truths = tuple(_mark(box, "true") for box in item.truths)
        before = (*(_mark(box, "window") for box in windows), *truths)
        merged = (_mark(item.detection.single, "single"), _mark(item.detection.box, "predicted"))
        _, share, single = item.ious
        note = (
            f"{len(windows)} windows, boxes left: {item.detection.boxes_left}, the best of "
            f"{item.detection.windows}. IoU {share:.2f}; of the single window {single:.2f}"
        )
        tiles = (
            GalleryImage(item.name, "all windows", boxes=before),
            GalleryImage(item.name, "merged", boxes=(*truths, *merged)),
        )
        strips.append(Strip(f"{evaluation.names[item.label]}, {item.name}", tiles, note))
    note = "Left the boxes of all windows, right the merged one and that of the single best window."
    return Gallery("merging_examples", "Merging", tuple(strips), note, SIDE, "What merging did")
