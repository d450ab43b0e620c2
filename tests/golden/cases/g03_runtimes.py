"""G03: what computes faster agrees with torch, on this machine as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np

from golden.adapter import features as adapter
from golden.case import case
from golden.cases.g02_describe import LAYERS, POOLS, pixels
from golden.environment import uncapped
from golden.inputs import Inputs
from golden.summaries import distance

PHOTOS = ("photo-00.png", "photo-02.png")


@case(
    "G03-runtimes",
    command="G02's descriptors of two images through winograd, packed, openvino and torch, fp32 "
    "and bf16, in a process without caps: largest distance from torch's, capped",
    tolerance={
        "fp32/*": {"at_most": 1e-5},
        "fp32/packed": {"at_most": 1e-5, "optional": True},
        "bf16/*": {"at_most": 1e-2, "optional": True},
    },
)
def runtimes(inputs: Inputs) -> dict[str, Any]:
    """Leave out bf16 and packed where the machine lacks them; the rest of fp32 is everywhere."""
    images = {name: pixels(inputs, name) for name in PHOTOS}
    reference = adapter.describe(images, LAYERS, pools=POOLS)
    source, target = inputs.work / "images.npz", inputs.work / "described.npz"
    np.savez(source, **images)
    subprocess.run(
        [sys.executable, "-m", "golden.uncapped", source, target],
        env={**uncapped(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
    )
    values: dict[str, dict[str, float]] = {}
    with np.load(target) as described:
        for name in described.files:
            precision, runtime, key = name.split("|")
            of_runtime = values.setdefault(precision, {})
            far = distance(described[name], reference[key])
            of_runtime[runtime] = max(far, of_runtime.get(runtime, 0.0))
    return values
