"""Recall of each class.

A class without an image has no recall: it is NaN, and left out of means.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import recall_score

from vggfeat.svm.rows import Floats


def class_recalls(true: ArrayLike, predicted: ArrayLike, classes: int) -> Floats:
    """Share of each class's images that were recognised, shape (C,), in [0, 1] or NaN.

    Their mean over classes is the metric of Caltech-101 and -256 (Appendix B).

    Examples
    --------
    >>> class_recalls([0, 0, 0, 1], [0, 0, 1, 1], 3).round(3)
    array([0.667, 1.   ,   nan])
    """
    recalls = recall_score(
        true, predicted, labels=range(classes), average=None, zero_division=np.nan
    )
    return cast("Floats", recalls)
