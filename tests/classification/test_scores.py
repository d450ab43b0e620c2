"""Stores of scores: what modes share, what is not finished, and where fused ones may go."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.colours import CLASSES, colour_net, paint
from helpers.mistakes import refuses
from helpers.seams import before_batches, described_images, shard_rows
from torch import Tensor

from vggfeat.classification.modes import score
from vggfeat.classification.scores import FUSED, check_target, open_scores, posteriors, write_fused
from vggfeat.data.imageset import ImageSet, find_images
from vggfeat.data.partition import WHOLE, Partition
from vggfeat.errors import StoreError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.store.merge import merge
from vggfeat.store.store import FeatureStore

BOTH = "softmax+crops1"
SCALES = [224, 256]
pytestmark = pytest.mark.usefixtures("tiny_nets")


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    """Paint seven images."""
    for number in range(7):
        paint(tmp_path / "p" / f"{number}.png", CLASSES[number % len(CLASSES)], number)
    return find_images([tmp_path / "p"])


@pytest.mark.parametrize("out", [False, True])
@pytest.mark.parametrize(("first", "rest"), [("softmax", "crops1"), ("crops1", "softmax")])
def test_both_computes_only_what_one_mode_lacks(
    images: ImageSet, tmp_path: Path, out: bool, first: str, rest: str
) -> None:
    """After one mode the images are run for the other alone, wherever scores are kept."""
    folder = tmp_path / "s" if out else None
    found, done = [], []
    for pool in (first, BOTH, BOTH, rest):
        with described_images() as described:
            found.append(score(images, colour_net("D", pool), SCALES, folder)[0])
        done.append(described)
    assert done == [[first] * 14, [rest] * 14, [], []]
    pools = [[pool for one in some for pool in one.pools] for some in found]
    assert pools == [[first], ["softmax", "crops1"], ["softmax", "crops1"], [rest]]
    [one], [both], _, [other] = (posteriors(some, images.names) for some in found)
    np.testing.assert_allclose(both, (one + other) / 2)
    assert np.abs(one - other).max() > 1e-3


def stop_after(images: int, Q: int) -> AbstractContextManager[None]:
    """Press Ctrl-C when a network has described so many images at a scale."""
    sizes: list[int] = []

    def stop(net: DenseExtractor, pixels: Tensor) -> None:
        if min(pixels.shape[2:]) == Q:
            sizes.append(len(pixels))
            if sum(sizes) > images:
                raise KeyboardInterrupt

    return before_batches(stop)


def test_a_scale_that_was_interrupted_is_named(images: ImageSet, tmp_path: Path) -> None:
    """It is not fused in silence from what has it; without that scale, or in the end, it is."""
    store = tmp_path / "s"
    score(images, colour_net("D"), [224], store)
    with pytest.raises(KeyboardInterrupt), shard_rows(3), stop_after(3, Q=256):
        score(images, colour_net("D"), SCALES, store)
    mentions = ["net D, softmax at Q = 256", "4 of 7", f"--out {store}", "--Q 224"]
    refuses(lambda: open_scores(store), StoreError, mentions)
    assert open_scores(store, [224])[0].names == list(images.names)
    refuses(lambda: open_scores(store, [288]), StoreError, ["Q = 288", "7 of 7"])
    with described_images() as described:
        score(images, colour_net("D"), SCALES, store)
    assert len(described) == 4
    assert open_scores(store)[0].scales == (224, 256)


def test_a_run_that_was_interrupted_is_told(images: ImageSet, tmp_path: Path) -> None:
    """Before anything was kept, and once another net is complete: the store says what it lacks."""
    with pytest.raises(KeyboardInterrupt), stop_after(0, Q=224):
        score(images, colour_net("D", BOTH), [224], tmp_path / "s")
    opening = partial(open_scores, tmp_path / "s")
    refuses(opening, StoreError, ["no scores"])
    score(images, colour_net("E"), [224], tmp_path / "s")
    refuses(opening, StoreError, ["net D, softmax at Q = 224", "7 of 7"])
    score(images, colour_net("D", BOTH), [224], tmp_path / "s")
    assert [one.net for one in opening()] == ["D", "D", "E"]


def test_images_that_an_interrupted_run_never_came_to_are_missed(
    images: ImageSet, tmp_path: Path
) -> None:
    """Whether the store had others before or not: what is there is whole, and the list is not."""
    some, rest = images.take(range(4)), images.take(range(4, 7))
    for early in (False, True):
        store = tmp_path / f"s{early}"
        if early:
            score(some, colour_net("D"), [224], store)
        with pytest.raises(KeyboardInterrupt), shard_rows(1), stop_after(2, Q=224):
            score(rest if early else images, colour_net("D"), [224], store)
        count = "some images may be" if early else "5 images are"
        merge([store], merged := tmp_path / f"m{early}")
        for folder in (store, merged):
            refuses(partial(open_scores, folder), StoreError, ["net D, softmax", count])
            score(rest if early else images, colour_net("D"), [224], folder)
            assert sorted(open_scores(folder)[0].names) == sorted(images.names)


def test_shares_make_the_whole(images: ImageSet, tmp_path: Path) -> None:
    """Not before a run without --shard, which computes nothing, and has all as one run has."""
    net, opening = colour_net("D", deterministic=True), partial(open_scores, tmp_path / "s")
    counts = []
    for shard in (Partition(1, 3), Partition(2, 3), Partition(3, 3), WHOLE):
        with described_images() as described:
            [shared], summary = score(images, net, SCALES, tmp_path / "s", shard=shard)
        counts.append(len(described))
        if shard != WHOLE:
            refuses(opening, StoreError, ["--shard"])
    assert counts == [6, 4, 4, 0]
    assert summary.present == 7
    [alone], _ = score(images, net, SCALES)
    np.testing.assert_array_equal(shared.read(images.names), alone.read(images.names))
    assert opening()[0].names == list(images.names)


def test_images_that_cannot_be_read_are_not_waited_for(images: ImageSet, tmp_path: Path) -> None:
    """A store without the torn one is finished."""
    (tmp_path / "p" / "torn.png").write_bytes(b"\x89PNG")
    images = find_images([tmp_path / "p"])
    score(images, colour_net("D", BOTH), SCALES, tmp_path / "s")
    assert [len(one.names) for one in open_scores(tmp_path / "s")] == [7, 7]


def test_fused_scores_go_where_no_net_is(images: ImageSet, tmp_path: Path) -> None:
    """Not into an input, by whatever path, nor beside a net; such a store reads as without them."""
    for net in "DE":
        score(images, colour_net(net), [224], tmp_path / net)
    scores = [one for net in "DE" for one in open_scores(tmp_path / net)]
    inputs = [tmp_path / "D", tmp_path / "E"]
    into = partial(check_target, tmp_path / "D")
    refuses(partial(into, inputs), StoreError, ["stores that are fused"])
    round_about = tmp_path / "E" / ".." / "D"
    refuses(lambda: check_target(round_about, inputs), StoreError, ["stores that are fused"])
    packed = [tmp_path / "D" / "features.h5"]
    refuses(partial(into, packed), StoreError, ["stores that are fused"])
    refuses(partial(into, inputs[1:]), StoreError, ["net D"])
    writing = partial(write_fused, tmp_path / "D", scores, images.names, {})
    refuses(writing, StoreError, ["net D"])
    check_target(tmp_path / "f", inputs)
    write_fused(tmp_path / "f", scores, images.names, {})
    check_target(tmp_path / "f", inputs)
    assert [one.net for one in open_scores(tmp_path / "f")] == [FUSED]
    score(images, colour_net("D"), [224], tmp_path / "f")
    assert [one.net for one in open_scores(tmp_path / "f")] == ["D"]


@pytest.mark.parametrize(
    ("about", "S"), [({"S": "256"}, 256), ({"S": "[256, 512]"}, (256, 512)), ({}, None)]
)
def test_the_training_scale_goes_with_the_scores(
    images: ImageSet, tmp_path: Path, about: dict[str, str], S: object
) -> None:
    """As the file of the weights says it; with the classes it is in the store, and no setting."""
    net = colour_net("D")
    net.weights = replace(net.weights, about={**net.weights.about, **about})
    [found], _ = score(images, net, [224], tmp_path / "s")
    [opened] = open_scores(tmp_path / "s")
    assert found.S == opened.S == S
    assert opened.classes.keys == CLASSES
    assert not {"S", "classes"} & {*found.settings, *found.provenance}


def test_names_of_classes_are_those_given_last(images: ImageSet, tmp_path: Path) -> None:
    """Who corrects the names of a net's outputs computes nothing again."""
    net = colour_net("D")
    score(images, net, [224], tmp_path / "s")
    better = [name.upper() for name in CLASSES]
    net.weights = replace(net.weights, about={"classes": json.dumps(better)})
    with described_images() as described:
        score(images, net, [224], tmp_path / "s")
    assert described == []
    assert open_scores(tmp_path / "s")[0].classes.keys == tuple(better)


def test_each_pooling_and_scale_is_a_column(images: ImageSet, tmp_path: Path) -> None:
    """One store has them all, whatever the order in which they were asked for."""
    score(images, colour_net("D", "crops1"), [224], tmp_path / "s")
    score(images, colour_net("D", BOTH), SCALES, tmp_path / "s")
    score(images, colour_net("E", "posteriors"), [224], tmp_path / "s")
    store = FeatureStore(tmp_path / "s")
    assert [column.path for column in store.columns] == [
        "/D/fc8/crops1/Q224",
        "/D/fc8/crops1/Q256",
        "/D/fc8/softmax/Q224",
        "/D/fc8/softmax/Q256",
        "/E/fc8/posteriors/Q224",
    ]
    assert {column.outputs for column in store.columns.values()} == {CLASSES}
