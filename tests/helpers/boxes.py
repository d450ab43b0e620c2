"""Red objects in noisy images, and nets that see where red is: exactly, or to a grid of pool5."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from trees import OBJECT, write_voc, write_xml

from helpers.networks import FakeExtractor
from vggfeat.localization.predict import Localizer
from vggfeat.nets.config import FC_SIDE, layers_of
from vggfeat.nets.preprocessing import PixelConvention
from vggfeat.nets.weights import Weights

CLASSES = ("cat", "dog")
BoxOf = Mapping[str, tuple[int, int, int, int]]
SIZE = (448, 336)
BOXES: BoxOf = {"cat": (40, 60, 250, 280), "dog": (150, 40, 420, 200)}
"""Of every drawn image, in pixels from 1 on, ends included."""
GRID_SIZE = (352, 288)
GRID_BOXES: BoxOf = {"cat": (97, 65, 192, 224), "dog": (129, 97, 256, 192)}
"""Their edges are multiples of 32, in the image as in its central crop at S = 288."""
GRID_NET = "4 | 4 | 4 | 4 | 4 | FC 28 28"
"""The configuration that :func:`box_weights` are of, in the place of net D."""
PIXELS = PixelConvention("RGB", 255.0, (0.0, 0.0, 0.0))


def draw_red(path: Path, size: tuple[int, int], box: Sequence[int] | None) -> None:
    """Draw a red box on a noisy sheet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(len(path.name)).integers(100, 200, (*size[::-1], 1))
    pixels = np.repeat(grain, 3, axis=2).astype(np.uint8)
    if box:
        left, top, right, bottom = box
        pixels[top - 1 : bottom, left - 1 : right] = (220, 10, 20)
    Image.fromarray(pixels).save(path, quality=95)


def red_tree(
    tree: Path,
    parts: Mapping[str, Mapping[str, Sequence[int]]],
    size: tuple[int, int] = SIZE,
    boxes: BoxOf = BOXES,
) -> Path:
    """Write a tree of VOC whose images have a red box of their one class."""

    def draw(path: Path, labels: Sequence[str]) -> None:
        draw_red(path, size, boxes[labels[0]] if labels else None)

    write_voc(tree, CLASSES, parts, draw)
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    for rows in parts.values():
        for name, row in rows.items():
            label = CLASSES[list(row).index(1)]
            shown = OBJECT.format(name=label, difficult=0, box=boxes[label])
            write_xml(tree, name, [stated, shown])
    return tree


def red_edges(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """Edges of what is red in pixels (H, W, 3)."""
    red = (pixels[:, :, 0] > 150) & (pixels[:, :, 1] < 100)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def red_box(pixels: Tensor, shift: float = 0.0, boxes: int = 1) -> Tensor:
    """Predict for each window of an image (1, 3, H, W) where red is: (1, 4·boxes, h, w).

    `shift` of the window's side is added to every centre, but for windows in the first row.
    """
    image = pixels[0].permute(1, 2, 0).numpy()
    left, top, right, bottom = red_edges(image) or (0, 0, 0, 0)
    h, w = ((side - 224) // 32 + 1 for side in image.shape[:2])
    predicted = np.empty((boxes, 4, h, w), np.float32)
    for i, j in np.ndindex(h, w):
        x = (left + right) / 448 - j / 7 + (shift if i else 0.0)
        y = (top + bottom) / 448 - i / 7
        predicted[:, :, i, j] = x, y, (right - left) / 224, (bottom - top) / 224
    return torch.from_numpy(predicted.reshape(-1, h, w))[None]


def sees_red(regression: str = "pcr", S: int | list[int] = 256, shift: float = 0.0) -> Localizer:
    """Open a localiser that is told exactly where red is, whatever its window shows of it."""
    net = Localizer(box_weights(regression, S), precision="fp32")
    count = 1 if regression == "scr" else len(CLASSES)

    def describe(pixels: Tensor) -> Tensor:
        return red_box(pixels, shift, count)

    fake = FakeExtractor(describe, layer="fc8")
    fake.weights = net.extractor.weights
    net.extractor = fake  # type: ignore[assignment]  # it stands in
    return net


def box_weights(
    regression: str = "pcr",
    S: int | list[int] = 288,
    *,
    keys: Sequence[str] = CLASSES,
    blind: bool = False,
) -> Weights:
    """Make weights of a localisation net that sees in which 32×32 pixels there is red.

    They are of :data:`GRID_NET` in the place of net D, whose pool5 is 1 where there is any red.
    fc6 counts rows and columns of a window's 7×7 numbers, and how far each count exceeds 1; the
    difference is whether there is any. fc7 finds where such rows and columns begin and end, and
    fc8 reads centre and sides from that. A blind one sees a speck in the middle of every window.
    """
    state = {}
    for layer in layers_of("D", 4 * (len(keys) if regression == "pcr" else 1)):
        if layer.kind in ("conv", "fc"):
            state[f"{layer.name}.weight"] = torch.zeros(
                layer.outputs, layer.inputs, layer.kernel, layer.kernel
            )
            state[f"{layer.name}.bias"] = torch.zeros(layer.outputs)
    # Red less green, beyond two thresholds, of which the difference is 0 or 60.
    state["conv1_1.weight"][:2, 0, 1, 1] = 1
    state["conv1_1.weight"][:2, 1, 1, 1] = -1
    state["conv1_1.bias"][:2] = torch.tensor([-120.0, -180.0])
    state["conv2_1.weight"][0, :2, 1, 1] = torch.tensor([1 / 60, -1 / 60])
    for name in ("conv3_1", "conv4_1", "conv5_1"):
        state[f"{name}.weight"][0, 0, 1, 1] = 1
    for at in range(FC_SIDE):
        for beyond in (0, 1):
            row, column = 2 * at + beyond, 2 * (FC_SIDE + at) + beyond
            state["fc6.weight"][row, 0, at, :] = 1
            state["fc6.weight"][column, 0, :, at] = 1
            state["fc6.bias"][[row, column]] = -float(beyond)
    fc7 = state["fc7.weight"][:, :, 0, 0]
    fc8 = state["fc8.weight"][:, :, 0, 0].view(-1, 4, 4 * FC_SIDE)
    for axis, first in (("y", 0), ("x", FC_SIDE)):
        centre, side = ("xy".index(axis), 2 + "xy".index(axis))
        for at in range(FC_SIDE):
            any_red = torch.zeros(FC_SIDE + 2, 4 * FC_SIDE)  # with one of none on each side
            for k in range(FC_SIDE):
                any_red[k + 1, 2 * (first + k)] = 1
                any_red[k + 1, 2 * (first + k) + 1] = -1
            begins, ends = 2 * (first + at), 2 * (first + at) + 1
            fc7[begins] = any_red[at + 1] - any_red[at]
            fc7[ends] = any_red[at + 1] - any_red[at + 2]
            fc8[:, centre, begins], fc8[:, side, begins] = at / 14, -at / 7
            fc8[:, centre, ends], fc8[:, side, ends] = (at + 1) / 14, (at + 1) / 7
    if blind:
        fc8.zero_()
        state["fc8.bias"].view(-1, 4)[:] = torch.tensor([0.5, 0.5, 0.02, 0.02])
    for name in ("fc6", "fc7", "fc8"):
        state[f"{name}.weight"] = state[f"{name}.weight"].flatten(1)
    about = {"kind": "localisation", "regression": regression, "S": json.dumps(S)}
    about["classes"] = json.dumps(list(keys))
    return Weights("D", state, PIXELS, "red", "none", about=about)
