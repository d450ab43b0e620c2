"""Every row of Tables 11 and 12, from the command line, on small trees in the genuine layouts."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.cli import run
from helpers.networks import write_weights
from helpers.seams import before_batches
from support import random_weights
from trees import (
    band,
    draw_bands,
    one_class_each,
    two_persons_each,
    withhold,
    write_actions,
    write_classes,
    write_voc,
)

from vggfeat._io.assets import shared
from vggfeat.data.datasets import load_card
from vggfeat.features.extractor import DenseExtractor

SCALES = (16, 24)
WIDTH = 64  # of pool1, in both nets
SOLO, BOTH = WIDTH, 2 * WIDTH
STRAYS = ("056.dog", "198.spider")  # classes of Caltech-256 that have some


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of random weights of nets D and E, up to pool1."""
    folder = tmp_path_factory.mktemp("weights")
    return {
        net: write_weights(folder / f"{net}.safetensors", random_weights(net, ["pool1"], seed))
        for seed, net in enumerate("DE")
    }


@pytest.fixture(scope="module")
def voc2012(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VOC 2012 with both of its tasks, in one tree, its test labels withheld."""
    root = tmp_path_factory.mktemp("2012")
    tree = root / "VOCdevkit" / "VOC2012"
    copies = {"train": 2, "val": 2, "test": 1}
    main = one_class_each(load_card("voc2012").classes, copies)
    main["test"] = dict(list(main["test"].items())[:12])
    write_voc(tree, load_card("voc2012").classes, main, draw_bands)
    actions = load_card("voc2012-action").classes
    persons = two_persons_each(actions, copies)
    persons["test"] = dict(list(persons["test"].items())[:12])
    write_actions(tree, actions, persons, draw_bands, band)
    for task in ("Main", "Action"):
        withhold(tree / "ImageSets" / task)
    for name in main["test"]:
        (tree / "Annotations" / f"{name}.xml").unlink()
    return root


@pytest.fixture
def described() -> Iterator[Counter[tuple[str, int]]]:
    """Count the images that go through each net at each scale."""
    counts: Counter[tuple[str, int]] = Counter()

    def count(extractor: DenseExtractor, pixels: torch.Tensor) -> None:
        counts[extractor.extraction.net, min(pixels.shape[2:])] += len(pixels)

    with before_batches(count):
        yield counts


def small(
    name: str, weights: dict[str, Path], folder: Path, grid: tuple[float, ...] = (1.0, 100.0)
) -> Path:
    """Copy a shipped recipe, with other weights, layers, scales and a shorter grid."""
    text = (shared("pipelines") / f"{name}.toml").read_text()
    text, layers = re.subn(r"layers = .*", 'layers = ["pool1"]', text)
    text, scales = re.subn(r"Q = .*", f"Q = {list(SCALES)}", text)
    files = [f"{net}={path}" for net, path in weights.items()]
    text, sources = re.subn(r"weights = .*", f"weights = {json.dumps(files)}", text)
    assert (layers, scales, sources) == (1, 1, 1)
    path = folder / f"{name}.toml"
    path.write_text(f"{text}\n[classifier]\nC = {list(grid)}\n")
    return path


def with_few_classes(recipe: Path, few: int) -> list[str]:
    """Let a recipe take the shipped card with some of its classes; return these.

    Those with strays stay, and the last, which is the background.
    """
    name = re.search(r'dataset = "(.+)"', recipe.read_text())[1]
    card = load_card(name)
    kept = sorted({*card.classes[:: len(card.classes) // few], *STRAYS, card.classes[-1]})
    text = (shared("datasets") / f"{name}.toml").read_text()
    text = re.sub(r"classes = \[.*?\]", f"classes = {json.dumps(kept)}", text, flags=re.DOTALL)
    own = recipe.parent / f"few-{name}.toml"
    own.write_text(text)
    recipe.write_text(recipe.read_text().replace(f'"{name}"', json.dumps(str(own))))
    return kept


def run_partial(recipe: Path, root: Path, *more: str | Path) -> list[dict]:
    """Run a recipe on a tree that is far from whole, and return its rows."""
    partly = ("--root", root, "--allow-partial", "--jobs", "1")
    done = run("run", recipe, *partly, "--json", "-q", *more)
    assert "is partial" in done.err
    rows = done.json["rows"]
    assert all(row["dataset"]["partial"] and row["dataset"]["differences"] for row in rows)
    return rows


def scores_by_row(row: dict) -> dict[tuple[str, str], float]:
    """Take the scores of the test rows out of rankings that are long enough to hold all."""
    ranked = [one for one in row["tables"]["rankings"] if one["list"] == "ranked"]
    return {(one["class"], one["image"]): one["score"] for one in ranked}


def classes_of(row: dict) -> list[str]:
    return [one["class"] for one in row["tables"]["classes"]]


def value(row: dict, name: str) -> float:
    return row["measures"][name]["value"]


def submitted(folder: Path, stem: str) -> dict[tuple[str, str], float]:
    """Read the server's files as its own description has them: row, then confidence."""
    found = {}
    for path in sorted(folder.iterdir()):
        label = re.fullmatch(rf"{stem}_test_(\w+)\.txt", path.name)[1]
        for line in path.read_text().splitlines():
            *row, confidence = line.split(" ")
            found[label, "#".join(row)] = float(confidence)
    return found


def test_voc2007(weights: dict[str, Path], described: Counter, tmp_path: Path) -> None:
    """D, E and D & E by 11-point AP; a class without positives has no AP and is named."""
    classes = load_card("voc2007").classes
    parts = one_class_each(classes, {"train": 2, "val": 2, "test": 2})
    parts = {
        part: {name: (*row[:4], -1, *row[5:]) for name, row in rows.items()}
        for part, rows in parts.items()
    }  # bottles are not there
    write_voc(tmp_path / "VOCdevkit" / "VOC2007", classes, parts, draw_bands)
    rows = run_partial(small("table11-voc2007", weights, tmp_path), tmp_path)
    assert [row["row"] for row in rows] == ["D", "E", "D & E"]
    assert [row["settings"]["dimensions"] for row in rows] == [SOLO, SOLO, BOTH]
    paths = [[column["path"].split("/") for column in row["provenance"]["columns"]] for row in rows]
    nets = [list(dict.fromkeys(net for _, net, *_ in of_row)) for of_row in paths]
    assert nets == [["D"], ["E"], ["D", "E"]]
    for row in rows:
        aps = {one["class"]: one["ap11"] for one in row["tables"]["classes"]}
        assert aps.pop("bottle") is None
        assert value(row, "mAP") == pytest.approx(sum(aps.values()) / len(aps))
        assert value(row, "mAP") > 0.9
        assert any("bottle" in note for note in row["notes"])
        assert row["dataset"]["absent"] == ["bottle"]
    assert described == {(net, Q): 120 for net in "DE" for Q in SCALES}


def test_voc2012(
    weights: dict[str, Path], voc2012: Path, described: Counter, tmp_path: Path
) -> None:
    """D, E and D & E give figures of validation, and the server's comp2 files with their scores."""
    sent = tmp_path / "sent"
    recipe = small("table11-voc2012", weights, tmp_path)
    rows = run_partial(recipe, voc2012, "--submission", sent)
    test = (voc2012 / "VOCdevkit/VOC2012/ImageSets/Main/test.txt").read_text().split()
    assert [row["settings"]["dimensions"] for row in rows] == [SOLO, SOLO, BOTH]
    for row, folder in zip(rows, ("d", "e", "d-e"), strict=True):
        assert list(row["measures"]) == ["validation_mAP"]
        assert value(row, "validation_mAP") > 0.9
        found = submitted(sent / folder / "results" / "VOC2012" / "Main", "comp2_cls")
        assert list(found) == sorted((name, image) for name in classes_of(row) for image in test)
        assert found == pytest.approx(scores_by_row(row), abs=1e-8)
        best = max(found, key=lambda one: found[one] if one[1] == test[0] else -9)
        assert best[0] == "aeroplane"
    assert described == {(net, Q): 92 for net in "DE" for Q in SCALES}


def test_voc2012_without_its_test_part(
    weights: dict[str, Path], voc2012: Path, described: Counter, tmp_path: Path
) -> None:
    """Where the test archive is not there, the table has validation, with no difference."""
    ours = shutil.ignore_patterns("*test.txt", "Action")
    shutil.copytree(voc2012 / "VOCdevkit", tmp_path / "VOCdevkit", ignore=ours)
    recipe = small("table11-voc2012", weights, tmp_path)
    partly = ("--root", tmp_path, "--allow-partial", "--jobs", "1")
    done = run("run", recipe, *partly, "-q", "--json").json
    assert "there are no test images" in done["rows"][0]["about"]
    for row, paper in zip(done["paper"], (0.89, 0.89, 0.893), strict=True):
        assert row["validation_mAP_paper"] == pytest.approx(paper)
        assert (row["validation_mAP_difference"], row["remark"]) == (None, "partial data")
    assert described == {(net, Q): 80 for net in "DE" for Q in SCALES}


def test_voc2012_action(
    weights: dict[str, Path], voc2012: Path, described: Counter, tmp_path: Path
) -> None:
    """The whole image, then image and box: the box tells two persons of an image apart."""
    sent = tmp_path / "sent"
    recipe = small("table12-voc2012-action", weights, tmp_path)
    rows = run_partial(recipe, voc2012, "--submission", sent)
    test = (voc2012 / "VOCdevkit/VOC2012/ImageSets/Action/test.txt").read_text().splitlines()
    persons = sorted(row.replace(" ", "#") for row in test)
    assert len(persons) == 12
    assert [row["row"] for row in rows] == ["D & E, whole image", "D & E, image and box"]
    assert [row["settings"]["dimensions"] for row in rows] == [BOTH, 2 * BOTH]
    for row, folder in zip(rows, ("d-e-whole-image", "d-e-image-and-box"), strict=True):
        assert list(row["measures"]) == ["validation_mAP"]
        found = submitted(sent / folder / "results" / "VOC2012" / "Action", "comp10_action")
        assert list(found) == sorted((name, p) for name in classes_of(row) for p in persons)
        assert found == pytest.approx(scores_by_row(row), abs=1e-8)
    whole, boxed = (value(row, "validation_mAP") for row in rows)
    assert whole < 0.8 < 0.9 < boxed
    # 40 images and 6 of test, whole, once for both rows; and the boxes of their 92 persons.
    assert described == {(net, Q): 46 + 92 for net in "DE" for Q in SCALES}


@pytest.mark.parametrize(
    ("number", "image", "strays"),
    [
        ("101", "image_{:04d}.jpg", ("BACKGROUND_Google/tmp", "Faces/desktop.ini")),
        ("256", "001_{:04d}.jpg", ("198.spider/RENAME2", "056.dog/greg/vision309/a.jpg")),
    ],
)
def test_caltech(
    number: str,
    image: str,
    strays: tuple[str, ...],
    weights: dict[str, Path],
    described: Counter,
    tmp_path: Path,
) -> None:
    """Mean class recall over all classes, background included, three splits; strays are skipped.

    Of Caltech-256 some 40 classes, by a card of the test's own.
    """
    recipe = small(f"table11-caltech{number}", weights, tmp_path, (100.0,))
    if number == "256":
        classes = with_few_classes(recipe, 40)
        assert 40 <= len(classes) <= 50
    else:
        classes = list(load_card("caltech101").classes)
    tree = tmp_path / f"{number}_ObjectCategories"
    write_classes(tree, dict.fromkeys(classes, 3), image, draw_bands)
    for stray in strays:
        (tree / stray).parent.mkdir(parents=True, exist_ok=True)
        (tree / stray).write_bytes((tree / classes[0] / image.format(1)).read_bytes())
    rows = run_partial(recipe, tmp_path)
    assert [row["row"] for row in rows] == ["D", "E", "D & E"]
    assert [row["settings"]["dimensions"] for row in rows] == [2 * SOLO, 2 * SOLO, 2 * BOTH]
    for row in rows:
        assert classes_of(row) == classes
        sizes = [(split["train"], split["test"]) for split in row["tables"]["splits"]]
        assert sizes == [(2 * len(classes), len(classes))] * 3
        assert row["settings"]["images"] == 3 * len(classes)
        assert value(row, "mean_class_recall") > 20 / len(classes)
    assert described == {(net, Q): 3 * len(classes) for net in "DE" for Q in SCALES}
