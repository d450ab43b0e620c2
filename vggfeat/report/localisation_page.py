"""A test of localisation as one HTML page: errors, images with their boxes, what merging did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggfeat._io.atomic import make_folder, write_atomic
from vggfeat.errors import ImageError
from vggfeat.localization.boxes import Floats
from vggfeat.localization.judged import Errors, Judged, LocalisationResult
from vggfeat.localization.training import CORRECT
from vggfeat.report.images import data_address, draw_boxes, write_jpeg
from vggfeat.report.localisation_paper import compares, lacking, of_ilsvrc, papers
from vggfeat.report.svm_page import environment
from vggfeat.report.words import count
from vggfeat.result import BoxMark

LONG = 30  # classes; more are listed from the worst on, in a box that scrolls
# A page is to open on any machine: of a thousand classes it shows images of some.
CLASSES, EXAMPLES, PAIRS = 20, 40, 10
SIDE = 440  # pixels of an image: shown at half that, so that it is crisp on dense screens
Open = Callable[[str], Image.Image]
"""Opens an image by its name."""


class Line(NamedTuple):
    """A row of the table of errors; figures are shares, NaN where there is none."""

    name: str
    central: float
    top1: float
    top5: float
    box: float
    single: float
    of: int


class Thumbnail(NamedTuple):
    """An image with boxes, and what is said of it."""

    name: str
    image: str
    told: str
    wrong: bool


class ImagePair(NamedTuple):
    """What merging was given, and what it made of it."""

    name: str
    before: str
    after: str
    told: str


class ClassImages(NamedTuple):
    """A class with its examples."""

    name: str
    images: list[Thumbnail]


def write_localisation_page(
    result: LocalisationResult,
    target: Path,
    image: Open,
    *,
    title: str,
    run: Mapping[str, object],
    provenance: Mapping[str, object],
    examples: int = 6,
) -> Path:
    """Write the page, whole or not at all.

    Parameters
    ----------
    result : LocalisationResult
        What was found; of the rows whose windows it keeps the page shows what merging did.
    target : Path
        The page; its folder is made.
    image : callable
        Opens an image by its name; those that it cannot are left out.
    title : str
        What was tested on.
    run, provenance : mapping
        What a reader asks for first, and the rest.
    examples : int
        Most images of a class, right and wrong ones in equal parts; fewer where there are many
        classes, of which those of the highest and of the lowest error are shown.

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
    lines = [_line(result, c) for c in range(len(result.classes))]
    long = len(lines) > LONG
    context = {
        "title": title,
        "result": result,
        "error": _error(result, every),
        "metric": _metric(result),
        "all": every,
        "lines": sorted(lines, key=lambda line: _worst(result, line)) if long else lines,
        "long": long,
        "partial": lacking(result),
        "paper": papers(result),
        "ilsvrc": of_ilsvrc(result),
        "compares": compares(result),
        "run": run,
        "shown": _examples(result, image, examples),
        "every_class": len(np.unique(result.labels)) <= CLASSES,
        "pairs": _pairs(result, image),
        "merging": _merging(result),
        "left_out": {**result.settings.get("left_out", {}), **result.failed},
        "provenance": provenance,
    }
    page = environment().get_template("localisation.html.j2").render(context)
    make_folder(target.parent)
    write_atomic(target, page.encode())
    return target


def _error(result: LocalisationResult, of: Errors | Line) -> float:
    """Take the error that counts, of protocol 2 where it was run."""
    return of.top5 if result.dense else of.central


def _worst(result: LocalisationResult, of: Errors | Line) -> float:
    """Order by: the highest error first, those without any last."""
    error = _error(result, of)
    return 1.0 if np.isnan(error) else -error


def _metric(result: LocalisationResult) -> str:
    of = f"{count(len(result.judged))} objects to find"
    if not result.dense:
        return f"localisation error, the class given, central crop (protocol 1); {of}"
    return f"top-{result.top} localisation error, dense (protocol 2); {of}"


def _line(result: LocalisationResult, c: int) -> Line:
    e = result.errors(c)
    return Line(result.names[c], e.central, e.top1, e.top5, e.box, e.single, e.of)


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


def _examples(result: LocalisationResult, image: Open, most: int) -> list[ClassImages]:
    """Show of each class the clearest right and wrong ones, by the score of their box."""
    right = _right(result)
    certain = np.array([one.found.score if one.found else 0.0 for one in result.judged])
    classes = _classes_shown(result)
    most = min(most, max(2, EXAMPLES // max(1, len(classes))))
    half = most // 2
    shown = []
    for c in classes:
        rows = np.flatnonzero(result.labels == c)
        rows = rows[np.argsort(-certain[rows], kind="stable")]
        hits, misses = rows[right[rows]].tolist(), rows[~right[rows]].tolist()
        chosen = hits[: max(half, most - len(misses))] + misses[: max(half, most - len(hits))]
        tiles = [_image(result, k, image, wrong=not right[k]) for k in chosen[:most]]
        shown.append(ClassImages(result.names[c], [tile for tile in tiles if tile]))
    return [one for one in shown if one.images]


def _classes_shown(result: LocalisationResult) -> list[int]:
    """Choose classes that have objects: all, or the worst and the best ones."""
    errors = {c: result.errors(c) for c in np.unique(result.labels).tolist()}
    if len(errors) <= CLASSES:
        return list(errors)
    ordered = sorted(errors, key=lambda c: _worst(result, errors[c]))
    return ordered[: CLASSES // 2] + ordered[-CLASSES // 2 :]


def _right(result: LocalisationResult) -> NDArray[np.bool_]:
    """Tell which rows are right by the error that counts."""
    shares = result.shares()
    if not result.dense:
        return shares[:, 0] > CORRECT
    return (shares[:, 1] > CORRECT) & (result.ranks < result.top)


def _image(result: LocalisationResult, k: int, image: Open, *, wrong: bool) -> Thumbnail | None:
    one = result.judged[k]
    boxes = [_mark(box, "true") for box in one.truths]
    boxes.append(_mark(one.found.box if one.found else one.central, "predicted"))
    told = f"IoU {result.shares()[k, 1 if one.found else 0]:.2f}{_taken_for(result, one)}"
    return _drawn(one.name, image, boxes, told, wrong)


def _taken_for(result: LocalisationResult, one: Judged) -> str:
    """Say what an image was taken for, if not for its class; it may be one not localised."""
    if not one.found or not one.rank:
        return ""
    own = result.names[one.label]
    other = "another class" if one.first == one.label else result.names[one.first]
    return f"; taken for {other} first, for {own} in place {one.rank + 1}"


def _mark(box: Floats, kind: Literal["true", "predicted", "window", "single"]) -> BoxMark:
    left, top, right, bottom = box.tolist()
    return BoxMark((left, top, right, bottom), kind)


def _drawn(
    name: str, image: Open, boxes: Sequence[BoxMark], told: str, wrong: bool
) -> Thumbnail | None:
    try:
        opened = image(name)
    except ImageError:
        return None
    address = data_address(write_jpeg(draw_boxes(opened, boxes, SIDE)))
    return Thumbnail(name, address, told, wrong)


def _pairs(result: LocalisationResult, image: Open) -> list[ImagePair]:
    """Show what merging did, from where it helped most to where it did most harm."""
    shares = result.shares()
    kept = [k for k in result.windows if result.judged[k].found]
    kept.sort(key=lambda k: shares[k, 2] - shares[k, 1])
    places = np.linspace(0, len(kept) - 1, min(PAIRS, len(kept))).round().astype(int)
    found = [_pair(result, kept[place], image) for place in places]
    return [one for one in found if one]


def _pair(result: LocalisationResult, k: int, image: Open) -> ImagePair | None:
    one, windows = result.judged[k], result.windows[k]
    if one.found is None:
        return None
    every = [_mark(box, "window") for box in windows]
    truths = [_mark(box, "true") for box in one.truths]
    merged = [_mark(one.found.single, "single"), _mark(one.found.box, "predicted")]
    before = _drawn(one.name, image, [*every, *truths], "", False)
    after = _drawn(one.name, image, [*truths, *merged], "", False)
    if before is None or after is None:
        return None
    _, share, single = result.shares()[k]
    told = (
        f"{result.names[one.label]}: {len(windows)} windows, boxes left: {one.found.pieces}, the "
        f"best of {one.found.windows}. IoU {share:.2f}; of the single window {single:.2f}"
    )
    return ImagePair(one.name, before.image, after.image, told)
