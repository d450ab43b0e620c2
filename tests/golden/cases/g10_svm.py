"""G10: the linear SVM and the choice of its C, on a fixed matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.adapter import svm as adapter
from golden.case import Found, case
from golden.choices import near_best
from golden.inputs import Inputs

GRID = (0.001, 0.01, 0.1, 1.0, 10.0)
SOLVERS = (
    ("gram", "hinge"),
    ("gram", "squared_hinge"),
    ("primal", "hinge"),
    ("primal", "squared_hinge"),
    ("stream", "squared_hinge"),
)


@case(
    "G10-svm",
    command="linear SVM, gram, primal and stream, tol 1e-6 (stream 1e-4); C of five, tol 1e-3",
    tolerance={
        "*/fit-*/coef/*": {"rel_norm": 1e-4},
        "*/fit-*/bias/*": {"rel_norm": 1e-4},
        "*/fit-*/scores/*": {"abs": 1e-4},
        "*/fit-*/norm": {"rel": 1e-4},
        "stream squared_hinge/fit-*/coef/*": {"rel_norm": 0.02},
        "stream squared_hinge/fit-*/bias/*": {"rel_norm": 0.02},
        "stream squared_hinge/fit-*/scores/*": {"rel_norm": 0.02},
        "stream squared_hinge/fit-*/norm": {"rel": 0.02},
        "*/recall/C": "choice",
        "*/area/C/*": "choice",
        "*/recall/curve/*": {"abs": 0.0167},
        "*/area/curve/*": {"abs": 0.004},
    },
)
def svm(inputs: Inputs) -> Found:
    """Every other two rows a class train; the rest is scored.

    The norm beside the scores is their spread. C is known to be the best of five by 0.03 or more.
    """
    X, labels, targets = (
        np.load(inputs["I5"] / f"{name}.npy") for name in ("descriptors", "labels", "targets")
    )
    rows = np.arange(len(X))
    half = (rows // 4) % 2 == 0
    folds = [(rows[half], rows[~half]), (rows[~half], rows[half])]
    values: dict[str, Any] = {}
    margins: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for solver, loss in SOLVERS:
        how: dict[str, Any] = {"loss": loss, "solver": solver}
        tol = 1e-4 if solver == "stream" else 1e-6  # which reads the rows again and again
        mine: dict[str, Any] = {}
        for kind, y in (("labels", labels), ("targets", targets)):
            mine[f"fit-{kind}"], scores = _fit(X, y, half, how | {"tol": tol})
            arrays[f"scores {solver} {loss} {kind}"] = scores
        for name, y, per_class in (("recall", labels, False), ("area", targets, True)):
            best, curve = adapter.search_svm(
                X, y, grid=GRID, folds=folds, per_class=per_class, tol=1e-3, **how
            )
            mine[name] = {"C": best if per_class else best[0], "curve": curve.round(9)}
            for c, means in enumerate(curve.T if per_class else [curve.mean(1)]):
                where = f"{solver} {loss}/{name}/C{f'/{c}' if per_class else ''}"
                margins[where] = near_best(GRID, means, 1 / 240)
        values[f"{solver} {loss}"] = mine
    values["tied"] = _tied(labels)
    return Found(values, arrays, margins)


def _tied(labels: np.ndarray) -> dict[str, list[float]]:
    """Choose among values of C that are all as good: the one nearest to 1 is taken."""
    apart, rows = np.eye(4)[labels], np.arange(len(labels))
    how: dict[str, Any] = {"loss": "hinge", "solver": "gram", "tol": 1e-3}
    folds = [(rows[:120], rows[120:])]
    grids = ((0.01, 0.1, 3.0, 30.0), (0.2, 20.0), (7.0, 70.0), (0.03, 0.3))
    return {
        " ".join(map(str, grid)): adapter.search_svm(
            apart, labels, grid=grid, folds=folds, per_class=False, **how
        )[0]
        for grid in grids
    }


def _fit(
    X: np.ndarray, y: np.ndarray, half: np.ndarray, how: dict[str, Any]
) -> tuple[dict[str, Any], np.ndarray]:
    """Train on one half and score the other: what is kept, and all scores."""
    coef, bias, scores = adapter.fit_svm(X[half], y[half], X[~half], C=0.1, **how)
    values = {
        "norm": float(scores.std()),
        "coef": np.linalg.norm(coef, axis=1),
        "bias": bias,
        "scores": scores[::10],
    }
    return values, scores
