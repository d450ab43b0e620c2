"""Images of several classes or none, from a CSV file to mAP, a model, and predictions."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run
from PIL import Image
from sklearn.metrics import average_precision_score
from support import noise

FAST = ("--layer", "pool1", "--Q", "32", "--weights", "embedded", "--jobs", "1", "--no-evidence")
PARTS = ("train", "val", "test", "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Draw 32 images with a red half, a blue one, both or neither; write what they show."""
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "labels", "split"])
        for number, (blue, red) in enumerate(list(product([False, True], repeat=2)) * 8):
            pixels = noise(32, 32, number) // 4
            pixels[:, :16, 2] += 150 * np.uint8(blue)
            pixels[:, 16:, 0] += 150 * np.uint8(red)
            Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
            labels = "|".join(["blue"] * blue + ["red"] * red)
            table.writerow([f"{number:02}.png", labels, PARTS[number // 4 % 4]])
    return tmp_path


def test_labels_of_a_csv_file_are_judged_by_map(folder: Path) -> None:
    """Without a card: the area AP of scikit-learn from the scores written, on the part test."""
    words = ("svm", "--dataset", "labels.csv", *FAST, "--report", "r.html", "--json", "-q")
    told = run(*words, cwd=folder).json
    assert list(told["measures"]) == ["mAP", "mAP_ap11", "validation_mAP"]
    assert told["measures"]["mAP"]["value"] > 0.9
    sizes = [told["settings"][f"images to {part}"] for part in ("train", "val", "test")]
    assert sizes == [8, 8, 16]
    with (folder / "labels.csv").open() as file:
        shown = {row["path"]: row["labels"].split("|") for row in csv.DictReader(file)}
    with (folder / "r" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    for of_class in told["tables"]["classes"]:
        name = of_class["class"]
        truth = [name in shown[row["image"]] for row in rows]
        scores = [float(row[name]) for row in rows]
        reference = average_precision_score(truth, scores)  # it does not make precision monotone
        assert of_class["area"] == pytest.approx(reference, abs=0.02)


def test_without_a_split_the_parts_are_drawn_and_it_is_said(folder: Path) -> None:
    """Half tests, a quarter validates; a card of a few lines says otherwise."""
    text = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join(line.rpartition(",")[0] for line in text) + "\n")
    words = ("svm", *FAST, "--json", "-q", "--dataset")
    drawn = run(*words, "labels.csv", cwd=folder).json["settings"]
    assert "50 % to test" in drawn["parts"]
    assert drawn["images to test"] == 16
    (folder / "mine.toml").write_text(
        'name = "mine"\nreader = "manifest"\nroot = "."\nfolder = "labels.csv"\n'
        '[protocol]\nkind = "multi-label"\nap = "ap11"\ntest_fraction = 0.25\nseed = 3\n'
    )
    told = run(*words, "mine.toml", cwd=folder).json
    assert list(told["measures"])[:2] == ["mAP", "mAP_area"]
    assert told["settings"]["images to test"] == 8


def test_a_card_needs_a_name_and_the_file(folder: Path, tmp_path: Path) -> None:
    """The protocol is that of its columns, and the file lies beside it, unless data has one."""
    (folder / "mine.toml").write_text('name = "mine"\nfolder = "labels.csv"\n')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = ("svm", *FAST, "--json", "-q", "--dataset", folder / "mine.toml")
    ran = run(*words, cwd=elsewhere).json
    assert list(ran["measures"])[:2] == ["mAP", "mAP_ap11"]
    assert ran["settings"]["images to test"] == 16
    assert ran["dataset"]["root"] == str(folder / "labels.csv")
    (folder / "mine.toml").write_text(
        'name = "mine"\nfolder = "labels.csv"\n[protocol]\nap = "ap11"\n'
    )
    assert list(run(*words, cwd=elsewhere).json["measures"])[:2] == ["mAP", "mAP_area"]
    for command in ("show", "check"):
        run("datasets", command, folder / "mine.toml", cwd=elsewhere)
    data = elsewhere / "data"
    data.mkdir()
    lines = (folder / "labels.csv").read_text().splitlines()
    places = [f"{folder}/{line}" for line in lines[1:] if not line.endswith("val")]
    (data / "labels.csv").write_text("\n".join([lines[0], *places]) + "\n")
    assert run(*words, cwd=elsewhere).json["dataset"]["root"] == str(data / "labels.csv")
    there = run(*words, "--root", folder, cwd=elsewhere).json
    assert there["dataset"]["root"] == str(folder / "labels.csv")


def test_a_model_of_several_classes_predicts_each(folder: Path) -> None:
    """Both classes of an image that shows both score above 0, and none where there is neither."""
    run("svm", "--dataset", "labels.csv", *FAST, "--save", "model", "-q", cwd=folder)
    images = ("--device", "cpu", "--json", "-q", "--top", "2")
    told = run("predict", "model", "00.png", "03.png", *images, cwd=folder).json
    settings = told["settings"]
    assert (settings["nets"], settings["layers"], settings["Q"]) == (["D"], ["pool1"], [32])
    assert "embedded" in settings["weights"][0]
    assert told["provenance"]["nets"]["D"]["weights"]["sha256"][:12] in settings["weights"][0]
    assert told["provenance"]["columns"][0]["settings"]["flip"] is True
    rows = told["tables"]["predictions"]
    said = [(row["image"], row["rank"], row["score"] > 0, row["remark"] != "") for row in rows]
    assert said == [
        ("00.png", 1, False, True),
        ("00.png", 2, False, False),
        ("03.png", 1, True, False),
        ("03.png", 2, True, False),
    ]


def test_an_image_that_no_class_speaks_for_is_told(folder: Path) -> None:
    """On the terminal, which else has no such column, in the CSV file and in JSON."""
    run("svm", "--dataset", "labels.csv", *FAST, "--save", "model", "-q", cwd=folder)
    words = ("predict", "model", "--device", "cpu", "-q")
    terminal = run(*words, "00.png", "03.png", "--csv", "s.csv", cwd=folder).out
    with (folder / "s.csv").open(newline="") as file:
        remarks = {row["name"]: row["remark"] for row in csv.DictReader(file)}
    assert [name for name, remark in remarks.items() if remark] == ["00.png"]
    assert remarks["00.png"] in terminal
    assert "Remark" not in run(*words, "03.png", cwd=folder).out
    assert len(run(*words, "00.png", "03.png", "--json", cwd=folder).json["notes"]) == 1
