"""Random splits, folds, and images put aside, drawn class by class."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.mistakes import refuses

from vggfeat.errors import DataError, ParameterError
from vggfeat.svm.splits import held_out_part, random_splits, stratified_folds


def counts(rows, y):
    return np.bincount(y[rows], minlength=y.max() + 1).tolist()


def test_first_rule_half_of_each_class_at_most_thirty():
    """Of 80, 21 and 2 images 30, 10 and 1 train, the rest test, and no image does both."""
    y = np.repeat([0, 1, 2], [80, 21, 2])
    splits = random_splits(y)
    assert len(splits) == 3
    for split in splits:
        assert counts(split.train, y) == [30, 10, 1]
        assert counts(split.test, y) == [50, 11, 1]
        assert sorted([*split.train, *split.test]) == list(range(len(y)))
    assert not np.array_equal(splits[0].train, splits[1].train)


def test_caltech_101_rule():
    """30 to train and at most 50 to test, as in Appendix B; 31 images leave one to test."""
    y = np.repeat([0, 1], [435, 31])
    split = random_splits(y, train_fraction=None, max_test_per_class=50)[0]
    assert counts(split.train, y) == [30, 30]
    assert counts(split.test, y) == [50, 1]
    assert not set(split.train) & set(split.test)


def test_a_class_is_drawn_by_itself():
    """Other classes, and their order, change nothing in what is drawn from a class."""
    cats = np.array(["cat"] * 20)
    alone = random_splits(cats)
    before = random_splits(np.concatenate([np.array(["ant"] * 7), cats]))
    after = random_splits(np.concatenate([cats, np.array(["zebra"] * 9)]))
    for one, two, three in zip(alone, before, after, strict=True):
        np.testing.assert_array_equal(one.train, two.train[two.train >= 7] - 7)
        np.testing.assert_array_equal(one.train, three.train[three.train < 20])


def test_splits_come_back_from_their_seed():
    """The draw of seed 0 is the recorded one; another seed draws otherwise."""
    y = np.repeat([0, 1], 6)
    assert random_splits(y, n_splits=1)[0].train.tolist() == [0, 2, 5, 7, 8, 11]
    assert random_splits(y, n_splits=1, random_state=1)[0].train.tolist() == [0, 1, 5, 6, 10, 11]


@pytest.mark.parametrize(
    ("draw", "kind", "named"),
    [
        (lambda: random_splits(["cat", "dog", "dog"]), DataError, ["'cat'"]),
        (lambda: random_splits(["cat", "dog", "owl", "owl"]), DataError, ["2", "'cat', 'dog'"]),
        (lambda: random_splits([0, 0, 1], train_fraction=1.5), ParameterError, ["train_fraction"]),
        (lambda: stratified_folds([0, 1, 2]), DataError, ["every class"]),
        (lambda: held_out_part([0, 0, 1], 1.0), ParameterError, ["'share'"]),
        (lambda: held_out_part([0, 1], 0.2), DataError, ["every class"]),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, kind, named):
    refuses(draw, kind, named)


def test_folds_are_stratified_and_complete():
    """Every image validates once, classes are spread evenly, a single image always trains."""
    y = np.repeat([0, 1, 2], [23, 3, 1])
    folds = stratified_folds(y)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(26))
    for fold in folds:
        assert counts(fold.test, y)[0] in (4, 5)
        assert counts(fold.test, y)[1] <= 1
        assert 26 in fold.train
        assert sorted([*fold.train, *fold.test]) == list(range(27))
    assert len(stratified_folds([0, 0, 0, 1, 1])) == 3


def test_the_held_out_share_is_by_class():
    """A fifth of 30, 7, 2 and 1 images is 6, 1, 1 and none."""
    y = np.repeat([0, 1, 2, 3], [30, 7, 2, 1])
    assert counts(held_out_part(y, 0.2).test, y) == [6, 1, 1, 0]
    assert counts(held_out_part(y, 0.99).train, y) == [1, 1, 1, 1]
    assert not np.array_equal(held_out_part(y, 0.2, 1).test, held_out_part(y, 0.2, 2).test)


def test_rare_classes_are_in_every_fold():
    """Folds of multi-label targets spread a class of three positives over all three."""
    targets = np.full((90, 3), -1)
    targets[:80, 0] = 1
    targets[[5, 40, 85], 1] = 1
    targets[::2, 2] = 1
    for fold in stratified_folds(targets, 3):
        assert (targets[fold.test, 1] > 0).sum() == 1
        assert 13 <= (targets[fold.test, 2] > 0).sum() <= 17
