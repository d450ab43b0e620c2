"""Images that are the same byte for byte are said, counted and, if asked for, left out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run
from PIL import Image
from support import noise

from vggfeat.data.imageset import ImageSet
from vggfeat.experiments.identical import choose_kept, find_identical
from vggfeat.svm.splits import Split

FAST = ("--layer", "pool1", "--Q", "32", "--weights", "embedded", "--jobs", "1", "--no-evidence")
IDS = np.array([[1, 0], [2, 0], [1, 0], [3, 5], [2, 0], [3, 4], [0, 0], [0, 0]])
NAMES = tuple("abcdefgh")


def images(labels: str, **splits: list[int]) -> ImageSet:
    parts = {part: np.array(rows) for part, rows in splits.items()}
    return ImageSet(NAMES, NAMES, tuple(labels), splits=parts)


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (images("xyxyyxyx"), "abdfgh"),
        (images("xyxyyxyx", test=[0, 1, 3], val=[4], train=[2, 5, 6, 7]), "cdefgh"),
        (images("xyxyxxyx"), "adfgh"),
        (images("xyyyxxyx"), "dfgh"),
    ],
)
def test_one_is_kept_to_train_with_rather_than_to_test(found: ImageSet, kept: str) -> None:
    """Of those under different labels, none; nothing is known of what has no id."""
    assert [NAMES[row] for row in choose_kept(found, IDS)] == list(kept)


def test_groups_are_named_and_test_images_among_them_counted() -> None:
    found = images("xyxyxxyx")
    identical = find_identical(found, IDS)
    assert identical.groups == (("a", "c"), ("b", "e"))
    assert identical.contradictions == (("b (y)", "e (x)"),)
    split = Split(np.array([0, 1, 3]), np.array([2, 4, 5]))
    first, second = identical.notes(found, [split, split])
    assert "2 of 6" in first
    assert "a = c" in first
    assert "b = e" not in first
    assert "b (y) = e (x)" in second
    assert "--deduplicate keeps none" in second
    assert not find_identical(found, np.zeros((8, 2), np.int64)).notes(found, [split])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Draw blue and red images; the first test image of each is a training image, too."""
    with (tmp_path / "m.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split"])
        for number in range(24):
            label, part = ("blue", "red")[number % 2], ("train", "test")[number // 12]
            pixels = noise(32, 32, number % 12 if number in (12, 13) else number) // 3
            pixels[..., 2 * (number % 2 == 0)] += 150
            Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
            table.writerow([f"{number:02}.png", label, part])
        Image.fromarray(pixels).save(tmp_path / "again.png")
        table.writerow(["again.png", "blue", "test"])
    return tmp_path


def test_svm_says_what_is_the_same_and_leaves_it_out(folder: Path) -> None:
    """In the terminal, on the page and in JSON; with --deduplicate four of the 25 are not there."""
    words = ("svm", "--dataset", "m.csv", *FAST, "--report", "r.html")
    shown = run(*words, cwd=folder)
    for text in (shown.out, (folder / "r.html").read_text()):
        assert "2 of 13 test images" in text
        assert "00.png = 12.png" in text
        assert "23.png (red) = again.png (blue)" in text
    assert json.loads((folder / "r" / "result.json").read_text())["notes"]
    told = run(*words, "--deduplicate", "--json", "-q", cwd=folder).json
    assert told["identical"] == [
        ["00.png", "12.png"],
        ["01.png", "13.png"],
        ["23.png", "again.png"],
    ]
    assert told["deduplicated"] == ["12.png", "13.png", "23.png", "again.png"]
    assert told["settings"]["images"] == 21
    assert [row["test"] for row in told["tables"]["splits"]] == [9]
    assert "4 images" in " ".join(told["notes"])


def test_images_that_all_contradict_are_said_once() -> None:
    """Nothing says that one of each is kept, where none is."""
    images = ImageSet(("a", "b"), ("a", "b"), labels=("cat", "dog"))
    [note] = find_identical(images, np.array([[1, 2], [1, 2]])).notes(images, [])
    assert "keeps one" not in note
    assert "a (cat) = b (dog)" in note
