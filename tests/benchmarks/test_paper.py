"""The table of measured and published figures, and every reason why a cell is empty."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.colours import paint, write_colours
from helpers.seams import published, validation_images
from support import random_weights
from trees import draw_bands, one_class_each, withhold, write_classes, write_voc

from vggfeat.classification.classes import ilsvrc_classes
from vggfeat.data.datasets import load_card
from vggfeat.nets.formats import write
from vggfeat.nets.preprocessing import CAFFE
from vggfeat.recipes import recipe_names
from vggfeat.settings import Features

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "paper.py"
TINY = """
dataset = "{dataset}"
title = "{dataset}"
[features]
layers = ["pool1"]
Q = [64]
{more}
[classifier]
C = [1.0, 100.0]
[[rows]]
expected = 80.0
[[rows]]
expected = 90.0
features = {{ nets = ["E"] }}
"""


@pytest.fixture(scope="module")
def paper() -> ModuleType:
    """Load the script, which is no part of the package."""
    specification = importlib.util.spec_from_file_location("paper", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["paper"] = module
    specification.loader.exec_module(module)
    torch.set_num_threads(1)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two years of VOC, one without its test labels; two classes, whole; weights of net D."""
    root = tmp_path_factory.mktemp("paper")
    classes = load_card("voc2007").classes
    for year in ("2007", "2012"):
        parts = one_class_each(classes, {"train": 1, "val": 1, "test": 1})
        write_voc(root / "data" / "VOCdevkit" / f"VOC{year}", classes, parts, draw_bands)
    withhold(root / "data" / "VOCdevkit" / "VOC2012" / "ImageSets" / "Main")
    write_classes(root / "own" / "images", {"cat": 6, "dog": 6}, draw=draw_bands)
    (root / "own" / "own.toml").write_text(
        'name = "own"\nreader = "folders"\nroot = "images"\nclasses = ["cat", "dog"]\n'
    )
    made = random_weights("D", ["pool1"])
    told = {"net": "D", "source": "random", "licence": "none"}
    write(root / "d.safetensors", made.state, made.pixels, **told)
    for name in ("voc2007", "voc2012", "caltech101"):
        (root / f"{name}.toml").write_text(TINY.format(dataset=name, more=""))
    (root / "own.toml").write_text(TINY.format(dataset=root / "own" / "own.toml", more=""))
    return root


def table(
    paper: ModuleType, folder: Path, *arguments: str, recipes: tuple[str, ...]
) -> list[dict[str, object]]:
    """Run the script on recipes of the folder, and return its cells."""
    files = [str(folder / f"{name}.toml") for name in recipes]
    written = folder / "cells.json"
    weights = f"D={folder / 'd.safetensors'}"
    asked = ["--only", *files, "--weights", weights, "E=authors", "--jobs", "1", "--device", "cpu"]
    assert paper.main([*asked, "--json", str(written), *arguments]) == 0
    return json.loads(written.read_text())["cells"]


def test_nothing_here_means_every_cell_says_so(
    paper: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """In an empty folder all shipped rows are named with the paper's figures and no other."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("VGGFEAT_OFFLINE")
    (tmp_path / "data").mkdir()
    asked = ["--root", str(tmp_path / "data"), "--markdown", str(tmp_path / "t.md")]
    assert paper.main(asked) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "data absent" in line]
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert len(rows) == 14 + 2 * 35  # of each row of Tables 3 to 7 two errors
    assert ["Table 3, one test scale", "B, S = 256, top-5 error", "9.9", "data absent"] in rows
    assert ["Table 11, Caltech-101", "D & E", "92.7", "data absent"] in rows
    assert [
        "Table 12, PASCAL VOC 2012 actions",
        "D & E, image and box",
        "84.0",
        "data absent",
    ] in rows
    text = (tmp_path / "t.md").read_text()
    assert "| Table 11, PASCAL VOC 2007 | E |  | 89.3 |  | data absent |" in text
    assert f"torch {torch.__version__.partition('+')[0]}" in text
    assert "Device: " in text
    assert not list((tmp_path / "data").iterdir())


def test_a_whole_data_set_has_a_difference(paper: ModuleType, folder: Path) -> None:
    """Two textures are told apart, 100 %, which is 20 more than this table says; E is not here."""
    own, other = table(paper, folder, recipes=("own",))
    assert (own["measured"], own["spread"], own["why"]) == (100.0, 0.0, "")
    assert own["difference"] == pytest.approx(20.0)
    assert own["provenance"]["D"]["weights"]["source"] == "random"
    assert (other["measured"], other["difference"], other["why"]) == (None, None, "weights absent")
    assert "VGG_ILSVRC_19_layers.caffemodel" in other["detail"]


def test_partial_data_have_a_figure_but_no_difference(
    paper: ModuleType, folder: Path, capsys
) -> None:
    """With --allow-partial the figure stands there, marked; without it, the cell says why not."""
    root = ["--root", str(folder / "data")]
    cell, _ = table(paper, folder, *root, "--allow-partial", recipes=("voc2007",))
    assert cell["why"] == "partial"
    assert 50 < cell["measured"] <= 100
    assert cell["difference"] is None
    assert "partial" in capsys.readouterr().out
    cell, _ = table(paper, folder, *root, recipes=("voc2007",))
    assert cell["measured"] is None
    assert cell["why"] == "data not whole"
    assert "--allow-partial" in cell["detail"]


def test_a_test_part_of_the_server_gives_validation_in_brackets(
    paper: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """The mAP on val is no figure of the table; the server's files are written where asked."""
    monkeypatch.setenv("COLUMNS", "250")
    asked = ["--root", str(folder / "data"), "--allow-partial", "--submission", str(tmp_path / "s")]
    cell, other = table(paper, folder, *asked, recipes=("voc2012",))
    assert cell["validation"]
    assert cell["difference"] is None
    assert cell["why"] == (
        f"partial; server only: mAP on val; submission in {tmp_path / 's' / 'voc2012' / 'd'}"
    )
    assert f"({cell['measured']:.1f})" in capsys.readouterr().out
    files = list((tmp_path / "s" / "voc2012" / "d" / "results" / "VOC2012" / "Main").iterdir())
    assert len(files) == 20
    assert all(len(path.read_text().splitlines()) == 20 for path in files)
    assert other["why"] == "weights absent"


TESTED = """
protocol = "classification"
title = "Table 4"
[nets.d-jitter]
net = "D"
S = [256, 512]
weights = "authors"
[nets.c-256]
net = "C"
S = 256
chain = "train-c-jitter"
[[rows]]
name = "D"
uses = [{ net = "d-jitter", Q = [224, 256] }]
paper = [24.8, 7.5]
[[rows]]
name = "C"
uses = [{ net = "c-256", Q = [224] }]
paper = [27.7, 9.2]
"""


@pytest.fixture
def authors_net(tiny_nets: None, tmp_path: Path) -> Iterator[None]:
    """Let the authors publish a net D that knows colours."""
    weights = write_colours(tmp_path / "authors.safetensors", "D", ilsvrc_classes().keys, CAFFE)
    with published("authors", "D", weights):
        yield


def test_errors_on_ilsvrc_are_two_cells_of_a_row(
    paper: ModuleType, tmp_path: Path, authors_net: None
) -> None:
    """One of three images is of another class; whole or in part, trained or not."""
    keys = ilsvrc_classes().keys
    for name, colour in (("0/a", "blue"), ("1/b", "green"), ("1/c", "red")):
        place, _, image = name.partition("/")
        paint(tmp_path / "val" / keys[int(place)] / f"{image}.png", colour)
    (tmp_path / "t4.toml").write_text(TESTED)
    asked = ["--only", str(tmp_path / "t4.toml"), "--ilsvrc", str(tmp_path), "--device", "cpu"]

    def found(*more: str) -> list[list[object]]:
        assert paper.main([*asked, "--json", str(tmp_path / "cells.json"), *more]) == 0
        told = json.loads((tmp_path / "cells.json").read_text())["cells"]
        figures = ("row", "measured", "paper", "difference", "why")
        return [[cell[name] for name in figures] for cell in told]

    assert {row[-1] for row in found()} == {"data not whole"}
    one, five, *absent = found("--allow-partial")
    assert one == ["D, top-1 error", pytest.approx(100 / 3), 24.8, None, "partial"]
    assert five == ["D, top-5 error", 0.0, 7.5, None, "partial"]
    assert [row[-1] for row in absent] == ["weights absent"] * 2
    with validation_images(3):
        assert found()[1] == ["D, top-5 error", 0.0, 7.5, -7.5, ""]


def test_weights_of_errors_are_those_that_were_given(
    paper: ModuleType, tmp_path: Path, authors_net: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one net of the table, or of a configuration, whose S is not known; runs go before it."""
    keys = ilsvrc_classes().keys
    paint(tmp_path / "val" / keys[0] / "a.png", "blue")
    d, e = (write_colours(tmp_path / f"{net}.safetensors", net, keys) for net in "DE")
    opened: list[tuple[str, str]] = []
    network = paper.network

    def noted(net: str, features: Features, *given: object) -> object:
        opened.append((net, features.weights_of(net)))
        return network(net, features, *given)

    monkeypatch.setattr(paper, "network", noted)
    table = TESTED.replace('net = "C"', 'net = "E"')
    again = table.partition("[[rows]]")[2].replace('"C"', '"E again"').replace('"D"', '"D again"')
    (tmp_path / "t4.toml").write_text(table + "[[rows]]" + again)
    runs = tmp_path / "runs"
    asked = ["--only", str(tmp_path / "t4.toml"), "--ilsvrc", str(tmp_path), "--device", "cpu"]

    def found(*weights: str) -> list[tuple[object, object]]:
        opened.clear()
        written = tmp_path / "cells.json"
        given = ["--runs", str(runs), "--weights", *weights]
        with validation_images(1):
            assert paper.main([*asked, *given, "--json", str(written)]) == 0
        cells = json.loads(written.read_text())["cells"][:4:2]
        return [(cell["why"], cell["difference"] is None) for cell in cells]

    mine = ("S of --weights not known", True)
    assert found(f"D={d}", f"E={e}") == [mine, mine]
    assert opened == [("D", str(d)), ("E", str(e)), ("D", str(d)), ("E", str(e))]
    assert found("D=authors", f"c-256={e}") == [("", False), ("", False)]
    assert opened[:2] == [("D", "authors"), ("E", str(e))]
    best = write_colours(runs / "c-256" / "best.safetensors", "E", keys)
    assert found(str(d)) == [mine, ("", False)]
    assert opened[:2] == [("D", str(d)), ("E", str(best))]
    with pytest.raises(SystemExit):
        found("c-265=e.pth")


def test_one_broken_cell_stops_no_other(
    paper: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that no net has, absent data and a good row stand in one table."""
    monkeypatch.setenv("VGGFEAT_DATA", str(tmp_path))
    text = (folder / "own.toml").read_text().replace("pool1", "pool9")
    (folder / "broken.toml").write_text(text)
    found = table(paper, folder, recipes=("broken", "caltech101", "own"))
    assert [cell["why"] for cell in found[2:]] == ["data absent"] * 2 + ["", "weights absent"]
    assert all("pool9" in cell["detail"] for cell in found[:2])


@pytest.mark.parametrize(
    ("asked", "said"),
    [(["--only", "table13"], "no recipe 'table13'"), (["--root", "nowhere"], "no folder nowhere")],
)
def test_what_is_mistyped_is_not_taken_for_absent(
    asked: list[str], said: str, paper: ModuleType, capsys
) -> None:
    """A wrong name or folder ends at once."""
    with pytest.raises(SystemExit):
        paper.main(asked)
    assert said in capsys.readouterr().err


def test_the_shipped_tables_are_all_run(paper: ModuleType) -> None:
    """Without --only it is every recipe of a table, and no other."""
    tables = [name for name in recipe_names() if name.startswith("table")]
    assert paper.parsed([]).only == tables
    assert len(tables) == 10
