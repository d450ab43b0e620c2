"""``vggfeat classify``, ``vggfeat fuse`` and the recipes of Tables 3 to 7, as people type them."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
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


@pytest.fixture
def painted(tmp_path: Path) -> list[str]:
    """Paint seven images, of which one is not what its folder says; name them as options do."""
    colours(tmp_path / "set")
    return ["--data", "set"]


def read_table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


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
    rows = read_table("top.csv")
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


def test_errors_are_told_and_kept(painted: list[str]) -> None:
    """One of seven is not what its folder says; a second time nothing is run."""
    command = ["classify", *painted, *D, "--Q", "224", "--results", "r", "--csv", "all.csv"]
    with described_images() as first:
        out = run(*command).out
    assert "14.3" in out  # 1/7
    assert "7 images in set" in out
    assert "Partial" not in out
    assert "difference" not in out  # the paper has nothing beside it
    with described_images() as second:
        told = run(*command, "--json", "--quiet").json
    errors = {name: measure["value"] for name, measure in told["measures"].items()}
    assert errors == {"top1": 1 / 7, "top5": 0.0}
    assert told["settings"]["images"] == 7
    assert told["measures"]["top1"]["paper"] == []
    assert (len(first), len(second)) == (7, 0)
    assert json.loads(Path("r/result.json").read_text()) == told
    wrong = [row["name"] for row in read_table("all.csv") if row["true"] != row["class 1"]]
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
def test_each_net_is_tested_at_its_own_scales(
    S: str, more: list[str], scales: list[int], tmp_path: Path
) -> None:
    """Q = S, or three scales about it; a net of jittered S at both ends and in the middle."""
    paint(tmp_path / "p" / "lawn.png", "green")
    write_colours(Path("D.safetensors"), "D", S=S)
    write_colours(Path("E.safetensors"), "E", S="384")
    run("classify", "p", *BOTH, "--out", "s", *more)
    held = {net: sorted(c.Q for c in FeatureStore("s").columns if c.net == net) for net in "DE"}
    of_e = {"": [384], "--multi-scale": [352, 384, 416], "--Q": [320]}["".join(more[:1])]
    assert held == {"D": scales, "E": of_e}


def test_the_table_may_lie_in_a_folder_that_the_command_makes(painted: list[str]) -> None:
    """Beside the scores, or beside the errors; but a new store begins in an empty folder."""
    run("classify", *painted, *D, "--Q", "224", "--out", "scores", "--csv", "scores/t.csv")
    fuse = ["fuse", "scores", *painted]
    run(*fuse, "--results", "results", "--csv", "results/t.csv")
    assert Path("scores/t.csv").read_bytes() == Path("results/t.csv").read_bytes()
    assert Path("results/result.json").is_file()
    assert verify(Path("scores")) == []
    assert "--csv" in run(*fuse, "--out", "fused", "--csv", "fused/t.csv", status=5).err


def test_modes_of_several_nets_are_fused_from_stores(painted: list[str]) -> None:
    """Two nets at once, or each into a store that is packed and fused: the same numbers."""
    scales = ["--Q", "224", "--Q", "256", "--mode", "both", "--grid", "1", "--precision", "fp32"]
    how = ["classify", *painted, *scales, "--json", "--quiet"]
    run(*how, *BOTH, "--out", "de", "--csv", "de.csv")
    for net in "DE":
        run(*how, "--weights", f"{net}.safetensors", "--out", net.lower())
    run("store", "pack", "e", "e.h5")
    ran = run("fuse", "d", "e.h5", *painted, "--out", "f", "--csv", "f.csv")
    assert "14.3" in ran.out
    nets = "D, softmax and crops1 at Q = 224, 256 E, softmax and crops1 at Q = 224"
    assert nets in " ".join(ran.out.split())
    assert "Fused scores of 7 images: f" in ran.err
    assert read_table("f.csv") == read_table("de.csv")
    assert "red" in run("fuse", "f", "--top", "1").out
    assert "/fused/fc8/softmax/Q0" in run("store", "info", "f").out
    run(*how, *D, "--out", "d", "--csv", "d.csv")
    assert read_table("d.csv") != read_table("de.csv")


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


def test_shares_are_put_together(painted: list[str]) -> None:
    """Two processes do half of it each, and the command without --shard none; one may be empty."""
    counts, said = [], []
    for share in ("1/2", "2/2", "8/9", ""):
        more = ["--shard", share] if share else []
        with described_images() as described:
            said.append(run("classify", *painted, *D, "--Q", "224", *more).out)
        counts.append(len(described))
    assert counts == [4, 3, 0, 0]
    assert "Share 1/2 is done: 4 images." in said[0]
    assert "Share 8/9 is empty: only 7 images to do." in said[2]
    assert "14.3" in said[3]


def test_scores_of_own_images_are_kept(painted: list[str]) -> None:
    """Without --out as well: other modes compute the rest."""
    command, done = ["classify", "set", *D, "--Q", "224"], []
    for mode in ("dense", "both", "multicrop"):
        grid = () if mode == "dense" else ("--grid", "1")
        with described_images() as described:
            run(*command, "--mode", mode, *grid)
        done.append(described)
    assert done == [["softmax"] * 7, ["crops1"] * 7, []]
    with shown_rows(3):
        ran = run(*command, "--csv", "all.csv")
    assert ran.out.count(".png") == 3
    assert "And 4 more images; --csv FILE writes all." in ran.err
    assert len(read_table("all.csv")) == 7


def test_fused_scores_stay_out_of_their_inputs(painted: list[str]) -> None:
    """The next fusion has the same two nets; and what is half there is not fused."""
    own = ("classify", "set", "--relative-to", "set")
    for net, how in (("D", D), ("E", E)):
        run(*own, *how, "--Q", "224", "--out", net)
    assert "stores that are fused" in run("fuse", "D", "E", "--out", "D", status=5).err
    assert len(run("fuse", "D", "E", "--json").json["scores"]) == 2
    run(*own, *D, "--Q", "256", "--out", "D", "--shard", "1/2")
    assert "net D, softmax at Q = 256" in run("fuse", "D", "E", status=5).err
    run("fuse", "D", "E", "--Q", "224")
    paint(Path("set/red/9.png").absolute(), "red", 3)
    run(*own, *D, "--Q", "224", "--Q", "256", "--out", "D")
    run(*own, *D, "--Q", "224", "--out", "short")
    for stores in (["D"], ["short", "D"]):  # a scale in two stores counts once
        out = run("fuse", *stores, *painted).out
        assert "8 images in set" in out
        assert re.search(r"D, softmax at Q = 224, 256 *\n", out)
    out = run("fuse", "E", *painted).out
    assert "1 image has no scores" in out
    assert "could not be read" not in out


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    assert "No image could be read" in run("classify", "torn.png", *D, "--Q", "224", status=3).err


def test_images_without_a_class_are_told(painted: list[str]) -> None:
    """What lies beside the class folders is left out, with a warning, by both commands."""
    paint(Path("set/loose.png").absolute(), "red")
    for command in (["classify", *D, "--Q", "224", "--out", "s"], ["fuse", "s"]):
        ran = run(*command, *painted)
        assert "loose.png" in ran.err
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
