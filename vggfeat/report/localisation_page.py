"""A test of localisation as one HTML page: errors, pictures with their boxes, what merging did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vggfeat.errors import PictureError
from vggfeat.features.files import refusals, write_whole
from vggfeat.ilsvrc.judged import Judged, LocalisationResult
from vggfeat.ilsvrc.localize import Windows
from vggfeat.ilsvrc.regression import CORRECT
from vggfeat.report.boxes_drawn import FOUND, SINGLE, TRUE, WINDOW, Drawn, draw_boxes, jpeg
from vggfeat.report.figures import data_address
from vggfeat.report.page import environment
from vggfeat.report.words import count

SIDE = 440  # pixels of a picture: shown at half that, so that it is crisp on dense screens
Open = Callable[[str], Image.Image]
"""Opens a picture by its name."""
PAPER = (
    ("central", "Table 8", "S = 384, fc6–7 fine-tuned, one box", 36.4),
    ("central", "Table 8", "S = 384, fc6–7 fine-tuned, a box for each class", 34.3),
    ("central", "Table 8", "S = 384, all layers fine-tuned, a box for each class", 33.1),
    ("top5", "Table 9", "S = 256, Q = 256", 29.5),
    ("top5", "Table 9", "S = 384, Q = 384", 28.2),
    ("top5", "Table 9", "S = 384, Q = 352, 384", 27.5),
    ("top5", "Table 9", "both nets", 26.9),
    ("top5", "Table 10", "OverFeat", 30.0),
    ("top5", "Table 10", "Krizhevsky et al., test", 34.2),
    ("top5", "Table 10", "GoogLeNet, test", 26.7),
)
"""Errors of Tables 8 to 10, in percent, on ILSVRC's validation pictures unless they say test."""


class Line(NamedTuple):
    """A row of the table of errors; figures are shares, NaN where there is none."""

    name: str
    central: float
    top1: float
    top5: float
    box: float
    single: float
    of: int


class Picture(NamedTuple):
    """A picture with boxes, and what is said of it."""

    name: str
    image: str
    told: str
    wrong: bool


class Pair(NamedTuple):
    """What merging was given, and what it made of it."""

    name: str
    before: str
    after: str
    told: str


class ClassPictures(NamedTuple):
    """A class with its examples."""

    name: str
    pictures: list[Picture]


def write_localisation_page(
    result: LocalisationResult,
    target: Path,
    picture: Open,
    *,
    title: str,
    run: Mapping[str, object],
    provenance: Mapping[str, object],
    ilsvrc: bool = False,
    examples: int = 6,
) -> Path:
    """Write the page, whole or not at all.

    Parameters
    ----------
    result : LocalisationResult
        What was found; of the rows whose windows it keeps the page shows what merging did.
    target : Path
        The page; its folder is made.
    picture : callable
        Opens a picture by its name; those that it cannot are left out.
    title : str
        What was tested on.
    run, provenance : mapping
        What a reader asks for first, and the rest.
    ilsvrc : bool
        Whether the paper's figures are of the same pictures.
    examples : int
        Most pictures of a class, right and wrong ones in equal parts.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    StoreError
        If the disk is full or the folder may not be written.
    """
    every = result.errors()
    context = {
        "title": title,
        "result": result,
        "error": every.top5 if result.dense else every.central,
        "metric": _metric(result),
        "all": every,
        "lines": [_line(result, c) for c in range(len(result.classes))],
        "paper": [
            (table, name, value) for kind, table, name, value in PAPER if _shown(kind, result)
        ],
        "ilsvrc": ilsvrc,
        "run": run,
        "shown": _examples(result, picture, examples),
        "pairs": _pairs(result, picture),
        "merging": _merging(result),
        "provenance": provenance,
    }
    page = environment().get_template("localisation.html.j2").render(context)
    with refusals(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, page.encode())
    return target


def _metric(result: LocalisationResult) -> str:
    of = f"{count(len(result.judged))} objects to find"
    if not result.dense:
        return f"localisation error, the class given, central crop (protocol 1); {of}"
    return f"top-{result.top} localisation error, dense (protocol 2); {of}"


def _shown(kind: str, result: LocalisationResult) -> bool:
    return result.dense or kind == "central"


def _line(result: LocalisationResult, c: int) -> Line:
    e = result.errors(c)
    return Line(result.classes[c], e.central, e.top1, e.top5, e.box, e.single, e.of)


def _merging(result: LocalisationResult) -> dict[str, float]:
    """Sum up what merging changed; rows whose box became right, and wrong, by it."""
    _, merged, single = (result.shares() > CORRECT).T
    shares = result.shares().mean(axis=0)
    return {
        "better": int((merged & ~single).sum()),
        "worse": int((single & ~merged).sum()),
        "iou": float(shares[1]),
        "single_iou": float(shares[2]),
        "pieces": result.pieces,
        "windows": float(np.mean([one.found.windows for one in result.judged if one.found] or [0])),
    }


def _examples(result: LocalisationResult, picture: Open, most: int) -> list[ClassPictures]:
    """Show of each class the clearest right and wrong ones, by the score of their box."""
    shares = result.shares()[:, 1 if result.dense else 0]
    shown = []
    for c, name in enumerate(result.classes):
        rows = [k for k, one in enumerate(result.judged) if one.label == c]
        rows.sort(key=lambda k: -_certainty(result.judged[k]))
        right = [k for k in rows if shares[k] > CORRECT and _ranked(result, k)]
        wrong = [k for k in rows if k not in right]
        half = most // 2
        chosen = right[: max(half, most - len(wrong))] + wrong[: max(half, most - len(right))]
        tiles = [_picture(result, k, picture) for k in chosen[:most]]
        shown.append(ClassPictures(name, [tile for tile in tiles if tile]))
    return [one for one in shown if one.pictures]


def _certainty(one: Judged) -> float:
    return one.found.score if one.found else 0.0


def _ranked(result: LocalisationResult, k: int) -> bool:
    return not result.dense or result.judged[k].rank < result.top


def _picture(result: LocalisationResult, k: int, picture: Open) -> Picture | None:
    one = result.judged[k]
    central, merged, _ = one.shares()
    boxes = [Drawn(box, TRUE, dashed=True) for box in one.truths]
    if one.found:
        boxes.append(Drawn(one.found.box, FOUND))
    else:
        boxes.append(Drawn(one.central, FOUND))
    share = merged if one.found else central
    told = f"IoU {share:.2f}"
    if one.found and one.rank:
        told += f"; taken for {result.classes[one.first]} first, for {result.classes[one.label]} "
        told += f"in place {one.rank + 1}"
    wrong = share <= CORRECT or not _ranked(result, k)
    return _drawn(one.name, picture, boxes, told, wrong)


def _drawn(
    name: str, picture: Open, boxes: Sequence[Drawn], told: str, wrong: bool
) -> Picture | None:
    try:
        image = picture(name)
    except PictureError:
        return None
    address = data_address(jpeg(draw_boxes(image, boxes, SIDE)))
    return Picture(name, address, told, wrong)


def _pairs(result: LocalisationResult, picture: Open) -> list[Pair]:
    found = [_pair(result, k, windows, picture) for k, windows in result.windows.items()]
    return [one for one in found if one]


def _pair(result: LocalisationResult, k: int, windows: Windows, picture: Open) -> Pair | None:
    one = result.judged[k]
    if one.found is None:
        return None
    boxes, _ = windows.of(one.label)
    every = [Drawn(box, WINDOW, thick=0.6) for box in boxes]
    truths = [Drawn(box, TRUE, dashed=True) for box in one.truths]
    merged = [Drawn(one.found.single, SINGLE, thick=2), Drawn(one.found.box, FOUND)]
    before = _drawn(one.name, picture, [*every, *truths], "", False)
    after = _drawn(one.name, picture, [*truths, *merged], "", False)
    if before is None or after is None:
        return None
    _, share, single = one.shares()
    told = (
        f"{result.classes[one.label]}: {len(boxes)} windows, boxes left: {one.found.pieces}, the "
        f"best of {one.found.windows}. IoU {share:.2f}; of the single window {single:.2f}"
    )
    return Pair(one.name, before.image, after.image, told)
