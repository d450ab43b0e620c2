"""Recall against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as theirs

from vggfeat.errors import DataError
from vggfeat.svm.metrics import confusion_matrix, mean_class_recall, recall_per_class

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(PAIRS)
def test_confusion_and_recall_equal_scikit_learns(pairs):
    """On arbitrary labels the counts and the mean recall of present classes are scikit-learn's."""
    true, predicted = np.array(pairs).T
    counts = theirs.confusion_matrix(true, predicted, labels=range(5))
    np.testing.assert_array_equal(confusion_matrix(true, predicted, range(5)), counts)
    present = np.unique(true)
    macro = theirs.recall_score(true, predicted, labels=present, average="macro", zero_division=0)
    assert mean_class_recall(true, predicted, range(5)) == pytest.approx(macro, abs=1e-12)


def test_by_hand_with_names_in_another_order():
    """2 of 3 cats and 1 of 1 dogs: recalls 2/3 and 1, mean 5/6; the absent bird has none."""
    true, predicted = ["cat", "cat", "cat", "dog"], ["cat", "dog", "cat", "dog"]
    recalls = recall_per_class(true, predicted, ["dog", "cat", "bird"])
    np.testing.assert_allclose(recalls, [1, 2 / 3, np.nan])
    assert mean_class_recall(true, predicted, ["dog", "cat", "bird"]) == pytest.approx(5 / 6)


def test_errors_say_what_is_wrong():
    """Unknown labels, unequal lengths and nothing at all are refused."""
    with pytest.raises(DataError, match="The label cow is not among the 2 classes"):
        confusion_matrix(["cow"], ["cat"], ["cat", "dog"])
    with pytest.raises(DataError, match="2 true labels cannot be compared with 1"):
        confusion_matrix([0, 1], [0], [0, 1])
    with pytest.raises(DataError, match="at least one image"):
        mean_class_recall([], [], [0, 1])
