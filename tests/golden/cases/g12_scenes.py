"""G12: the scenes composed of the sample, by VOC's protocol."""

from __future__ import annotations

from typing import Any

from golden.adapter import svm as adapter
from golden.case import Found, case
from golden.choices import near_best
from golden.inputs import Inputs

DESCRIPTION: dict[str, Any] = {
    "net": "D", "layer": ("pool3",), "Q": (48,), "weights": "embedded", "pool": "average",
    "flip": True, "exif": True, "view": "image", "normalize": "descriptor",
    "aggregate": "average", "power": 0.5, "loss": "hinge", "solver": "gram",
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "per class, three folds": {"C": "per class", "habit": "cv3", "difficult": "drop"},
    "one, three folds": {"C": "one", "habit": "cv3", "difficult": "negative"},
    "one, validation": {"C": "one", "habit": "validation", "difficult": "drop"},
}


@case(
    "G12-scenes",
    command="svm --dataset sample-voc --layer pool3 --Q 48 --power 0.5, --C 'per class' and one, "
    "--habit cv3 and validation, --difficult drop and negative",
    tolerance={
        "*/C/*": "choice",
        "*/curve/*": {"abs": 0.02},
        "*/ap11/*": {"abs": 0.01},
        "*/area/*": {"abs": 0.01},
        "*/mAP": {"abs": 0.004},
        "*/validation mAP": {"abs": 0.004},
    },
)
def scenes(inputs: Inputs) -> Found:
    """Describe once; a mean of 44 % where chance is 22 %, since objects are ten pixels wide."""
    values: dict[str, Any] = {}
    margins: dict[str, Any] = {}
    for name, way in WAYS.items():
        values[name] = adapter.svm("sample-voc", **DESCRIPTION, **way)
        grid, curve = values[name]["grid"], values[name]["curve"]
        means = [sum(row) / len(row) for row in curve]
        for c in range(len(values[name]["classes"])):
            mine = means if way["C"] == "one" else [row[c] for row in curve]
            margins[f"{name}/C/{c}"] = near_best(grid, mine)
    return Found(values, margins=margins)
