"""VOC's protocol against plain scikit-learn loops; what may leak, and what is left out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.rows import evaluate_parts, targeted
from sklearn.metrics import precision_recall_curve
from sklearn.svm import SVC

from vggfeat.data.image import Box
from vggfeat.errors import DataError
from vggfeat.settings import SVM
from vggfeat.svm.protocols import voc
from vggfeat.svm.protocols.base import make_svm
from vggfeat.svm.protocols.voc import VOC, MultiLabel, _grouped_folds
from vggfeat.svm.splits import stratified_folds
from vggfeat.svm.submission import write_scores

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


def run(X, targets, parts=(TRAIN, VAL, TEST), **settings):
    return evaluate_parts(X, targets, NAMES, parts, **{"grid": GRID, **settings})


def column(found, name):
    """Take a column of the table of classes, NaN where there is nothing."""
    return np.array(found.result.tables["classes"].column(name), float)


def validation(found):
    """Take the average precisions in validation, (C, classes)."""
    scores = found.result.tables["validation"].column("validation")
    return np.reshape(np.array(scores, float), (len(found.classes), -1)).T


def measure(found, name):
    """Take a measure of the headline."""
    return {each.name: each.value for each in found.result.headline}[name]


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
@pytest.mark.parametrize(("ap", "place"), [("ap11", 0), ("area", 1)])
def test_equal_to_loops_over_scikit_learn(monkeypatch, difficult, ap, place):
    """Validation scores, choices of C, test scores and both APs are those of plain loops."""
    # Settings have no tol; the default one bounds violations of optimality, not errors of scores.
    monkeypatch.setattr(voc, "make_svm", lambda *how: make_svm(*how).set_params(tol=1e-6))
    X, targets = scenes()
    result = run(X, targets, difficult=difficult, ap=ap)
    both = np.concatenate([TRAIN, VAL])
    for c in range(3):
        y = targets[:, c]
        expected = [
            reference(decide(X[TRAIN], y[TRAIN], C, X[VAL], difficult), y[VAL])[place] for C in GRID
        ]
        np.testing.assert_allclose(validation(result)[:, c], expected, atol=1e-9)
        assert column(result, "C")[c] == chosen(expected)
        scores = decide(X[both], y[both], column(result, "C")[c], X[TEST], difficult)
        np.testing.assert_allclose(result.scores[:, c], scores, atol=1e-3)
        eleven, area = reference(result.scores[:, c], y[TEST])
        assert column(result, "ap11")[c] == pytest.approx(eleven)
        assert column(result, "area")[c] == pytest.approx(area)
    other = "area" if ap == "ap11" else "ap11"
    assert measure(result, "mAP") == pytest.approx(column(result, ap).mean())
    assert measure(result, f"mAP_{other}") == pytest.approx(column(result, other).mean())
    assert 0.3 < measure(result, "mAP") < 1


def test_one_C_for_all():
    """With shared_C every class has the value that is best in the mean."""
    X, targets = scenes()
    each, one = run(X, targets), run(X, targets, shared_C=True)
    np.testing.assert_array_equal(validation(each), validation(one))
    best = GRID[int(validation(each).mean(axis=1).argmax())]
    np.testing.assert_array_equal(column(one, "C"), [best] * 3)


def test_three_folds_of_trainval():
    """c_split="cv3" scores every C as a loop over three folds of train and val together does."""
    X, targets = scenes()
    names = [f"{row:03}" for row in range(len(X))]  # whose order is that of the rows
    result = run(X, targets, names=names, c_split="cv3", ap="area")
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
            assert validation(result)[g, c] == pytest.approx(np.mean(loop), abs=1e-9)


def test_test_data_never_reach_the_fit():
    """Arbitrary test images and test labels leave C, validation and coefficients as they are."""
    X, targets = scenes()
    rng = np.random.default_rng(5)
    changed, relabelled = X.copy(), targets.copy()
    changed[TEST] = 1e3 * rng.normal(size=changed[TEST].shape)
    relabelled[TEST] = rng.choice([-1, 0, 1], size=(len(TEST), 3))
    for c_split in ("train-val", "cv3"):
        one, two = run(X, targets, c_split=c_split), run(changed, relabelled, c_split=c_split)
        np.testing.assert_array_equal(column(one, "C"), column(two, "C"))
        np.testing.assert_array_equal(validation(one), validation(two))
        np.testing.assert_array_equal(one.fitted.svm.coef_, two.fitted.svm.coef_)
        np.testing.assert_array_equal(one.fitted.svm.intercept_, two.fitted.svm.intercept_)
        assert measure(one, "mAP") != measure(two, "mAP")


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
                assert validation(result)[g, c] == pytest.approx(expected, abs=1e-9)
    assert (validation(one) != validation(two)).all()


def test_difficult_rows_count_as_nothing():
    """Moving a difficult test row's descriptor to an extreme changes no AP of that class."""
    X, targets = scenes()
    row = TEST[np.flatnonzero((targets[TEST] == 0).all(axis=1) | (targets[TEST, 0] == 0))[0]]
    changed = X.copy()
    changed[row] = 50 * run(X, targets).fitted.svm.coef_[0]
    one, two = run(X, targets), run(changed, targets)
    first = two.result.tables["rankings"].records()[0]
    assert (first["class"], first["image"], first["truth"]) == ("cat", str(row), 0)
    assert column(one, "ap11")[0] == column(two, "ap11")[0]
    assert column(one, "area")[0] == column(two, "area")[0]


def test_classes_without_images_are_named_and_left_out():
    """No training positives: not trained; none in val: another's C; none in test: no AP."""
    X, targets = scenes()
    everywhere = np.concatenate([TRAIN, VAL])
    none, no_val, no_test = targets.copy(), targets.copy(), targets.copy()
    none[everywhere, 1] = -1
    no_val[VAL, 1] = -1
    no_test[TEST, 1] = -1

    result = run(X, none)
    assert np.isnan(
        [column(result, "C")[1], column(result, "ap11")[1], column(result, "area")[1]]
    ).all()
    assert np.isnan(result.scores[:, 1]).all()
    assert result.fitted.svm.coef_.shape == (2, X.shape[1])
    assert measure(result, "mAP") == pytest.approx(np.mean(column(result, "ap11")[[0, 2]]))
    assert "dog" not in result.result.tables["rankings"].column("class")
    assert result.fitted.classes == ("cat", "owl")
    assert any("No positives to train dog" in note for note in result.result.notes)
    whole = run(X, targets)  # a product with three columns may round otherwise than one with two
    np.testing.assert_allclose(result.scores[:, [0, 2]], whole.scores[:, [0, 2]], rtol=1e-12)

    always, never = targets.copy(), targets.copy()
    always[everywhere, 1] = 1
    never[TRAIN, 1] = 1
    for wrong, trained in ((always, False), (never, True)):
        result = run(X, wrong)
        assert np.isnan(column(result, "C")[1]) == (not trained)
        [note] = [note for note in result.result.notes if "dog" in note]
        assert "No negatives" in note

    result = run(X, no_val)
    assert column(result, "C")[1] == chosen(np.nanmean(validation(result), axis=1))
    assert np.isnan(validation(result)[:, 1]).all()
    assert column(result, "area")[1] > 0
    assert any("to choose C for dog" in warning for warning in result.result.notes)

    result = run(X, no_test)
    assert np.isnan(column(result, "ap11")[1])
    assert column(result, "C")[1] == column(whole, "C")[1]
    assert measure(result, "mAP") == pytest.approx(np.mean(column(whole, "ap11")[[0, 2]]))
    assert any("to test dog with" in warning for warning in result.result.notes)


def test_without_test_labels_there_are_scores_only():
    """Targets of 0 throughout, as VOC 2012's test has, give scores and no average precision."""
    X, targets = scenes()
    hidden = targets.copy()
    hidden[TEST] = 0
    one, two = run(X, targets), run(X, hidden)
    np.testing.assert_array_equal(one.scores, two.scores)
    assert [each.name for each in two.result.headline] == ["validation_mAP"]
    assert measure(two, "validation_mAP") == measure(one, "validation_mAP")
    assert "ap11" not in two.result.to_dict()["tables"]["classes"][0]
    assert not any("test" in warning for warning in two.result.notes)
    assert {example.truth for example in two.examples} == {""}


def test_rankings_are_those_of_the_scores():
    """First rows, first negatives and last positives, with ranks, as sorted once more here."""
    X, targets = scenes()
    result = run(X, targets, parts=(TRAIN, VAL, TEST[::-1]))
    rows, truth = TEST[::-1], targets[TEST[::-1]]
    records = result.result.tables["rankings"].records()
    for c, label in enumerate(NAMES):
        order = sorted(range(80), key=lambda i: -result.scores[i, c])
        lists = {
            "ranked": order[:12],
            "mistakes": [i for i in order if truth[i, c] == -1][:12],
            "missed": [i for i in order[::-1] if truth[i, c] == 1][:12],
        }
        for name, expected in lists.items():
            own = [row for row in records if (row["class"], row["list"]) == (label, name)]
            assert [int(row["image"]) for row in own] == [rows[i] for i in expected]
            assert [row["rank"] for row in own] == [order.index(i) + 1 for i in expected]
            assert [row["truth"] for row in own] == [truth[i, c] for i in expected]
        worst = next(each for each in result.examples if each.label == label and each.truth)
        held = [NAMES[k] for k in np.flatnonzero(targets[int(worst.image)] > 0)]
        assert int(worst.image) == rows[lists["mistakes"][0]]
        assert worst.truth == (", ".join(held) or "none of the classes")


def test_captions_and_the_map_of_C_are_written_for_people():
    """A minus is none of the keyboard's, and C = 1000 has no exponent."""
    X, targets = scenes()
    figures = run(X, targets, grid=(0.001, 1.0, 1000.0)).result.figures
    assert figures["choice"].columns == ("0.001", "1", "1000")
    captions = [tile.caption for strip in figures["missed"].strips for tile in strip.tiles]
    assert any("−" in caption for caption in captions)
    assert not any("-" in caption for caption in captions)


def test_the_order_of_rows_in_parts_does_not_matter():
    """Shuffled lists of train and val give the same classifier."""
    X, targets = scenes()
    rng = np.random.default_rng(3)
    one = run(X, targets)
    two = run(X, targets, parts=(rng.permutation(TRAIN), rng.permutation(VAL), TEST))
    np.testing.assert_array_equal(one.scores, two.scores)


def test_the_result_is_plain_json():
    """to_dict survives strict JSON and holds what the result says; progress is told."""
    X, targets = scenes()
    steps = []
    card, images = targeted(targets, NAMES, (TRAIN, VAL, TEST))
    found = VOC(ap="ap11").evaluate(
        card, images, X, SVM(C=GRID), progress=lambda done, of: steps.append((done, of))
    )
    plain = json.loads(json.dumps(found.result.to_dict(), allow_nan=False))
    assert plain["measures"]["mAP"]["value"] == measure(found, "mAP")
    assert [each["C"] for each in plain["tables"]["classes"]] == column(found, "C").tolist()
    assert plain["figures"]["curves"]["series"][0]["x"][-1] == 1.0
    assert plain["settings"]["images to test"] == 80
    assert plain["settings"]["difficult"] == "drop"
    assert plain["tables"]["classes"][0]["test"] == int((targets[TEST, 0] > 0).sum())
    choice = plain["figures"]["choice"]
    for (row, place), C in zip(choice["marks"], column(found, "C"), strict=True):
        assert (NAMES[row], GRID[place]) == (choice["rows"][row], C)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    table = found.score_table()
    assert [row[0] for row in table.rows] == list(map(str, TEST))
    np.testing.assert_array_equal([row[1:] for row in table.rows], found.scores)


def test_a_choice_at_the_edge_names_its_class():
    """Of two values of C the better one is at the edge, unless both are as good."""
    X, targets = scenes()
    result = run(X, targets, grid=(1.0, 100.0), ap="area")
    edge = validation(result)[0] != validation(result)[1]
    assert edge.any()
    named = "all classes" if edge.all() else ", ".join(np.array(NAMES)[edge])
    assert f"The best C of {named} lies at the edge of the grid 1 … 100." in result.result.notes[0]


def test_what_cannot_be_learned_from_is_refused():
    """Parts that overlap or are empty, targets of other classes, classes without both sides."""
    X, targets = scenes()
    with pytest.raises(DataError, match="parts val and test have 1 rows in common"):
        run(X, targets, parts=(TRAIN, [60], [60, 61]))
    with pytest.raises(DataError, match="part val of pets has no row"):
        run(X, targets, parts=(TRAIN, [], TEST))
    with pytest.raises(DataError, match="each of its 3 classes"):
        run(X, targets[:, :2])
    with pytest.raises(DataError, match="No class has both positives and negatives"):
        run(X, np.full_like(targets, -1))
    lost = targets.copy()
    lost[VAL] = -1
    with pytest.raises(DataError, match="--c-split cv3"):
        run(X, lost)


def test_files_for_the_server(tmp_path):
    """One file for each class, a line for each image or person, scores that read back."""
    scores = np.array([[0.5, -1e-7], [2.25, 1.0]])
    main, action = "comp2_cls_test_{class}.txt", "comp10_action_test_{class}.txt"
    paths = write_scores(tmp_path / "Main", main, ["cat", "dog"], ["2008_1", "2008_2"], scores)
    assert [path.name for path in paths] == ["comp2_cls_test_cat.txt", "comp2_cls_test_dog.txt"]
    assert paths[1].read_text() == "2008_1 -0.000000100\n2008_2 1.000000000\n"
    people = write_scores(tmp_path / "Action", action, ["running"], ["a 1", "a 3"], scores[:, :1])
    assert people[0].name == "comp10_action_test_running.txt"
    assert people[0].read_text() == "a 1 0.500000000\na 3 2.250000000\n"
    with pytest.raises(DataError, match="dog has none"):
        write_scores(tmp_path, main, ["cat", "dog"], ["a", "b"], np.array([[1, np.nan], [1, 1]]))
    with pytest.raises(DataError, match=r"need scores of shape \(1, 2\)"):
        write_scores(tmp_path, main, ["cat", "dog"], ["a"], scores)
    for wrong in ("a b c", "", "a 0", "a\t1"):
        with pytest.raises(DataError, match="server's files"):
            write_scores(tmp_path, main, ["cat", "dog"], [wrong, "c"], scores)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Action", "Main"]


def test_a_submission_holds_the_scores_of_persons(tmp_path):
    """Of a person the file has the image's id and the number; public labels are none to submit."""
    X, targets = scenes()
    hidden = targets.copy()
    hidden[TEST] = 0
    names = [f"2010_{row:06d}#2" for row in range(len(X))]
    card, images = targeted(hidden, NAMES, (TRAIN, VAL, TEST), names)
    card = card.model_copy(update={"folder": "VOCdevkit/VOC2012"})
    protocol = VOC(ap="area", task="action", server_file="comp10_action_test_{class}.txt")
    protocol.check_submission(card, images)
    found = protocol.evaluate(card, images, X, SVM(C=GRID))
    files = protocol.write_submission(card, found, tmp_path)
    assert files[0].parent == tmp_path / "results" / "VOC2012" / "Action"
    image, number, score = files[1].read_text().splitlines()[3].split(" ")
    assert (image, number) == (f"2010_{TEST[3]:06d}", "2")
    assert float(score) == pytest.approx(found.scores[3, 1], abs=1e-8)
    with pytest.raises(DataError, match="public"):
        VOC(ap="area").check_submission(card, images)
    with pytest.raises(DataError, match="no test images"):
        protocol.check_submission(card, images.take(TRAIN))


def test_rows_of_one_image_stay_together_in_folds():
    """Where persons share an image, no fold fits one of them and validates another."""
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(40), 2)
    X = np.repeat(rng.normal(size=(40, 30)), 2, axis=0)  # both persons look the same
    targets = np.where(rng.random((80, 1)) < 0.5, 1, -1)
    parts = np.arange(30), np.arange(30, 60), np.arange(60, 80)
    names = [f"{image}#{row}" for row, image in enumerate(images)]
    card, apart = targeted(targets, ["a"], parts, names)
    where = tuple(Box((0, 0, 1, 1)) for _ in names)
    together = replace(apart, images=tuple(f"{image}.jpg" for image in images), boxes=where)
    found = {
        name: VOC(ap="area").evaluate(card, own, X, SVM(C=1, c_split="cv3"), n_jobs=1)
        for name, own in (("apart", apart), ("together", together))
    }
    for train, val in _grouped_folds(targets[:60].astype(np.int8), images[:60], 0):
        assert set(images[train]).isdisjoint(images[val])
        assert len(train) + len(val) == 60
    assert measure(found["apart"], "validation_mAP") != measure(found["together"], "validation_mAP")


def several(n=120, seed=0):
    """Rows of three classes, several or none for each, whose parts nobody gives."""
    X, targets = scenes(seed, n)
    targets[targets == 0] = -1
    return X, targets


def test_parts_of_several_labels_are_drawn_by_the_rarest_class():
    """Half of each image's rarest class tests, half of the rest validates; a seed draws again."""
    X, targets = several()
    targets[:, 2] = -1
    targets[:4, 2] = 1  # a rare class is in the test part, too
    card, images = targeted(targets, NAMES, ([], [], []))
    images = replace(images, splits={})
    parts = MultiLabel().parts(card, images)
    assert sorted(np.concatenate([*parts.values()])) == list(range(120))
    assert [len(parts[part]) for part in ("train", "val")] == pytest.approx([30, 30], abs=3)
    assert (targets[parts["test"], 2] > 0).sum() == 2
    for part in ("train", "val"):
        assert (targets[parts[part], 2] > 0).sum() == 1
    again, other = MultiLabel().parts(card, images), MultiLabel(seed=1).parts(card, images)
    np.testing.assert_array_equal(parts["test"], again["test"])
    assert set(parts["test"]) != set(other["test"])
    drawn = MultiLabel().evaluate(card, images, X, SVM(C=GRID)).result
    assert "50 % to test" in drawn.settings["parts"]
    assert drawn.settings["images to test"] == len(parts["test"])


def test_several_labels_are_tested_as_voc_on_the_parts_that_are_given():
    """With train, val and test the result is VOC's with the area; val alone may be drawn."""
    X, targets = several()
    own = np.arange(40), np.arange(40, 80), np.arange(80, 120)
    card, images = targeted(targets, NAMES, own)
    found = MultiLabel().evaluate(card, images, X, SVM(C=GRID), n_jobs=1)
    assert (
        found.result.parts
        == evaluate_parts(X, targets, NAMES, own, ap="area", grid=GRID).result.parts
    )
    assert "parts" not in found.result.settings
    without = replace(images, splits={"train": np.arange(80), "test": np.arange(80, 120)})
    parts = MultiLabel().parts(card, without)
    assert sorted([*parts["train"], *parts["val"]]) == list(range(80))
    np.testing.assert_array_equal(parts["test"], np.arange(80, 120))
    tiny = replace(images.take([0, 1]), splits={}, targets=np.array([[1, -1, -1], [-1, 1, -1]]))
    with pytest.raises(DataError, match="'split'"):
        MultiLabel().parts(card, tiny)
