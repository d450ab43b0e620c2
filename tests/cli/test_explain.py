"""``vggfeat explain``: drawings, figures, bad images, unknown classes."""

from __future__ import annotations

import csv
from functools import partial

import numpy as np
import pytest
from helpers.cli import run
from PIL import Image

from vggfeat.data.image import decode
from vggfeat.features.aggregate import Aggregation
from vggfeat.features.extractor import DenseExtractor
from vggfeat.svm.model import SavedModel, save

CLASSES = ("cat", "dog", "owl", "yak")


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Save a model on shipped weights, whose settings the test may choose."""
    monkeypatch.chdir(tmp_path)

    def saved(**how):
        extractor = DenseExtractor("D", "pool2", weights="embedded", precision="fp32")
        coef = np.random.default_rng(0).normal(size=(4, 128))
        columns, how = tuple(extractor.columns([32])), Aggregation(**how).to_dict()
        made = SavedModel(coef, np.ones(4), CLASSES, (1.0,), columns, ("embedded",), how)
        return save(tmp_path / "model", made)

    return saved


explain = partial(run, "explain")


def test_the_best_three_are_drawn_and_told(model, draw, tmp_path):
    """One drawing for each image; score, sum, bias, exactness and norms are printed."""
    draw("photos/a.png", seed=1)
    draw("photos/b.png", 40, 60, seed=2)
    done = explain(model(), "photos", "--csv", "figures.csv", "--quiet")
    for said in ("Strongest at x", "Exact: the score is linear", "evidence/a.png"):
        assert said in " ".join(done.out.split())
    assert sorted(path.name for path in tmp_path.glob("evidence/*.*g")) == ["a.png", "b.png"]
    with Image.open(tmp_path / "evidence" / "a.png") as drawing:
        assert drawing.format == "PNG"
    with (tmp_path / "figures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        total = float(row["sum"]) + float(row["bias"])
        assert float(row["score"]) == pytest.approx(total, abs=1e-4)
        assert row["exact"] == "True"
    scores = [float(row["score"]) for row in rows[:3]]
    assert scores == sorted(scores, reverse=True)


def test_a_bad_image_is_named_and_the_rest_go_on(model, draw, tmp_path):
    """JSON gives the reason of the bad one, and for the good one the classes asked for."""
    draw("photos/good.png")
    (tmp_path / "photos" / "bad.png").write_bytes(b"not an image")
    named = ("--class", "yak", "--class", "cat")
    done = explain(model(power=0.5), "photos", *named, "--json", "-q", "--out", "x/y")
    tables = done.json["tables"]
    [bad] = tables["failed"]
    assert bad == {"image": "photos/bad.png", "reason": "not an image of a format that is read"}
    assert "bad.png" in done.err
    assert [row["class"] for row in tables["classes"]] == ["yak", "cat"]
    [good] = tables["drawings"]
    assert good["exact"].startswith("Not exact")
    assert "power 0.5" in good["exact"]
    assert (tmp_path / good["drawing"]).is_file()
    assert [row["column"] for row in tables["norms"]] == ["/D/pool2/average/Q32"]


def test_figures_may_lie_among_the_drawings(model, draw, tmp_path):
    """In the folder that the command makes itself, also where no image can be drawn."""
    draw("photos/a.png")
    (tmp_path / "bad.png").write_bytes(b"not an image")
    explain(model(), "photos", "--out", "maps", "--csv", tmp_path / "maps" / "t.csv", "--quiet")
    assert (tmp_path / "maps" / "t.csv").read_text().count("a.png") == 3
    explain(model(), "bad.png", "--out", "none", "--csv", "none/t.csv", "--quiet", status=3)
    assert "not an image" in (tmp_path / "none" / "t.csv").read_text()


def test_an_image_elsewhere_is_drawn_in_the_folder(model, draw, tmp_path, monkeypatch):
    """Nothing is written outside of --out, wherever the image lies."""
    draw("photos/a.png")
    path = model()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    explain(path, "../photos/a.png", "-q")
    assert (tmp_path / "here" / "evidence" / "a.png").is_file()
    assert sorted(p.name for p in tmp_path.glob("photos/*")) == ["a.png"]


def test_images_of_one_name_are_drawn_apart(model, draw, tmp_path):
    """Of x.jpg and x.png there are two drawings, also where disks know no capitals."""
    for name in ("x.jpg", "x.png", "X.bmp", "y.png", "x.jpg.tif"):
        draw(f"photos/{name}")
    explain(model(), "photos", "--class", "cat", "-q")
    drawn = {path.name for path in (tmp_path / "evidence").glob("*.png")}
    assert drawn == {"x.jpg.png", "x.png.png", "X.bmp.png", "y.png", "x.jpg.tif.png"}


@pytest.mark.parametrize("lying", ["notes.txt", "new/a.png"])
def test_nothing_is_drawn_among_other_files(model, draw, tmp_path, lying):
    """A folder that holds anything else is refused by its name, one's own drawings are not."""
    draw("photos/a.png")
    path = model()
    for _ in range(2):
        explain(path, "photos", "--csv", "evidence/t.csv", "-q")
    other = tmp_path / "evidence" / lying
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(b"mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("evidence/*.*g")}
    done = explain(path, "photos", "-q", status=5)
    assert lying in done.err
    assert "--out" in done.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("evidence/*.*g")} == before
    assert other.read_bytes() == b"mine"


def test_ctrl_c_leaves_what_is_done(model, draw, tmp_path, monkeypatch):
    """The figures of the images that were drawn are in the table."""
    draw("photos/a.png")
    draw("photos/b.png")

    def stopping(image, decoding, **named):
        if "b.png" in str(image):
            raise KeyboardInterrupt
        return decode(image, decoding, **named)

    monkeypatch.setattr("vggfeat.cli.explain.decode", stopping)
    done = explain(model(), "photos", "--csv", "f.csv", status=130)
    assert "1 image done; the drawings are kept, and f.csv has" in done.err
    assert (tmp_path / "f.csv").read_text().count("a.png") == 3


def test_drawings_are_no_images_to_explain(model, draw, tmp_path):
    """Drawn into the folder of the images, and the same again: the image alone is drawn, twice."""
    draw("a.png")
    saved = model()
    for drawn in (0, 1):
        done = explain(saved, ".", "--out", "evidence", "--json", "-q")
        assert [row["image"] for row in done.json["tables"]["drawings"]] == ["a.png"]
        assert len(done.json["left_out"]["drawings"]) == drawn
