"""A localisation net that sees red, where a test cannot afford a VGG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tinynet import PIXELS
from torch import Tensor
from trees import OBJECT, write_voc, write_xml

from vggfeat.features.extraction import Extraction
from vggfeat.nets.weights import Weights

CLASSES = ("cat", "dog")
SIZE = (448, 336)
BOXES = {"cat": (40, 60, 250, 280), "dog": (150, 40, 420, 200)}
"""Of every drawn picture, in pixels from 1 on, ends included."""


def red_box(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """Edges of what is red in pixels (H, W, 3)."""
    red = (pixels[:, :, 0] > 150) & (pixels[:, :, 1] < 100)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class Oracle:
    """What of a DenseExtractor a localiser relies on: it tells where red is, in each window.

    `shift` of the window's side is added to every centre, but for windows in the first row.
    """

    runtime = "torch"

    def __init__(self, net: str, layers: object, *, weights: Weights, **_: Any) -> None:
        self.weights = weights
        self.extraction = Extraction(net, weights.sha256, ("fc8",), flip=False)
        self.shift = float(weights.about.get("shift", "0"))
        self.boxes = 1 if weights.about.get("regression") == "scr" else len(weights.classes)

    def check_scales(self, scales: Sequence[int]) -> None:
        assert min(scales) >= 224

    def maps(self, pixels: Tensor) -> dict[str, Tensor]:
        picture = pixels[0].permute(1, 2, 0).numpy()
        left, top, right, bottom = red_box(picture) or (0, 0, 0, 0)
        h, w = ((side - 224) // 32 + 1 for side in picture.shape[:2])
        found = np.empty((self.boxes, 4, h, w), np.float32)
        for i, j in np.ndindex(h, w):
            shift = self.shift if i else 0.0
            x, y = (left + right) / 448 - j / 7 + shift, (top + bottom) / 448 - i / 7
            found[:, :, i, j] = x, y, (right - left) / 224, (bottom - top) / 224
        return {"fc8": torch.from_numpy(found.reshape(-1, h, w))[None]}


def weights_of(regression: str = "pcr", S: int | list[int] = 256, **about: str) -> Weights:
    """Weights that say they are of a localisation net, and no more."""
    told = {"kind": "localisation", "regression": regression, "S": str(S), **about}
    told["classes"] = '["cat", "dog"]'
    return Weights("D", {}, PIXELS, "oracle", "none", about=told)


def draw_red(path: Path, labels: Sequence[str]) -> None:
    """Draw a red box where the first of these classes has its objects, on a noisy sheet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(len(path.name)).integers(100, 200, (*SIZE[::-1], 1))
    pixels = np.repeat(grain, 3, axis=2).astype(np.uint8)
    if labels:
        left, top, right, bottom = BOXES[labels[0]]
        pixels[top - 1 : bottom, left - 1 : right] = (220, 10, 20)
    Image.fromarray(pixels).save(path, quality=95)


def red_tree(tree: Path, parts: Mapping[str, Mapping[str, Sequence[int]]]) -> Path:
    """Write a tree of VOC whose pictures have a red box of their one class."""
    write_voc(tree, CLASSES, parts, draw_red)
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
    for rows in parts.values():
        for name, row in rows.items():
            label = CLASSES[list(row).index(1)]
            shown = OBJECT.format(name=label, difficult=0, box=BOXES[label])
            write_xml(tree, name, [size, shown])
    return tree
