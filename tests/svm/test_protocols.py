"""Random splits, folds, and the evaluation over them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import recall_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from vggfeat.errors import DataError, ParameterError
from vggfeat.svm.protocols import evaluate, random_splits
from vggfeat.svm.splits import Split, held_out_part, stratified_folds


def descriptors(n=90, D=30, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = rng.random((n, D)) + 0.35 * rng.random((classes, D))[y]
    return X / np.linalg.norm(X, axis=1, keepdims=True), y


NAMES = ["bird", "boat", "bug"]


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


def test_single_images_are_refused_by_name():
    """A class with one image is named in the error, and so are several."""
    with pytest.raises(DataError, match=r"class 'cat' has one image only"):
        random_splits(["cat", "dog", "dog"])
    with pytest.raises(DataError, match=r"2 classes 'cat', 'dog' have one image only"):
        random_splits(["cat", "dog", "owl", "owl"])
    with pytest.raises(ParameterError, match="'train_fraction' parameter"):
        random_splits([0, 0, 1, 1], train_fraction=1.5)


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
    with pytest.raises(DataError, match="every class has one image only"):
        stratified_folds([0, 1, 2])


def test_evaluation_equals_a_count_of_ones_own():
    """Recalls, spread, confusions and mistakes are those counted again from the classifiers."""
    X, y = descriptors()
    splits = random_splits(y)
    result = evaluate(X, y, NAMES, splits)
    macro = []
    for split, found in zip(splits, result.splits, strict=True):
        predicted = found.svm.predict(X[split.test])
        macro.append(recall_score(y[split.test], predicted, average="macro"))
        wrong = split.test[predicted != y[split.test]]
        assert sorted(mistake.row for mistake in found.mistakes) == wrong.tolist()
        assert all(mistake.margin >= 0 for mistake in found.mistakes)
        scores = found.svm.class_scores(X[split.test])
        assert [one.row for one in found.ranked[1]] == split.test[
            np.argsort(-scores[:, 1])[:12]
        ].tolist()
    assert result.mean_class_recall == pytest.approx(np.mean(macro))
    assert result.std == pytest.approx(np.sqrt(np.sum((macro - np.mean(macro)) ** 2) / 2))
    assert 0.4 < result.mean_class_recall < 1
    worst = result.most_confused(1)[0]
    off_diagonal = result.confusion - np.diag(result.confusion.diagonal())
    assert worst.images == off_diagonal.max() == off_diagonal[worst.true, worst.predicted]
    assert worst.of == 45
    assert len({mistake.row for mistake in result.mistakes()}) == len(result.mistakes())


def test_test_data_never_reach_the_fit():
    """Arbitrary features and labels of the test part leave C, scores and coefficients the same."""
    X, y = descriptors()
    split = random_splits(y, n_splits=1)[0]
    rng = np.random.default_rng(1)
    changed, relabelled = X.copy(), y.copy()
    changed[split.test] = 1e3 * rng.normal(size=changed[split.test].shape)
    relabelled[split.test] = rng.integers(0, 3, len(split.test))
    one = evaluate(X, y, NAMES, [split]).splits[0]
    two = evaluate(changed, relabelled, NAMES, [split]).splits[0]
    assert one.search.best == two.search.best
    np.testing.assert_array_equal(one.search.scores, two.search.scores)
    np.testing.assert_array_equal(one.svm.coef_, two.svm.coef_)
    np.testing.assert_array_equal(one.svm.intercept_, two.svm.intercept_)
    assert one.mean_class_recall != two.mean_class_recall


def test_the_same_seed_gives_the_same_result():
    """Two evaluations differ in nothing but their times."""
    X, y = descriptors()
    one, two = (evaluate(X, y, NAMES, random_splits(y)) for _ in range(2))
    np.testing.assert_array_equal(one.confusion, two.confusion)
    np.testing.assert_array_equal(one.splits[2].svm.coef_, two.splits[2].svm.coef_)


def test_the_result_is_plain_json():
    """to_dict survives strict JSON, NaN included, and holds what the result says."""
    X, y = descriptors()
    split = random_splits(y, n_splits=1)[0]
    seen = Split(split.train, split.test[y[split.test] != 2])
    steps = []
    result = evaluate(X, y, NAMES, [seen], progress=lambda done, of: steps.append((done, of)))
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["std"] is None
    assert plain["recalls"][2] is None
    assert plain["mean_class_recall"] == pytest.approx(np.mean(plain["recalls"][:2]))
    assert plain["splits"][0]["search"]["best"] == list(result.splits[0].search.best)
    assert plain["settings"]["random_state"] == 0
    assert steps == [(1, 1)]


def test_errors_say_what_is_wrong():
    """Lengths that differ, strange labels and absent classes are refused in words."""
    X, y = descriptors()
    splits = random_splits(y)
    with pytest.raises(DataError, match="90 descriptors, 89 labels and 90 names"):
        evaluate(X, y[1:], NAMES, splits)
    with pytest.raises(DataError, match="from 0 to 1"):
        evaluate(X, y, NAMES[:2], splits)
    with pytest.raises(DataError, match="Split 1 has no training image of 'boat'"):
        evaluate(X, y, NAMES, [Split(np.flatnonzero(y != 1), np.flatnonzero(y == 1))])
    with pytest.raises(DataError, match="no split"):
        evaluate(X, y, NAMES, [])


def test_a_fifth_of_the_training_images_chooses_C():
    """Each C is scored on a fifth of each class's training images, fit on the rest."""
    X, y = descriptors()
    split = random_splits(y, n_splits=1)[0]
    found = evaluate(X, y, NAMES, [split], grid=(0.1, 10.0), validation=0.2, tol=1e-6)
    part = held_out_part(y[split.train], 0.2)
    assert counts(part.test, y[split.train]) == [3, 3, 3]
    assert sorted([*part.train, *part.test]) == list(range(len(split.train)))
    Xt, yt = X[split.train], y[split.train]
    search = found.splits[0].search
    for c, C in enumerate((0.1, 10.0)):
        other = OneVsRestClassifier(SVC(kernel="linear", C=C, tol=1e-6))
        predicted = other.fit(Xt[part.train], yt[part.train]).predict(Xt[part.test])
        expected = recall_score(yt[part.test], predicted, average="macro")
        assert search.overall[c] == pytest.approx(expected)
    final = OneVsRestClassifier(SVC(kernel="linear", C=search.best[0], tol=1e-6)).fit(Xt, yt)
    macro = recall_score(y[split.test], final.predict(X[split.test]), average="macro")
    assert found.mean_class_recall == pytest.approx(macro)
    assert found.settings["validation"] == 0.2
    assert found.settings["folds"] is None


def test_the_held_out_share_is_by_class():
    """A fifth of 30, 7, 2 and 1 images is 6, 1, 1 and none; a share of 1 is refused."""
    y = np.repeat([0, 1, 2, 3], [30, 7, 2, 1])
    assert counts(held_out_part(y, 0.2).test, y) == [6, 1, 1, 0]
    assert counts(held_out_part(y, 0.99).train, y) == [1, 1, 1, 1]
    assert not np.array_equal(held_out_part(y, 0.2, 1).test, held_out_part(y, 0.2, 2).test)
    with pytest.raises(ParameterError, match="'share' parameter"):
        held_out_part(y, 1.0)
    with pytest.raises(DataError, match="one image only"):
        held_out_part([0, 1], 0.2)
