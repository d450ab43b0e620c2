"""Mean class recall over random splits, against counts of one's own and scikit-learn."""

from __future__ import annotations

import json
import weakref

import numpy as np
import pytest
from helpers.mistakes import refuses
from helpers.rows import evaluate_splits, labelled
from sklearn.metrics import recall_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from vggfeat.data.datasets.card import DatasetCard, PaperFigure
from vggfeat.errors import DataError
from vggfeat.settings import SVM
from vggfeat.svm.linear import LinearSVM
from vggfeat.svm.protocols import PROTOCOLS, Evaluation, protocol_of, random_splits
from vggfeat.svm.protocols.base import make_svm
from vggfeat.svm.protocols.random_splits import RandomSplits
from vggfeat.svm.splits import Split, held_out_part

NAMES = ["bird", "boat", "bug"]


def descriptors(n=90, D=30, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = rng.random((n, D)) + 0.35 * rng.random((classes, D))[y]
    return X / np.linalg.norm(X, axis=1, keepdims=True), y


def on_split(X, y, split: Split, grid=None) -> Evaluation:
    """Test rows on a split that is given, as by a manifest."""
    card, images = labelled(y, NAMES, splits={"train": split.train, "test": split.test})
    svm = SVM(C=grid) if grid else SVM()
    return RandomSplits().evaluate(card, images, X, svm, n_jobs=1)


def drawn(y, **protocol) -> list[Split]:
    return RandomSplits(**protocol).draw(*labelled(y, NAMES))


def test_evaluation_equals_a_count_of_ones_own():
    """Recalls, spread, confusions and mistakes are those counted again from the classifiers."""
    X, y = descriptors()
    splits = drawn(y)
    result = evaluate_splits(X, y, NAMES).result
    macro, right, confusion, wrong = [], [], np.zeros((3, 3), int), []
    for number, split in enumerate(splits, 1):
        found = on_split(X, y, split)
        predicted = found.fitted.svm.predict(X[split.test])
        np.testing.assert_array_equal(found.scores, found.fitted.svm.class_scores(X[split.test]))
        macro.append(recall_score(y[split.test], predicted, average="macro"))
        np.add.at(confusion, (y[split.test], predicted), 1)
        wrong += [(number, row) for row in split.test[predicted != y[split.test]].tolist()]
        right.append(np.mean(predicted == y[split.test]))
    recall, accuracy, chance = result.headline
    tables = result.tables
    assert tables["splits"].column("recall") == pytest.approx(macro)
    assert tables["splits"].column("accuracy") == pytest.approx(right)
    assert (accuracy.value, chance.value) == pytest.approx((np.mean(right), 1 / 3))
    assert recall.value == pytest.approx(np.mean(macro))
    assert recall.spread == pytest.approx(np.sqrt(np.sum((macro - np.mean(macro)) ** 2) / 2))
    assert 0.4 < recall.value < 1
    assert result.figures["confusion"].values == tuple(map(tuple, confusion.tolist()))
    assert tables["classes"].column("images") == confusion.sum(axis=1).tolist()
    mistakes = tables["mistakes"]
    told = zip(mistakes.column("split"), map(int, mistakes.column("image")), strict=True)
    assert sorted(told) == sorted(wrong)
    margins = mistakes.column("margin")
    assert margins == sorted(margins, reverse=True)
    assert min(margins) >= 0
    worst = tables["confused"].records()[0]
    apart = confusion - np.diag(confusion.diagonal())
    pair = NAMES.index(worst["class"]), NAMES.index(worst["taken_for"])
    assert (worst["images"], worst["of"]) == (apart.max(), 45)
    assert apart[pair] == apart.max()


def test_every_confusion_has_its_images_and_the_worst_comes_first():
    """Each pair of classes that are confused has a strip; an image may be in several."""
    X, y = descriptors()
    result = evaluate_splits(X, y, NAMES, splits=5).result
    worst, *pairs = result.figures["mistakes"].strips
    table = result.tables["mistakes"]
    assert worst.tiles[0].image == table.column("image")[0]
    confused = {}
    for row in table.records():
        confused.setdefault((row["class"], row["predicted"]), set()).add(row["image"])
    assert len(pairs) == len(confused) == len(result.tables["confused"].rows)
    for row, strip in zip(result.tables["confused"].records(), pairs, strict=True):
        images = confused[row["class"], row["taken_for"]]
        assert {tile.image for tile in strip.tiles} <= images
        assert len(strip.tiles) == min(4, len(images))


def unbalanced(few=8, many=30):
    X, y = descriptors(n=2 * many, classes=2)
    rows = np.sort(np.r_[np.flatnonzero(y == 0)[:few], np.flatnonzero(y == 1)])
    return X[rows], y[rows]


@pytest.mark.parametrize("paper", [False, True])
def test_the_class_weight_is_chosen_where_a_users_classes_differ_in_size(paper):
    """What a single class would score is told; the paper's protocols weigh no class."""
    X, y = unbalanced()
    card, images = labelled(y, NAMES[:2])
    figures = (PaperFigure(method="theirs", value=50),) if paper else ()
    card = card.model_copy(update={"paper": figures})
    found, plain, weighed = (
        RandomSplits().evaluate(card, images, X, svm, n_jobs=1)
        for svm in (SVM(), SVM(class_weight="none"), SVM(class_weight="balanced"))
    )
    chosen = found.result.tables["splits"]
    if paper:
        assert found.result.parts == plain.result.parts
        assert "class weight" not in found.result.settings
        return
    scores = [each.result.tables["splits"].column("validation") for each in (plain, weighed)]
    assert chosen.column("validation") == list(map(max, *scores))
    assert {*chosen.column("class_weight")} <= {"none", "balanced"}
    assert "chosen with C" in found.result.settings["class weight"]
    measures = {measure.name: measure.value for measure in found.result.headline}
    assert (measures["chance"], measures["largest_class"]) == (0.5, 15 / 19)
    final = RandomSplits().fit_all(card, images, X, SVM(class_weight="balanced"), n_jobs=1)
    assert "balanced" in final.trained_on


def test_the_first_images_are_those_of_highest_score():
    """The ranking and the examples are sorted once more here, by the first split's scores."""
    X, y = descriptors()
    found = evaluate_splits(X, y, NAMES)
    ranked = [row for row in found.result.tables["ranked"].records() if row["class"] == "boat"]
    order = np.argsort(-found.scores[:, 1], kind="stable")
    assert [row["image"] for row in ranked] == [found.names[i] for i in order[:12]]
    assert [row["truth"] for row in ranked] == [NAMES[y[int(row["image"])]] for row in ranked]
    first = next(row["image"] for row in ranked if row["truth"] == "boat")
    assert next(example.image for example in found.examples if example.label == "boat") == first
    for example in found.examples[3:]:
        assert (example.truth != example.label) == bool(example.truth)
        assert NAMES[y[int(example.image)]] == example.truth


def test_a_seed_draws_the_images():
    X, y = descriptors()
    one, same, other = (
        evaluate_splits(X, y, NAMES, splits=2, grid=[1.0], seed=seed) for seed in (0, 0, 1)
    )
    assert one.result.parts == same.result.parts
    np.testing.assert_array_equal(one.fitted.svm.coef_, same.fitted.svm.coef_)
    assert other.names != one.names


def test_a_class_without_test_images_has_no_recall():
    """It is left out of the mean; a single split has no spread; progress is told."""
    X, y = descriptors()
    split = drawn(y)[0]
    seen = Split(split.train, split.test[y[split.test] != 2])
    steps = []
    card, images = labelled(y, NAMES, splits={"train": seen.train, "test": seen.test})
    both = np.sort(np.concatenate([seen.train, seen.test]))
    found = RandomSplits().evaluate(
        card, images.take(both), X[both], progress=lambda done, of: steps.append((done, of))
    )
    plain = json.loads(json.dumps(found.result.to_dict(), allow_nan=False))
    recalls = [row["recall"] for row in plain["tables"]["classes"]]
    assert plain["measures"]["mean_class_recall"]["spread"] is None
    assert recalls[2] is None
    assert plain["measures"]["mean_class_recall"]["value"] == pytest.approx(np.mean(recalls[:2]))
    assert plain["provenance"]["seed"] == 0
    assert steps == [(1, 1)]


def test_scores_of_later_splits_are_not_kept(monkeypatch):
    """Of four splits the first one's scores are there at the end, and those of the last so far."""
    X, y = descriptors()
    score, scores = LinearSVM.class_scores, []

    def spy(svm, rows):
        result = score(svm, rows)
        scores.append(weakref.ref(result))
        return result

    monkeypatch.setattr(LinearSVM, "class_scores", spy)
    held = []
    RandomSplits(splits=4).evaluate(
        *labelled(y, NAMES),
        X,
        SVM(C=1),
        n_jobs=1,
        progress=lambda *_: held.append([each() is not None for each in scores]),
    )
    assert held[-1] == [True, False, False, True]


def recall_of(X, y, train, test, C) -> float:
    """Mean class recall of scikit-learn's own."""
    svm = OneVsRestClassifier(SVC(kernel="linear", C=C, tol=1e-6)).fit(X[train], y[train])
    return recall_score(y[test], svm.predict(X[test]), average="macro")


def check(found: Evaluation, X, y, train, validation, both, test) -> None:
    """Compare every validation score, and the test of the best C, with scikit-learn's."""
    table = found.result.tables["validation"]
    for C, score in zip(table.column("C"), table.column("validation"), strict=True):
        assert score == pytest.approx(recall_of(X, y, train, validation, C))
    tested = recall_of(X, y, both, test, found.fitted.C[0])
    assert found.result.headline[0].value == pytest.approx(tested)


def test_a_fifth_of_the_training_images_chooses_C():
    X, y = descriptors()
    train, test = drawn(y)[0]
    found = evaluate_splits(X, y, NAMES, grid=(0.1, 10.0), splits=1, validation_fraction=0.2)
    part = held_out_part(y[train], 0.2)
    check(found, X, y, train[part.train], train[part.test], train, test)
    assert "20 %" in found.result.settings["choice of C"]


def test_a_validation_part_chooses_C_and_stands_for_a_test_part_that_is_not_there():
    """Of train, val and test C is chosen on val and both train; of train and val, val tests."""
    X, y = descriptors()
    train, val, test = np.arange(40), np.arange(40, 65), np.arange(65, 90)
    card, images = labelled(y, NAMES, splits={"train": train, "val": val, "test": test})
    found = RandomSplits().evaluate(card, images, X, SVM(C=(0.1, 10.0)), n_jobs=1)
    both = np.union1d(train, val)
    check(found, X, y, train, val, both, test)
    assert found.fitted.trained_on.startswith("train and val")
    del images.splits["test"]
    [split] = RandomSplits().draw(card, images.take(both))
    assert (split.train.tolist(), split.test.tolist()) == (train.tolist(), val.tolist())


def test_the_classifier_for_new_images_is_trained_on_all_or_as_tested(monkeypatch):
    """Random splits leave all images to train with; the test part that a manifest gives stays."""
    # Settings have no tol; the default one bounds violations of optimality, not errors of scores.
    monkeypatch.setattr(random_splits, "make_svm", lambda *how: make_svm(*how).set_params(tol=1e-6))
    X, y = descriptors()
    card, images = labelled(y, NAMES)
    every = RandomSplits().fit_all(card, images, X, SVM(C=1), n_jobs=1)
    other = OneVsRestClassifier(SVC(kernel="linear", C=1, tol=1e-6)).fit(X, y)
    np.testing.assert_allclose(every.svm.class_scores(X), other.decision_function(X), atol=1e-3)
    assert "all 90" in every.trained_on
    split = drawn(y)[0]
    card, images = labelled(y, NAMES, splits={"train": split.train, "test": split.test})
    assert RandomSplits().fit_all(card, images, X, SVM()) is None


X, Y = descriptors()


@pytest.mark.parametrize(
    ("evaluate", "named"),
    [
        (lambda: on_split(X, Y, Split(np.flatnonzero(Y != 1), np.flatnonzero(Y == 1))), "'boat'"),
        (
            lambda: on_split(X, Y, Split(np.arange(90), np.arange(0))),
            "part train: there is no test image. Mark some as test or val",
        ),
        (lambda: evaluate_splits(X[:6], Y[:6], NAMES), "C cannot be chosen"),
        (lambda: RandomSplits().check(*labelled([], NAMES)), "multi-label"),
        (
            lambda: RandomSplits().draw(*labelled(Y, NAMES, splits={"training": np.arange(90)})),
            "'training'",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(evaluate, named):
    refuses(evaluate, DataError, [named])


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        ({"kind": "voc", "ap": "area", "difficult": "keep"}, "drop"),
        ({"kind": "voc"}, "ap"),
        ({"kind": "votes"}, "votes"),
        ({"splits": 0}, "splits"),
        ({"colour": "red"}, "colour"),
        ({"train_fraction": 1.5}, "train_fraction"),
    ],
)
def test_a_wrong_protocol_of_a_card_is_named(protocol, reason):
    """A kind that there is not, and settings that are wrong, are errors of the card's name."""
    card = DatasetCard(name="mine", reader="folders", protocol=protocol)
    refuses(lambda: protocol_of(card), DataError, ["mine", reason])


def test_every_protocol_says_what_it_measures():
    """Kind, metric and the name of its headline, which a failed row of a table has, too."""
    assert sorted(PROTOCOLS) == ["ilsvrc", "multi-label", "splits", "voc"]
    for kind, protocol in PROTOCOLS.items():
        fields = {name: field.default for name, field in protocol.model_fields.items()}
        assert (fields["kind"], bool(fields["metric"] and protocol.measure)) == (kind, True)
