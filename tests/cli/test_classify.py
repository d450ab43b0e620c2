"""``vggfeat classify``, ``vggfeat fuse`` and the recipes of Tables 3 to 7, as people type them."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run
from helpers.colours import CLASSES, SHARPNESS, colour_posteriors, paint, write_colours
from helpers.seams import (
    before_batches,
    described_images,
    published,
    shown_rows,
    validation_images,
)
from PIL import Image

from vggfeat.classification.classes import ilsvrc_classes
from vggfeat.nets.preprocessing import CAFFE, TORCHVISION
from vggfeat.store.maintenance import verify
from vggfeat.store.store import FeatureStore

D = ["--weights", "D.safetensors", "--precision", "fp32"]
E = ["--weights", "E.safetensors", "--precision", "fp32"]
BOTH = ["--net", "D", "--net", "E", "--weights", "D=D.safetensors", "--weights", "E=E.safetensors"]
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
uses = [{ net = "d-jitter", Q = [224] }]
paper = [20.0, 10.0]
[[rows]]
name = "D & E"
mode = "both"
uses = [{ net = "d-jitter", Q = [224, 256] }, { net = "e-256", Q = [224] }]
paper = [10.0, 5.0]
[[rows]]
name = "A"
uses = [{ net = "a-256", Q = [224] }]
"""


@pytest.fixture(autouse=True)
def _nets(tiny_nets: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of its own, with files of nets D and E that know colours."""
    monkeypatch.chdir(tmp_path)
    for net in "DE":
        write_colours(Path(f"{net}.safetensors"), net)


def colours(root: Path, keys: tuple[str, ...] = CLASSES) -> Path:
    """Paint an image of every colour in its class's folder, and a red one that is called blue."""
    for number, (key, colour) in enumerate(zip(keys, CLASSES, strict=True)):
        paint(root / key / "1.png", colour, number)
    paint(root / keys[0] / "2.png", "red", 9)
    return root


def test_own_images_have_their_likeliest_classes(tmp_path: Path) -> None:
    """Names on the terminal; all in JSON and CSV, as reckoned; a bad file has its reason."""
    paint(tmp_path / "p" / "lawn.png", "green")
    paint(tmp_path / "p" / "sea.png", "blue")
    (tmp_path / "p" / "torn.png").write_bytes(b"\x89PNG")
    ran = run("classify", "p", *D, "--Q", "224", "--top", "2", "--csv", "top.csv")
    lines = [line.split() for line in ran.out.splitlines() if "." in line]
    assert [line[0] for line in lines if len(line) == 3] == ["p/lawn.png", "p/sea.png"]
    assert [line[1] for line in lines if len(line) == 3] == ["green", "blue"]
    assert "Warning: p/torn.png" in ran.err
    told = run("classify", "p", *D, "--Q", "224", "--Q", "256", "--top", "6", "--json").json
    lawn, sea, torn = told["images"]
    assert lawn["classes"][0]["class"] == "green"
    assert sea["classes"][0]["index"] == CLASSES.index("blue")
    for row in (lawn, sea):
        expected = reckoned(tmp_path / row["image"], "D", 224, 256)
        shares = [one["probability"] for one in row["classes"]]
        np.testing.assert_allclose(shares, sorted(expected, reverse=True), atol=1e-4)
    assert torn["image"] == "p/torn.png"
    [behind] = told["scores"].values()
    assert behind["settings"]["pool"] == "softmax"
    assert behind["settings"]["net"] == "D"
    with (tmp_path / "top.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class 1"] for row in rows] == ["green", "blue", ""]
    assert float(rows[0]["share 1"]) > float(rows[0]["share 2"])
    assert rows[2]["error"]


def reckoned(path: Path, net: str, *scales: int) -> np.ndarray:
    """Reckon the posteriors of an image: the mean of its scales."""
    seen = []
    for Q in scales:
        image = Image.open(path)
        size = [round(side * Q / min(image.size)) for side in image.size]
        pixels = np.asarray(image.resize((size[0], size[1]), Image.Resampling.BILINEAR))
        seen.append(colour_posteriors(pixels, SHARPNESS[net]))
    return np.mean(seen, axis=0)


def test_errors_are_told_and_kept(tmp_path: Path) -> None:
    """One of seven is not what its folder says; a second time nothing is run."""
    colours(tmp_path / "set")
    command = ["classify", "--data", "set", *D, "--Q", "224", "--results", "r", "--csv", "all.csv"]
    with described_images() as first:
        out = run(*command).out
    assert "14.3" in out  # 1/7
    assert "7 images in set" in out
    assert "Partial" not in out
    assert "difference" not in out  # the paper has nothing beside it
    with described_images() as second:
        told = run(*command, "--json", "--quiet").json
    assert {name: measure["value"] for name, measure in told["measures"].items()} == {
        "top1": 1 / 7,
        "top5": 0.0,
    }
    assert told["settings"]["images"] == 7
    assert told["measures"]["top1"]["paper"] == []
    assert (len(first), len(second)) == (7, 0)
    assert json.loads((tmp_path / "r" / "result.json").read_text()) == told
    with (tmp_path / "all.csv").open(newline="") as file:
        wrong = [row["name"] for row in csv.DictReader(file) if row["true"] != row["class 1"]]
    assert wrong == ["blue/2.png"]


def test_five_classes_have_no_top_5_error(tmp_path: Path) -> None:
    """A dash on the terminal: none can be outside of the five likeliest."""
    for label in CLASSES[:5]:
        paint(tmp_path / "set" / label / "1.png", label)
    write_colours(Path("few.safetensors"), "D", CLASSES[:5])
    command = ["classify", "--data", "set", "--weights", "few.safetensors", "--Q", "224"]
    assert "top-5 error –" in run(*command).out


@pytest.mark.parametrize(
    ("S", "more", "scales"),
    [
        ("256", [], [256]),
        ("256", ["--multi-scale"], [224, 256, 288]),
        ("224", ["--multi-scale"], [224, 256]),
        ("256", ["--Q", "320"], [320]),
        ("[256, 512]", [], [256, 384, 512]),
        ("[256, 512]", ["--multi-scale"], [256, 384, 512]),
    ],
)
def test_a_net_is_tested_at_its_own_scales(
    S: str, more: list[str], scales: list[int], tmp_path: Path
) -> None:
    """Q = S, or three scales about it; a net of jittered S at both ends and in the middle."""
    paint(tmp_path / "p" / "lawn.png", "green")
    write_colours(Path("own.safetensors"), "D", S=S)
    run("classify", "p", "--weights", "own.safetensors", "--out", "s", *more)
    assert sorted(name.Q for name in FeatureStore(tmp_path / "s").columns) == scales


def test_each_of_several_nets_is_tested_at_its_own_scales(tmp_path: Path) -> None:
    """One of S = 256 and one of S = 384, fused; --Q and --multi-scale exclude each other."""
    paint(tmp_path / "p" / "lawn.png", "green")
    for net, S in (("D", 256), ("E", 384)):
        write_colours(Path(f"{net}.safetensors"), net, S=str(S))
    run("classify", "p", *BOTH, "--out", "s")
    held = {(name.net, name.Q) for name in FeatureStore(tmp_path / "s").columns}
    assert held == {("D", 256), ("E", 384)}
    assert "--multi-scale" in run("classify", "p", *D, "--Q", "256", "--multi-scale", status=2).err


def test_the_table_may_lie_in_a_folder_that_the_command_makes(tmp_path: Path) -> None:
    """Beside the scores, or beside the errors."""
    colours(tmp_path / "set")
    how = ["--data", "set", "--quiet"]
    run("classify", *how, *D, "--Q", "224", "--out", "scores", "--csv", "scores/t.csv")
    run("fuse", "scores", *how, "--results", "results", "--csv", "results/t.csv")
    first, second = (tmp_path / folder / "t.csv" for folder in ("scores", "results"))
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "results" / "result.json").is_file()
    assert verify(tmp_path / "scores") == []
    ran = run("fuse", "scores", *how, "--out", "fused", "--csv", "fused/t.csv", status=5)
    assert "There is no folder fused for --csv" in ran.err  # a new store begins in an empty folder


def test_modes_of_several_nets_are_fused_from_stores(tmp_path: Path) -> None:
    """Two nets at once, or each into a store that is packed and fused: the same numbers."""
    colours(tmp_path / "set")
    scales = ["--Q", "224", "--Q", "256", "--mode", "both", "--grid", "1", "--precision", "fp32"]
    how = ["--data", "set", *scales, "--json", "--quiet"]
    run("classify", *how, *BOTH, "--out", "de", "--csv", "de.csv")
    for net in "DE":
        weights = ["--weights", f"{net}.safetensors"]
        run("classify", *how, *weights, "--out", f"scores-{net.lower()}")
    run("store", "pack", "scores-e", "scores-e.h5")
    command = ["fuse", "scores-d", "scores-e.h5", "--data", "set", "--out", "f", "--csv", "f.csv"]
    ran = run(*command)
    assert "14.3" in ran.out
    nets = "D, softmax and crops1 at Q = 224, 256 E, softmax and crops1 at Q = 224"
    assert nets in " ".join(ran.out.split())
    assert "Fused scores of 7 images: f" in ran.err
    assert (tmp_path / "f.csv").read_bytes() == (tmp_path / "de.csv").read_bytes()
    assert "red" in run("fuse", "f", "--top", "1").out
    [line] = [one for one in run("store", "info", "f").out.splitlines() if "/fused" in one]
    assert re.fullmatch(r"/fused/fc8/softmax/Q0 +\(7, 6\), settings \w{12} *", line)
    before = (tmp_path / "de.csv").read_bytes()
    run("classify", *how, *D, "--out", "scores-d", "--csv", "d.csv")
    assert (tmp_path / "d.csv").read_bytes() != before


@pytest.mark.parametrize("wanted", [False, True])
def test_deterministic_reaches_the_network(ilsvrc: Path, wanted: bool) -> None:
    """Of `classify` and of a table, and the store says so."""
    how = ["--data", ilsvrc, *["--deterministic"] * wanted]
    seen = []
    with before_batches(lambda net, _: seen.append(net.hardware.deterministic)):
        run("classify", *how, "--weights", "authors", "--Q", "224", "--out", "a")
        middle = len(seen)
        run("run", "own.toml", *how, "--allow-partial", "--features", "b", status=4)
    assert 0 < middle < len(seen)
    assert set(seen) == {wanted}
    for store in map(FeatureStore, ("a", "b/d-jitter")):
        assert store.provenance("D")["deterministic"] == wanted


def test_shares_are_put_together(tmp_path: Path) -> None:
    """Two processes do half of it each, and the command without --shard none."""
    colours(tmp_path / "set")
    command = ["classify", "--data", "set", *D, "--Q", "224"]
    counts = []
    for more in (["--shard", "1/2"], ["--shard", "2/2", "--quiet"], []):
        with described_images() as described:
            out = run(*command, *more).out
        counts.append(len(described))
        if more == ["--shard", "1/2"]:
            assert "Share 1/2 is done: 4 images." in out
    assert "14.3" in out
    assert counts == [4, 3, 0]


def test_a_share_without_images_says_so(tmp_path: Path) -> None:
    """An array of more jobs than images goes through, and each tells what it did."""
    colours(tmp_path / "set")
    out = run("classify", "--data", "set", *D, "--Q", "224", "--shard", "8/9").out
    assert "Share 8/9 is empty: only 7 images to do. Nothing was done." in out


def test_scores_of_own_images_are_kept(tmp_path: Path) -> None:
    """Without --out as well: other modes compute the rest."""
    colours(tmp_path / "set")
    done = []
    for mode in ("dense", "both", "multicrop"):
        grid = () if mode == "dense" else ("--grid", "1")
        with described_images() as described:
            run("classify", "set", *D, "--Q", "224", "--mode", mode, *grid)
        done.append(described)
    assert done == [["softmax"] * 7, ["crops1"] * 7, []]
    with shown_rows(3):
        ran = run("classify", "set", *D, "--Q", "224", "--csv", "all.csv")
    assert ran.out.count(".png") == 3
    assert "And 4 more images; --csv FILE writes all." in ran.err
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 8


def test_fused_scores_stay_out_of_their_inputs(tmp_path: Path) -> None:
    """The next fusion has the same two nets; and what is half there is not fused."""
    colours(tmp_path / "set")
    own = ("set", "--relative-to", "set")
    for net, how in (("D", D), ("E", E)):
        run("classify", *own, *how, "--Q", "224", "--out", net)
    err = run("fuse", "D", "E", "--out", "D", status=5).err
    assert "D is one of the stores that are fused. Name another folder" in err
    assert len(run("fuse", "D", "E", "--json").json["scores"]) == 2
    run("classify", *own, *D, "--Q", "256", "--out", "D", "--shard", "1/2")
    err = run("fuse", "D", "E", status=5).err
    assert "D is not finished: net D, softmax at Q = 256" in " ".join(err.split())
    run("fuse", "D", "E", "--Q", "224")
    paint(tmp_path / "set" / "red" / "9.png", "red", 3)
    run("classify", *own, *D, "--Q", "224", "--Q", "256", "--out", "D")
    out = run("fuse", "D", "--data", "set").out
    assert "8 images in set" in out
    assert re.search(r"D, softmax at Q = 224, 256 *\n", out)
    run("classify", *own, *D, "--Q", "224", "--out", "short")
    out = run("fuse", "short", "D", "--data", "set").out
    assert re.search(r"D, softmax at Q = 224, 256 *\n", out)
    out = run("fuse", "E", "--data", "set").out
    assert "1 image has no scores" in out
    assert "could not be read" not in out


def bad_only(root: Path) -> None:
    (root / "p").mkdir()
    (root / "p" / "torn.png").write_bytes(b"\x89PNG")


def one_image(root: Path) -> None:
    paint(root / "p" / "a.png", "red")
    (root / "torn.pth").write_text("no weights")


@pytest.mark.parametrize(
    ("made", "arguments", "status", "said"),
    [
        (one_image, ["classify"], 2, "Name either images, or images with their classes"),
        (one_image, ["classify", "p", "--data", "p"], 2, "Name either images"),
        (one_image, ["classify", "p", "--results", "r"], 2, "add --data"),
        (one_image, ["classify", "p", "--shard", "1/2", "--csv", "c"], 2, "--csv says nothing"),
        (one_image, ["classify", "p", "--shard", "1/2", "--top", "5"], 2, "--top says nothing"),
        (one_image, ["classify", "--data", "p", "--shard", "3/2"], 2, "one of 1/N … N/N"),
        (one_image, ["fuse", "p", "--results", "r"], 2, "add --data"),
        (one_image, ["classify", "p", "--out", "s", "--shard", "half"], 2, "one of 1/N … N/N"),
        (one_image, ["classify", "p", "--mode", "crop"], 2, "--mode must be 'dense', 'multicrop'"),
        (one_image, ["classify", "p", "--grid", "0"], 2, "greater than or equal to 1"),
        (one_image, ["classify", "p", "--weights", "none.pth"], 4, "none.pth"),
        (one_image, ["classify", "p", "--weights", "torn.pth"], 4, "torn.pth"),
        (bad_only, ["classify", "p", *D, "--Q", "224"], 3, "No image could be read"),
        (one_image, ["fuse", "p"], 5, "or `vggfeat classify` wrote"),
        (one_image, ["fuse"], 2, "STORES"),
    ],
)
def test_bad_input_is_one_line_and_its_kind(
    tmp_path: Path,
    made: Callable[[Path], None],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    """What is wrong, in words, and an exit status."""
    made(tmp_path)
    assert said in " ".join(run(*arguments, status=status).err.split())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("absent", "There is no folder absent"),
        ("empty", "images in empty"),
        ("flat", "no list of their classes was found"),
    ],
)
def test_what_cannot_be_tested_on_is_told_before_a_net_is_opened(
    tmp_path: Path, data: str, said: str
) -> None:
    """Half a gigabyte of weights is not fetched for nothing: they would be refused with 4."""
    (tmp_path / "empty").mkdir()
    paint(tmp_path / "flat" / "a.png", "red")
    err = run("classify", "--data", data, "--weights", "none.pth", status=3).err
    assert said in " ".join(err.split())


def test_images_without_a_class_are_told(tmp_path: Path) -> None:
    """What lies beside the class folders is left out, with a warning, by both commands."""
    colours(tmp_path / "set")
    paint(tmp_path / "set" / "loose.png", "red")
    said = "Warning: set has 1 image beside the class folders"
    for command in (["classify", *D, "--Q", "224", "--out", "s"], ["fuse", "s"]):
        ran = run(*command, "--data", "set")
        assert said in ran.err
        assert "7 images in set" in ran.out


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Iterator[Path]:
    """Paint colours under the names of ILSVRC's first classes, and write a table for them.

    What the authors and torchvision publish of net D knows colours, too.
    """
    keys = ilsvrc_classes().keys
    colours(tmp_path / "data" / "val", keys[: len(CLASSES)])
    (tmp_path / "own.toml").write_text(TABLE)
    with ExitStack() as stack:
        for source, pixels in (("authors", CAFFE), ("torchvision", TORCHVISION)):
            weights = write_colours(tmp_path / f"{source}.safetensors", "D", keys, pixels)
            stack.enter_context(published(source, "D", weights))
        yield tmp_path / "data"


def test_a_table_says_what_was_measured_and_why_not(ilsvrc: Path) -> None:
    """The authors' net is measured; those that nobody trained say how they are trained."""
    command = ["run", "own.toml", "--data", ilsvrc]
    err = run(*command, status=3).err
    assert "7 of 50,000 images" in err
    assert "--allow-partial" in err
    with described_images() as described:
        ran = run(*command, "--allow-partial", status=4)
    [line] = [line for line in ran.out.splitlines() if line.strip().startswith("D  ")]
    assert line.split()[1:] == ["14.3", "20.0", "–", "0.0", "10.0", "–", "partial", "data"]
    assert ran.out.count("failed") == 2
    assert "vggfeat run train-e-jitter --out runs --data ILSVRC_ROOT" in ran.err
    assert "vggfeat train --net A --S 256 --out runs/a-256 --data ILSVRC_ROOT" in ran.err
    assert len(described) == 7


def test_the_name_of_an_image_forges_no_line(tmp_path: Path) -> None:
    """In the table and in the warning a name's end of line is an escape; JSON has the name."""
    paint(tmp_path / "p" / "sea\nModel: a.png", "blue", 1)
    (tmp_path / "p" / "y\nModel: b.png").write_text("no image")
    command = ["classify", "p", *D, "--Q", "224", "--quiet"]
    ran = run(*command, "--top", "1")
    assert "p/sea\\nModel: a.png" in ran.out
    assert "Warning: p/y\\nModel: b.png: not an image" in ran.err
    assert not [line for line in (ran.out + ran.err).splitlines() if line.startswith("Model")]
    told = run(*command, "--json").json
    assert [one["image"] for one in told["images"]] == [
        "p/sea\nModel: a.png",
        "p/y\nModel: b.png",
    ]


@pytest.mark.slow
def test_a_table_with_all_of_its_nets_has_differences(ilsvrc: Path) -> None:
    """Trained nets are found among the runs; what rows share is computed once."""
    keys = ilsvrc_classes().keys
    for name in ("e-256", "a-256"):
        path = ilsvrc.parent / "runs" / name / "best.safetensors"
        write_colours(path, name[0].upper(), keys)
    command = ["run", "own.toml", "--data", ilsvrc, "--features", "kept", "--json", "--quiet"]
    with validation_images(7):
        with described_images() as done:
            told = run(*command).json
            rows, paper = told["rows"], told["paper"]
        assert [row["row"] for row in rows] == ["D", "D & E", "A"]
        errors = [row["measures"]["top1"]["value"] for row in rows]
        assert errors == [1 / 7] * 3
        assert {row["settings"]["images"] for row in rows} == {7}
        assert paper[0]["top1_difference"] == pytest.approx(1 / 7 - 0.2)
        assert paper[0]["top5_difference"] == pytest.approx(-0.1)
        assert paper[2]["top1_difference"] is None
        assert len(rows[1]["provenance"]["scores"]) == 4  # two nets, dense and multi-crop
        # D at 224; then its crops there, and both at 256; E at 224 both ways; A.
        assert done[:7] == done[-7:] == ["softmax"] * 7
        assert Counter(done) == {"softmax": 14, "crops5": 7, "softmax+crops5": 14}
        with described_images() as again:
            run(*command)
        assert again == []
        mine = ["--weights", "d-jitter=runs/mine.safetensors"]
        write_colours(ilsvrc.parent / "runs" / "mine.safetensors", "D", keys)
        assert "−5.7" in run("run", "own.toml", "--data", ilsvrc, *mine).out


def test_tables_and_modes_share_scores(ilsvrc: Path) -> None:
    """What `classify --mode both` has computed, a table does not, and the other way round."""
    how = ["classify", "--data", ilsvrc, "--weights", "authors", "--Q", "224", "--mode", "both"]
    with described_images() as first:
        run(*how, "--quiet")
    with described_images() as second:
        run("run", "own.toml", "--data", ilsvrc, "--allow-partial", status=4)
    assert (len(first), len(second)) == (7, 0)


@pytest.mark.parametrize(
    ("source", "Q", "lines"),
    [("authors", 384, ["D, S = [256; 512]"]), ("authors", 256, []), ("torchvision", 256, [])],
)
def test_the_papers_line_is_of_the_same_training_scale(
    ilsvrc: Path, source: str, Q: int, lines: list[str]
) -> None:
    """With a difference where S is known to be the row's; without S there is nothing beside it."""
    command = ["classify", "--data", ilsvrc, "--weights", source, "--Q", str(Q)]
    with validation_images(7):
        paper = run(*command, "--json").json["measures"]["top1"]["paper"]
        assert [figure["name"].partition(": ")[2] for figure in paper] == lines
        out = run(*command).out
    assert ("−11.3" in out) == ("−8.1" in out) == (Q == 384)  # 14.3/0.0 less the paper's 25.6/8.1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table03-single-scale"], "table03-single-scale tests networks: name the images"),
        (["table03-single-scale", "--data", "x", "--report", "r.html"], "--report says nothing to"),
        (["table03-single-scale", "--data", "x", "--out", "r"], "which tests networks"),
        (["table11-voc2007", "--runs", "r"], "--runs says nothing to table11-voc2007"),
        (["train-a", "--data", "x", "--runs", "r"], "--runs says nothing to train-a"),
        (["table03-single-scale", "--data", "x", "--weights", "D=a.pth"], "of a-256=FILE, a-lrn"),
    ],
)
def test_options_of_other_recipes_are_refused(arguments: list[str], said: str) -> None:
    """An option that would do nothing, or names no net of the table, is a mistake."""
    assert said in " ".join(run("run", *arguments, status=2).err.split())
