"""G20: settings of every card, recipe, quality and command; what mistakes are answered by."""

from __future__ import annotations

import shutil
from typing import Any

from golden.adapter import settings as adapter
from golden.case import case
from golden.inputs import Inputs

MISTAKES: dict[str, tuple[str, ...]] = {
    # words: what must be named
    "svm --dataset nowhere": ("nowhere",),
    "svm --dataset sample --layer conv9_9": ("layer", "conv9_9"),
    "svm --dataset sample --net F": ("net", "F"),
    "svm --dataset sample --weights embedded --layer fc7": ("embedded", "fc7"),
    "svm --dataset sample --Q 0 --precision fp32": ("Q", "0"),
    "svm --dataset sample --aggregate sum": ("aggregate", "sum"),
    "svm --dataset sample --normalize l1": ("normalize", "l1"),
    "svm --dataset sample --pool median": ("pool", "median"),
    "svm --dataset sample --power 2": ("power", "2"),
    "svm --dataset sample --loss log": ("loss", "log"),
    "svm --dataset sample --solver newton": ("solver", "newton"),
    "svm --dataset sample --C one": ("C", "sample"),
    "svm --dataset sample --habit cv5": ("habit", "cv5"),
    "svm --dataset sample --quality better": ("quality", "better"),
    "svm --dataset sample --device tpu": ("device", "tpu"),
    "svm --dataset sample --precision fp8": ("precision", "fp8"),
    "svm --dataset sample --submission sent": ("sample",),
    "svm --dataset sample --layers pool5": ("--layers",),
    "run table99": ("table99", "table11-voc2007"),
    "run table11-voc2007 --out runs": ("--out", "table11-voc2007"),
    "predict nothing.safetensors photos": ("nothing",),
    "explain nothing.safetensors photos": ("nothing",),
    "extract nowhere": ("nowhere",),
    "extract photos --shard 3/2": ("shard", "3/2"),
    "extract photos --layer pool1 --weights embedded --on-bad-image ignore": ("ignore",),
    "extract photos --layer pool1 --weights embedded --dtype int8": ("dtype", "int8"),
    "classify": ("--data",),
    "classify photos --mode sparse": ("mode", "sparse"),
    "fuse nowhere": ("nowhere",),
    "train --data kinds --S 100 --out runs": ("S", "100"),
    "train --data nowhere --out runs": ("nowhere",),
    "localize train --data nowhere --out boxes": ("nowhere",),
    "store info nowhere": ("nowhere",),
    "store verify photos": ("photos",),
    "weights show list.txt": ("list.txt",),
    "weights fetch nobody": ("nobody", "authors"),
    "weights fetch authors": ("VGGFEAT_OFFLINE",),
    "datasets fetch nothing": ("nothing",),
    "nothing": ("nothing",),
}


@case(
    "G20-cards",
    command="settings resolved from every card, for --quality and of every table of features",
)
def cards(inputs: Inputs) -> dict[str, Any]:
    """All settings, those left to defaults too."""
    return {
        "cards": adapter.card_settings(),
        "quality": {
            f"{quality} {card}": adapter.quality_settings(quality, card)
            for quality in ("best", "fast")
            for card in ("sample", "voc2012-action")
        },
        "recipes": {
            name: told for name, told in adapter.recipe_settings().items() if "dataset" in told
        },
    }


@case("G20-recipes", command="settings resolved from every table of errors and every chain")
def recipes(inputs: Inputs) -> dict[str, Any]:
    """All settings, those left to defaults too."""
    return {name: told for name, told in adapter.recipe_settings().items() if "dataset" not in told}


@case("G20-commands", command="the defaults of every command; exit status and words of mistakes")
def commands(inputs: Inputs) -> dict[str, Any]:
    """Mistakes name what is wrong, show no trace, print no result and leave nothing behind."""
    folder = inputs.work / "here"
    for kind in ("dune", "reed"):
        shutil.copytree(inputs["I2"] / kind, folder / "kinds" / kind)
    (folder / "photos").mkdir()
    shutil.copy(inputs["I2"] / "tile" / "0.ppm", folder / "photos")
    (folder / "list.txt").write_text("no weights\n", "utf-8")
    return {
        "defaults": adapter.command_defaults(),
        "mistakes": {
            words: adapter.mistake(words.split(), folder, names)
            for words, names in MISTAKES.items()
        },
    }
