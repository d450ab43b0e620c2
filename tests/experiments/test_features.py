"""Rows of a data set: views, nets and scales in their order, each described once."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from helpers.mistakes import refuses
from helpers.seams import before_batches
from PIL import Image
from support import noise, random_weights

from vggfeat._io.assets import home
from vggfeat.data.datasets.card import DatasetCard
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError, ParameterError, StoreDamaged, VggfeatError
from vggfeat.experiments import features as module
from vggfeat.experiments.features import Described, default_store, describe
from vggfeat.experiments.sources import Networks
from vggfeat.features.extractor import DenseExtractor
from vggfeat.settings import Features
from vggfeat.store.store import FeatureStore

CARD = DatasetCard(name="mine", reader="folders")
ONE = Features(layers=("pool1",), Q=(16,))
ALL = Features(nets=("D", "E"), layers=("conv1_1", "pool1"), Q=(16, 24), views=("image", "box"))
BOXES = ((1, 1, 30, 40), (21, 6, 60, 40), (4, 3, 50, 30))


def opened(net: str, *layers: str, seed: int = 0) -> DenseExtractor:
    weights = random_weights(net, ["pool1"], seed)
    return DenseExtractor(net, layers, weights=weights, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def nets() -> dict[str, DenseExtractor]:
    """Open nets D and E with random weights, up to pool1."""
    return {net: opened(net, "conv1_1", "pool1", seed=seed) for seed, net in enumerate("DE")}


@pytest.fixture
def persons(tmp_path: Path) -> ImageSet:
    """Draw two images with three persons, two of them in the first."""
    for name, seed in (("a", 1), ("b", 2)):
        Image.fromarray(noise(60, 40, seed)).save(tmp_path / f"{name}.png")
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    return ImageSet(("a#1", "a#2", "b#1"), (a, a, b), boxes=BOXES)


@pytest.fixture
def one_layer() -> DenseExtractor:
    return opened("D", "pool1")


@pytest.fixture
def counted() -> Iterator[Counter[str]]:
    """Count the images that go through each net."""
    counts: Counter[str] = Counter()

    def count(extractor: DenseExtractor, pixels: torch.Tensor) -> None:
        counts[extractor.extraction.net] += len(pixels)

    with before_batches(count):
        yield counts


def never(net: str, store: object) -> NoReturn:
    raise AssertionError(f"net {net} was opened")


def opener(nets: dict[str, DenseExtractor]) -> Networks:
    return lambda net, store: nets[net]


def rows(images: ImageSet, features: Features, extractor: DenseExtractor, **more) -> Described:
    return describe(CARD, images, features, lambda net, store: extractor, **more)


def by_hand(image: Image.Image, extractor: DenseExtractor, Q: int) -> dict[str, np.ndarray]:
    """Rescale with Pillow alone, and take what the network gives."""
    width, height = image.size
    short = min(width, height)
    resized = image.resize((width * Q // short, height * Q // short), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None]
    return {layer: d[0].numpy() for (layer, _), d in extractor.describe(pixels).items()}


def unit(row: np.ndarray) -> np.ndarray:
    return row / np.sqrt((row * row).sum())


def test_a_boxs_row_is_that_of_the_image_cut_out(
    persons: ImageSet, one_layer: DenseExtractor, tmp_path: Path
) -> None:
    """What is in a box, cut by hand and saved as a PNG of its own, has the very same features."""
    cuts = []
    for name, path, box in zip(persons.names, persons.images, BOXES, strict=True):
        pixels = np.asarray(Image.open(path))[box[1] - 1 : box[3], box[0] - 1 : box[2]]
        cuts.append(tmp_path / f"cut{name}.png")
        Image.fromarray(pixels).save(cuts[-1])
    found = rows(persons, ONE.but(views=["box"]), one_layer)
    own = rows(ImageSet(tuple(map(str, cuts)), tuple(cuts)), ONE, one_layer)
    assert np.array_equal(found.X, own.X)
    assert len(np.unique(found.X, axis=0)) == 3


def test_two_persons_share_their_image(
    persons: ImageSet, one_layer: DenseExtractor, counted: Counter
) -> None:
    """The whole image is described once, and is the same row for each person in it."""
    found = rows(persons, ONE, one_layer)
    assert counted == {"D": 2}
    assert found.summary.images == 2
    assert np.array_equal(found.X[0], found.X[1])
    assert not np.array_equal(found.X[0], found.X[2])
    assert found.images.names == persons.names


@pytest.mark.parametrize("how", ["average", "stack"])
def test_rows_are_stacked_by_view_net_and_layer(
    how: str, persons: ImageSet, nets: dict[str, DenseExtractor]
) -> None:
    """L2 of each scale, their mean or stack, then image D, image E, box D, box E, and L2 again."""
    expected = []
    for path, box in zip(persons.images, BOXES, strict=True):
        whole = Image.open(path).convert("RGB")
        cut = whole.crop((box[0] - 1, box[1] - 1, box[2], box[3]))
        parts = []
        for image in (whole, cut):
            for net in "DE":
                scales = [by_hand(image, nets[net], Q) for Q in (16, 24)]
                for layer in ("conv1_1", "pool1"):
                    normed = [unit(scale[layer]) for scale in scales]
                    parts += normed if how == "stack" else [np.mean(normed, axis=0)]
        expected.append(unit(np.concatenate(parts)))
    found = describe(CARD, persons, ALL.but(aggregate=how), opener(nets))
    assert found.X.shape == (3, 2 * 2 * 2 * 64 * (2 if how == "stack" else 1))
    np.testing.assert_allclose(found.X, expected, rtol=1e-4, atol=1e-6)
    assert list(dict.fromkeys(one.descriptor.net for one in found.columns)) == ["D", "E"]


@pytest.mark.parametrize("in_memory", [0, module.IN_MEMORY])
def test_rows_are_the_same_one_at_a_time_and_in_a_file(
    in_memory: int,
    persons: ImageSet,
    nets: dict[str, DenseExtractor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What memory does not hold is kept in a file below the cache that leaves nothing behind."""
    whole = describe(CARD, persons, ALL, opener(nets)).X
    monkeypatch.setattr(module, "IN_MEMORY", in_memory)
    monkeypatch.setattr(module, "AT_ONCE", 1)
    left = sorted(home().rglob("*"))
    found = describe(CARD, persons, ALL, opener(nets)).X
    assert isinstance(found, np.memmap) == (in_memory == 0)
    assert np.array_equal(found, whole)
    assert sorted(home().rglob("*")) == left


def test_a_disk_without_room_for_the_rows_is_told_before_they_are_written(
    persons: ImageSet, one_layer: DenseExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    full = shutil.disk_usage(home().parent)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    named = ["room for 10 B", "VGGFEAT_HOME"]
    refuses(lambda: rows(persons, ONE, one_layer), DataError, named)


@pytest.mark.parametrize(
    ("features", "kind", "named"),
    [
        (Features(layers=("fc8",), pool="crops5"), ParameterError, ["'crops5'", "posteriors"]),
        (ONE.but(views=["box"]), DataError, ["boxes"]),
    ],
)
def test_what_has_no_rows_is_refused_before_a_net_is_opened(
    features: Features, kind: type[VggfeatError], named: list[str], persons: ImageSet
) -> None:
    plain = ImageSet(("a",), persons.images[:1])
    refuses(lambda: describe(CARD, plain, features, never), kind, named)


def test_what_is_there_is_not_computed_again(
    persons: ImageSet, nets: dict[str, DenseExtractor], counted: Counter, tmp_path: Path
) -> None:
    """A second run computes nothing, another subset neither; a named store needs no net at all."""
    told = []
    first = describe(CARD, persons, ALL, opener(nets), folder=tmp_path / "f", progress=told.append)
    assert (first.summary.images, first.summary.computed) == (10, 10)
    assert told[-1].images == told[-1].computed == 10
    assert counted == {"D": 10, "E": 10}  # two images and three boxes, at two scales
    again = describe(CARD, persons, ALL, never, folder=tmp_path / "f")
    assert np.array_equal(again.X, first.X)
    assert (again.summary.present, again.summary.computed) == (10, 0)
    only = describe(CARD, persons, ALL.but(nets=["E"]), never, folder=tmp_path / "f")
    both = unit(np.concatenate([first.X[0, 128:256], first.X[0, 384:]]))
    np.testing.assert_allclose(only.X[0], both, rtol=1e-5)


def test_damaged_descriptors_are_refused(
    persons: ImageSet, one_layer: DenseExtractor, tmp_path: Path
) -> None:
    """No rows are made of numbers that are not those that were written."""
    how = {"folder": tmp_path / "store"}
    rows(persons, ONE, one_layer, **how)
    [values] = FeatureStore(how["folder"]).read().values()
    [shard] = (tmp_path / "store" / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    content[content.index(values[0].tobytes())] ^= 1
    shard.write_bytes(content)
    again = partial(describe, CARD, persons, ONE, never, **how)
    refuses(again, StoreDamaged, [shard.name, "store repair"])


def test_default_stores_are_found_again_and_kept_apart(
    persons: ImageSet, one_layer: DenseExtractor, nets: dict[str, DenseExtractor], counted: Counter
) -> None:
    """A box can come before its image; other weights and places have other folders.

    More layers of the same weights have the same: their columns may lie in one store.
    """
    rows(persons, ONE.but(views=["box"]), one_layer)
    assert counted == {"D": 3}
    both = rows(persons, ONE.but(views=["image", "box"]), one_layer)
    assert counted == {"D": 5}
    assert len(both.folders) == 2
    elsewhere = CARD.model_copy(update={"root": "/elsewhere"})
    places = {
        default_store(card, extractor)
        for card in (CARD, elsewhere)
        for extractor in (one_layer, *nets.values())
    }
    assert len(places) == 4


def test_an_unreadable_image_has_no_row(
    persons: ImageSet, one_layer: DenseExtractor, tmp_path: Path
) -> None:
    """The persons of a damaged image, and one whose box lies outside, are left out and named."""
    Image.fromarray(noise(60, 40, 3)).save(tmp_path / "c.png")
    more = ImageSet(
        (*persons.names, "c#1", "c#2"),
        (*persons.images, tmp_path / "c.png", tmp_path / "c.png"),
        boxes=(*BOXES, (90, 1, 99, 9), (1, 1, 9, 9)),
    )
    Path(persons.images[0]).write_bytes(b"")
    found = rows(more, ONE.but(views=["image", "box"]), one_layer)
    assert found.images.names == ("b#1", "c#2")
    assert sorted(found.failed) == ["a", "a#1", "a#2", "c#1"]
    assert "outside" in found.failed["c#1"]
    assert len(found.X) == 2


def test_a_class_that_is_lost_is_named(persons: ImageSet, one_layer: DenseExtractor) -> None:
    """A class of which no image can be read, and a data set of none, end in an error."""
    labelled = ImageSet(("a", "b"), (persons.images[0], persons.images[2]), ("cat", "dog"))
    for path, named in ((persons.images[2], "dog"), (persons.images[0], "empty")):
        Path(path).write_bytes(b"")
        refuses(lambda: rows(labelled, ONE, one_layer), DataError, [named])
