"""``vggfeat classify``, ``vggfeat fuse`` and the recipes of Tables 3 to 7, as people type them."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakenet import CLASSES, Colours, paint
from support import random_state
from tinynet import PIXELS

from vggfeat.cli import main, verdicts
from vggfeat.cli.working import Work
from vggfeat.data.cards import load_card
from vggfeat.data.settings import Features
from vggfeat.errors import WeightsError
from vggfeat.features.store import FeatureStore
from vggfeat.ilsvrc import validation
from vggfeat.ilsvrc.classes import ilsvrc_classes
from vggfeat.nets.formats import write

Command = Callable[..., tuple[str, str]]
TABLE = """
title = "Colours"
protocol = "classification"
[nets.d-jitter]
net = "D"
S = [256, 512]
weights = "authors"
[nets.e-256]
net = "E"
S = 256
chain = "train-e-jitter"
[nets.a-256]
net = "A"
S = 256
[[rows]]
name = "D"
uses = [{ net = "d-jitter", Q = [32] }]
paper = [20.0, 10.0]
[[rows]]
name = "D & E"
mode = "both"
uses = [{ net = "d-jitter", Q = [32, 48] }, { net = "e-256", Q = [32] }]
paper = [10.0, 5.0]
[[rows]]
name = "A"
uses = [{ net = "a-256", Q = [32] }]
"""


@pytest.fixture
def nets(monkeypatch: pytest.MonkeyPatch) -> list[Colours]:
    """Put networks that know colours where a command opens one, and list those opened."""
    opened: list[Colours] = []

    def network(work: Work, features: Features, net: str) -> Colours:
        source = features.weights_of(net)
        if source == "none.pth":
            raise WeightsError("none.pth is damaged.")
        wide = source in ("authors", "torchvision") or "runs" in source
        classes = ilsvrc_classes().keys if wide else CLASSES
        exact: dict[str, Any] = {"flip": features.flip, "exif": features.exif}
        opened.append(Colours(net, features.pool, classes, **exact))
        opened[-1].deterministic = work.deterministic
        if source in ("authors", "torchvision"):
            opened[-1].weights = replace(opened[-1].weights, source=source)
        return opened[-1]

    monkeypatch.setattr(Work, "network", network)
    return opened


@pytest.fixture
def vggfeat(
    nets: list[Colours],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Command:
    """Run a command here, in a folder of its own, and return what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path, status: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["vggfeat", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == status, said.err
        return said.out, said.err

    return run


def colours(root: Path, keys: tuple[str, ...] = CLASSES) -> Path:
    """Paint a picture of every colour in its class's folder, and a red one that is called blue."""
    for number, (key, colour) in enumerate(zip(keys, CLASSES, strict=True)):
        paint(root / key / "1.png", colour, number)
    paint(root / keys[0] / "2.png", "red", 9)
    return root


def test_own_pictures_have_their_likeliest_classes(
    vggfeat: Command, tmp_path: Path, nets: list[Colours]
) -> None:
    """Names on the terminal; all in JSON and CSV; what cannot be read has its reason."""
    paint(tmp_path / "p" / "lawn.png", "green")
    paint(tmp_path / "p" / "sea.png", "blue")
    (tmp_path / "p" / "torn.png").write_bytes(b"\x89PNG")
    out, err = vggfeat("classify", "p", "--Q", "32", "--top", "2", "--csv", "top.csv")
    lines = [line.split() for line in out.splitlines() if "." in line]
    assert [line[0] for line in lines if len(line) == 3] == ["lawn.png", "sea.png"]
    assert [line[1] for line in lines if len(line) == 3] == ["green", "blue"]
    assert "Warning: torn.png" in err
    out, err = vggfeat("classify", "p", "--Q", "32", "--Q", "48", "--top", "6", "--json")
    told = json.loads(out)
    lawn, sea, torn = told["pictures"]
    assert lawn["classes"][0]["class"] == "green"
    assert sea["classes"][0]["index"] == CLASSES.index("blue")
    assert sum(one["probability"] for one in lawn["classes"]) == pytest.approx(1)
    assert torn["picture"] == "torn.png"
    [behind] = told["scores"].values()
    assert behind["settings"]["pool"] == "softmax"
    with (tmp_path / "top.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class 1"] for row in rows] == ["green", "blue", ""]
    assert float(rows[0]["share 1"]) > float(rows[0]["share 2"])
    assert rows[2]["error"]
    assert {net.extraction.net for net in nets} == {"D"}


def test_errors_are_told_and_kept(vggfeat: Command, tmp_path: Path, nets: list[Colours]) -> None:
    """One of seven is not what its folder says; a second time nothing is run."""
    colours(tmp_path / "set")
    command = ["classify", "--data", "set", "--Q", "32", "--results", "r", "--csv", "all.csv"]
    out, _ = vggfeat(*command)
    assert "14.3" in out  # 1/7
    assert "7 in set" in out
    assert "6 classes of one's own" in out
    assert "difference" not in out  # the paper has nothing beside it
    told = json.loads(vggfeat(*command, "--json", "--quiet")[0])
    assert (told["top1"], told["top5"], told["pictures"]) == (1 / 7, 0.0, 7)
    assert told["paper"] == []
    assert [net.runs for net in nets] == [7, 0]
    assert json.loads((tmp_path / "r" / "results.json").read_text())["top1"] == 1 / 7
    with (tmp_path / "all.csv").open(newline="") as file:
        wrong = [row["name"] for row in csv.DictReader(file) if row["true"] != row["class 1"]]
    assert wrong == ["blue/2.png"]


def test_modes_of_several_nets_are_fused_from_stores(vggfeat: Command, tmp_path: Path) -> None:
    """Two nets at once, or each into a store that is packed and fused: the same numbers."""
    colours(tmp_path / "set")
    how = ["--data", "set", "--Q", "32", "--Q", "48", "--mode", "both", "--json", "--quiet"]
    vggfeat("classify", *how, "--net", "D", "--net", "E", "--out", "de", "--csv", "de.csv")
    for net in "de":
        vggfeat("classify", *how, "--net", net.upper(), "--out", f"scores-{net}")
    vggfeat("store", "pack", "scores-e", "scores-e.h5")
    command = ["fuse", "scores-d", "scores-e.h5", "--data", "set", "--out", "f", "--csv", "f.csv"]
    out, err = vggfeat(*command)
    assert "14.3" in out
    assert "D, softmax and crops5 at Q = 32, 48; E, softmax and crops5 at Q = 32, 48" in out
    assert "Fused scores of 7 pictures: f" in err
    assert (tmp_path / "f.csv").read_bytes() == (tmp_path / "de.csv").read_bytes()
    out, _ = vggfeat("fuse", "f", "--top", "1")
    assert "red" in out
    assert "/fused/Q0 (7, 6)" in vggfeat("store", "info", "f")[0]
    before = (tmp_path / "de.csv").read_bytes()
    vggfeat("classify", *how, "--out", "scores-d", "--csv", "d.csv")
    assert (tmp_path / "d.csv").read_bytes() != before


@pytest.mark.parametrize("wanted", [False, True])
def test_deterministic_reaches_the_network(
    vggfeat: Command, ilsvrc: Path, nets: list[Colours], wanted: bool
) -> None:
    """Of `classify` and of a table, and the store says so."""
    how = ["--data", ilsvrc, *["--deterministic"] * wanted]
    vggfeat("classify", *how, "--weights", "authors", "--Q", "32", "--out", "a")
    vggfeat("run", "own.toml", *how, "--allow-partial", "--features", "b", status=4)
    assert [net.deterministic for net in nets if net.runs] == [wanted] * 2
    for store in map(FeatureStore.open, ("a", "b/d-jitter")):
        kept = [one["provenance"]["deterministic"] for one in store.manifest.nets.values()]
        assert set(kept) == {wanted}


def test_shares_are_put_together(vggfeat: Command, tmp_path: Path, nets: list[Colours]) -> None:
    """Two processes do half of it each, and the command without --shard none."""
    colours(tmp_path / "set")
    command = ["classify", "--data", "set", "--Q", "32"]
    assert "Share 1/2 is done: 4 pictures." in vggfeat(*command, "--shard", "1/2")[0]
    vggfeat(*command, "--shard", "2/2", "--quiet")
    assert "14.3" in vggfeat(*command)[0]
    assert [net.runs for net in nets] == [4, 3, 0]


def test_a_share_without_pictures_says_so(vggfeat: Command, tmp_path: Path) -> None:
    """An array of more jobs than pictures goes through, and each tells what it did."""
    colours(tmp_path / "set")
    out, _ = vggfeat("classify", "--data", "set", "--Q", "32", "--shard", "8/9")
    assert "Share 8/9 is empty: only 7 pictures to do. Nothing was done." in out


def test_scores_of_own_pictures_are_kept(
    vggfeat: Command, tmp_path: Path, nets: list[Colours], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --out as well: other modes compute the rest, and nothing is made for JSON unasked."""
    colours(tmp_path / "set")
    monkeypatch.setattr(verdicts, "_plain", None)
    for mode in ("dense", "both", "multicrop"):
        vggfeat("classify", "set", "--Q", "32", "--mode", mode)
    assert [net.done for net in nets] == [["softmax"] * 7, ["crops5"] * 7, []]
    monkeypatch.setattr(verdicts, "SHOWN", 3)
    out, err = vggfeat("classify", "set", "--Q", "32", "--csv", "all.csv")
    assert out.count(".png") == 3
    assert "And 4 more pictures; --csv FILE writes all." in err
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 8


def test_fused_scores_stay_out_of_their_inputs(
    vggfeat: Command, tmp_path: Path, nets: list[Colours]
) -> None:
    """The next fusion has the same two nets; and what is half there is not fused."""
    colours(tmp_path / "set")
    for net in "DE":
        vggfeat("classify", "set", "--net", net, "--Q", "32", "--out", net)
    _, err = vggfeat("fuse", "D", "E", "--out", "D", status=5)
    assert "D is one of the stores that are fused. Name another folder" in err
    assert len(json.loads(vggfeat("fuse", "D", "E", "--json")[0])["scores"]) == 2
    paint(tmp_path / "set" / "red" / "9.png", "red", 3)
    vggfeat("classify", "set", "--net", "D", "--Q", "48", "--out", "D", "--shard", "1/2")
    _, err = vggfeat("fuse", "D", "E", status=5)
    assert "D is not finished: net D, softmax at Q = 48" in " ".join(err.split())
    vggfeat("fuse", "D", "E", "--Q", "32")
    vggfeat("classify", "set", "--net", "D", "--Q", "32", "--Q", "48", "--out", "D")
    out, _ = vggfeat("fuse", "D", "--data", "set")
    assert "8 in set" in out
    assert re.search(r"D, softmax at Q = 32, 48 *\n", out)
    vggfeat("classify", "set", "--net", "D", "--Q", "32", "--out", "short")
    assert re.search(
        r"D, softmax at Q = 32, 48 *\n", vggfeat("fuse", "short", "D", "--data", "set")[0]
    )
    out, _ = vggfeat("fuse", "E", "--data", "set")
    assert "1 picture has no scores" in out
    assert "could not be read" not in out


def bad_only(root: Path) -> None:
    (root / "p").mkdir()
    (root / "p" / "torn.png").write_bytes(b"\x89PNG")


def one_picture(root: Path) -> None:
    paint(root / "p" / "a.png", "red")


@pytest.mark.parametrize(
    ("made", "arguments", "status", "said"),
    [
        (one_picture, ["classify"], 2, "Name either pictures, or pictures with their classes"),
        (one_picture, ["classify", "p", "--data", "p"], 2, "Name either pictures"),
        (one_picture, ["classify", "p", "--results", "r"], 2, "add --data"),
        (one_picture, ["classify", "p", "--shard", "1/2", "--csv", "c"], 2, "--csv says nothing"),
        (one_picture, ["classify", "p", "--shard", "1/2", "--top", "5"], 2, "--top says nothing"),
        (one_picture, ["classify", "--data", "p", "--shard", "3/2"], 2, "one of 1/N … N/N"),
        (one_picture, ["fuse", "p", "--results", "r"], 2, "add --data"),
        (one_picture, ["classify", "p", "--out", "s", "--shard", "half"], 2, "one of 1/N … N/N"),
        (one_picture, ["classify", "p", "--mode", "crop"], 2, "'dense', 'multicrop', 'both'"),
        (one_picture, ["classify", "p", "--mode", "both", "--grid", "0"], 2, "from 1 to 99"),
        (one_picture, ["classify", "p", "--weights", "none.pth"], 4, "none.pth is damaged"),
        (bad_only, ["classify", "p"], 3, "No picture could be read"),
        (one_picture, ["fuse", "p"], 5, "or `vggfeat classify --out` wrote"),
        (one_picture, ["fuse"], 2, "STORES"),
    ],
)
def test_bad_input_is_one_line_and_its_kind(
    vggfeat: Command,
    tmp_path: Path,
    made: Callable[[Path], None],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    """What is wrong, in words, and an exit status."""
    made(tmp_path)
    _, err = vggfeat(*arguments, status=status)
    assert said in " ".join(err.split())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("absent", "There is no folder absent"),
        ("empty", "There are no pictures in 'empty'"),
        ("flat", "no list of their classes was found"),
    ],
)
def test_what_cannot_be_tested_on_is_told_before_a_net_is_opened(
    vggfeat: Command, tmp_path: Path, nets: list[Colours], data: str, said: str
) -> None:
    """Half a gigabyte of weights is not fetched for nothing."""
    (tmp_path / "empty").mkdir()
    paint(tmp_path / "flat" / "a.png", "red")
    _, err = vggfeat("classify", "--data", data, status=3)
    assert said in " ".join(err.split())
    assert not nets


def test_pictures_without_a_class_are_told(vggfeat: Command, tmp_path: Path) -> None:
    """What lies beside the class folders is left out, with a warning, by both commands."""
    colours(tmp_path / "set")
    paint(tmp_path / "set" / "loose.png", "red")
    said = "Warning: set has 1 picture beside the class folders"
    for command in (["classify", "--Q", "32", "--out", "s"], ["fuse", "s"]):
        out, err = vggfeat(*command, "--data", "set")
        assert said in err
        assert "7 in set" in out


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Path:
    """Paint colours under the names of ILSVRC's first classes, and write a table for them."""
    colours(tmp_path / "data" / "val", ilsvrc_classes().keys[: len(CLASSES)])
    (tmp_path / "own.toml").write_text(TABLE)
    return tmp_path / "data"


def test_a_table_says_what_was_measured_and_why_not(
    vggfeat: Command, ilsvrc: Path, nets: list[Colours]
) -> None:
    """The authors' net is measured; those that nobody trained say how they are trained."""
    command = ["run", "own.toml", "--data", ilsvrc]
    _, err = vggfeat(*command, status=3)
    assert "7 of 50,000 pictures" in err
    assert "--allow-partial" in err
    out, err = vggfeat(*command, "--allow-partial", status=4)
    [line] = [line for line in out.splitlines() if line.strip().startswith("D  ")]
    assert line.split()[1:3] == ["14.3/0.0", "20.0/10.0"]
    assert "7 of 50,000 pictures" in line
    assert out.count("weights absent") == 2
    assert "vggfeat run train-e-jitter --out runs --data ILSVRC_ROOT" in err
    assert "vggfeat train --net A --S 256 --out runs/a-256 --data ILSVRC_ROOT" in err
    assert [net.runs for net in nets if net.runs] == [7]


def test_the_name_of_a_picture_forges_no_line(vggfeat: Command, tmp_path: Path) -> None:
    """In the table and in the warning a name's end of line is an escape; JSON has the name."""
    paint(tmp_path / "p" / "sea\nModel: a.png", "blue", 1)
    (tmp_path / "p" / "y\nModel: b.png").write_text("no picture")
    out, err = vggfeat("classify", "p", "--quiet", "--top", 1)
    assert "sea\\nModel: a.png" in out
    assert "Warning: y\\nModel: b.png: not a picture" in err
    assert not [line for line in (out + err).splitlines() if line.startswith("Model")]
    told = json.loads(vggfeat("classify", "p", "--quiet", "--json")[0])
    assert [one["picture"] for one in told["pictures"]] == ["sea\nModel: a.png", "y\nModel: b.png"]


def test_a_table_with_all_of_its_nets_has_differences(
    vggfeat: Command, ilsvrc: Path, nets: list[Colours], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained nets are found among the runs; what rows share is computed once."""
    card = load_card("ilsvrc2012").model_copy(update={"counts": {"val": 7}})
    monkeypatch.setattr(validation, "load_card", lambda name: card)
    for name in ("e-256", "a-256"):
        (ilsvrc.parent / "runs" / name).mkdir(parents=True)
        (ilsvrc.parent / "runs" / name / "best.safetensors").touch()
    command = ["run", "own.toml", "--data", ilsvrc, "--features", "kept", "--json", "--quiet"]
    rows = json.loads(vggfeat(*command)[0])["rows"]
    assert [row["row"] for row in rows] == ["D", "D & E", "A"]
    assert {(row["top1"], row["pictures"]) for row in rows} == {(1 / 7, 7)}
    assert rows[0]["difference"] == [pytest.approx(100 / 7 - 20), -10.0]
    assert rows[2]["difference"] is None
    assert len(rows[1]["provenance"]) == 4  # two nets, dense and multi-crop
    D, E, A = (net.done for net in nets)
    assert D == ["softmax"] * 14 + ["crops5"] * 14  # at 32, at 48; at both
    assert (E, A) == (["softmax"] * 7 + ["crops5"] * 7, ["softmax"] * 7)
    vggfeat(*command)
    assert not sum(net.runs for net in nets[3:])
    out, _ = vggfeat("run", "own.toml", "--data", ilsvrc, "--weights", "d-jitter=runs/mine.pth")
    assert "-5.7/-10.0" in out


def test_tables_and_modes_share_scores(vggfeat: Command, ilsvrc: Path, nets: list[Colours]) -> None:
    """What `classify --mode both` has computed, a table does not, and the other way round."""
    how = ["classify", "--data", ilsvrc, "--weights", "authors", "--Q", "32", "--mode", "both"]
    vggfeat(*how, "--quiet")
    vggfeat("run", "own.toml", "--data", ilsvrc, "--allow-partial", status=4)
    assert [net.runs for net in nets] == [14, 0]


@pytest.mark.parametrize(
    ("source", "Q", "lines"),
    [
        ("authors", 384, [("D, S = [256; 512]", True)]),
        ("authors", 256, []),
        ("torchvision", 256, [("D, S = 256", False)]),
    ],
)
def test_the_papers_line_is_of_the_same_training_scale(
    vggfeat: Command,
    ilsvrc: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    Q: int,
    lines: list[tuple[str, bool]],
) -> None:
    """A difference where S is known to be the row's; without one it says that S is not known."""
    card = load_card("ilsvrc2012").model_copy(update={"counts": {"val": 7}})
    monkeypatch.setattr(validation, "load_card", lambda name: card)
    command = ["classify", "--data", ilsvrc, "--weights", source, "--Q", str(Q)]
    found = json.loads(vggfeat(*command, "--json")[0])["paper"]
    assert [(one["row"], not one["unlike"]) for one in found] == lines
    out, _ = vggfeat(*command)
    assert ("the training scale S of net D is not known" in out) == (source == "torchvision")
    assert ("-11.3/-8.1" in out) == (Q == 384)  # 14.3/0.0 less the paper's 25.6/8.1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table03-single-scale"], "table03-single-scale tests networks: name the pictures"),
        (["table03-single-scale", "--data", "x", "--report", "r.html"], "--report says nothing to"),
        (["table03-single-scale", "--data", "x", "--out", "r"], "which tests networks"),
        (["table11-voc2007", "--runs", "r"], "--runs says nothing to table11-voc2007"),
        (["train-a", "--data", "x", "--runs", "r"], "--runs says nothing to train-a"),
        (["table03-single-scale", "--data", "x", "--weights", "D=a.pth"], "of a-256=FILE, a-lrn"),
    ],
)
def test_options_of_other_recipes_are_refused(
    vggfeat: Command, arguments: list[str], said: str
) -> None:
    """An option that would do nothing, or names no net of the table, is a mistake."""
    assert said in " ".join(vggfeat("run", *arguments, status=2)[1].split())


@pytest.mark.slow
def test_a_trained_file_is_all_it_needs(tmp_path: Path) -> None:
    """From a file of net A alone, in a process of its own: its net, its classes, its pixels."""
    state = random_state("A", ["fc7"]) | {
        "fc8.weight": torch.zeros(2, 4096),
        "fc8.bias": torch.tensor([0.0, 1.0]),
    }
    about = {"classes": '["cat", "dog"]'}
    path = tmp_path / "best.safetensors"
    write(path, state, PIXELS, net="A", source="random", licence="none", about=about)
    paint(tmp_path / "p" / "a.png", "red")
    arguments = ["classify", "p", "--weights", str(path), "--Q", "224", "--mode", "both", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "vggfeat", *arguments, "--grid", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    [picture] = json.loads(done.stdout)["pictures"]
    assert [one["class"] for one in picture["classes"]] == ["dog", "cat"]
    expected = torch.tensor([0.0, 1.0]).softmax(0)[1].item()
    assert picture["classes"][0]["probability"] == pytest.approx(expected, abs=1e-4)
    assert "Net A, fc8" in done.stderr
