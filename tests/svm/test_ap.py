"""Average precision: by hand, and as the devkits' code runs."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.mistakes import refuses
from hypothesis import given
from hypothesis import strategies as st

from vggfeat.errors import DataError, ParameterError
from vggfeat.svm.ap import (
    average_precision_11point,
    average_precision_area,
    average_precisions,
    mean_average_precision,
    precision_recall,
)

ROWS = st.lists(
    st.tuples(st.integers(-8, 8), st.sampled_from([-1, -1, 0, 1])), min_size=1, max_size=50
)


def split(rows):
    scores, targets = np.array(rows).T
    return scores / 4, targets


def reference(scores, targets):
    """Both APs written as the devkits' loops are, row by row, difficult rows kept in the list."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    n = int(np.sum(np.asarray(targets) > 0))
    right = wrong = 0
    recall, precision = [], []
    for i in order:
        right += targets[i] > 0
        wrong += targets[i] < 0
        recall.append(right / n)
        precision.append(right / (right + wrong) if right + wrong else 0.0)
    eleven = 0.0
    for k in range(11):
        reached = [p for r, p in zip(recall, precision, strict=True) if r >= k / 10 - 1e-9]
        eleven += (max(reached) if reached else 0.0) / 11
    mrec, mpre = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    area = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))
    return eleven, area


GOLDEN = {
    # + - + - +: precision 1, 2/3, 3/5 at recall 1/3, 2/3, 1; thresholds 0-.3, .4-.6, .7-1
    "mixed": ([5, 4, 3, 2, 1], [1, -1, 1, -1, 1], (4 + 3 * 2 / 3 + 4 * 3 / 5) / 11, 34 / 45),
    # - + +: precision 1/2, 2/3; from the right 2/3 throughout
    "rising": ([3, 2, 1], [-1, 1, 1], 2 / 3, 2 / 3),
    # + 0 -: the difficult row counts as nothing
    "difficult": ([3, 2, 1], [1, 0, -1], 1.0, 1.0),
    # 0 - + 0 +: - + + once the difficult rows are gone
    "difficult first": ([5, 4, 3, 2, 1], [0, -1, 1, 0, 1], 2 / 3, 2 / 3),
    # ten positives, a negative after the third: recall 0.3 is met at precision 1, so 4 thresholds
    # at 1 and 7 at 10/11
    "exactly 0.3": (
        np.arange(11)[::-1],
        [1, 1, 1, -1, 1, 1, 1, 1, 1, 1, 1],
        (4 + 7 * 10 / 11) / 11,
        0.3 + 0.7 * 10 / 11,
    ),
    # one score for all: the order given is the ranking, - + + and + + -
    "ties, worst order": ([1, 1, 1], [-1, 1, 1], 2 / 3, 2 / 3),
    "ties, best order": ([1, 1, 1], [1, 1, -1], 1.0, 1.0),
    "all positive": ([1, 2], [1, 1], 1.0, 1.0),
    "last of four": ([4, 3, 2, 1], [-1, -1, -1, 1], 0.25, 0.25),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_vectors(name):
    """Both figures are those worked by hand, and those of the devkits' loops."""
    scores, targets, eleven, area = GOLDEN[name]
    assert average_precision_11point(scores, targets) == pytest.approx(eleven, abs=1e-12)
    assert average_precision_area(scores, targets) == pytest.approx(area, abs=1e-12)
    assert reference(scores, targets) == pytest.approx((eleven, area), abs=1e-9)


@given(ROWS)
def test_equal_to_the_devkits_loops(rows):
    """On arbitrary rows, ties and difficult ones among them, both equal the loops."""
    scores, targets = split(rows)
    ours = average_precision_11point(scores, targets), average_precision_area(scores, targets)
    if not (targets > 0).any():
        assert np.isnan(ours).all()
    else:
        assert ours == pytest.approx(reference(scores, targets), abs=1e-9)


def test_the_curve_by_hand():
    """Recall 1/2 and 1 at precision 1 and 2/4, where the difficult row is not counted."""
    curve = precision_recall([5, 4, 3, 2, 1], [1, -1, 0, -1, 1])
    np.testing.assert_allclose(curve.recall, [0.5, 1])
    np.testing.assert_allclose(curve.precision, [1, 0.5])


def test_classes_without_positives_are_left_out():
    """NaN for a class of no positives and one of no scores; the mean is that of the other two."""
    targets = np.array([[1, -1, 1, 1], [-1, 0, -1, 1], [1, -1, -1, -1]])
    scores = np.array([[3, 3, np.nan, 1], [2, 2, np.nan, 2], [1, 1, np.nan, 3]])
    each = average_precisions(targets, scores, "area")
    np.testing.assert_allclose(each, [5 / 6, np.nan, np.nan, 2 / 3])
    assert mean_average_precision(each) == pytest.approx(3 / 4)
    assert np.isnan(mean_average_precision([np.nan]))


@pytest.mark.parametrize(
    ("measure", "scores", "targets", "named"),
    [
        (average_precision_area, [1, 2], [2, 1], "-1, 0"),
        (average_precision_11point, [1, np.nan], [-1, 1], "finite"),
        (average_precision_area, [1, 2], [1, 1, 1], "(2,) and (3,)"),
        (lambda scores, targets: average_precisions(targets, scores, "area"), [1], [1], "(N, C)"),
    ],
)
def test_rows_that_cannot_be_ranked_are_refused(measure, scores, targets, named):
    refuses(lambda: measure(scores, targets), DataError, [named])


def test_an_unknown_kind_is_refused():
    refuses(lambda: average_precisions([[1]], [[0.5]], "map"), ParameterError, ["ap11", "area"])
