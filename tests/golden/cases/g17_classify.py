"""G17: classification by a whole network: dense, crops, their mean, fusion, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from golden.adapter import networks as adapter
from golden.case import Found, case
from golden.inputs import Inputs
from golden.making.whole import FILE

CLASSES = ("ash", "elm", "oak")
LABELS = {"wide-0.png": "ash", "wide-1.png": "elm", "wide-2.png": "oak"}


@case(
    "G17-classify",
    command="classify --data --net A, --mode both --grid 2 --Q 240 and --locations posteriors "
    "--no-flip --Q 256; fuse; errors of fixed posteriors",
    tolerance={
        "two nets/*": {"abs": 1e-6},
        "*/shares/*": {"abs": 1e-4},
        "kept/*": {"abs": 1e-4},
        "*/order/*": {"order": 1e-4},
    },
)
def classification(inputs: Inputs) -> Found:
    """Three images; the second store adds a pooling and a scale of the same net."""
    folder = inputs.work / "net"
    folder.mkdir()
    (folder / FILE).hardlink_to(inputs["I4"] / FILE)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), "utf-8")
    data = inputs.work / "m.csv"
    rows = [f"{inputs['I4'] / name},{label}\n" for name, label in LABELS.items()]
    data.write_text("path,label\n" + "".join(rows), "utf-8")
    ways: dict[str, dict[str, Any]] = {
        "both": {"Q": (240,), "mode": "both", "grid": 2, "locations": "scores", "flip": True},
        "posteriors": {"Q": (256,), "mode": "dense", "locations": "posteriors", "flip": False},
    }
    values: dict[str, Any] = {}
    stores = []
    for name, options in ways.items():
        stores.append(inputs.work / name)
        table = inputs.work / f"{name}.csv"
        values[name] = adapter.classify(
            data, folder / FILE, stores[-1], table, "--exif", top=3, **options
        )
    values["fused"] = adapter.fuse(stores, data, inputs.work / "fused.csv")
    margins = {
        f"{name}/order/{image}": shares
        for name, told in values.items()
        for image, shares in told["shares"].items()
    }
    values["kept"] = adapter.stored_posteriors(stores[0])
    values["fixed"] = _fixed()
    values["two nets"] = _two_nets(inputs.work)
    return Found(values, margins=margins)


def _two_nets(work: Path) -> dict[str, dict[str, float]]:
    """Fuse nets of which one has two scales and two modes: every net counts the same."""
    random = np.random.RandomState(170)
    kept = {
        "A": (("softmax", 224), ("softmax", 256), ("crops2", 256)),
        "D": (("softmax", 256),),
    }
    for net, ways in kept.items():
        values = {}
        for way in ways:
            numbers = random.randint(1, 60, (3, len(CLASSES))).astype(float)
            values[way] = numbers / numbers.sum(axis=1, keepdims=True)
        adapter.write_posteriors(work / f"fixed-{net}", net, CLASSES, values)
    stores = [work / f"fixed-{net}" for net in kept]
    return adapter.fused_shares(stores, work / "fixed.csv", len(CLASSES))


def _fixed() -> dict[str, Any]:
    """Count errors where there are more classes than five, and ties."""
    numbers = np.random.RandomState(17).randint(0, 12, (60, 9)).astype(float) + 1
    labels = np.arange(60) % 9
    numbers[np.arange(60), labels] += 2
    top1, top5, likeliest = adapter.errors_of(numbers / numbers.sum(1, keepdims=True), labels)
    return {"top1": top1, "top5": top5, "likeliest": likeliest[:12]}
