"""G13: average precision and recall alone, from fixed scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.adapter import svm as adapter
from golden.case import case
from golden.inputs import Inputs

SMALL = {
    "no ties": ([1, -1, 1, -1, -1, 1, -1], [9, 8, 7, 6, 5, 4, 3]),
    "all tied": ([-1, 1, -1, 1, -1], [2, 2, 2, 2, 2]),
    "tied in pairs": ([1, -1, -1, 1, 1, -1], [5, 5, 3, 3, 1, 1]),
    "difficult between": ([1, 0, -1, 0, 1, 0], [6, 5, 4, 3, 2, 1]),
    "difficult and tied": ([0, -1, 1, 0, 1, -1], [4, 4, 4, 4, 2, 2]),
    "ten positives, three of ten met": ([1, 1, 1, *[-1] * 6, *[1] * 7], list(range(16, 0, -1))),
    "none": ([-1, -1, 0], [3, 2, 1]),
    "difficult alone": ([0, 0, 0], [3, 2, 1]),
}
"""Targets and scores of one class each, small enough to be reckoned by hand."""


@case(
    "G13-metrics",
    command="average precision, rankings, confusion and recall of fixed scores",
    tolerance={
        "*/ap11": {"abs": 1e-9},
        "*/area": {"abs": 1e-9},
        "*/precision/*": {"abs": 1e-9},
        "*/recall/*": {"abs": 1e-9},
        "matrix/ap11/*": {"abs": 1e-9},
        "matrix/area/*": {"abs": 1e-9},
        "confusion/mean": {"abs": 1e-9},
    },
)
def metrics(inputs: Inputs) -> dict[str, Any]:
    """Of the matrix a column serves as scores of each class, rounded so that many are tied."""
    targets, X = (np.load(inputs["I5"] / f"{name}.npy") for name in ("targets", "descriptors"))
    labels = np.load(inputs["I5"] / "labels.npy")
    scores = np.round(X[:, 4:28].reshape(len(X), 4, 6)[:, :, :3].sum(2))
    predicted = scores.argmax(axis=1)
    predicted[labels == 3] = predicted[labels == 3] % 3  # nobody finds the last class
    counts, recalls, mean = adapter.confusion(labels, predicted, 5)
    return {
        **{name: _curve(np.array(t), np.array(s, float)) for name, (t, s) in SMALL.items()},
        "matrix": {
            "ap11": adapter.average_precisions(targets, scores, "ap11"),
            "area": adapter.average_precisions(targets, scores, "area"),
            "first column": _curve(targets[:, 0], scores[:, 0]),
            "ranks": adapter.rank(targets, scores, 6),
        },
        "confusion": {"counts": counts, "recall": recalls, "mean": mean},
    }


def _curve(targets: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    precision, recall = adapter.precision_recall(targets, scores)
    ap = {
        kind: adapter.average_precisions(targets[:, None], scores[:, None], kind)[0]
        for kind in ("ap11", "area")
    }
    return {**ap, "precision": precision, "recall": recall}
