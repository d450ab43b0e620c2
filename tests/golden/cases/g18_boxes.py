"""G18: localisation: frames, loss, windows, merging, and both protocols on red boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.adapter import networks as adapter
from golden.case import case
from golden.inputs import Inputs
from golden.making.boxes import CLASSES, red_box

SIZES = ((500, 375), (288, 256))
PLACES = (((448, 336), (56, 13)), ((288, 256), (0, 31)))
"""Size of the rescaled image, and where the crop lies."""
WAYS = [
    {"match": match, "average": average, "threshold": threshold}
    for match, threshold in (("iou", 0.4), ("overfeat", 50.0))
    for average in ("count", "score", "pair")
]


@case(
    "G18-boxes",
    command="boxes in frames, loss of scr and pcr, windows, merging six ways, protocols 1 and 2",
    tolerance={
        "frames/*": {"abs": 1e-6},
        "back/*": {"abs": 0.01},
        "windows/*": {"abs": 0.01},
        "merged*/boxes/*": {"abs": 0.01},
        "merged*/scores/*": {"abs": 1e-6},
        "loss/*/targets/*": {"abs": 1e-5},
        "loss/*/loss": {"rel": 1e-5},
        "loss/*/iou/*": {"abs": 1e-5},
        "loss/*/mean box/*": {"abs": 1e-5},
        "protocol*/errors/*": {"abs": 1e-9},
        "protocol*/by class/*": {"abs": 1e-9},
        "protocol*/images/*/central/*": {"abs": 0.01},
        "protocol*/images/*/box/*": {"abs": 0.01},
        "protocol*/images/*/single/*": {"abs": 0.01},
        "protocol*/images/*/iou": {"abs": 1e-4},
        "protocol*/images/*/score": {"abs": 1e-6},
    },
)
def boxes(inputs: Inputs) -> dict[str, Any]:
    """Nets and classifier are formulas that see what is red, and err by design."""
    tree = inputs["I6"] / "VOC2007"
    random = np.random.RandomState(18)
    corners = random.randint(0, 120, (9, 2))
    some = np.concatenate([corners, corners + random.randint(40, 130, (9, 2))], axis=1).astype(
        float
    )
    scores = random.randint(1, 65, 9) / 64
    dense = random.randint(-32, 97, (8, 2, 3)).astype(np.float32) / 64
    predictions = random.randint(0, 65, (8, 8)) / 64
    frames = {
        f"{size[0]} {'mirrored' if flip else 'upright'}": adapter.to_frame(
            some[:4], size, place, flip=flip
        )
        for size, place in zip(SIZES, PLACES, strict=True)
        for flip in (False, True)
    }
    shares = np.array([[0.5, 0.5, 1.0, 1.0], [0.25, 0.625, 0.5, -0.25], [1.125, 0.0, 0.75, 0.5]])
    return {
        "frames": frames,
        "back": {
            str(size[0]): adapter.from_frame(shares, size, place)
            for size, place in zip(SIZES, PLACES, strict=True)
        },
        "windows": {str(Q): adapter.window_boxes(dense, (500, 375), Q) for Q in (224, 256)},
        "merged": {
            f"{way['match']} {way['average']}": adapter.merge(some, scores, **way) for way in WAYS
        },
        "merged by default": adapter.merge(_pairs(), np.ones(8)),
        "loss": {
            f"{regression} {S}": adapter.box_loss(tree, regression, S, predictions)
            for regression, S in (("scr", 256), ("pcr", 256), ("pcr", (256, 320)))
        },
        "protocol 1": adapter.judge_boxes(tree, CLASSES, {"pcr": _see_each}, None, [256]),
        "protocol 2": adapter.judge_boxes(
            tree, CLASSES, {"pcr": _see_each, "scr": _see_one}, _say, [256, 288]
        ),
    }


def _pairs() -> np.ndarray:
    """Make four pairs of boxes, far from one another, whose IoU is 0.35, 0.39, 0.41 and 0.45."""
    boxes = []
    for number, share in enumerate((0.35, 0.39, 0.41, 0.45)):
        left, shift = 500.0 * number, 100 * (1 - share) / (1 + share)
        boxes += [[left, 0, left + 100, 80], [left + shift, 0, left + shift + 100, 80]]
    return np.array(boxes)


def _see(pixels: np.ndarray, count: int) -> np.ndarray:
    """Tell in each window where red is; each errs by its place, those at the right end by far."""
    left, top, right, bottom = red_box(pixels)
    h, w = ((side - 224) // 32 + 1 for side in pixels.shape[:2])
    found = np.empty((count, 4, h, w))
    for i, j in np.ndindex(h, w):
        wrong = 0.02 * i + 0.015 * j + 0.07 * (left % 4) + 0.6 * (j == w - 1 > 1)
        x, y = (left + right) / 448 - j / 7 + wrong, (top + bottom) / 448 - i / 7
        found[:, :, i, j] = x, y, (right - left) / 224, (bottom - top) / 224 - wrong / 2
    return found.reshape(4 * count, h, w)


def _see_each(pixels: np.ndarray) -> np.ndarray:
    return _see(pixels, 2)


def _see_one(pixels: np.ndarray) -> np.ndarray:
    return _see(pixels, 1) * 1.0625


def _say(pixels: np.ndarray, Q: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Call a wide box a cat; rate windows by where they are."""
    left, top, right, bottom = red_box(pixels)
    wide = (right - left) / (right - left + bottom - top)
    h, w = (-(-(side - 224) // 32) + 1 for side in pixels.shape[:2])
    rated = np.arange(1, 1 + h * w).reshape(h, w) / (h * w)
    return np.array([wide, 1 - wide]) / 2, np.stack([rated, rated[::-1] / 2]), np.array([0.26, 0.1])
