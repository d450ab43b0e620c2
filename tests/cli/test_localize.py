"""``vggfeat localize`` as people type it: trained, used, tested."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.boxes import (
    CLASSES,
    GRID_BOXES,
    GRID_NET,
    GRID_SIZE,
    box_weights,
    red_tree,
)
from helpers.cli import run
from helpers.networks import configured, write_weights
from helpers.seams import checkpoint_every, interrupted_after_maps
from PIL import Image
from safetensors import safe_open
from trees import withhold

from vggfeat.data.image import is_drawing
from vggfeat.train.checkpoint import LAST, read

PARTS = {
    "train": {f"00000{k}": ((1, -1), (-1, 1))[k % 2] for k in range(4)},
    "val": {"000004": (1, -1), "000005": (-1, 1)},
    "test": {"000006": (1, -1), "000007": (-1, 1), "000008": (1, -1)},
}


@pytest.fixture(scope="module", autouse=True)
def _red() -> Iterator[None]:
    """Let net D be the one that sees red."""
    with configured({"D": GRID_NET}), checkpoint_every(1):
        yield


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cats and dogs, each a red box in a place of its own."""
    return red_tree(tmp_path_factory.mktemp("voc") / "VOC2007", PARTS, GRID_SIZE, GRID_BOXES)


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of its own, with files of nets: one that sees red, one that is blind."""
    monkeypatch.chdir(tmp_path)
    write_weights(Path("pcr.safetensors"), box_weights("pcr"))
    write_weights(Path("blind.safetensors"), box_weights("scr", blind=True))


PCR = ["--model", "pcr.safetensors", "--precision", "fp32"]


def read_table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_learns_boxes(tmp_path: Path) -> None:
    """From a net that sees red fc8 learns where; metrics are the task's; another run is refused."""
    apart = {"cat": (33, 33, 96, 160), "dog": (97, 65, 192, 192)}
    data = red_tree(tmp_path / "VOC2007", PARTS, (224, 224), apart)
    how = ["--data", data, "--init", "pcr.safetensors", "--out", "a", "--S", "224", "--batch", "2"]
    how += ["--workers", "0", "--lr", "0.03", "--momentum", "0.5", "--dropout", "0"]
    how += ["--freeze", "conv", "--no-colour-shift", "--epochs", "16"]
    ran = run("localize", "train", *how, "--regression", "scr", "--json")
    history = ran.json["tables"]["epochs"]
    assert "4 objects to train, 2 to validate, 2 classes" in ran.err
    known = read(Path("a", LAST))[0].history
    assert [row["val_iou50"] for row in history] == [row["val_iou50"] for row in known]
    assert history[-1]["loss"] < history[0]["loss"] / 10
    assert history[0]["val_iou"] < 0.5 < 0.8 < history[-1]["val_iou"]
    with safe_open("a/best.safetensors", "pt") as file:
        assert file.metadata()["regression"] == "scr"
    assert Path("a/report.html").is_file()
    run("localize", "train", *how, "--regression", "scr", "--resume")
    err = run("localize", "train", *how, "--regression", "pcr", "--resume", status=5).err
    assert "regression: 'scr' → 'pcr')." in err
    judged = run("localize", "evaluate", "--data", data, "--model", "a", "--json", "-q").json
    assert judged["measures"]["central"]["value"] == 0
    assert all(row["central_iou"] > 0.8 for row in judged["tables"]["objects"])


def test_a_net_of_convolutions_alone_is_begun_from(tree: Path) -> None:
    """As from the embedded weights by their name: fc6 and fc7 are drawn, and that is said."""
    write_weights(Path("part.safetensors"), box_weights("pcr").restricted(["pool5"]))
    how = ["--init", "part.safetensors", "--batch", "2", "--workers", "0", "--epochs", "1"]
    ran = run("localize", "train", "--data", tree, "--out", "a", *how, "--json")
    assert "fc6, fc7: randomly" in ran.err


@pytest.mark.parametrize(
    ("trained_at", "advice"), [("384", "--S 384"), ("[256, 512]", "--S 256 --S 512")]
)
def test_boxes_at_another_scale_are_warned_of(tree: Path, trained_at: str, advice: str) -> None:
    """By an option that can be typed; a net of a range is none that boxes are trained from."""
    weights = write_weights(Path("other.safetensors"), box_weights("pcr"), S=trained_at)
    how = ["--init", weights, "--batch", "2", "--workers", "0", "--epochs", "1"]
    ran = run("localize", "train", "--data", tree, "--out", "a", *how)
    [warning] = [line for line in ran.err.splitlines() if line.startswith("Warning: ")]
    assert advice in warning
    assert "[" not in warning
    assert "--init" in warning


def test_boxes_are_told_and_drawn(tree: Path) -> None:
    """The red box of each image, in the table, in JSON and on the copy; a bad file is named."""
    Path("images").mkdir()
    for name in ("000006", "000008"):
        Path(f"images/{name}.jpg").write_bytes((tree / f"JPEGImages/{name}.jpg").read_bytes())
    Path("images/bad.jpg").write_bytes(b"no image")
    # At 0.9 the boxes of windows that cut the object off are not merged with the others.
    words = ["--class", "cat", "--threshold", "0.9", "--csv", "b.csv", "--json", "-q"]
    ran = run("localize", "predict", "images", *PCR, *words)
    boxes = ran.json["tables"]["boxes"]
    label, other, bad = sorted(boxes, key=lambda row: row["image"])
    assert "bad.jpg: not an image" in ran.err
    assert [label["image"], bad["image"]] == ["images/000006.jpg", "images/bad.jpg"]
    assert "not an image" in bad["error"]
    assert (label["error"], other["error"], bad["class"]) == ("", "", None)
    assert label["class"] == "cat"
    sides = [label[side] for side in ("xmin", "ymin", "xmax", "ymax")]
    assert sides == pytest.approx(GRID_BOXES["cat"], abs=0.1)
    rows = read_table("b.csv")
    assert [row["class"] for row in rows] == ["cat", "cat", ""]
    assert float(rows[0]["xmin"]) == label["xmin"]
    assert is_drawing(Path(label["drawing"]).read_bytes())  # which no command takes for an image
    drawn, plain = (Image.open(label[name]) for name in ("drawing", "image"))
    assert drawn.size == plain.size == GRID_SIZE
    left, _, right, bottom = GRID_BOXES["cat"]
    y = bottom - 20
    changed = [
        x
        for x in range(GRID_SIZE[0])
        if abs(drawn.getpixel((x, y))[0] - plain.getpixel((x, y))[0]) > 15
    ]
    assert min(abs(x - left) for x in changed) <= 4
    assert all(min(abs(x - edge) for edge in (left, right)) <= 8 for x in changed)


def test_the_table_may_lie_among_the_drawings(tree: Path) -> None:
    """In the folder that the command makes itself, also where no image can be read, which is 3."""
    Path("bad.jpg").write_bytes(b"no image")
    how = [*PCR, "--class", "cat", "--csv"]
    image = tree / "JPEGImages/000006.jpg"
    run("localize", "predict", image, *how, "drawn/t.csv", "--out", "drawn")
    assert "000006.jpg" in Path("drawn/t.csv").read_text()
    ran = run("localize", "predict", "bad.jpg", *how, "boxes/t.csv", "--json", status=3)
    assert "No image could be read" in ran.err
    assert ran.json["tables"]["boxes"][0]["error"]
    assert "bad.jpg" in Path("boxes/t.csv").read_text()


def test_every_class_that_is_named_is_looked_for(tree: Path) -> None:
    """Both are certain, in whatever order they are named; without any there are no labels."""
    how = ["localize", "predict", tree / "JPEGImages/000006.jpg", *PCR]
    words = ["--class", "dog", "--class", "cat", "--json", "-q"]
    boxes = run(*how, *words).json["tables"]["boxes"]
    assert {row["class"]: row["posterior"] for row in boxes} == {"cat": 1, "dog": 1}
    assert "--classifier" in run(*how, status=2).err


def test_synsets_have_names(tree: Path) -> None:
    """They are told and asked for as people call them, with the key beside it for machines."""
    write_weights(Path("x.safetensors"), box_weights(keys=("n02123045", "dog")))
    image = tree / "JPEGImages/000006.jpg"
    how = ["localize", "predict", image, "--model", "x.safetensors", "--csv", "b.csv"]
    for asked in ("tabby", "n02123045"):
        [box] = run(*how, "--class", asked, "--json", "-q").json["tables"]["boxes"]
        assert (box["class"], box["key"]) == ("tabby", "n02123045")
    assert [(row["class"], row["key"]) for row in read_table("b.csv")] == [("tabby", "n02123045")]
    err = run(*how, "--class", "lynx", status=2).err
    assert "one of 'tabby', 'dog'. Got 'lynx'" in err


def test_ctrl_c_says_what_is_kept(tree: Path) -> None:
    """Of predict the drawings and the table of what was found; of a test nothing."""
    command = ["localize", "predict", tree / "JPEGImages", *PCR, "--class", "cat", "--csv"]
    with interrupted_after_maps(2):
        err = run(*command, "b.csv", status=130).err
        assert "2 images done; the drawings are kept, and b.csv has what was found" in err
        images = [row["image"] for row in read_table("b.csv")]
        assert images == ["JPEGImages/000000.jpg", "JPEGImages/000001.jpg"]
        assert len(list(Path("boxes").iterdir())) == 2
        assert "0 images done" in run(*command, "none.csv", status=130).err
        assert not Path("none.csv").exists()
        err = run("localize", "evaluate", "--data", tree, *PCR, status=130).err
    assert "Nothing is kept" in err


def test_errors_of_both_protocols(tree: Path) -> None:
    """Protocol 1, then both with a classification net that says cat; the page has it all.

    A net that sees red and one that is blind: windows of the first agree, those of the other do
    not, so that merging finds the box that most of all windows tell.
    """
    evaluate = ["localize", "evaluate", "--data", tree]
    first = run(*evaluate, *PCR, "--json", "-q").json
    assert {name: measure["value"] for name, measure in first["measures"].items()} == {"central": 0}
    assert min(row["central_iou"] for row in first["tables"]["objects"]) > 0.98

    nets = [*PCR, "--model", "blind.safetensors", "--classifier", says_cat()]
    words = ["--Q", "320", "--threshold", "0.4", "--report", "r/boxes.html", "--json"]
    result = run(*evaluate, *nets, *words).json
    errors = {name: measure["value"] for name, measure in result["measures"].items()}
    assert errors["top1"] == pytest.approx(1 / 3)
    assert errors["top2"] == 0
    classes = result["tables"]["classes"]
    assert [row["objects"] for row in classes] == [2, 1]
    merging = {"match": "iou", "threshold": 0.4, "average": "count"}
    assert result["settings"]["merging"] == merging
    assert result["settings"]["decoding"] == {"exif": True}
    of_merging = {row["figure"]: row["merged"] for row in result["tables"]["merging"]}
    assert of_merging["top-1 error"] == errors["top1"]
    assert of_merging["top-2 error"] == 0
    assert [net["Q"] for net in result["provenance"]["nets"]] == [[320], [320]]
    assert result["partial"] == []
    page = Path("r/boxes.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") >= 3 + 2 * 3
    assert "What merging did" in page
    assert "http" not in page.replace("http-equiv", "")
    assert json.loads(Path("r/boxes/result.json").read_text()) == result
    assert [row["top1"] for row in read_table("r/boxes/classes.csv")] == ["0.0", "1.0"]
    shares = [float(row["box_iou"]) for row in read_table("r/boxes/objects.csv")]
    assert shares == [row["box_iou"] for row in result["tables"]["objects"]]
    out = " ".join(run(*evaluate, *PCR, "--limit", "1").out.split())
    assert "the first 1 of 3 objects" in out
    assert "Table" not in out
    assert "cat" in out
    assert "100.0" not in out


def test_validation_in_the_place_of_the_test_part_is_told(tmp_path: Path) -> None:
    """On the terminal, in JSON and on the page; where test labels are there, that they are."""
    tree = red_tree(tmp_path / "VOC2007", PARTS, GRID_SIZE, GRID_BOXES)
    evaluate = ["localize", "evaluate", "--data", tree, *PCR, "--report", "r.html"]
    assert run(*evaluate, "--json", "-q").json["settings"]["part"] == "test"
    assert "chose the weights" not in Path("r.html").read_text(encoding="utf-8")
    withhold(tree / "ImageSets" / "Main")
    ran = run(*evaluate)
    said = "val, since there are no test labels; it also chose the weights"
    assert said in " ".join(ran.out.split())
    assert said in Path("r.html").read_text(encoding="utf-8")
    assert said in run(*evaluate, "--json", "-q").json["settings"]["part"]


def says_cat() -> Path:
    """Write a classification net that says cat, whatever it sees."""
    weights = box_weights("scr")
    state = weights.state | {
        "fc8.weight": torch.zeros(2, 28),
        "fc8.bias": torch.tensor([4.0, 0.0]),
    }
    about = {"classes": json.dumps(CLASSES)}
    cats = replace(weights, state=state, about=about)
    return write_weights(Path("cats.safetensors"), cats)


def test_nothing_is_drawn_into_the_folder_of_a_model(tree: Path) -> None:
    """By default drawings go to boxes/, which may be what `localize train` made; it stays whole."""
    Path("boxes").mkdir()
    Path("pcr.safetensors").rename("boxes/best.safetensors")
    image = tree / "JPEGImages/000006.jpg"
    how = [
        "localize",
        "predict",
        image,
        "--model",
        "boxes",
        "--precision",
        "fp32",
        "--class",
        "cat",
    ]
    assert "best.safetensors" in run(*how, status=5).err
    assert [path.name for path in Path("boxes").iterdir()] == ["best.safetensors"]
    for _ in range(2):
        run(*how, "--out", "drawn", "-q")
    assert [path.name for path in Path("drawn").iterdir()] == ["000006.jpg"]
