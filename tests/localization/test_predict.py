"""Localisation by hand: targets of crops, windows, both protocols, what a net begins with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.boxes import BOXES, CLASSES, GRID_NET, box_weights, red_edges, red_tree, sees_red
from helpers.mistakes import refuses
from helpers.networks import configured, formula_weights, forward
from PIL import Image

from vggfeat.errors import DataError, ImageError, ParameterError, WeightsError
from vggfeat.localization.boxes import edges
from vggfeat.localization.classifiers import (
    ClassScores,
    ClassSubset,
    ConstantClassifier,
    NetClassifier,
    StoredLabels,
)
from vggfeat.localization.data import BoxSet, open_boxset
from vggfeat.localization.evaluate import evaluate
from vggfeat.localization.predict import LocalizationSystem, Localizer, Windows, detect
from vggfeat.localization.protocols import BoxEvaluation, evaluate_objects
from vggfeat.localization.training import LEVEL, BoxRegression, init_from_classifier
from vggfeat.settings import Merging
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.store import FeatureStore
from vggfeat.train.augment import draw, mirrored
from vggfeat.train.loader import Loader

PARTS = {
    "train": {"000001": (1, -1), "000002": (-1, 1)},
    "val": {"000003": (1, -1), "000004": (-1, 1)},
    "test": {"000005": (1, -1), "000006": (-1, 1), "000007": (-1, 1)},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> BoxSet:
    """Cats and dogs, each a red box in a place of its own."""
    return open_boxset(red_tree(tmp_path_factory.mktemp("voc") / "VOC2007", PARTS))


@pytest.fixture
def red() -> Iterator[None]:
    """Let net D be the one that sees red."""
    with configured({"D": GRID_NET}):
        yield


class Says:
    """A classification system that says what it is told to, image by image.

    Of classes that are not localised it says `others`; of None that the image cannot be read.
    """

    classes = CLASSES

    def __init__(
        self,
        posteriors: Iterable[Sequence[float] | None],
        rated: str = "alike",
        others: Iterable[Sequence[float]] = (),
    ) -> None:
        self.posteriors, self.rated, self.others = iter(posteriors), rated, iter(others)

    def score(self, image: Image.Image, scales: Sequence[int]) -> ClassScores:
        posteriors, windows = next(self.posteriors), {}
        if posteriors is None:
            raise ImageError("too long")
        for Q in scales:
            h, w = (Q - 224) // 32 + 2, (Q * 448 // 336 - 224) // 32 + 2  # one more than the net
            windows[Q] = np.ones((2, h, w))
            if self.rated == "last row":
                windows[Q][:, -2] = 1.5
        said = ClassScores(np.array(posteriors), windows)
        others = next(self.others, None)
        return said if others is None else said._replace(others=np.array(others))


def judge(
    data: BoxSet, says: Says | None = None, net: Localizer | None = None, **given: Any
) -> BoxEvaluation:
    """Judge the boxes of a net that sees red at Q = 320."""
    windows_of = given.pop("windows_of", ())
    system = LocalizationSystem([net or sees_red()], [[320]], says, given.pop("labels", None))
    return evaluate_objects(data.test, CLASSES, system, windows_of=windows_of, **given)


def test_targets_are_where_the_object_is_in_the_crop(data: BoxSet) -> None:
    """In crops of the loader, mirrored as training does, the red is where the task says."""
    task = BoxRegression.on(data, "scr", (256, 320))
    with Loader(data.train.part, batch_size=2, S=(256, 320), seed=5) as loader:
        for epoch in range(4):
            [batch] = loader.batches(epoch)
            draws = [draw(5, epoch, int(row)) for row in batch.rows]
            seen = mirrored(batch.pixels, [one.flip for one in draws])
            targets, _ = task._targets(batch.rows, draws, torch.device("cpu"))
            for pixels, (x, y, w, h) in zip(seen, targets.tolist(), strict=True):
                found = red_edges(pixels.permute(1, 2, 0).numpy())
                expected = np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, 1) * 224
                np.testing.assert_allclose(found, expected, atol=2.5)


def test_losses_and_figures_by_hand(data: BoxSet) -> None:
    """Half the squared distance of the own class's box, and of no other's; central crops."""
    task = BoxRegression.on(data, "pcr", 256)
    rows, labels = torch.tensor([0, 1]), torch.tensor([0, 1])
    targets, weights = task._targets(rows, None, torch.device("cpu"))
    assert weights.tolist() == [1, 1]
    scores = torch.full((2, 8), 7.0)
    scores[0, :4], scores[1, 4:] = targets[0], targets[1] + torch.tensor([0.0, 0.0, 0.3, 0.4])
    scores.requires_grad_(True)
    loss = task.losses(scores, labels, rows, None)
    assert loss.item() == pytest.approx((0.3**2 + 0.4**2) / 2)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad[1].tolist() == pytest.approx([0, 0, 0, 0, 0, 0, 0.3, 0.4])
    w, h = targets[1, 2:].tolist()
    share = w * h / ((w + 0.3) * (h + 0.4))
    found = task.counts(scores.detach(), labels, rows, None)
    assert found.tolist() == pytest.approx([1 + share, 1 + (share > 0.5)])


def test_a_crop_that_does_not_show_the_object_teaches_nothing(data: BoxSet) -> None:
    """With a share of 1 asked for, a crop that cuts the object off has no loss."""
    strict, lax = (BoxRegression.on(data, "scr", 512, visible=v) for v in (1.0, 0.0))
    draws, rows = [draw(0, e, 0) for e in range(6)], torch.zeros(6, dtype=torch.int64)
    given = (torch.zeros(6, 4), torch.zeros(6, dtype=torch.int64), rows, draws)
    assert strict.losses(*given) == 0
    assert lax.losses(*given) > 0
    for name, wrong in (("regression", "both"), ("visible", 2.0)):
        how = {"regression": "scr", "S": 256, name: wrong}
        refuses(partial(BoxRegression.on, data, **how), ParameterError, [name, str(wrong)])


def test_a_net_begins_as_it_was_but_for_scales_and_the_last_layer(data: BoxSet, tiny: str) -> None:
    """What fc7 computes is the same to a power of two, at the level; fc8 says the mean box."""
    given = formula_weights(tiny, num_classes=4, seed=1)
    task = BoxRegression.on(data, "pcr", 256)
    made = init_from_classifier(given, task)
    x = torch.tensor(np.asarray(data.train.open(0).resize((224, 224)))).permute(2, 0, 1)[None]
    x = (x.float() - 120) / 60
    before, after = (forward(weights.state, tiny, x)["fc7"] for weights in (given, made))
    assert after.square().mean().sqrt() == pytest.approx(LEVEL, rel=0.6)
    ratio = (before.sum() / after.sum()).item()
    assert abs(np.log2(ratio)) > 0.9
    assert np.log2(ratio) == pytest.approx(round(np.log2(ratio)), abs=1e-4)
    torch.testing.assert_close(after * ratio, before, rtol=1e-4, atol=1e-4)
    assert made.state["fc8.weight"].shape == (8, 5)
    same = BoxRegression.on(replace(data, val=data.train), "pcr", 256)
    expected = [same._targets(torch.tensor([k]), None, torch.device("cpu"))[0][0] for k in (0, 1)]
    torch.testing.assert_close(made.state["fc8.bias"], torch.cat(expected))
    assert init_from_classifier(given, task).sha256 == made.sha256
    assert made.drawn == ("fc8",)
    plain = init_from_classifier(given, task, balanced=False).state
    assert torch.equal(plain["fc6.weight"], given.state["fc6.weight"])


def test_central_crop_and_windows_find_the_box(data: BoxSet, red: None) -> None:
    """From every window of every scale the box, to a pixel or two; from the crop, what it shows."""
    net = sees_red()
    image = data.test.open(0)
    expected = edges([BOXES["cat"]])[0]
    cut = (341 - 224) // 2 * 448 / 341  # where the central crop of the rescaled image begins
    np.testing.assert_allclose(net.central(image)[0], [cut, *expected[1:]], atol=3)
    for Q in (256, 352):
        boxes = net.windows(image, Q)
        assert boxes.shape == ((Q - 224) // 32 + 1, (Q * 448 // 336 - 224) // 32 + 1, 2, 4)
        np.testing.assert_allclose(
            boxes[..., 0, :], np.broadcast_to(expected, (*boxes.shape[:2], 4)), atol=2
        )


def test_windows_of_several_nets_and_scales_are_united(data: BoxSet, red: None) -> None:
    """Each net at its own scales; a classification map that is larger is cut."""
    nets = [sees_red(), sees_red("scr", S=320)]
    image = data.test.open(1)
    says = Says([(0.4, 0.6)])
    _, windows = LocalizationSystem(nets, [[256, 320], [320]], says).look(image)
    assert [len(some) for some in windows.boxes] == [2 * 4, 4 * 7, 4 * 7]
    boxes, outputs = windows.of(1)
    assert boxes.shape == (64, 4)
    assert outputs.tolist() == [1.0] * 64
    np.testing.assert_allclose(boxes, edges([BOXES["dog"]]).repeat(64, 0), atol=2)
    assert sees_red("scr", S=[256, 512]).S == 384  # the middle, Section 3.2


def test_the_box_of_highest_summed_output_wins() -> None:
    """Three windows of 0.4 outweigh one of 0.9, which is the best single one."""
    near = [[0.0, 0, 20, 20], [1.0, 0, 21, 20], [2.0, 0, 22, 20]]
    boxes = np.array([*near, [50.0, 50, 80, 80]])[:, None]
    outputs = np.array([[0.4], [0.4], [0.4], [0.9]])
    found = detect(Windows([boxes], [outputs], [False]), np.array([1.0]), (70, 100), 0)
    assert found.box.tolist() == [1, 0, 21, 20]
    assert (found.score, found.windows, found.boxes_left) == (pytest.approx(1.2), 3, 2)
    assert found.single.tolist() == [50, 50, 70, 80]  # cut at the image's edge


@pytest.mark.parametrize(
    ("top", "posteriors", "labels"),
    [(2, (0.3, 0.5), [1, 0]), (1, (0.3, 0.5), [1]), (2, (1, 0), [0])],
)
def test_labels_are_those_of_highest_posterior(
    data: BoxSet, red: None, top: int, posteriors: tuple[float, float], labels: list[int]
) -> None:
    """The likeliest first, as many as are asked for and as have a posterior."""
    system = LocalizationSystem([sees_red()], [[320]], Says([posteriors]))
    found = system.predict(data.test.open(0), top)
    assert [detection.label for detection in found] == labels


def test_both_protocols_by_hand(data: BoxSet, red: None) -> None:
    """Three images: right; a label that is second; and boxes that are wrong but in one row.

    With boxes shifted by 0.9 of a window in all rows but the first, most windows are wrong and
    merging finds the wrong box, as does a single window rated best in a wrong row.
    """
    posteriors = [(0.9, 0.1), (0.2, 0.8), (0.6, 0.4)]
    right = judge(data, Says(posteriors), windows_of={0})
    errors = right.errors()
    assert (errors.top1, errors.top5, errors.box) == (pytest.approx(1 / 3), 0, 0)
    assert right.errors(0).top1 == 0
    assert right.errors(1).top1 == 0.5
    assert errors.objects == 3
    assert right.objects[2].first == 0
    assert list(right.windows) == [0]
    wrong = judge(data, Says(posteriors, "last row"), sees_red(shift=0.9))
    assert (wrong.errors().top5, wrong.errors().single5, wrong.errors().box) == (1, 1, 1)
    assert wrong.errors().central == errors.central
    assert wrong.errors(1).objects == 2
    central, merged, _ = wrong.ious[0]
    assert merged < 0.5 < central


def test_labels_rank_among_all_classes_that_are_known(data: BoxSet, red: None) -> None:
    """Of seven classes two are localised: with five others likelier, a right box is no help."""
    others = [(0.2, 0.2, 0.2, 0.1, 0.1), np.zeros(5), np.full(5, 0.01)]
    result = judge(data, Says([(0.05, 0.01), (0.5, 0.5), (0.9, 0.04)], others=others))
    assert [item.rank for item in result.objects] == [5, 1, 1]
    assert result.top == 5
    errors = result.errors()
    assert (errors.top1, errors.top5, errors.box) == (1, pytest.approx(1 / 3), 0)


def test_kept_labels_stand_for_the_classifiers(data: BoxSet, red: None, tmp_path: Path) -> None:
    """Posteriors in a store of scores, found by file name; an image that lacks some is named."""
    names, ids = ["000005.jpg", "000006.jpg"], np.array([[5, 5], [6, 6]])
    name = Descriptor("D", "fc8", "softmax", 256)
    store = FeatureStore(tmp_path / "s", "a")
    store.add_columns([Column(name, {"weights": "0"}, 3, ("cow", "dog", "cat"))])
    rows = np.array([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]], np.float32)
    store.write(names, ids, ids, {name: rows})
    store.finish(names, {})
    labels = StoredLabels.open([tmp_path / "s"], CLASSES)
    result = judge(data, Says([(1.0, 0.0)] * 3), labels=labels)
    assert [item.rank for item in result.objects] == [2, 0]
    assert result.top == 3
    assert result.failed.keys() == {"JPEGImages/000007.jpg"}
    others = ("cat", "horse")
    refuses(lambda: StoredLabels.open([tmp_path / "s"], others), DataError, ["'horse'"])


def test_images_that_fail_are_left_out(data: BoxSet, red: None) -> None:
    """One that cannot be classified, or is not of the size that is stated; progress counts it."""
    told = []
    says = Says([(1.0, 0.0), None, (1.0, 0.0)])
    result = judge(data, says, progress=lambda done, total: told.append((done, total)))
    assert result.failed == {"JPEGImages/000006.jpg": "too long"}
    assert len(result.objects) == 2
    assert told == [(1, 3), (2, 3), (3, 3)]
    sizes = data.test.sizes.copy()
    sizes[0] = (500, 375)
    some = replace(data.test, sizes=sizes)
    refuses(lambda: some.open(0), ImageError, ["500×375"])
    result = judge(replace(data, test=some))
    kept = ["JPEGImages/000006.jpg", "JPEGImages/000007.jpg"]
    assert [item.name for item in result.objects] == kept
    assert list(result.failed) == ["JPEGImages/000005.jpg"]
    none = replace(data, test=some.take([0]))
    refuses(lambda: judge(none), DataError, ["test image"])


def test_without_labels_there_is_protocol_one(data: BoxSet, red: None) -> None:
    """Its error alone; the figures of protocol 2 are none."""
    assert judge(data).errors().central == 0
    result = evaluate(data, LocalizationSystem([sees_red()], [[320]])).to_dict()
    assert result["measures"].keys() == {"central"}
    assert "box_iou" not in result["tables"]["objects"][0]


def test_merging_improves_on_single_windows_that_err() -> None:
    """Windows that err at random: their mean is right where the one rated best is not."""
    rng, truth = np.random.default_rng(0), edges([BOXES["cat"]])[0]
    better = 0
    for _ in range(20):
        boxes, outputs = truth + rng.normal(0, 35, (40, 4)), rng.random((40, 1))
        windows = Windows([boxes[:, None]], [outputs], [False])
        found = detect(windows, np.ones(1), (448, 336), 0, Merging(threshold=0.3))
        merged, single = (np.abs(box - truth).mean() for box in (found.box, found.single))
        better += merged < single
    assert better >= 18


def test_a_net_classifier_averages_scores_then_posteriors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over locations the scores, over mirror image and scales their soft-max, by hand."""
    made = {Q: np.random.default_rng(Q).normal(size=(2, 2, 2, 3)) for Q in (224, 256)}

    class Fake:
        def maps(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
            mirrored = int(pixels[0, 0, 0, 0] > pixels[0, 0, 0, -1])
            return {"fc8": torch.from_numpy(made[pixels.shape[2]][mirrored])[None]}

    shade = np.tile(np.linspace(0, 250, 320).astype(np.uint8)[None, :, None], (256, 1, 3))
    image = Image.fromarray(shade)
    found = NetClassifier(Fake(), CLASSES, [224, 256]).score(image, [224, 256])  # type: ignore[arg-type]

    def softmax(scores: np.ndarray) -> np.ndarray:
        raised = np.exp(scores)
        return raised / raised.sum(0)

    each = [softmax(one.mean((1, 2))) for both in made.values() for one in both]
    np.testing.assert_allclose(found.posteriors, np.mean(each, axis=0))
    np.testing.assert_allclose(found.windows[256], softmax(made[256][0]))
    other = NetClassifier(Fake(), CLASSES, [256]).score(image, [224])  # type: ignore[arg-type]
    np.testing.assert_allclose(other.posteriors, np.mean(each[2:], axis=0))
    assert list(other.windows) == [224]
    alone = NetClassifier(Fake(), CLASSES, []).score(image, [256])  # type: ignore[arg-type]
    assert alone.posteriors.tolist() == [0, 0]
    np.testing.assert_allclose(alone.windows[256], found.windows[256])


def test_labels_are_taken_at_the_classifiers_own_scales(
    red: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that its training scale calls for, wherever the localiser looks."""
    corner = ([0, 1, 2, 0], [5], [7])

    def scores(self: NetClassifier, pixels: torch.Tensor) -> torch.Tensor:
        return pixels[0][corner][:, None, None].double()

    monkeypatch.setattr(NetClassifier, "_map", scores)
    grain = np.random.default_rng(0).integers(0, 9, (300, 256, 3), np.uint8)
    for S, own in ((256, (256,)), ([256, 512], (256, 384, 512))):
        about = {"classes": json.dumps([*CLASSES, "cow", "hen"]), "S": json.dumps(S)}
        weights = replace(box_weights("scr"), about=about)
        classifier = NetClassifier.open(weights, precision="fp32")
        assert classifier.scales == own
        found = [classifier.score(Image.fromarray(grain), Q) for Q in ([224], [320, 352])]
        assert [list(said.windows) for said in found] == [[224], [320, 352]]
        np.testing.assert_array_equal(*(said.posteriors for said in found))
        assert found[0].posteriors.std() > 0


def test_a_system_of_more_classes_is_asked_about_some() -> None:
    """Their columns, in the order asked for; one that it lacks is named."""
    whole = ConstantClassifier(("bus", "cat", "dog"), [2])
    said = ClassSubset(whole, ("dog", "cat")).score(Image.new("RGB", (224, 224)), [224])
    assert said.posteriors.tolist() == [1, 0]
    assert said.others.tolist() == [0]
    assert said.windows[224].shape == (2, 1, 1)
    refuses(lambda: ClassSubset(whole, ("cow",)), DataError, ["'cow'"])


def test_other_classes_and_other_weights_are_refused(data: BoxSet, red: None) -> None:
    """A classification net is no localisation net; other classes would be other boxes."""
    unsaid = replace(box_weights(), about={})
    refuses(lambda: Localizer(unsaid), WeightsError, ["localisation net"])
    cows, others = ConstantClassifier(("cat", "cow"), [0]), replace(data, classes=("cat", "cow"))
    refuses(lambda: LocalizationSystem([sees_red()], [[256]], cows), DataError, ["'cow'"])
    system = LocalizationSystem([sees_red()], [[320]])
    refuses(lambda: evaluate(others, system), DataError, ["'cow'"])
