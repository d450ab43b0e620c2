"""The part of `golden.adapter` for networks as classifiers: files of weights, classes, boxes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from helpers.cli import run

from golden.adapter.svm import CPU, words_of

Array = np.ndarray


def show_weights(file: Path) -> dict[str, Any]:
    """Run ``vggfeat weights show``: what a file holds."""
    return _told_of_weights(run("weights", "show", file, "--json").json)


def convert_weights(file: Path, target: Path, *more: str) -> dict[str, Any]:
    """Run ``vggfeat weights convert``: what the new file holds; the usual pixels are stated."""
    shown = run("weights", "show", file, "--json").json
    if "--pixels" not in more and shown["assumed"]:
        more += ("--pixels", "torchvision" if shown["pixels"]["channels"] == "RGB" else "caffe")
    return _told_of_weights(run("weights", "convert", file, target, *more, "--json").json)


def _told_of_weights(told: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("format", "net", "layers", "parameters", "dtype", "sha256", "pixels", "assumed")
    return {key: told[key] for key in (*keys, "licence", "ignored")}


def classify(
    data: Path,
    weights: Path,
    out: Path,
    table: Path,
    *more: str,
    Q: tuple[int, ...],
    **options: Any,
) -> dict[str, Any]:
    """Run ``vggfeat classify`` on labelled images with net A: errors, and shares by image."""
    words = ["classify", "--data", data, "--net", "A", "--weights", weights, "--out", out]
    words += ["--csv", table, *words_of({"Q": Q, **options}), *more]
    words += ["--precision", "fp32", *CPU]
    return _classified(run(*words, "--json", "-q").json, table)


def fuse(stores: Sequence[Path], data: Path, table: Path) -> dict[str, Any]:
    """Run ``vggfeat fuse``: errors, and shares by image."""
    told = run("fuse", *stores, "--data", data, "--csv", table, "--top", "3", "--json", "-q").json
    return _classified(told, table)


def _classified(told: Mapping[str, Any], table: Path) -> dict[str, Any]:
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shares: dict[str, dict[str, float]] = {}
    order: dict[str, list[str]] = {}
    for row in rows:
        ranks = range(1, 1 + sum(key.startswith("class ") for key in row))
        found = [(row[f"class {k}"], float(row[f"share {k}"])) for k in ranks]
        shares[Path(row["name"]).name] = dict(found)
        order[Path(row["name"]).name] = [label for label, _ in found]
    measures = told["measures"]
    errors = {name: measures[name]["value"] for name in ("top1", "top5")}
    if errors["top5"] is None:  # of at most five classes there is none; it was recorded as 0
        errors["top5"] = 0.0
    images = told["settings"]["images"]
    return {"errors": errors, "images": images, "shares": shares, "order": order}


def stored_posteriors(store: Path) -> dict[str, dict[str, Array]]:
    """Read what ``classify --out`` keeps: posteriors by pooling with scale, then by image."""
    import h5py

    with h5py.File(store / "features.h5") as file:
        names = [Path(name.decode()).name for name in file["names"][:]]
        [net] = [group for group in file.values() if isinstance(group, h5py.Group)]
        return {
            f"{pool} {scale}": dict(zip(names, values[:], strict=True))
            for pool, scales in net["fc8"].items()
            for scale, values in scales.items()
        }


def write_posteriors(
    store: Path, net: str, classes: Sequence[str], values: Mapping[tuple[str, int], Array]
) -> None:
    """Write posteriors (images, classes) by pooling and scale, as ``classify --out`` keeps them."""
    from vggfeat.store.column import Column, Descriptor
    from vggfeat.store.store import FeatureStore

    names = [f"{number}.png" for number in range(len(next(iter(values.values()))))]
    arrays = {Descriptor(net, "fc8", *key): numbers for key, numbers in values.items()}
    settings, outputs = {"weights": f"formula {net}"}, tuple(classes)
    kept = FeatureStore(store, "a")
    kept.add_columns([Column(name, settings, len(outputs), outputs) for name in arrays])
    kept.begin(names)
    ids = np.stack([np.arange(1, len(names) + 1)] * 2, axis=1)
    kept.write(names, ids, np.zeros_like(ids), arrays)
    kept.finish(names, {})


def fused_shares(stores: Sequence[Path], table: Path, top: int) -> dict[str, dict[str, float]]:
    """Run ``vggfeat fuse`` on images without labels: shares of the likeliest classes by image."""
    run("fuse", *stores, "--csv", table, "--top", top, "--json", "-q")
    nothing = {"value": None}
    measures = {"top1": nothing, "top5": nothing}
    return _classified({"measures": measures, "settings": {"images": 0}}, table)["shares"]


def errors_of(posteriors: Array, labels: Array) -> tuple[float, float, Array]:
    """Count top-1 and top-5 error of posteriors (N, classes), and the five likeliest classes."""
    from vggfeat.classification.evaluate import count_errors, top_k

    errors = count_errors([posteriors], labels, posteriors.shape[1])
    return errors.top1, errors.top5, top_k(posteriors, 5)


# Boxes


def to_frame(boxes: Array, size: tuple[int, int], place: Any, *, flip: bool) -> Array:
    """Write boxes (edges in pixels) in the frame of a crop at a place (size, offset)."""
    from vggfeat.localization.boxes import to_frame
    from vggfeat.train.augment import Place

    return to_frame(boxes, size, Place(*place), flip=flip)


def from_frame(framed: Array, size: tuple[int, int], place: Any) -> Array:
    """Write boxes in the frame of a crop as edges in pixels of the image."""
    from vggfeat.localization.boxes import from_frame
    from vggfeat.train.augment import Place

    return from_frame(framed, size, Place(*place))


def window_boxes(dense_map: Array, size: tuple[int, int], Q: int) -> Array:
    """Read the boxes (windows, K, 4) that a dense map (4 K, h, w) predicts."""
    from vggfeat.localization.boxes import window_boxes

    return window_boxes(dense_map, size, Q)


def merge(boxes: Array, scores: Array, **how: Any) -> dict[str, Any]:
    """Merge boxes of windows greedily."""
    from vggfeat.localization.merging import merge
    from vggfeat.settings import Merging

    merged = merge(boxes, scores, Merging(**how))
    return {"boxes": merged.boxes, "scores": merged.scores, "counts": merged.counts}


def box_loss(
    tree: Path, regression: str, S: int | tuple[int, int], scores: Array
) -> dict[str, Any]:
    """Measure predictions for the training images of a tree, at their first crops and centrally.

    Scores are (images, outputs); their columns beyond the task's are left out.
    """
    import torch

    from vggfeat.localization.data import open_boxset
    from vggfeat.localization.training import BoxRegression
    from vggfeat.train.augment import draw

    task = BoxRegression.on(open_boxset(tree), regression, S)
    labels = torch.from_numpy(task.train.part.labels)
    rows = torch.arange(len(labels))
    predicted = torch.from_numpy(scores[: len(labels), : task.outputs].astype(np.float32))
    draws = [draw(0, 0, int(row)) for row in rows]
    targets, counted = task._targets(rows, draws, torch.device("cpu"))
    return {
        "targets": targets.numpy(),
        "counted": counted.numpy(),
        "loss": float(task.losses(predicted, labels, rows, draws)),
        "iou": task.counts(predicted, labels, rows, draws).numpy(),
        "mean box": task.mean_boxes(),
    }


def judge_boxes(
    tree: Path,
    classes: tuple[str, ...],
    nets: Mapping[str, Callable[[Array], Array]],
    say: Callable[[Array, int], tuple[Array, Array, Array]] | None,
    scales: Sequence[int],
) -> dict[str, Any]:
    """Test localisation on a tree by protocol 1, and with `say` by protocol 2.

    Parameters
    ----------
    tree : Path
    classes : tuple of str
    nets : mapping
        By regression, "pcr" or "scr": what turns an image (H, W, 3) into a map (4 K, h, w).
    say : callable, optional
        Says of an image (H, W, 3) at a scale: posteriors (C,), class outputs of windows (C, h, w),
        posteriors of other classes (K,).
    scales : sequence of int
        Test scales of each net.
    """
    from vggfeat.localization.classifiers import ClassScores, pixels_of
    from vggfeat.localization.data import open_boxset
    from vggfeat.localization.predict import LocalizationSystem
    from vggfeat.localization.protocols import evaluate_objects

    class Said:
        def __init__(self) -> None:
            self.classes = classes

        def score(self, image: Any, at: Sequence[int]) -> ClassScores:
            told = {Q: say(_pixels(pixels_of(image, Q)), Q) for Q in at}  # type: ignore[misc]
            first = told[at[0]]
            return ClassScores(first[0], {Q: one[1] for Q, one in told.items()}, first[2])

    localizers = [_localiser(see, regression, classes) for regression, see in nets.items()]
    system = LocalizationSystem(localizers, [scales] * len(nets), Said() if say else None)
    evaluation = evaluate_objects(open_boxset(tree).test, classes, system)
    return {
        "errors": _errors(evaluation.errors(), evaluation.top),
        "by class": {
            key: _errors(evaluation.errors(label), evaluation.top)
            for label, key in enumerate(evaluation.classes)
        },
        "images": {
            f"{Path(item.name).stem} {classes[item.label]}": _boxes(item)
            for item in evaluation.objects
        },
    }


def _errors(errors: Any, top: int) -> dict[str, Any]:
    """Name errors as they were recorded: by how many labels count, and with the objects as of."""
    values = {name: None if value != value else value for name, value in errors._asdict().items()}
    values["of"] = values.pop("objects")
    return {name.replace("5", str(top)): value for name, value in values.items()}


def _boxes(item: Any) -> dict[str, Any]:
    """Write the boxes of an object as annotations have them."""
    from vggfeat.localization.boxes import as_annotated

    values: dict[str, Any] = {
        "true": [as_annotated(box) for box in item.truths],
        "central": as_annotated(item.central),
    }
    if item.detection is None:
        return values
    named = {name: getattr(item.detection, name) for name in ("score", "windows", "boxes_left")}
    boxes = {name: as_annotated(getattr(item.detection, name)) for name in ("box", "single")}
    return values | named | boxes | {"rank": item.rank, "iou": item.ious[1]}


def _localiser(see: Callable[[Array], Array], regression: str, classes: tuple[str, ...]) -> Any:
    """Open a localisation net that is a function."""
    import torch

    from vggfeat.localization.predict import Localizer
    from vggfeat.nets.preprocessing import PixelConvention
    from vggfeat.nets.weights import Weights

    class Extractor:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.done = 0

        def check_scales(self, scales: Sequence[int]) -> None:
            assert min(scales) >= 224

        def maps(self, pixels: Any) -> dict[str, Any]:
            return {"fc8": torch.from_numpy(see(_pixels(pixels)).astype(np.float32))[None]}

    about = {"kind": "localisation", "regression": regression, "S": "256"}
    about["classes"] = json.dumps(classes)
    pixels = PixelConvention("RGB", 255.0, (120.0, 120.0, 120.0))
    with mock.patch("vggfeat.localization.predict.DenseExtractor", Extractor):
        return Localizer(Weights("D", {}, pixels, "red", "none", about=about))


def _pixels(batch: Any) -> Array:
    """Turn a batch of one image (1, 3, H, W) into (H, W, 3)."""
    return batch[0].permute(1, 2, 0).numpy()


# Images of many pixels


def describe_in_tiles(
    pixels: Array, layers: tuple[str, ...], pools: tuple[str, ...], tile_pixels: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Describe an image (H, W, 3) by net D in tiles of so many pixels.

    Returns
    -------
    descriptors, maps
        By "layer/pool" and by layer, both of the mean with the mirror image and without it.
    """
    import torch

    from vggfeat import DenseExtractor

    extractor = DenseExtractor(
        "D", layers, weights="embedded", flip=True, pool="+".join(pools), locations="raw",
        device="cpu", precision="fp32", runtime="torch",
    )  # fmt: skip
    extractor.pixel_budget = 1
    batch = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    with mock.patch("vggfeat.features.extractor.TILE_PIXELS", tile_pixels):
        described, maps = extractor.describe(batch), extractor.maps(batch)
    return (
        {f"{layer}/{pool}": rows[0].numpy() for (layer, pool), rows in described.items()},
        {layer: dense[0].numpy() for layer, dense in maps.items()},
    )
