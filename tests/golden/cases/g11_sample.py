"""G11: the shipped sample from end to end, as `make demo` runs it, at a small scale."""

from __future__ import annotations

import statistics
from typing import Any

from golden.adapter import svm as adapter
from golden.case import Found, case
from golden.choices import near_best
from golden.inputs import Inputs

DESCRIPTION: dict[str, Any] = {
    "net": "D", "layer": ("pool4",), "Q": (32,), "weights": "embedded", "pool": "average+max",
    "flip": True, "exif": True, "view": "image", "normalize": "descriptor",
    "aggregate": "average", "power": 0.5, "loss": "hinge", "solver": "gram",
}  # fmt: skip


@case(
    "G11-sample",
    command="svm --dataset sample --layer pool4 --Q 32 --pool average+max --power 0.5 --report "
    "--save --no-evidence",
    tolerance={
        "svm/C/*": "choice",
        "svm/curve/*": {"abs": 0.0134},
        "svm/mean": {"abs": 0.005},
        "svm/means/*": {"abs": 0.0134},
        "svm/spread": {"abs": 0.01},
        "spread apart": {"at_most": 1e-9},
        "svm/recall/*": {"abs": 0.0445},
        "svm/confusion/*": {"abs": 2},
        "model/C/*": "choice",
        "model/bias/*": {"abs": 0.05},
        "model/coef/*": {"rel": 0.02},
    },
)
def sample(inputs: Inputs) -> Found:
    """Of ten classes some 60 % are found: 32 pixels are few, and a worse descriptor shows."""
    page, model = inputs.work / "report.html", inputs.work / "model"
    more = ("--report", page, "--no-evidence", "--save", model)
    with adapter.plain_convolutions():
        told = adapter.svm("sample", *more, **DESCRIPTION)
    margins = {
        f"svm/C/{k}": near_best(told["grid"], curve) for k, curve in enumerate(told["curve"])
    }
    again = adapter.of_report(page)
    values = {
        "svm": told,
        "spread apart": abs(told["spread"] - statistics.stdev(told["means"])),
        "page": {
            "json": {name: again[name] == told[name] for name in told},
            "table": again["table"] == told["recall"],
            "headline": again["headline"],
        },
        "model": adapter.about_model(model),
    }
    return Found(values, margins=margins)
