"""Tables 8 to 10 by `vggfeat run`: rows of nets that see red, beside the paper's figures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from helpers.boxes import GRID_BOXES, GRID_NET, GRID_SIZE, box_weights, draw_red
from helpers.cli import run
from helpers.colours import write_colours
from helpers.networks import configured, write_weights
from helpers.seams import described_images, published
from PIL import Image
from trees import OBJECT

from vggfeat.classification.classes import ilsvrc_classes
from vggfeat.classification.tables import open_ilsvrc
from vggfeat.localization.tables import evaluate
from vggfeat.nets.preprocessing import CAFFE

KEYS = ilsvrc_classes().keys
NETS = """
protocol = "localization"
[nets.d-jitter]
net = "D"
S = [256, 512]
weights = "authors"
[boxes.box-288]
net = "D"
S = 288
init = "d-jitter"
[boxes.absent]
net = "D"
S = 384
init = "d-jitter"
freeze = "conv"
regression = "scr"
"""
THERE = """
[[rows]]
name = "there"
uses = [{ net = "box-288", Q = [288, 320] }]
paper = 25.0
"""
ABSENT = """
[[rows]]
name = "absent"
uses = [{ net = "absent", Q = [384] }]
paper = 20.0
"""
LABELS = """
[labels]
uses = [{ net = "d-jitter", Q = [256] }]
windows = "d-jitter"
"""


@pytest.fixture(autouse=True)
def ilsvrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Draw a red box in an image of each of ILSVRC's first two classes; net D sees red."""
    monkeypatch.chdir(tmp_path)
    Path("data/bbox_val").mkdir(parents=True)
    for number, (key, box) in enumerate(zip(KEYS, GRID_BOXES.values(), strict=False), 1):
        name = f"ILSVRC2012_val_{number:08d}"
        draw_red(tmp_path / "data" / "val" / key / f"{name}.JPEG", GRID_SIZE, box)
        shown = OBJECT.format(name=key, difficult=0, box=box)
        Path(f"data/bbox_val/{name}.xml").write_text(f"<annotation>{shown}</annotation>")
    with configured({"D": GRID_NET}):
        write_weights(Path("runs/box-288/best.safetensors"), box_weights(keys=KEYS))
        weights = write_colours(tmp_path / "authors.safetensors", "D", KEYS, CAFFE)
        with published("authors", "D", weights):
            yield tmp_path / "data"


def command(*recipe: str) -> list[str]:
    """Write a recipe; return the words that run it, whatever part of ILSVRC is there."""
    Path("own.toml").write_text("".join(recipe))
    return ["run", "own.toml", "--data", "data", "--allow-partial"]


def test_boxes_from_the_central_crop_stand_beside_the_papers(ilsvrc: Path) -> None:
    """Protocol 1 needs no labels; a row whose net is absent says how it is trained."""
    words = command('title = "Boxes"\n', NETS, THERE, ABSENT)
    assert "2 of 50,000 images" in " ".join(run(*words[:-1], status=3).err.split())
    ran = run(*words, "--json", "-q", status=4)
    there, absent = ran.json["paper"]
    assert (there["central"], there["central_paper"]) == (0, 0.25)
    assert there["remark"] == "partial data"
    assert (absent["central"], absent["central_paper"]) == (None, 0.2)
    rows = ran.json["rows"]
    assert [row["row"] for row in rows] == ["there", "absent"]
    assert len(rows[0]["tables"]["objects"]) == 2
    train = "vggfeat localize train --init runs/d-jitter/best.safetensors --S 384 --regression scr"
    assert f"{train} --freeze conv --out runs/absent" in " ".join(ran.err.split())
    assert train in rows[1]["failed"]


def test_labels_are_those_of_a_classification_system(ilsvrc: Path) -> None:
    """Protocol 2 takes labels from scores that Tables 3 to 7 share: they are computed once."""
    mine = ["--weights", "box-288=runs/box-288/best.safetensors", "--features", "kept"]
    words = [*command(NETS, LABELS, THERE), *mine, "--json", "-q"]
    with described_images() as described:
        [row] = run(*words).json["rows"]
        once = len(described)
        run(*words)
    assert once == len(described) == 2
    measures = {name: measure["value"] for name, measure in row["measures"].items()}
    assert measures.keys() == {"top5", "top1", "box", "single", "central"}
    assert measures["box"] == 0
    [top5, *_] = row["measures"]["top5"]["paper"]
    assert top5["value"] == 0.25
    assert "box-288" not in row["settings"]["classification"]
    assert "d-jitter, dense; windows: d-jitter" in row["settings"]["classification"]
    merged = run(*words, "--set", "merging.threshold=0.9").json["rows"][0]
    assert merged["settings"]["merging"]["threshold"] == 0.9
    assert merged["measures"]["top5"]["paper"] == []


def test_boxes_are_in_stored_pixels_where_a_recipe_says_so(ilsvrc: Path) -> None:
    """An image that a camera turned is tested as its annotation has it, unless --set says else."""
    size = f"<size><width>{GRID_SIZE[0]}</width><height>{GRID_SIZE[1]}</height></size>"
    for file in (ilsvrc / "bbox_val").iterdir():
        file.write_text(file.read_text().replace("<annotation>", f"<annotation>{size}"))
    path, exif = next((ilsvrc / "val" / KEYS[0]).iterdir()), Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(path.read_bytes())).save(path, exif=exif, quality=95)
    words = [*command(NETS, "[decoding]\nexif = false\n", THERE), "--json", "-q"]
    [stored] = run(*words).json["rows"]
    [upright] = run(*words, "--set", "decoding.exif=true").json["rows"]
    assert len(stored["tables"]["objects"]) == 2
    assert "1 image left out" not in stored["partial"]
    assert len(upright["tables"]["objects"]) == 1
    assert "1 image left out" in upright["partial"]


@pytest.mark.parametrize("as_json", [True, False])
def test_an_interrupt_leaves_the_rows_that_are_finished(ilsvrc: Path, as_json: bool) -> None:
    """They are printed, and the hint promises no more than what is kept."""
    words = command(NETS, THERE, ABSENT.replace('net = "absent", Q', 'net = "box-288", Q'))
    once = mock.Mock(side_effect=[mock.DEFAULT, KeyboardInterrupt], wraps=evaluate)
    with mock.patch("vggfeat.localization.tables.evaluate", once):
        ran = run(*words, *["--json"] * as_json, status=130)
    if as_json:
        assert [row["row"] for row in ran.json["rows"]] == ["there"]
    else:
        assert "there" in ran.out
    assert "Nothing is kept" in ran.err
    assert "go on where it stopped" not in ran.err


def test_annotations_left_out_are_named_where_images_are_lacking(ilsvrc: Path) -> None:
    """Why there are too few is said before they are refused."""
    damaged = next((ilsvrc / "bbox_val").iterdir())
    damaged.write_text("<annotation>")
    words = command(NETS, THERE, ABSENT)
    validation = "vggfeat.cli.ilsvrc.open_ilsvrc"
    with mock.patch(validation, lambda data, **_: open_ilsvrc(data, allow_partial=True)):
        err = run(*words[:-1], status=3).err
    assert damaged.stem in err
    assert "1 of 50,000 validation images" in " ".join(err.split())
