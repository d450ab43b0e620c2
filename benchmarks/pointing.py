"""The pointing game: how often the strongest evidence for a class lies on an object of it.

    vggfeat svm --dataset voc2007 --save model
    python benchmarks/pointing.py model --dataset voc2007 --limit 500 --json pointing.json

Zhang et al.'s game (2016), without their tolerance: a location hits if it lies within the outer
edges of a box. An image counts for a class if it has an object of it that is not difficult, which
is what a label of 1 means; boxes of difficult objects do not count. Beside it stands the centre of
the image, which is what pointing blindly would hit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vggfeat.attribution import explain
from vggfeat.data.datasets import open_dataset
from vggfeat.data.datasets.annotations import read_annotation
from vggfeat.data.image import Box
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError, ImageError
from vggfeat.experiments.predict import model_extractors
from vggfeat.features.extractor import DenseExtractor
from vggfeat.svm.model import SavedModel, load


class Hits(NamedTuple):
    """Images with an object of a class; of them those where the map hits it, and the centre."""

    images: int = 0
    strongest: int = 0
    centre: int = 0


def main(words: Sequence[str] | None = None) -> dict:
    """Play on the test images of a data set, print hits by class, and return them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("model", type=Path, help="what `vggfeat svm --save` wrote")
    parser.add_argument("--dataset", default="voc2007", help="with VOC's layout")
    parser.add_argument("--root", type=Path, help="where it lies")
    parser.add_argument("--allow-partial", action="store_true")
    parser.add_argument("--limit", type=int, help="look at so many test images at most")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args(words)
    model = load(args.model)
    card, images = open_dataset(args.dataset, args.root, allow_partial=args.allow_partial)
    extractors = model_extractors(model, args.device)
    hits, failed = play(model, images, Path(card.root), extractors, args.limit)
    for name, of_class in [*hits.items(), ("all classes", total(hits))]:
        print(f"{name:20}{describe(of_class)}")
    for name, reason in failed.items():
        print(f"Left out {name}: {reason}")
    figures = {name: of_class._asdict() for name, of_class in hits.items()}
    result = {"classes": figures, "all": total(hits)._asdict(), "failed": failed}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2), "utf-8")
    return result


def play(
    model: SavedModel,
    images: ImageSet,
    tree: Path,
    extractors: Sequence[DenseExtractor],
    limit: int | None = None,
) -> tuple[dict[str, Hits], dict[str, str]]:
    """Explain the test images that have objects of a model's classes.

    Returns
    -------
    dict
        Hits of each class.
    dict
        Why images were left out, by name.
    """
    hits = {name: Hits() for name in model.classes}
    boxes, failed = boxes_of(model, images, tree)
    if not boxes:
        reasons = next(iter(failed.values()), "no object of a class of the model is annotated")
        raise DataError(f"There is no test image to point at in {tree}: {reasons}.")
    for row, of_class in list(boxes.items())[:limit]:
        try:
            found = explain(model, images.images[row], extractors, list(of_class))
        except ImageError as error:
            failed[images.names[row]] = str(error)
            continue
        centre = np.array(found.size) / 2
        for name, place in zip(found.classes, found.strongest, strict=True):
            more = 1, is_inside(place, of_class[name]), is_inside(centre, of_class[name])
            hits[name] = Hits(*map(sum, zip(hits[name], more, strict=True)))
    return hits, failed


def boxes_of(
    model: SavedModel, images: ImageSet, tree: Path
) -> tuple[dict[int, dict[str, list[Box]]], dict[str, str]]:
    """Read the boxes of the model's classes in each test image that has some; why others cannot."""
    found: dict[int, dict[str, list[Box]]] = {}
    failed: dict[str, str] = {}
    for row in images.splits.get("test", ()):
        try:
            objects = read_annotation(tree, images.names[row]).objects
        except DataError as error:
            failed[images.names[row]] = str(error)
            continue
        for one in objects:
            if one.name in model.classes and not one.difficult:
                found.setdefault(int(row), {}).setdefault(one.name, []).append(one.box)
    return found, failed


def is_inside(place: np.ndarray, boxes: Sequence[Box]) -> bool:
    """Tell whether a place lies in a box; VOC counts pixels from 1: pixel 1 begins at place 0."""
    x, y = place
    return any(xmin - 1 <= x <= xmax and ymin - 1 <= y <= ymax for xmin, ymin, xmax, ymax in boxes)


def total(hits: dict[str, Hits]) -> Hits:
    """Add up all pairs of an image and one of its classes."""
    return Hits(*map(sum, zip(*hits.values(), strict=True)))


def describe(hits: Hits) -> str:
    """Write hits as percentages."""
    if not hits.images:
        return "no image"
    strongest, centre = (100 * n / hits.images for n in hits[1:])
    return f"{strongest:5.1f} % of {hits.images} (the centre: {centre:5.1f} %)"


if __name__ == "__main__":
    main()
