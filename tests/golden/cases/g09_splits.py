"""G09: who trains and who tests, drawn from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.adapter import features as adapter
from golden.case import case
from golden.inputs import Inputs


@case(
    "G09-splits",
    command="labels of the data set sample: Caltech's rule, the rule of folders, five folds, 20 % "
    "held out; 72 rows of 4 classes: three folds of rows, and of images with several rows",
)
def splitting(inputs: Inputs) -> dict[str, Any]:
    """Row numbers; recorded anew, with a reason, if the folds are dealt by another rule."""
    labels = adapter.sample_labels()
    caltech = {"train_fraction": None, "train_per_class": 20, "max_test_per_class": 5}
    folders = {"train_fraction": 0.5, "train_per_class": 30, "max_test_per_class": None}
    targets, groups = scenes()
    return {
        "labels": {label: labels.count(label) for label in sorted(set(labels))},
        "caltech": _splits(labels, **caltech),
        "folders": _splits(labels, **folders),
        "five folds": adapter.folds(labels, 5, 0),
        "held out": adapter.held_out(labels, 0.2, 0),
        "cv3, rows": adapter.folds(targets, 3, 0),
        "cv3, images": adapter.grouped_folds(targets, groups, 0),
    }


def scenes() -> tuple[np.ndarray, np.ndarray]:
    """Make targets (72, 4) of +1, −1 and, for what is difficult, 0; and the image of each row."""
    rows, classes = np.mgrid[:72, :4]
    mixed = (rows * 7 + classes * 13 + rows * classes * 5) % 11
    targets = np.where(mixed < 3, 1, np.where(mixed == 3, 0, -1)).astype(np.int8)
    return targets, np.array([f"image-{row * 2 // 3:02}" for row in range(72)])


def _splits(labels: list[str], **settings: Any) -> dict[str, Any]:
    """Keep the rows that train in the first of three splits; of all, those that test."""
    splits = adapter.random_splits(labels, n_splits=3, random_state=0, **settings)
    return {
        "train 1": splits[0][0],
        **{f"test {number}": test for number, (_, test) in enumerate(splits, start=1)},
        "apart": [len(np.intersect1d(train, test)) == 0 for train, test in splits],
    }
