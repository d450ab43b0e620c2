"""A folder with a little of everything that commands take; the table of options names its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.boxes import CLASSES as OBJECTS
from helpers.boxes import box_weights, red_tree
from helpers.cli import run
from helpers.colours import CLASSES, paint, write_colours
from helpers.networks import write_weights
from PIL import Image
from storing import NAMES, column, make_store
from support import noise, random_state

from promises.seams import small_networks
from vggfeat.features.aggregate import Aggregation
from vggfeat.features.extractor import DenseExtractor
from vggfeat.nets.formats import write
from vggfeat.nets.weights import load
from vggfeat.svm.model import SavedModel, save

VOC = {
    "train": {f"00000{k}": ((1, -1), (-1, 1))[k % 2] for k in range(4)},
    "val": {"000004": (1, -1), "000005": (-1, 1)},
    "test": {"000006": (1, -1), "000007": (-1, 1), "000008": (1, -1)},
}
KINDS = {"tall": (230, 260), "wide": (260, 230)}
TABLE = """
title = "A table"
dataset = "classes"
[features]
weights = "embedded"
layers = ["pool1"]
Q = [32]
"""
CHAIN = """
[training]
S = 224
batch = 4
epochs = 1
[[links]]
name = "a"
"""
LACKING = """
name = "lacking"
reader = "folders"
folder = "classes"
classes = ["tall", "wide"]
images = 13
"""


def make_inputs(root: Path) -> Path:
    """Draw, describe and write all of it below a folder."""
    for name in ("photos/a.png", "photos/b.png", "others/c.png"):
        _draw(root / name, 40, 30)
    for label, sides in KINDS.items():
        for number in range(6):
            _draw(root / f"classes/{label}/{number}.png", *sides)
            _draw(root / f"more/{label}/{number}.png", *sides)
    rows = [f"classes/{label}/{number}.png,{label}" for label in KINDS for number in range(6)]
    lines = ["path,label,file,kind", *(f"{row},{row}" for row in rows)]
    (root / "columns.csv").write_text("\n".join(lines))
    for colour in CLASSES:
        paint(root / f"colours/{colour}/1.png", colour)
    for year in ("VOC2007", "VOC2012"):
        red_tree(root / year, VOC)
    (root / "table.toml").write_text(TABLE)
    (root / "chain.toml").write_text(CHAIN)
    (root / "lacking.toml").write_text(LACKING)
    _write_networks(root)
    _write_stores(root)
    _write_whole_nets(root)
    return root


def _draw(path: Path, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(width, height, sum(map(ord, path.name)))).save(path)


def _write_networks(root: Path) -> None:
    extractor = DenseExtractor("D", "pool1", weights="embedded", precision="fp32")
    coef = np.random.default_rng(0).normal(size=(2, 64))
    model = SavedModel(
        coef,
        np.ones(2),
        ("cat", "dog"),
        (1.0,),
        tuple(extractor.columns([32])),
        ("embedded",),
        Aggregation().to_dict(),
    )
    save(root / "model", model)
    pixels = load("embedded", "D", ["conv1_1"]).pixels
    state = random_state("D", ["conv1_1"])
    about = {"net": "D", "source": "drawn", "licence": "none"}
    for name in ("weights", "weights-2"):
        write(root / f"{name}.safetensors", state, pixels, **about)


def _write_stores(root: Path) -> None:
    make_store(root / "features", [column(Q=Q, precision="fp32") for Q in (256, 384)])
    make_store(root / "part-1", names=NAMES[:6])
    make_store(root / "part-2", names=NAMES[6:])


def _write_whole_nets(root: Path) -> None:
    """Write small nets that know colours or see red, and what those of colours say."""
    with small_networks("classify"):
        write_weights(root / "boxes.safetensors", box_weights())
        write_colours(root / "cats-E.safetensors", "E", (*OBJECTS, "cow", "hen", "owl", "pig"))
        for net in ("D", "E"):
            weights = write_colours(root / f"colours-{net}.safetensors", net)
            how = ("--weights", weights, "--Q", "224", "--Q", "256", "--out", f"scores-{net}")
            run("classify", "--data", "colours", *how, "--quiet", cwd=root)
