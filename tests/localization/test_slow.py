"""Localisation from end to end by the commands, on scenes of shipped drawings, one in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run
from PIL import Image, ImageChops
from trees import OBJECT, write_voc, write_xml

from vggfeat._io.assets import asset
from vggfeat.localization.boxes import iou
from vggfeat.localization.data import open_boxset

CLASSES = ("boat", "drink", "music", "vehicle")
SIZE = (400, 300)
DRAWINGS = {"train": range(16), "val": range(16, 22), "test": range(22, 30)}
TIMES = {"train": 2, "val": 1, "test": 2}  # each drawing, in different places
PAPER = 240  # brighter than this is the white around a drawing


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write scenes with one drawing each, somewhere, 110 to 250 pixels long."""
    tree = tmp_path_factory.mktemp("voc") / "VOC2007"
    shown: dict[str, tuple[str, Path]] = {}
    parts: dict[str, dict[str, list[int]]] = {}
    for part, numbers in DRAWINGS.items():
        parts[part] = {}
        for label in CLASSES:
            files = sorted((asset("clipart10") / label).glob("*.jpg"))
            for file in (files[n] for n in numbers for _ in range(TIMES[part])):
                name = f"{len(shown):06d}"
                shown[name] = label, file
                parts[part][name] = [1 if one == label else -1 for one in CLASSES]
    write_voc(tree, CLASSES, parts, lambda path, _: path.parent.mkdir(parents=True, exist_ok=True))
    for name, (label, file) in shown.items():
        box = draw_scene(tree / "JPEGImages" / f"{name}.jpg", file, int(name))
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
        write_xml(tree, name, [size, OBJECT.format(name=label, difficult=0, box=box)])
    return tree


def draw_scene(path: Path, drawing: Path, seed: int) -> tuple[int, int, int, int]:
    """Draw a scene; return where the drawing is, in pixels from 1 on, ends included."""
    rng = np.random.default_rng(seed)
    with Image.open(drawing) as opened:
        image = opened.convert("RGB")
    ink = image.convert("L").point(lambda value: 255 * (value < PAPER))
    cut = image.crop(ink.getbbox())
    longest = rng.integers(110, 251)
    ratio = min(
        longest / max(cut.size),
        *(0.95 * of / side for of, side in zip(SIZE, cut.size, strict=True)),
    )
    cut = cut.resize([max(8, round(ratio * side)) for side in cut.size])
    left, top = (
        int(rng.integers(0, of - side + 1)) for of, side in zip(SIZE, cut.size, strict=True)
    )
    sheet = Image.new("RGB", SIZE, "white")
    sheet.paste(cut, (left, top))
    grain = rng.integers(225, 256, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    ImageChops.multiply(sheet, Image.fromarray(grain)).save(path, quality=95)
    return left + 1, top + 1, left + cut.width, top + cut.height


def mean_box_errors(tree: Path) -> float:
    """Error of saying the mean training box of a class in every test image."""
    data = open_boxset(tree)
    means = [data.train.chosen[data.train.part.labels == c].mean(0) for c in range(len(CLASSES))]
    rows = zip(data.test.part.labels, data.test.boxes, strict=True)
    return float(np.mean([iou(means[label][None], boxes).max() <= 0.5 for label, boxes in rows]))


@pytest.mark.slow
def test_boxes_are_learnt_from_shipped_drawings(tree: Path, tmp_path: Path) -> None:
    """Both protocols err far less than the mean box; merging errs less than single windows."""
    described = ["--layer", "pool5", "--pool", "average", "--weights", "embedded", "--Q", "256"]
    run("svm", "--dataset", "sample", *described, "--save", tmp_path / "svm", "--quiet")
    how = ["--freeze", "conv", "--regression", "scr", "--epochs", "16", "--json", "--quiet"]
    train = ["localize", "train", "--data", tree, "--out", tmp_path / "run"]
    epochs = run(*train, *how).json["tables"]["epochs"]
    assert epochs[-1]["loss"] < epochs[0]["loss"] / 2
    evaluate = ["localize", "evaluate", "--data", tree, "--model", tmp_path / "run"]
    found = run(*evaluate, "--classifier", tmp_path / "svm", "--json", "--quiet").json
    errors = {name: measure["value"] for name, measure in found["measures"].items()}
    assert errors["central"] < mean_box_errors(tree) - 0.2
    assert errors["top5"] < mean_box_errors(tree) - 0.2
    assert errors["box"] < errors["single"]
