"""G15: two tables of the paper made small, with what the evaluation server takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.adapter import svm as adapter
from golden.case import Found, case
from golden.choices import near_best
from golden.inputs import Inputs


@case(
    "G15-tables",
    command="run table11-voc2007 and table12-voc2012-action with pool2 at Q = 24 and 36, four "
    "classes; --submission of the second",
    tolerance={
        "*/C/*": "choice",
        "*/ap11/*": {"abs": 0.01},
        "*/area/*": {"abs": 0.01},
        "*/mAP": {"abs": 0.004},
        "*/curve/*": {"abs": 0.02},
        "*/validation mAP": {"abs": 0.004},
        "submission/norm": {"rel": 0.02},
        "submission/files/*": {"rel_norm": 0.02},
    },
)
def tables(inputs: Inputs) -> Found:
    """Nets D, E and both; the whole image, and image and box; E has weights by a formula."""
    trees, work = inputs["I3"], inputs.work
    weights = ["embedded", f"E={trees / 'net-E.safetensors'}"]
    values: dict[str, Any] = {}
    margins: dict[str, Any] = {}
    for name, year, more in (
        ("table11-voc2007", "voc2007", ()),
        ("table12-voc2012-action", "voc2012", ("--submission", work / "sent")),
    ):
        recipe = adapter.small_recipe(
            name, work / f"{name}.toml", weights=weights, layer="pool2", Q=(24, 36)
        )
        values[name] = adapter.run_recipe(recipe, trees / f"{year}.toml", trees, *more)
        for row, told in values[name].items():
            for c in range(len(told["classes"])):
                mine = [of_C[c] for of_C in told["curve"]]
                margins[f"{name}/{row}/C/{c}"] = near_best(told["grid"], mine)
    files = adapter.submitted(work / "sent")
    scores = np.array([score for rows in files.values() for score in rows.values()])
    values["submission"] = {"norm": float(scores.std()), "files": files}
    return Found(values, {"scores submitted": scores}, margins)
