"""Posteriors averaged, ranked and counted, against values worked by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.colours import CLASSES, colour_weights
from helpers.mistakes import refuses

from vggfeat.classification.classes import chosen, classes_of, ilsvrc_classes, named
from vggfeat.classification.evaluate import count_errors, evaluate, ranks, top_k
from vggfeat.classification.modes import find_pools
from vggfeat.classification.scores import (
    Scores,
    by_net,
    open_scores,
    posteriors,
    same_classes,
    same_images,
    write_fused,
)
from vggfeat.classification.validation import Validation
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import (
    DataError,
    FingerprintMismatch,
    ParameterError,
    StoreError,
    WeightsError,
)
from vggfeat.nets.weights import Weights
from vggfeat.settings import NetEvaluation
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.export import export, pack
from vggfeat.store.store import FeatureStore

NAMES = ["a", "b", "c"]
pytestmark = pytest.mark.usefixtures("tiny_nets")


def kept(
    net: str,
    values: Mapping[tuple[str, int], np.ndarray],
    names: Sequence[str] = NAMES,
    classes: Sequence[str] = ("x", "y"),
    ids: Mapping[str, int] | None = None,
    folder: Path | None = None,
) -> Scores:
    """Keep posteriors (N, C) of some poolings and scales in a store."""
    pools = tuple(dict.fromkeys(pool for pool, _ in values))
    scales = tuple(dict.fromkeys(Q for _, Q in values))
    store = FeatureStore(folder, "a")
    arrays = {Descriptor(net, "fc8", *key): numbers for key, numbers in values.items()}
    store.add_columns([Column(name, {"weights": net}, 2, tuple(classes)) for name in arrays])
    store.begin(names)
    numbers = [(ids or {}).get(name, 1 + NAMES.index(name)) for name in names]
    pairs = np.array([(number, 7) for number in numbers])
    store.write(names, pairs, pairs, arrays)
    store.finish(names, {})
    return Scores(store, net, pools, scales)


def column(*first: float) -> np.ndarray:
    """Posteriors of two classes by those of the first."""
    return np.array([[p, 1 - p] for p in first])


def test_a_net_is_the_mean_of_its_scales_and_modes() -> None:
    """Two scales, dense and multi-crop: the first class has the mean of four numbers."""
    scores = kept(
        "D",
        {
            ("softmax", 256): column(0.1, 0.5, 1.0),
            ("crops5", 256): column(0.3, 0.5, 0.0),
            ("softmax", 384): column(0.5, 0.5, 0.0),
            ("crops5", 384): column(0.7, 0.3, 0.0),
        },
    )
    np.testing.assert_allclose(scores.read(NAMES), column(0.4, 0.45, 0.25), rtol=1e-6)
    dense = replace(scores, pools=("softmax",), scales=(384,))
    np.testing.assert_allclose(dense.read(["c", "a"]), column(0.0, 0.5), atol=1e-7)


DENSE = {("softmax", 224): column(0.2), ("softmax", 256): column(0.6)}
SHORT = {("softmax", 224): column(0.2)}
CROPS = {("crops5", 224): column(1.0)}


@pytest.mark.parametrize(
    ("stores", "expected"),
    [
        ([("D", DENSE)], 0.4),
        ([("D", SHORT), ("D", DENSE)], 0.4),  # a scale in two stores counts once
        ([("D", DENSE), ("D", CROPS)], 0.7),  # scales are averaged before modes
        ([("D", DENSE), ("D", CROPS), ("E", SHORT)], 0.45),  # a net of two modes counts as one
    ],
)
def test_stores_of_a_net_are_one(stores: list[tuple[str, dict]], expected: float) -> None:
    """Of one image, the posterior of the first class is the mean over nets, modes, scales."""
    scores = [kept(net, values, names=["a"]) for net, values in stores]
    [found] = posteriors(scores, ["a"])
    np.testing.assert_allclose(found, column(expected), rtol=1e-6)


def test_fusion_is_the_mean_of_the_nets_whatever_their_scales_and_order() -> None:
    """A net of one scale counts as much as one of two; rows are matched by name."""
    one = kept("D", {("softmax", 256): column(0.2, 0.4, 0.6)})
    scales = {("softmax", 256): column(1.0, 0.0, 0.5), ("softmax", 384): column(0.0, 0.0, 0.5)}
    two = kept("E", scales, names=["c", "a", "b"])
    names = same_images([one, two])
    assert names == NAMES
    [block] = posteriors([one, two], names)
    np.testing.assert_allclose(block, column(0.1, 0.45, 0.55), rtol=1e-6)
    small = np.concatenate(list(posteriors([one, two], names, rows=2)))
    np.testing.assert_array_equal(small, block)


def test_top_k_and_errors_by_hand() -> None:
    """Of four images one is right at once, one among five, one tied and late, one sixth."""
    rows = np.array(
        [
            [0.40, 0.30, 0.10, 0.10, 0.05, 0.05],  # 0: right
            [0.40, 0.30, 0.10, 0.10, 0.06, 0.04],  # 4: the fifth
            [0.30, 0.30, 0.10, 0.10, 0.10, 0.10],  # 1: as likely as 0, which comes first
            [0.25, 0.25, 0.20, 0.15, 0.10, 0.05],  # 5: the sixth
        ]
    )
    labels = np.array([0, 4, 1, 5])
    assert top_k(rows, 2).tolist() == [[0, 1]] * 4
    assert top_k(rows, 9)[1].tolist() == [0, 1, 2, 3, 4, 5]
    assert ranks(rows, labels).tolist() == [0, 4, 1, 5]
    errors = count_errors([rows[:3], rows[3:]], labels, 6)
    assert (errors.top1, errors.top5, errors.images) == (0.75, 0.25, 4)
    assert errors.tested.tolist() == [1, 1, 0, 0, 1, 1]
    assert errors.wrong1.tolist() == [0, 1, 0, 0, 1, 1]
    assert errors.wrong5.tolist() == [0, 0, 0, 0, 0, 1]


def test_ranks_agree_with_top_k_under_ties() -> None:
    """Of posteriors of few values the true class's rank is its place in the list."""
    rng = np.random.default_rng(0)
    rows, labels = rng.integers(0, 4, (200, 12)) / 4, rng.integers(0, 12, 200)
    order = top_k(rows, 12)
    assert [order[i].tolist().index(labels[i]) for i in range(200)] == ranks(rows, labels).tolist()
    none = np.array([], np.int64)
    refuses(lambda: count_errors([], none, 6), DataError, ["image"])  # nothing by nothing


def test_classes_are_in_the_order_of_the_authors_nets() -> None:
    """Known anchors of the 1,000, sorted by synset; a card's synsets stand beside the names."""
    classes = ilsvrc_classes()
    assert len(classes) == 1000
    assert list(classes.keys) == sorted(classes.keys)
    for at, key, name in (
        (0, "n01440764", "tench"),
        (1, "n01443537", "goldfish"),
        (281, "n02123045", "tabby"),
        (817, "n04285008", "sports car"),
        (999, "n15075141", "toilet tissue"),
    ):
        assert (classes.keys[at], classes.names[at]) == (key, name)
    assert named(classes.keys) == classes
    assert named(["n02123045", "my cat"]).names == ("tabby", "my cat")


def of_file(path: Path, keys: Sequence[str] = CLASSES) -> Weights:
    """Make weights of a file that does not say what its outputs are called."""
    return replace(colour_weights("D", keys), origin=str(path), about={})


def test_names_are_the_files_own_or_lie_beside_it(tmp_path: Path) -> None:
    """classes.txt serves a file that has none; as many names as outputs, or it is said."""
    assert classes_of(colour_weights("D")).keys == CLASSES
    other, listed = of_file(tmp_path / "net.pth"), tmp_path / "classes.txt"
    (tmp_path / "net.pth").touch()
    refuses(lambda: classes_of(other), WeightsError, ["6 outputs", "classes.txt"])
    for text in ("u\nv\nw\nx\ny\nz\n", "\ufeffu\r\nv\r\nw\r\nx\r\ny\r\nz\r\n"):  # and of Windows
        listed.write_bytes(text.encode())
        assert classes_of(other).names == tuple("uvwxyz")
    for text, said in (("u\nv\n", ["2 classes"]), ("u\nv\nw\nx\nv\nz", ["'v'", "2 and 5"])):
        listed.write_text(text)
        refuses(lambda: classes_of(other), WeightsError, ["classes.txt", *said])
    listed.unlink()
    thousand = of_file(tmp_path / "net.pth", ilsvrc_classes().keys)
    assert classes_of(thousand) == ilsvrc_classes()


def test_files_of_a_folder_have_classes_of_their_own(tmp_path: Path) -> None:
    """A list that has a file's name counts before the one for all, and leaves the others be."""
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    for name in ("whole.pth", "own.pth"):
        (tmp_path / name).touch()
    own = of_file(tmp_path / "own.pth")
    thousand = of_file(tmp_path / "whole.pth", ilsvrc_classes().keys)
    mentions = ["1,000 outputs", "names 6", "whole.classes.txt"]
    refuses(lambda: classes_of(thousand), WeightsError, mentions)
    listed = (tmp_path / "classes.txt").rename(tmp_path / "own.classes.txt")
    assert classes_of(own).keys == CLASSES
    assert classes_of(thousand) == ilsvrc_classes()
    listed.write_text("cat\n")
    refuses(lambda: classes_of(own), WeightsError, ["own.classes.txt"])


def test_classes_are_asked_for_by_key_or_by_name() -> None:
    """Each is found once; of what is not there the error says what is, of many classes some."""
    keys = ilsvrc_classes().keys
    assert chosen(["tabby", "n02123045", "n01440764"], keys, "a net") == ["n02123045", "n01440764"]
    assert chosen(["my cat"], ["dog", "my cat"], "a net") == ["my cat"]
    said = ["'tench', ", "(1,000 in all)", "'cow'"]
    refuses(lambda: chosen(["cow"], keys, "a net"), ParameterError, said)
    few = ["n02123045", "dog"]
    refuses(lambda: chosen(["cow"], few, "a net"), ParameterError, ["'tabby', 'dog'"])


@pytest.mark.parametrize(
    ("given", "pools"),
    [
        ({}, ("softmax",)),
        ({"mode": "multicrop"}, ("crops5",)),
        ({"mode": "both", "grid": 3}, ("softmax", "crops3")),
        ({"mode": "both", "locations": "posteriors"}, ("posteriors", "crops5")),
    ],
)
def test_modes_are_poolings(given: dict, pools: tuple[str, ...]) -> None:
    """What is stored for each mode, and nothing else."""
    assert find_pools(NetEvaluation(**given)) == pools


def test_stores_that_do_not_go_together_are_refused() -> None:
    """Of other images, by name or by content, of other classes, or of features."""
    values = {("softmax", 256): column(0.2, 0.4, 0.6)}
    one = kept("D", values)
    fewer = kept("E", {("softmax", 256): column(0.2, 0.4)}, names=["a", "c"])
    refuses(lambda: same_images([one, fewer]), StoreError, ["net E", "Q = 256", "'b'"])
    changed = kept("E", values, ids={"a": 9})
    refuses(lambda: same_images([one, changed]), StoreError, ["'a'"])
    assert same_classes([one, one]) == named(["x", "y"])
    other, silent = kept("E", values, classes=["y", "x"]), kept("D", values, classes=[])
    refuses(lambda: same_classes([one, other]), StoreError, ["Net E", "net D"])
    refuses(lambda: same_classes([silent]), StoreError, ["classes"])
    features = FeatureStore(None, "a")
    features.add_columns([Column(Descriptor("D", "fc7", "average", 256), {}, 2)])
    for pool in ("average", "softmax"):
        mentions = ["net D", "average of fc7"]
        refuses(lambda pool=pool: Scores(features, "D", (pool,), (256,)), StoreError, mentions)


def test_a_net_with_other_weights_is_another_net(tmp_path: Path) -> None:
    """Two scales of one store that were computed with different weights count as two nets."""
    kept("D", {("softmax", 256): column(0.2, 0.4, 0.6)}, folder=tmp_path / "s")
    store = FeatureStore(tmp_path / "s", "a")
    name = Descriptor("D", "fc8", "softmax", 384)
    store.add_columns([Column(name, {"weights": "other"}, 2, ("x", "y"))])
    stamps = np.zeros((3, 2), np.int64)
    store.write(NAMES, store.identify(NAMES), stamps, {name: column(0.6, 0.4, 0.2)})
    store.finish(NAMES, {})
    opened = open_scores(tmp_path / "s")
    assert [(one.scales, one.weights) for one in opened] == [((256,), "D"), ((384,), "other")]
    assert [len(net) for net in by_net(opened)] == [1, 1]


def test_fused_scores_are_a_store_again(tmp_path: Path) -> None:
    """They are packed, exported and fused as others are; a second time nothing is written."""
    one = kept("D", {("softmax", 256): column(0.2, 0.4, 0.6)}, folder=tmp_path / "d")
    two = kept("E", {("softmax", 256): column(0.6, 0.4, 0.2)}, folder=tmp_path / "e")
    pack(tmp_path / "e", tmp_path / "e.h5")
    scores = [*open_scores(tmp_path / "d"), *open_scores(tmp_path / "e.h5")]
    for _ in range(2):
        store = write_fused(tmp_path / "f", scores, NAMES, {"fused": "here"})
        assert len(list((tmp_path / "f" / "shards").iterdir())) == 1
    assert {name.path: rows.shape for name, rows in store.read().items()} == {
        "/fused/fc8/softmax/Q0": (3, 2)
    }
    [fused] = open_scores(tmp_path / "f")
    assert fused.classes == named(["x", "y"])
    assert fused.provenance == {"fused": "here"}
    np.testing.assert_allclose(fused.read(NAMES), column(0.4, 0.4, 0.4), rtol=1e-6)
    [again] = posteriors([fused, one], NAMES)
    np.testing.assert_allclose(again, column(0.3, 0.4, 0.5), rtol=1e-6)
    assert export(tmp_path / "f", tmp_path / "f.csv") == 3
    assert two.names == NAMES
    other = [kept("E", {("softmax", 256): column(0.1, 0.1, 0.1)})]
    again = partial(write_fused, tmp_path / "f", other, NAMES, {})
    refuses(again, FingerprintMismatch, ["/fused/fc8/softmax/Q0"])


def test_a_result_has_errors_by_class_and_what_is_behind_them() -> None:
    """Two classes have no top-5 error; an image without scores is told; posteriors are watched."""
    scores = kept("D", {("softmax", 256): column(0.9, 0.2, 0.3)}, classes=["x", "n02123045"])
    images = ImageSet((*NAMES, "d"), (Path(),) * 4, labels=("x", "x", "n02123045", "x"))
    data = Validation(images, np.array([0, 0, 1, 0]), scores.classes, Path("here"))
    seen: list[str] = []
    result = evaluate([scores], data, watch=lambda names, block: seen.extend(names))
    told = result.to_dict()
    top1 = {"title": "top-1 error", "value": 1 / 3, "spread": None, "paper": [], "reference": False}
    assert told["measures"]["top1"] == top1
    assert told["measures"]["top5"]["value"] is None
    assert told["tables"]["classes"] == [
        {"class": "x", "key": "x", "images": 2, "top1_errors": 1},
        {"class": "tabby", "key": "n02123045", "images": 1, "top1_errors": 0},
    ]
    assert told["partial"] == ["1 image has no scores"]
    assert told["settings"] == {"data": "here", "images": 3, "nets": ["D, softmax at Q = 256"]}
    assert seen == NAMES
