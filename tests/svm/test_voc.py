"""VOC's protocol against plain scikit-learn loops; what may leak, and what is left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve
from sklearn.svm import SVC

from vggfeat.errors import DataError, ParameterError
from vggfeat.svm.splits import stratified_folds
from vggfeat.svm.submission import write_comp2, write_comp10
from vggfeat.svm.voc import _grouped_folds, evaluate_voc

NAMES = ["cat", "dog", "owl"]
GRID = (0.1, 1.0, 10.0)
TRAIN, VAL, TEST = np.arange(50), np.arange(50, 100), np.arange(100, 180)


def scenes(seed=0, n=180, D=24):
    """Images with several classes, each of which leaves a trace; some only difficult objects."""
    rng = np.random.default_rng(seed)
    present = rng.random((n, 3)) < [0.3, 0.4, 0.25]
    X = rng.random((n, D)) + 0.45 * present @ rng.random((3, D))
    targets = np.where(present, 1, -1)
    targets[rng.random((n, 3)) < 0.08] = 0
    return X / np.linalg.norm(X, axis=1, keepdims=True), targets


def run(X, targets, **more):
    settings = {"grid": GRID, "tol": 1e-6, **more}
    parts = settings.pop("parts", (TRAIN, VAL, TEST))
    return evaluate_voc(X, targets, NAMES, *parts, **settings)


def reference(scores, targets):
    """Both APs of a class by way of scikit-learn's curve."""
    known = targets != 0
    precision, recall, _ = precision_recall_curve(targets[known] > 0, scores[known])
    area = np.sum(-np.diff(recall) * np.maximum.accumulate(precision)[:-1])
    there = precision[:-1], recall[:-1]
    eleven = np.mean([there[0][there[1] >= k / 10 - 1e-9].max() for k in range(11)])
    return eleven, area


def decide(X, y, C, unseen, difficult):
    """Train one class as a user of scikit-learn would, and score unseen rows."""
    if difficult == "negative":
        y = np.where(y == 0, -1, y)
    svc = SVC(kernel="linear", C=C, tol=1e-6).fit(X[y != 0], y[y != 0])
    return svc.decision_function(unseen)


def chosen(validation):
    """Take the best C; of several as good, 1, or the one that fewest factors of √10 part from 1."""
    best = [k for k, score in enumerate(validation) if score >= max(validation) - 1e-12]
    return GRID[min(best, key=lambda k: abs(k - GRID.index(1.0)))]


@pytest.mark.parametrize("difficult", ["drop", "negative"])
@pytest.mark.parametrize(("ap", "column"), [("ap11", 0), ("area", 1)])
def test_equal_to_loops_over_scikit_learn(difficult, ap, column):
    """Validation scores, choices of C, test scores and both APs are those of plain loops."""
    X, targets = scenes()
    result = run(X, targets, difficult=difficult, ap=ap)
    both = np.concatenate([TRAIN, VAL])
    for c in range(3):
        y = targets[:, c]
        validation = [
            reference(decide(X[TRAIN], y[TRAIN], C, X[VAL], difficult), y[VAL])[column]
            for C in GRID
        ]
        np.testing.assert_allclose(result.validation[:, c], validation, atol=1e-9)
        assert result.C[c] == chosen(validation)
        scores = decide(X[both], y[both], result.C[c], X[TEST], difficult)
        np.testing.assert_allclose(result.scores[:, c], scores, atol=1e-3)
        eleven, area = reference(result.scores[:, c], y[TEST])
        assert result.ap11[c] == pytest.approx(eleven)
        assert result.area[c] == pytest.approx(area)
    assert result.mAP11 == pytest.approx(result.ap11.mean())
    assert result.mAP_area == pytest.approx(result.area.mean())
    assert result.mAP == (result.mAP11 if ap == "ap11" else result.mAP_area)
    assert 0.3 < result.mAP < 1


def test_one_C_for_all():
    """With shared_C every class has the value that is best in the mean."""
    X, targets = scenes()
    each, one = run(X, targets), run(X, targets, shared_C=True)
    np.testing.assert_array_equal(each.validation, one.validation)
    best = GRID[int(each.validation.mean(axis=1).argmax())]
    np.testing.assert_array_equal(one.C, [best] * 3)


def test_three_folds_of_trainval():
    """c_split="cv3" scores every C as a loop over three folds of train and val together does."""
    X, targets = scenes()
    result = run(X, targets, c_split="cv3", ap="area")
    both = np.concatenate([TRAIN, VAL])
    folds = stratified_folds(targets[both], 3)
    assert len(folds) == 3
    for c in range(3):
        y, rows = targets[both, c], X[both]
        for g, C in enumerate(GRID):
            loop = [
                reference(decide(rows[f.train], y[f.train], C, rows[f.test], "drop"), y[f.test])[1]
                for f in folds
            ]
            assert result.validation[g, c] == pytest.approx(np.mean(loop), abs=1e-9)


def test_test_data_never_reach_the_fit():
    """Arbitrary test images and test labels leave C, validation and coefficients as they are."""
    X, targets = scenes()
    rng = np.random.default_rng(5)
    changed, relabelled = X.copy(), targets.copy()
    changed[TEST] = 1e3 * rng.normal(size=changed[TEST].shape)
    relabelled[TEST] = rng.choice([-1, 0, 1], size=(len(TEST), 3))
    for c_split in ("train-val", "cv3"):
        one, two = run(X, targets, c_split=c_split), run(changed, relabelled, c_split=c_split)
        np.testing.assert_array_equal(one.C, two.C)
        np.testing.assert_array_equal(one.validation, two.validation)
        np.testing.assert_array_equal(one.svm.coef_, two.svm.coef_)
        np.testing.assert_array_equal(one.svm.intercept_, two.svm.intercept_)
        assert one.mAP != two.mAP


def test_val_labels_choose_but_do_not_train():
    """Other labels of val are judged by them, with classifiers that are the same."""
    X, targets = scenes()
    relabelled = targets.copy()
    relabelled[VAL] = np.roll(targets[VAL], 7, axis=0)
    one, two = run(X, targets, ap="area"), run(X, relabelled, ap="area")
    for c in range(3):
        for g, C in enumerate(GRID):
            scores = decide(X[TRAIN], targets[TRAIN, c], C, X[VAL], "drop")
            for result, labels in ((one, targets), (two, relabelled)):
                expected = reference(scores, labels[VAL, c])[1]
                assert result.validation[g, c] == pytest.approx(expected, abs=1e-9)
    assert (one.validation != two.validation).all()


def test_difficult_rows_count_as_nothing():
    """Moving a difficult test row's descriptor to an extreme changes no AP of that class."""
    X, targets = scenes()
    row = TEST[np.flatnonzero((targets[TEST] == 0).all(axis=1) | (targets[TEST, 0] == 0))[0]]
    changed = X.copy()
    changed[row] = 50 * run(X, targets).svm.coef_[0]
    one, two = run(X, targets), run(changed, targets)
    assert two.rankings.ranked[0][0].row == row
    assert two.rankings.ranked[0][0].truth == 0
    assert one.ap11[0] == two.ap11[0]
    assert one.area[0] == two.area[0]


def test_classes_without_images_are_named_and_left_out():
    """No training positives: not trained; none in val: another's C; none in test: no AP."""
    X, targets = scenes()
    everywhere = np.concatenate([TRAIN, VAL])
    none, no_val, no_test = targets.copy(), targets.copy(), targets.copy()
    none[everywhere, 1] = -1
    no_val[VAL, 1] = -1
    no_test[TEST, 1] = -1

    result = run(X, none)
    assert np.isnan([result.C[1], result.ap11[1], result.area[1]]).all()
    assert np.isnan(result.scores[:, 1]).all()
    assert result.svm.coef_.shape == (2, X.shape[1])
    assert result.mAP == pytest.approx(np.mean(result.ap11[[0, 2]]))
    assert result.rankings.ranked[1] == ()
    assert "No positives, or no negatives, to train dog with: left out." in result.warnings
    whole = run(X, targets)  # a product with three columns may round otherwise than one with two
    np.testing.assert_allclose(result.scores[:, [0, 2]], whole.scores[:, [0, 2]], rtol=1e-12)

    result = run(X, no_val)
    assert result.C[1] == chosen(np.nanmean(result.validation, axis=1))
    assert np.isnan(result.validation[:, 1]).all()
    assert result.area[1] > 0
    assert any("to choose C for dog" in warning for warning in result.warnings)

    result = run(X, no_test)
    assert np.isnan(result.per_class[1])
    assert result.C[1] == whole.C[1]
    assert result.mAP == pytest.approx(np.mean(whole.ap11[[0, 2]]))
    assert any("to test dog with" in warning for warning in result.warnings)


def test_without_test_labels_there_are_scores_only():
    """Targets of 0 throughout, as VOC 2012's test has, give scores and no average precision."""
    X, targets = scenes()
    hidden = targets.copy()
    hidden[TEST] = 0
    one, two = run(X, targets), run(X, hidden)
    assert one.tested
    assert not two.tested
    np.testing.assert_array_equal(one.scores, two.scores)
    assert np.isnan(two.ap11).all()
    assert np.isnan(two.mAP)
    assert two.validation_mAP == one.validation_mAP
    assert not any("test" in warning for warning in two.warnings)
    json.dumps(two.to_dict(), allow_nan=False)


def test_rankings_are_those_of_the_scores():
    """First rows, first negatives and last positives, with ranks, as sorted once more here."""
    X, targets = scenes()
    result = run(X, targets, ranked=4, parts=(TRAIN, VAL, TEST[::-1]))
    rows, truth = TEST[::-1], targets[TEST[::-1]]
    for c in range(3):
        order = sorted(range(80), key=lambda i: -result.scores[i, c])
        assert [one.row for one in result.rankings.ranked[c]] == [rows[i] for i in order[:4]]
        wrong = [i for i in order if truth[i, c] == -1][:4]
        lost = [i for i in order[::-1] if truth[i, c] == 1][:4]
        assert [one.row for one in result.rankings.worst[c]] == [rows[i] for i in wrong]
        assert [one.row for one in result.rankings.missed[c]] == [rows[i] for i in lost]
        assert [one.rank for one in result.rankings.missed[c]] == [order.index(i) + 1 for i in lost]
    row = int(rows[3])
    assert result.labels(row) == [NAMES[c] for c in np.flatnonzero(targets[row] > 0)]


def test_the_order_of_rows_in_parts_does_not_matter():
    """Shuffled lists of train and val give the same classifier."""
    X, targets = scenes()
    rng = np.random.default_rng(3)
    one = run(X, targets)
    two = run(X, targets, parts=(rng.permutation(TRAIN), rng.permutation(VAL), TEST))
    np.testing.assert_array_equal(one.scores, two.scores)


def test_the_result_is_plain_json():
    """to_dict survives strict JSON and holds what the result says."""
    X, targets = scenes()
    steps = []
    result = run(X, targets, progress=lambda done, of: steps.append((done, of)))
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["mAP"] == result.mAP
    assert [one["C"] for one in plain["classes"]] == result.C.tolist()
    assert plain["validation"]["per_class"] == result.validation.tolist()
    assert plain["curves"][0]["recall"][-1] == 1.0
    assert plain["rows"] == {"train": 50, "val": 50, "test": 80}
    assert plain["settings"]["difficult"] == "drop"
    assert plain["classes"][0]["positives"]["test"] == int((targets[TEST, 0] > 0).sum())
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_choice_at_the_edge_names_its_class():
    """Of two values of C the better one is at the edge, unless both are as good."""
    X, targets = scenes()
    result = run(X, targets, grid=(1.0, 100.0), ap="area")
    edge = result.validation[0] != result.validation[1]
    np.testing.assert_array_equal(result.at_edge, edge)
    assert edge.any()
    named = "all classes" if edge.all() else ", ".join(np.array(NAMES)[edge])
    assert f"The best C of {named} lies at the edge of the grid 1 … 100." in result.warnings[0]


def test_rare_classes_are_in_every_fold():
    """Folds of multi-label targets spread a class of three positives over all three."""
    targets = np.full((90, 3), -1)
    targets[:80, 0] = 1
    targets[[5, 40, 85], 1] = 1
    targets[::2, 2] = 1
    for fold in stratified_folds(targets, 3):
        assert (targets[fold.test, 1] > 0).sum() == 1
        assert 13 <= (targets[fold.test, 2] > 0).sum() <= 17


def test_errors_say_what_is_wrong():
    """Settings, shapes and parts that cannot be used are refused in words."""
    X, targets = scenes()
    with pytest.raises(ParameterError, match="must be one of 'ap11', 'area'"):
        run(X, targets, ap="recall")
    with pytest.raises(ParameterError, match="'c_split' parameter"):
        run(X, targets, c_split="loo")
    with pytest.raises(DataError, match="parts val and test have 1 rows in common"):
        run(X, targets, parts=(TRAIN, [60], [60, 61]))
    with pytest.raises(DataError, match="part val has no row"):
        run(X, targets, parts=(TRAIN, [], TEST))
    with pytest.raises(DataError, match="row numbers below 180"):
        run(X, targets, parts=(TRAIN, VAL, [180]))
    with pytest.raises(DataError, match="a column for each class"):
        run(X, targets[:, :2])
    with pytest.raises(DataError, match="must be -1, 0"):
        run(X, targets + 1)
    with pytest.raises(DataError, match="No class has both positives and negatives"):
        run(X, np.full_like(targets, -1))
    lost = targets.copy()
    lost[VAL] = -1
    with pytest.raises(DataError, match="c_split='cv3'"):
        run(X, lost)


def test_files_for_the_server(tmp_path):
    """One file for each class, a line for each image or person, scores that read back."""
    scores = np.array([[0.5, -1e-7], [2.25, 1.0]])
    paths = write_comp2(tmp_path / "Main", ["cat", "dog"], ["2008_1", "2008_2"], scores)
    assert [path.name for path in paths] == ["comp2_cls_test_cat.txt", "comp2_cls_test_dog.txt"]
    assert paths[1].read_text() == "2008_1 -0.000000100\n2008_2 1.000000000\n"
    people = write_comp10(tmp_path / "Action", ["running"], ["a", "a"], [1, 3], scores[:, :1])
    assert people[0].name == "comp10_action_test_running.txt"
    assert people[0].read_text() == "a 1 0.500000000\na 3 2.250000000\n"
    with pytest.raises(DataError, match="dog has none"):
        write_comp2(tmp_path, ["cat", "dog"], ["a", "b"], np.array([[1, np.nan], [1, 1]]))
    with pytest.raises(DataError, match=r"need scores of shape \(1, 2\)"):
        write_comp2(tmp_path, ["cat", "dog"], ["a"], scores)
    with pytest.raises(DataError, match="has a space"):
        write_comp2(tmp_path, ["cat", "dog"], ["a b", "c"], scores)
    with pytest.raises(DataError, match="from 1 on"):
        write_comp10(tmp_path, ["running"], ["a", "a"], [0, 1], scores[:, :1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Action", "Main"]


def test_rows_of_one_image_stay_together_in_folds():
    """Where persons share an image, no fold fits one of them and validates another."""
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(40), 2)
    X = np.repeat(rng.normal(size=(40, 30)), 2, axis=0)  # both persons look the same
    targets = np.where(rng.random((80, 1)) < 0.5, 1, -1)
    rows = np.arange(60)
    found = {}
    for name, groups in (("apart", None), ("together", images)):
        result = evaluate_voc(
            X, targets, ["a"], rows[:30], rows[30:], np.arange(60, 80),
            groups=groups, c_split="cv3", grid=[1.0], n_jobs=1,
        )  # fmt: skip
        found[name] = result
    for train, val in _grouped_folds(targets[:60].astype(np.int8), images[:60], 0):
        assert set(images[train]).isdisjoint(images[val])
        assert len(train) + len(val) == 60
    assert found["apart"].validation_mAP != found["together"].validation_mAP
