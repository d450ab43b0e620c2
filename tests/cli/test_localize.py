"""``vggfeat localize`` as people type it: trained, used, tested."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import BOXES, SIZE, Oracle, red_tree, weights_of
from PIL import Image
from tinynet import PIXELS, Tiny, stand_in

from vggfeat.cli import main
from vggfeat.nets.weights import Weights
from vggfeat.train.checkpoint import LAST, read

Command = Callable[..., tuple[str, str]]
PARTS = {
    "train": {f"00000{k}": ((1, -1), (-1, 1))[k % 2] for k in range(4)},
    "val": {"000004": (1, -1), "000005": (-1, 1)},
    "test": {"000006": (1, -1), "000007": (-1, 1), "000008": (1, -1)},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cats and dogs, each a red box in a place of its own."""
    return red_tree(tmp_path_factory.mktemp("voc") / "VOC2007", PARTS)


@pytest.fixture(autouse=True)
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every model be one that sees red; weights say what kind they are."""
    monkeypatch.setattr("vggfeat.ilsvrc.localize.DenseExtractor", Oracle)
    opened = {"pcr": weights_of(), "scr": weights_of("scr", shift="0.9")}
    monkeypatch.setattr(
        "vggfeat.ilsvrc.localize.Localiser.open",
        classmethod(lambda cls, path, **_: cls(opened[Path(path).name])),
    )


@pytest.fixture
def vggfeat(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Run a command here, in a folder of its own, and return what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path, status: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["vggfeat", "localize", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == status, said.err
        return said.out, said.err

    return run


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """Train a tiny network, and keep what the task says of itself."""
    seen: list[dict[str, str]] = []

    def begun(weights: Weights, task: Any, **_: object) -> Weights:
        seen.append(dict(task.about))
        torch.manual_seed(0)
        state = Tiny(task.outputs).state_dict()
        return Weights("D", dict(state), PIXELS, weights.source, "none")

    with stand_in() as patch:
        patch.setattr("vggfeat.ilsvrc.begin.begun", begun)
        patch.setattr("vggfeat.train.loop.CHECK", 1)
        yield seen


def test_a_run_learns_boxes(vggfeat: Command, tree: Path, tiny: list[dict[str, str]]) -> None:
    """The loss falls; metrics have the task's figures; a run is gone on with, another refused."""
    how = [
        "--data",
        tree,
        "--out",
        "a",
        "--S",
        "224",
        "--batch",
        "4",
        "--workers",
        "0",
        "--lr",
        "0.01",
    ]
    out, err = vggfeat("train", *how, "--dropout", "0", "--epochs", "12", "--json")
    told = json.loads(out)
    assert "4 objects to train, 2 to validate, 2 classes" in err
    assert tiny[0]["regression"] == "pcr"
    assert told["history"] == read(Path("a", LAST))[0].history
    assert {"iou50", "val_iou"} <= told["history"][0].keys()
    assert told["history"][-1]["loss"] < told["history"][0]["loss"] / 2
    assert Path("a/report.html").is_file()
    vggfeat("train", *how, "--dropout", "0", "--epochs", "12", "--resume")
    _, err = vggfeat("train", *how, "--regression", "scr", "--resume", status=5)
    assert "regression: 'pcr' → 'scr')." in err


def test_what_is_no_source_or_class_is_refused(vggfeat: Command, tree: Path) -> None:
    """Before any picture is read, with what there is."""
    _, err = vggfeat("train", "--data", tree, "--out", "a", "--init", "absent.pth", status=2)
    assert "'embedded'" in err
    _, err = vggfeat("train", "--data", tree, "--out", "a", "--class", "cow", status=2)
    assert "'cat', 'dog'" in err
    _, err = vggfeat("train", "--data", tree, "--out", "a", "--freeze", "convv", status=2)
    assert "The 'freeze' parameter of Training must be 'none' or 'conv'. Got 'convv'" in err
    _, err = vggfeat("train", "--data", "absent", "--out", "a", status=3)
    assert "VOCdevkit/VOC2007" in err


def test_boxes_are_told_and_drawn(vggfeat: Command, tree: Path) -> None:
    """The red box of each picture, in the table, in JSON and on the copy; a bad file is named."""
    Path("pictures").mkdir()
    for name in ("000006", "000008"):
        Path(f"pictures/{name}.jpg").write_bytes((tree / f"JPEGImages/{name}.jpg").read_bytes())
    Path("pictures/bad.jpg").write_bytes(b"no picture")
    out, err = vggfeat(
        "predict", "pictures", "--model", "pcr", "--class", "cat", "--csv", "b.csv", "--json", "-q"
    )  # fmt: skip
    found = {one["picture"]: one for one in json.loads(out)}
    assert "bad.jpg: not a picture" in err
    assert "error" in found["bad.jpg"]
    [label] = found["000006.jpg"]["labels"]
    assert label["class"] == "cat"
    sides = [label[side] for side in ("xmin", "ymin", "xmax", "ymax")]
    assert sides == pytest.approx(BOXES["cat"], abs=3)
    with Path("b.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["cat", "cat", ""]
    assert float(rows[0]["xmin"]) == label["xmin"]
    drawn, plain = (Image.open(p) for p in (found["000006.jpg"]["drawing"], "pictures/000006.jpg"))
    assert drawn.size == plain.size == SIZE
    changed = [
        x
        for x in range(SIZE[0])
        if abs(drawn.getpixel((x, 250))[0] - plain.getpixel((x, 250))[0]) > 15
    ]
    assert min(abs(x - BOXES["cat"][0]) for x in changed) <= 4
    assert all(min(abs(x - edge) for edge in BOXES["cat"][::2]) <= 8 for x in changed)


def test_every_class_that_is_named_is_looked_for(vggfeat: Command, tree: Path) -> None:
    """Both are certain, in whatever order they are named; how many is not asked twice."""
    how = ["predict", tree / "JPEGImages/000006.jpg", "--model", "pcr", "--class", "dog"]
    out, _ = vggfeat(*how, "--class", "cat", "--json", "-q")
    [found] = json.loads(out)
    assert {one["class"]: one["posterior"] for one in found["labels"]} == {"cat": 1, "dog": 1}
    _, err = vggfeat(*how, "--top", "2", status=2)
    assert "--top says nothing to --class" in err


def test_synsets_have_names(vggfeat: Command, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told and asked for as people call them, with the key beside it for machines."""
    about = weights_of().about | {"classes": '["n02123045", "dog"]'}
    of_ilsvrc = Weights("D", {}, PIXELS, "oracle", "none", about=about)
    monkeypatch.setattr(
        "vggfeat.ilsvrc.localize.Localiser.open", classmethod(lambda cls, path, **_: cls(of_ilsvrc))
    )
    how = ["predict", tree / "JPEGImages/000006.jpg", "--model", "x", "--csv", "b.csv"]
    for asked in ("tabby", "n02123045"):
        [found] = json.loads(vggfeat(*how, "--class", asked, "--json", "-q")[0])
        assert (found["labels"][0]["class"], found["labels"][0]["key"]) == ("tabby", "n02123045")
    with Path("b.csv").open(newline="") as file:
        assert [(row["class"], row["key"]) for row in csv.DictReader(file)] == [
            ("tabby", "n02123045")
        ]
    _, err = vggfeat(*how, "--class", "lynx", status=2)
    assert "one of 'tabby', 'dog'. Got 'lynx'" in err


def test_ctrl_c_says_what_is_kept(
    vggfeat: Command, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of predict the drawings and the table of what was found; of a test nothing."""
    seen: list[str] = []
    looked = Oracle.maps

    def maps(net: Oracle, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append("picture")
        if len(seen) > 2:
            raise KeyboardInterrupt
        return looked(net, pixels)

    monkeypatch.setattr(Oracle, "maps", maps)
    command = ["predict", tree / "JPEGImages", "--model", "pcr", "--class", "cat"]
    _, err = vggfeat(*command, "--csv", "b.csv", status=130)
    said = "2 pictures done; the drawings are kept, and b.csv has what was found. The same command"
    assert said in err
    with Path("b.csv").open(newline="") as file:
        assert [row["picture"] for row in csv.DictReader(file)] == ["000000.jpg", "000001.jpg"]
    assert len(list(Path("boxes").iterdir())) == 2
    _, err = vggfeat(*command, "--csv", "none.csv", status=130)
    assert "0 pictures done; the drawings are kept. The same" in err
    assert not Path("none.csv").exists()
    _, err = vggfeat("evaluate", "--data", tree, "--model", "pcr", status=130)
    assert "Nothing is kept" in err


def test_pictures_of_which_none_can_be_read_are_an_error(vggfeat: Command) -> None:
    """They are in the table all the same."""
    Path("bad.jpg").write_bytes(b"no picture")
    out, err = vggfeat(
        "predict", "bad.jpg", "--model", "pcr", "--class", "cat", "--csv", "b.csv", "--json",
        status=3,
    )  # fmt: skip
    assert "No picture could be read" in err
    assert "error" in json.loads(out)[0]
    assert "bad.jpg" in Path("b.csv").read_text()


def test_labels_are_needed(vggfeat: Command, tree: Path) -> None:
    """Either of a classification system, or a class that is given; one that there is."""
    pictures = tree / "JPEGImages"
    _, err = vggfeat("predict", pictures, "--model", "pcr", status=2)
    assert "--classifier" in err
    _, err = vggfeat("predict", pictures, "--model", "pcr", "--class", "cow", status=2)
    assert "'cat', 'dog'" in err


def test_errors_beside_the_papers(
    vggfeat: Command, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol 1, then both with a classification system that says cat; the page has it all."""
    out, _ = vggfeat("evaluate", "--data", tree, "--model", "pcr", "--json", "-q")
    assert json.loads(out)["errors"]["central"] == 0
    assert json.loads(out)["errors"]["top2"] is None

    from vggfeat.ilsvrc.outputs import Alike

    monkeypatch.setattr("vggfeat.cli.systems._opened", lambda *_, **__: Alike(("cat", "dog"), [0]))
    out, _ = vggfeat(
        "evaluate", "--data", tree, "--model", "pcr", "--model", "scr", "--classifier", "cats",
        "--Q", "320", "--threshold", "0.4", "--report", "r/boxes.html", "--json",
    )  # fmt: skip
    told = json.loads(out)
    assert told["errors"]["top1"] == pytest.approx(1 / 3)
    assert told["errors"]["top2"] == 0
    assert [one["of"] for one in told["classes"]] == [2, 1]
    assert told["settings"]["merging"] == {"match": "iou", "threshold": 0.4, "average": "count"}
    assert [one["Q"] for one in told["settings"]["nets"]] == [[320], [320]]
    page = Path("r/boxes.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") >= 3 + 2 * 3
    assert "What merging did" in page
    assert "Table 9" in page
    assert "http" not in page.replace("http-equiv", "")
    assert json.loads(Path("r/boxes/results.json").read_text()) == told
    with Path("r/boxes/classes.csv").open(newline="") as file:
        assert [row["top1"] for row in csv.DictReader(file)] == ["0.0", "1.0"]
    with Path("r/boxes/pictures.csv").open(newline="") as file:
        shares = [float(row["iou"]) for row in csv.DictReader(file)]
    assert shares == [one["iou"] for one in told["pictures"]]
    assert "Partial" not in page
    assert "other pictures and classes" in page
    assert told["tested"] == {"pictures": 3, "objects": 3, "failed": 0}
    out, _ = vggfeat("evaluate", "--data", tree, "--model", "pcr", "--limit", "1")
    assert "the first 1 of 3 objects" in out
    assert "Table" not in out
    assert "cat" in out
    assert "100.0" not in out
