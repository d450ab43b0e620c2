"""Tables 8 to 10 by `vggfeat run`: rows of nets that see red, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.boxes import GRID_BOXES, GRID_NET, GRID_SIZE, box_weights, draw_red
from helpers.cli import run
from helpers.colours import write_colours
from helpers.networks import configured, write_weights
from helpers.seams import described_images, published

from vggfeat.classification.classes import ilsvrc_classes
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
ROWS = """
[[rows]]
name = "there"
uses = [{ net = "box-288", Q = [288, 320] }]
paper = 25.0
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
    for number, (key, box) in enumerate(zip(KEYS, GRID_BOXES.values(), strict=False)):
        name = f"ILSVRC2012_val_{number + 1:08d}"
        draw_red(tmp_path / "data" / "val" / key / f"{name}.JPEG", GRID_SIZE, box)
        edges = "".join(
            f"<{edge}>{value}</{edge}>"
            for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        shown = f"<object><name>{key}</name><bndbox>{edges}</bndbox></object>"
        file = tmp_path / "data" / "bbox_val" / f"{name}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"<annotation>{shown}</annotation>")
    with configured({"D": GRID_NET}):
        write_weights(Path("runs/box-288/best.safetensors"), box_weights(keys=KEYS))
        weights = write_colours(tmp_path / "authors.safetensors", "D", KEYS, CAFFE)
        with published("authors", "D", weights):
            yield tmp_path / "data"


def test_boxes_from_the_central_crop_stand_beside_the_papers(ilsvrc: Path) -> None:
    """Protocol 1 needs no labels; a row whose net is absent says how it is trained."""
    Path("own.toml").write_text(f'title = "Boxes"\n{NETS}{ROWS}')
    command = ["run", "own.toml", "--data", ilsvrc]
    assert "2 of 50,000 images" in " ".join(run(*command, status=3).err.split())
    ran = run(*command, "--allow-partial", "--json", "-q", status=4)
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
    text = NETS + LABELS + ROWS.partition('[[rows]]\nname = "absent"')[0]
    Path("own.toml").write_text(text)
    mine = ["--weights", "box-288=runs/box-288/best.safetensors", "--features", "kept"]
    command = ["run", "own.toml", "--data", ilsvrc, "--allow-partial", *mine, "--json", "-q"]
    with described_images() as described:
        [row] = run(*command).json["rows"]
        once = len(described)
        run(*command)
    assert once == len(described) == 2
    measures = {name: measure["value"] for name, measure in row["measures"].items()}
    assert measures.keys() == {"top5", "top1", "box", "single", "central"}
    assert measures["box"] == 0
    [top5, *_] = row["measures"]["top5"]["paper"]
    assert top5["value"] == 0.25
    assert "box-288" not in row["settings"]["classification"]
    assert "d-jitter, dense; windows: d-jitter" in row["settings"]["classification"]
    merged = run(*command, "--set", "merging.threshold=0.9").json["rows"][0]
    assert merged["settings"]["merging"]["threshold"] == 0.9
    assert merged["measures"]["top5"]["paper"] == []
