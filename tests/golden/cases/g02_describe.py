"""G02: descriptors of net D, at every depth and by every pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.adapter import features as adapter
from golden.case import Found, case
from golden.inputs import Inputs
from golden.summaries import summary, within

LAYERS = ("conv1_1_pre", "pool1", "pool2", "pool3", "pool4", "pool5")
POOLS = ("average", "max", "cells")
PHOTOS = ("photo-00.png", "photo-01.png", "photo-02.png")  # of three shapes
Q = 64


def pixels(inputs: Inputs, name: str) -> np.ndarray:
    """Return an image of I1 at smallest side Q."""
    return adapter.rescale(adapter.decode(inputs["I1"] / name), Q)


@case(
    "G02-describe",
    command="net D embedded, Q = 64, runtime torch, fp32: six layers × average, max, cells, "
    "with and without mirror image, with raw and normalised locations",
    tolerance=within("*", 1e-5),
)
def describing(inputs: Inputs) -> Found:
    """Summaries of 162 descriptors."""
    ways: dict[str, dict[str, Any]] = {
        "flip": {"flip": True, "locations": "raw"},
        "no flip": {"flip": False, "locations": "raw"},
        "flip, l2": {"flip": True, "locations": "l2"},
    }
    images = {name: pixels(inputs, name) for name in PHOTOS}
    arrays = {
        f"{way}/{key}": descriptor
        for way, settings in ways.items()
        for key, descriptor in adapter.describe(images, LAYERS, pools=POOLS, **settings).items()
    }
    return Found({name: summary(array) for name, array in arrays.items()}, arrays)
