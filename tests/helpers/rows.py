"""Rows and their labels as a data set, for protocols that take one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vggfeat.data.datasets.card import DatasetCard
from vggfeat.data.imageset import ImageSet
from vggfeat.settings import SVM
from vggfeat.svm.protocols import Evaluation
from vggfeat.svm.protocols.random_splits import RandomSplits
from vggfeat.svm.protocols.voc import VOC

Rows = np.ndarray


def labelled(
    y: Sequence[int] | Rows,
    classes: Sequence[str],
    names: Sequence[str] | None = None,
    splits: Mapping[str, Any] | None = None,
) -> tuple[DatasetCard, ImageSet]:
    """Make a data set of rows with one label each; its images are only named."""
    names = tuple(map(str, range(len(y)))) if names is None else tuple(names)
    card = DatasetCard(name="pets", reader="folders", classes=tuple(classes))
    labels = tuple(classes[label] for label in y)
    return card, ImageSet(names, names, labels, splits=splits or {})


def targeted(
    targets: Rows,
    classes: Sequence[str],
    parts: Sequence[Any],
    names: Sequence[str] | None = None,
) -> tuple[DatasetCard, ImageSet]:
    """Make a data set of rows with targets of -1, 0 and +1, and parts to train, validate, test."""
    names = tuple(map(str, range(len(targets)))) if names is None else tuple(names)
    card = DatasetCard(name="pets", reader="manifest", classes=tuple(classes))
    splits = dict(zip(("train", "val", "test"), map(_as_rows, parts), strict=True))
    return card, ImageSet(names, names, targets=targets.astype(np.int8), splits=splits)


def evaluate_splits(
    X: Rows,
    y: Sequence[int] | Rows,
    classes: Sequence[str],
    names: Sequence[str] | None = None,
    grid: Sequence[float] | None = None,
    **protocol: Any,
) -> Evaluation:
    """Test rows over random splits."""
    card, images = labelled(y, classes, names)
    svm = SVM(C=grid) if grid else SVM()
    return RandomSplits(**protocol).evaluate(card, images, X, svm, n_jobs=1)


def evaluate_parts(
    X: Rows,
    targets: Rows,
    classes: Sequence[str],
    parts: Sequence[Any],
    names: Sequence[str] | None = None,
    **settings: Any,
) -> Evaluation:
    """Test rows by VOC's protocol: ``ap`` is its own, other settings are the SVM's."""
    protocol = VOC(ap=settings.pop("ap", "ap11"))
    grid = settings.pop("grid", None)
    svm = SVM(**settings, **({"C": grid} if grid else {}))
    return protocol.evaluate(*targeted(targets, classes, parts, names), X, svm, n_jobs=1)


def _as_rows(rows: Any) -> Rows:
    return np.asarray(rows, dtype=np.int64)
