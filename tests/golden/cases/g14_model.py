"""G14: a model from a manifest with its split, and what it says of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from golden.adapter import svm as adapter
from golden.case import Found, case
from golden.choices import near_best
from golden.inputs import Inputs

DESCRIPTION: dict[str, Any] = {
    "net": "D", "layer": ("pool2",), "Q": (32,), "weights": "embedded", "pool": "average",
    "flip": True, "exif": True, "normalize": "descriptor", "aggregate": "average",
    "loss": "hinge", "solver": "gram",
}  # fmt: skip


STACKED: dict[str, Any] = DESCRIPTION | {
    "Q": (24, 32), "pool": "average+cells", "aggregate": "stack", "power": 0.5,
}  # fmt: skip
SHOWN = (("dune", 5), ("reed", 6), ("tile", 7))


@case(
    "G14-model",
    command="svm --dataset m.csv --layer pool2 --Q 32 --save; predict --top 3 --csv; explain "
    "--csv; the same of average and cells, two scales stacked, power 0.5",
    tolerance={
        "*/svm/C/*": "choice",
        "*/svm/curve/*": {"abs": 0.067},
        "*/svm/mean": {"abs": 0.067},
        "*/svm/means/*": {"abs": 0.067},
        "*/svm/recall/*": {"abs": 0.2},
        "*/svm/confusion/*": {"abs": 1},
        "*/predict/norm": {"rel": 0.02},
        "*/predict/scores/*": {"rel_norm": 0.02},
        "*/predict/order/*": {"order": 0.05},
        "*/explain/norm": {"rel": 0.02},
        "*/explain/*/score": {"rel_norm": 0.02},
        "*/explain/*/sum": {"rel_norm": 0.02},
        "*/explain/*/bias": {"rel_norm": 0.02},
        "*/explain/*/gap": {"abs": 1e-4},
        "*/explain/*/x": {"abs": 0.5},
        "*/explain/*/y": {"abs": 0.5},
        "*/blocks/*": {"abs": 0.002},
    },
)
def model(inputs: Inputs) -> Found:
    """All images are classified; the maps of one or three are summed in 4 × 4 blocks."""
    values: dict[str, Any] = {}
    margins: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, how, shown in (("average", DESCRIPTION, SHOWN), ("stacked", STACKED, SHOWN[1:2])):
        files = [inputs["I2"] / kind / f"{k}.ppm" for kind, k in shown]
        values[name], mine = _model(inputs["I2"], inputs.work / name, how, files)
        margins |= {f"{name}/{path}": margin for path, margin in mine.items()}
        rows = values[name]["predict"]["scores"].values()
        arrays[f"scores {name}"] = np.array([list(row.values()) for row in rows])
    return Found(values, arrays, margins)


def _model(
    images: Path, work: Path, how: dict[str, Any], shown: list[Path]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, predict and explain; values and margins."""
    work.mkdir()
    told = adapter.svm(images / "m.csv", "--save", work / "model", **how)
    said = adapter.predict(work / "model", images, work / "scores.csv", 3)
    spread = float(np.std([list(one.values()) for one in said["scores"].values()]))
    figures = adapter.explain(work / "model", shown, work / "sums.csv", work / "drawn")
    margins = {
        "svm/C/0": near_best(told["grid"], told["curve"][0]),
        **{f"predict/order/{name}": one for name, one in said["scores"].items()},
    }
    values = {
        "svm": told,
        "predict": {"norm": spread, **said},
        "explain": {"norm": spread, **figures},
        "drawn": sorted(file.name for file in (work / "drawn").rglob("*.png")),
        "blocks": {adapter.base_name(str(file)): _blocks(work / "model", file) for file in shown},
    }
    return values, margins


def _blocks(model: Path, image: Path) -> dict[str, Any]:
    """Sum the map of each class in 4 × 4 blocks."""
    return {
        kind: [
            [float(part.sum()) for part in np.array_split(row, 4, axis=1)]
            for row in np.array_split(evidence, 4, axis=0)
        ]
        for kind, evidence in adapter.evidence(model, image).items()
    }
