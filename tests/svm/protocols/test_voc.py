"""VOC's protocol against plain scikit-learn loops; what may leak, and what is left out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.mistakes import refuses
from helpers.rows import evaluate_parts, targeted
from sklearn.metrics import precision_recall_curve
from sklearn.svm import SVC

from vggfeat.data.image import Box
from vggfeat.errors import DataError
from vggfeat.settings import SVM
from vggfeat.svm.protocols import voc
from vggfeat.svm.protocols.base import make_svm
from vggfeat.svm.protocols.voc import VOC, MultiLabel
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


@pytest.mark.parametrize(
    ("difficult", "ap", "c_split"),
    [
        ("drop", "ap11", "train-val"),
        ("drop", "area", "cv3"),
        ("negative", "ap11", "cv3"),
        ("negative", "area", "train-val"),
    ],
)
@pytest.mark.parametrize("shared_C", [False, True])
def test_equal_to_loops_over_scikit_learn(monkeypatch, difficult, ap, c_split, shared_C):
    """Validation scores, choices of C, test scores and APs, in whatever order parts list rows."""
    # Settings have no tol; the default one bounds violations of optimality, not errors of scores.
    monkeypatch.setattr(voc, "make_svm", lambda *how: make_svm(*how).set_params(tol=1e-6))
    X, targets = scenes()
    rng = np.random.default_rng(3)
    parts = rng.permutation(TRAIN), rng.permutation(VAL), TEST
    names = [f"{row:03}" for row in range(len(X))]  # whose order is that of the rows
    settings = {"difficult": difficult, "c_split": c_split, "shared_C": shared_C}
    result = run(X, targets, parts, names=names, ap=ap, **settings)
    both = np.concatenate([TRAIN, VAL])
    folds = [(TRAIN, VAL)]
    if c_split == "cv3":
        folds = [(both[f.train], both[f.test]) for f in stratified_folds(targets[both], 3)]
    expected = np.empty((len(GRID), len(folds), 3))
    for g, f, c in np.ndindex(expected.shape):
        (train, val), y = folds[f], targets[:, c]
        scores = decide(X[train], y[train], GRID[g], X[val], difficult)
        expected[g, f, c] = reference(scores, y[val])[("ap11", "area").index(ap)]
    expected = expected.mean(axis=1)
    np.testing.assert_allclose(validation(result), expected, atol=1e-9)
    best = [chosen(each) for each in expected.T]
    if shared_C:
        best = [chosen(expected.mean(axis=1))] * 3
    np.testing.assert_array_equal(column(result, "C"), best)
    for c in range(3):
        scores = decide(X[both], targets[both, c], best[c], X[TEST], difficult)
        np.testing.assert_allclose(result.scores[:, c], scores, atol=1e-3)
        eleven, area = reference(result.scores[:, c], targets[TEST, c])
        assert column(result, "ap11")[c] == pytest.approx(eleven)
        assert column(result, "area")[c] == pytest.approx(area)
    other = "area" if ap == "ap11" else "ap11"
    assert measure(result, "mAP") == pytest.approx(column(result, ap).mean())
    assert measure(result, f"mAP_{other}") == pytest.approx(column(result, other).mean())
    assert 0.3 < measure(result, "mAP") < 1


def without(targets, c, *parts):
    """Take a class's positives out of some parts."""
    changed = targets.copy()
    for part in parts:
        changed[part, c] = -1
    return changed


def test_a_class_that_nothing_trains_is_named_and_left_out():
    X, targets = scenes()
    whole, result = run(X, targets), run(X, without(targets, 1, TRAIN, VAL))
    for name in ("C", "ap11", "area"):
        assert np.isnan(column(result, name)[1])
    assert np.isnan(result.scores[:, 1]).all()
    assert result.fitted.svm.coef_.shape == (2, X.shape[1])
    assert result.fitted.classes == ("cat", "owl")
    assert measure(result, "mAP") == pytest.approx(np.mean(column(result, "ap11")[[0, 2]]))
    assert "dog" not in result.result.tables["rankings"].column("class")
    assert any("No positives to train dog" in note for note in result.result.notes)
    # A product with three columns may round otherwise than one with two.
    np.testing.assert_allclose(result.scores[:, [0, 2]], whole.scores[:, [0, 2]], rtol=1e-12)


@pytest.mark.parametrize(("parts", "trained"), [([TRAIN, VAL], False), ([TRAIN], True)])
def test_a_class_without_negatives_is_named(parts, trained):
    X, targets = scenes()
    targets[np.concatenate(parts), 1] = 1
    result = run(X, targets)
    assert np.isnan(column(result, "C")[1]) == (not trained)
    [note] = [note for note in result.result.notes if "dog" in note]
    assert "No negatives" in note


def test_a_class_that_nothing_validates_has_the_C_that_is_best_for_the_others():
    X, targets = scenes()
    result = run(X, without(targets, 1, VAL))
    assert column(result, "C")[1] == chosen(np.nanmean(validation(result), axis=1))
    assert np.isnan(validation(result)[:, 1]).all()
    assert column(result, "area")[1] > 0
    assert any("choose C for dog" in note for note in result.result.notes)


def test_a_class_that_nothing_tests_has_no_average_precision():
    X, targets = scenes()
    whole, result = run(X, targets), run(X, without(targets, 1, TEST))
    assert np.isnan(column(result, "ap11")[1])
    assert column(result, "C")[1] == column(whole, "C")[1]
    assert measure(result, "mAP") == pytest.approx(np.mean(column(whole, "ap11")[[0, 2]]))
    assert any("test dog" in note for note in result.result.notes)
    curves = result.result.figures["curves"]
    assert [series.name.split(",")[0] for series in curves.series] == ["cat", "owl"]


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


def test_the_result_is_plain_json_and_progress_is_told():
    X, targets = scenes()
    steps = []
    found = VOC(ap="ap11").evaluate(
        *targeted(targets, NAMES, (TRAIN, VAL, TEST)),
        X,
        SVM(C=GRID),
        progress=lambda done, of: steps.append((done, of)),
    )
    plain = json.loads(json.dumps(found.result.to_dict(), allow_nan=False))
    assert plain["settings"]["images to test"] == 80
    assert plain["tables"]["classes"][0]["test"] == int((targets[TEST, 0] > 0).sum())
    choice = plain["figures"]["choice"]
    marked = [(choice["rows"][row], GRID[place]) for row, place in choice["marks"]]
    assert marked == list(zip(NAMES, column(found, "C"), strict=True))
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
    assert f"C of {named} lies at the edge" in result.result.notes[0]


X, TARGETS = scenes()


@pytest.mark.parametrize(
    ("targets", "parts", "named"),
    [
        (TARGETS, (TRAIN, [60], [60, 61]), ["val and test", "1 rows"]),
        (TARGETS, (TRAIN, [], TEST), ["part val of pets"]),
        (TARGETS[:, :2], (TRAIN, VAL, TEST), ["3 classes"]),
        (np.full_like(TARGETS, -1), (TRAIN, VAL, TEST), ["positives and negatives"]),
        (without(TARGETS, slice(None), VAL), (TRAIN, VAL, TEST), ["--c-split cv3"]),
    ],
)
def test_what_cannot_be_learned_from_is_refused(targets, parts, named):
    refuses(lambda: run(X, targets, parts), DataError, named)


@pytest.mark.parametrize(
    ("rows", "scores", "named"),
    [
        (["a", "b"], [[1, np.nan], [1, 1]], "dog"),
        (["a"], [[1, 1], [1, 1]], "(1, 2)"),
        *((wrong, [[1, 1], [1, 1]], "server") for wrong in (["a b c", "d"], ["", "d"])),
        *((wrong, [[1, 1], [1, 1]], "server") for wrong in (["a 0", "d"], ["a\t1", "d"])),
    ],
)
def test_what_the_server_does_not_take_is_not_written(tmp_path, rows, scores, named):
    def write():
        write_scores(tmp_path, "comp2_{class}.txt", ["cat", "dog"], rows, np.array(scores))

    refuses(write, DataError, [named])
    assert not list(tmp_path.iterdir())


def test_a_submission_needs_test_images_whose_labels_are_not_public():
    card, images = targeted(TARGETS, NAMES, (TRAIN, [], TEST))
    refuses(lambda: VOC(ap="area").check_submission(card, images), DataError, ["public"])
    server = VOC(ap="area", server_file="comp10_action_test_{class}.txt")
    server.check_submission(card, images)
    refuses(lambda: server.check_submission(card, images.take(TRAIN)), DataError, ["test images"])


def test_rows_of_one_image_stay_together_in_folds():
    """Where four persons look alike, a fold that parts them knows the label of the others."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(30, 90)), 4, axis=0)
    targets = np.repeat(np.where(rng.random((30, 1)) < 0.5, 1, -1), 4, axis=0)
    names = [f"{row // 4}#{row}" for row in range(120)]
    card, apart = targeted(targets, ["a"], np.split(np.arange(120), 3), names)
    boxes = tuple(Box((0, 0, 1, 1)) for _ in names)
    together = replace(apart, images=tuple(f"{row // 4}.jpg" for row in range(120)), boxes=boxes)
    svm = SVM(C=1, c_split="cv3")
    known, unknown = (
        measure(VOC(ap="area").evaluate(card, images, X, svm, n_jobs=1), "validation_mAP")
        for images in (apart, together)
    )
    assert unknown < 0.9 < 0.99 < known


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
    voc = run(X, targets, own, ap="area")
    assert found.result.parts == voc.result.parts
    assert "parts" not in found.result.settings
    without = replace(images, splits={"train": np.arange(80), "test": np.arange(80, 120)})
    parts = MultiLabel().parts(card, without)
    assert sorted([*parts["train"], *parts["val"]]) == list(range(80))
    np.testing.assert_array_equal(parts["test"], np.arange(80, 120))
    tiny = replace(images.take([0, 1]), splits={}, targets=np.array([[1, -1, -1], [-1, 1, -1]]))
    refuses(lambda: MultiLabel().parts(card, tiny), DataError, ["'split'"])
