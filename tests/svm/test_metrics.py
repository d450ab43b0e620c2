"""Recall by hand, and in words of classes that no image has."""

from __future__ import annotations

import numpy as np

from vggfeat.svm.metrics import class_recalls


def test_recall_by_hand():
    """2 of 3 images of class 1 and 1 of 1 of class 0: recalls 1 and 2/3; class 2 has none."""
    recalls = class_recalls([1, 1, 1, 0], [1, 0, 1, 0], 3)
    np.testing.assert_allclose(recalls, [1, 2 / 3, np.nan])


def test_mistakes_for_a_class_without_images_count():
    """An image taken for an absent class lowers the recall of its own alone."""
    np.testing.assert_allclose(class_recalls([0, 0, 1], [2, 0, 1], 3), [0.5, 1, np.nan])
