"""Stores that others made: recognised by what the images are, refused where they differ."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from helpers.cli import run
from helpers.colours import two_classes
from helpers.mistakes import refuses
from helpers.networks import write_weights
from helpers.seams import before_batches
from PIL import Image
from storing import make_store
from support import noise, random_weights

from vggfeat.data.datasets.card import DatasetCard
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError, ImageError, StoreError
from vggfeat.experiments.features import Described, describe
from vggfeat.experiments.predict import check_columns
from vggfeat.experiments.sources import open_source, stored_settings
from vggfeat.features.extractor import DenseExtractor
from vggfeat.recipes.quality import read_quality
from vggfeat.settings import Execution, Features
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.export import pack
from vggfeat.store.store import FeatureStore

CARD = DatasetCard(name="mine", reader="folders")
SETTINGS = "--layer conv1_1 --layer pool1 --pool average+max --Q 16 --Q 24"
FEATURES = Features(layers=("conv1_1", "pool1"), pool="average+max", Q=(16, 24), weights="embedded")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a folder of images, and extract it as people do, with names below the folder."""
    root = tmp_path_factory.mktemp("made")
    (root / "tree" / "JPEGImages").mkdir(parents=True)
    for i in range(4):
        Image.fromarray(noise(40 + i, 32, i)).save(root / "tree" / "JPEGImages" / f"00{i}.png")
    extract(root, "store")
    return root


@pytest.fixture
def images(made: Path, tmp_path: Path) -> ImageSet:
    """Name the images as a data set does, not as their files are."""
    shutil.copytree(made / "tree", tmp_path / "tree")
    paths = sorted((tmp_path / "tree" / "JPEGImages").iterdir())
    return ImageSet(tuple(path.stem for path in paths), tuple(paths))


@pytest.fixture
def store(made: Path) -> Path:
    return made / "store"


def extract(root: Path, out: str, weights: str = "embedded") -> Path:
    words = ("--weights", weights, "--precision", "fp32", "--out", root / out, "-q")
    run("extract", root / "tree", *SETTINGS.split(), *words)
    return root / out


def never(net: str, store: object) -> NoReturn:
    raise AssertionError(f"net {net} was opened")


def network(net: str, store: object) -> DenseExtractor:
    """Open a net as `extract` does, here."""
    layers, pool = FEATURES.layers, FEATURES.pool
    return DenseExtractor(net, layers, pool=pool, weights="embedded", precision="fp32")


def read(images: ImageSet, folder: Path, features: Features = FEATURES) -> Described:
    return describe(CARD, images, features, never, folder=folder)


def stacked(store: Path, features: Features, order: Sequence[int] = range(4)) -> np.ndarray:
    """Read raw descriptors of images of a store, and stack what is asked for."""
    own = FeatureStore(store)
    names = [next(name for name in own.names if name.endswith(f"00{i}.png")) for i in order]
    columns = [
        Descriptor("D", layer, pool, Q)
        for layer in features.layers
        for pool in features.pool.split("+")
        for Q in features.Q
    ]
    return np.concatenate([own.read([column], names)[column] for column in columns], axis=1)


@pytest.mark.parametrize(
    "some",
    [
        FEATURES.but(aggregate="stack"),
        FEATURES.but(layers=["pool1"], pool="max", Q=[24]),
        FEATURES.but(layers=["pool1", "conv1_1"], pool="max", Q=[16]),  # not the store's order
    ],
)
def test_images_are_known_by_content(images: ImageSet, store: Path, some: Features) -> None:
    """Of what is asked for, in that order, the store's rows come under the data set's names."""
    order = [2, 0, 3, 1]
    found = read(images.take(order), store, some.but(normalize="none"))
    assert np.array_equal(found.X, stacked(store, some, order))
    assert found.images.names == ("002", "000", "003", "001")
    assert (found.summary.computed, found.summary.present) == (0, 4)
    assert found.provenance["D"]["weights"]["source"] == "embedded"
    layers = [column.descriptor.layer for column in found.columns]
    assert tuple(dict.fromkeys(layers)) == some.layers


def test_a_packed_store_serves_as_its_folder_does(
    images: ImageSet, store: Path, tmp_path: Path
) -> None:
    """Rows and provenance are the same; what it lacks, or has of other weights, is an error."""
    pack(store, packed := tmp_path / "packed.h5")
    one, other = read(images, packed), read(images, store)
    assert np.array_equal(one.X, other.X)
    assert one.provenance == other.provenance
    assert stored_settings(packed, Features(), {}) == stored_settings(store, Features(), {})
    for lacking in ({"nets": ["E"]}, {"Q": [16, 32]}, {"layers": ["conv1_2"]}):
        asked = partial(read, images, packed, FEATURES.but(**lacking))
        refuses(asked, DataError, ["0 of the 4", "vggfeat extract"])
    asked = partial(read, images, packed, FEATURES.but(weights="authors"))
    refuses(asked, StoreError, ["weights: stored", "asked authors"])


def test_what_a_store_lacks_is_computed_into_it(
    images: ImageSet, tmp_path: Path, draw: Callable[..., Path]
) -> None:
    """A new image, scale or layer costs that alone, under the names that the store has."""
    folder = extract(tmp_path, "f")
    before = FeatureStore(folder).names
    new = draw("tree/JPEGImages/009.png", seed=9)
    more = ImageSet((*images.names, "009"), (*images.images, new))
    found = describe(CARD, more, FEATURES, network, folder=folder)
    assert (found.summary.computed, found.summary.present) == (1, 4)
    assert set(FeatureStore(folder).names) == {*before, "009"}
    scales = FEATURES.but(Q=[16, 32])
    found = describe(CARD, more, scales, network, folder=folder)
    assert (found.summary.computed, found.summary.present) == (5, 0)
    headers = [header for header in FeatureStore(folder).index.headers if len(header.names) == 5]
    assert {column.Q for header in headers for column in header.columns} == {32}
    assert len(read(more, folder, scales.but(Q=[16, 24, 32])).X) == 5


def test_what_is_there_is_read_while_a_scale_is_added(images: ImageSet, tmp_path: Path) -> None:
    """Equal copies under other names hide no row of the store, also if the run is killed."""
    folder = extract(tmp_path, "f")
    shutil.copytree(tmp_path / "tree", tmp_path / "copy")
    paths = sorted((tmp_path / "copy" / "JPEGImages").iterdir())
    for number, path in enumerate(paths):
        os.utime(path, ns=(0, number))
    copies = ImageSet(images.names, tuple(paths))
    before, seen = stacked(folder, FEATURES), []

    def look(*_: object) -> None:
        assert len(FeatureStore(folder).names) == 4
        seen.append(stacked(folder, FEATURES))

    with before_batches(look):
        found = describe(CARD, copies, FEATURES.but(Q=[16, 24, 32]), network, folder=folder)
    assert (found.summary.computed, found.summary.present) == (4, 0)
    assert seen
    for values in (*seen, stacked(folder, FEATURES)):
        np.testing.assert_array_equal(values, before)
    assert read(images, folder).summary.present == 4  # the first files are known as well


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"flip": False}, "flip"),
        ({"exif": False}, "exif"),
        ({"normalize": "locations"}, "locations"),
        ({"weights": "authors"}, "weights"),
    ],
)
def test_other_settings_are_refused(
    setting: dict[str, object], named: str, images: ImageSet, store: Path
) -> None:
    """Each that differs has a line, as a terminal shows them."""
    _, *differing, last = refuses(
        lambda: read(images, store, FEATURES.but(**setting)), StoreError
    ).lines
    assert any(line.startswith(f"  {named}: stored ") for line in differing)
    assert "stored" in last


def test_a_model_of_other_settings_is_refused() -> None:
    extractor = network("D", None)
    column = extractor.columns([16])[0]
    trained = replace(column, settings={**column.settings, "weights": "0", "flip": False})
    _, *differing, _ = refuses(
        lambda: check_columns(extractor, [trained]), StoreError, [column.descriptor.path]
    ).lines
    assert [line.split(":")[0].strip() for line in differing] == ["weights", "flip"]
    check_columns(extractor, [column])


@pytest.mark.parametrize("names", [("a", "b"), ("a", "a")])
def test_a_file_of_weights_is_compared_by_its_numbers(
    images: ImageSet, tmp_path: Path, names: tuple[str, str]
) -> None:
    """Whether another file is asked for, or the same one has other numbers now."""
    first, second = (FEATURES.but(weights=str(tmp_path / f"{name}.safetensors")) for name in names)
    write_weights(Path(first.weights[0]), random_weights("D", ["pool1"], seed=0))
    folder = extract(tmp_path, "f", first.weights[0])
    assert len(read(images, folder, first).X) == 4
    write_weights(Path(second.weights[0]), random_weights("D", ["pool1"], seed=1))
    refuses(lambda: read(images, folder, second), StoreError, ["weights: stored"])


def test_unreadable_images_stay_out_and_mended_ones_come_in(
    images: ImageSet, tmp_path: Path
) -> None:
    """What could not be read is no gap of the store; once it can be read, it is one."""
    path = Path(images.images[2])
    good = path.read_bytes()
    path.write_bytes(b"")
    folder = extract(tmp_path, "f")
    found = read(images, folder)
    assert found.images.names == ("000", "001", "003")
    assert found.failed == {"002": "the file is empty"}
    strict = {"folder": folder, "execution": Execution(on_bad_image="error")}
    refuses(lambda: describe(CARD, images, FEATURES, never, **strict), ImageError, ["002"])
    path.write_bytes(good)
    found = describe(CARD, images, FEATURES, network, folder=folder)
    assert (found.summary.computed, found.summary.present) == (1, 3)


def test_what_is_no_store_has_no_settings(store: Path, tmp_path: Path) -> None:
    stored = stored_settings(store, FEATURES, {})
    assert stored.pop("weights")[0].startswith("D=")
    assert FEATURES.but(**stored) == FEATURES
    assert (stored["nets"], stored["Q"]) == (("D",), (16, 24))
    assert stored_settings(tmp_path, FEATURES, {}) == {}
    with pytest.raises(AssertionError, match="net D was opened"):
        open_source(ImageSet((), ()), "D", FEATURES, tmp_path, never)


def ragged(folder: Path, *paths: str) -> Path:
    """Make a store of these columns alone, as several runs of `vggfeat extract` do."""
    settings = {"weights": "0", "flip": True, "exif": True, "locations": "raw"}
    columns = [Column(Descriptor.parse(path), settings, 5) for path in paths]
    make_store(folder, columns)
    return folder


@pytest.fixture
def of_one_net(tmp_path: Path) -> Path:
    columns = "pool5/average/Q64", "pool5/average/Q96", "pool5/max/Q96", "fc7/average/Q96"
    return ragged(tmp_path / "f", *(f"/D/{column}" for column in columns))


@pytest.mark.parametrize(
    ("asked", "layers", "pool", "scales"),
    [
        ({"layers": ["features.30"], "pool": "average"}, ("pool5",), "average", (64, 96)),
        ({"layers": ["fc7"]}, ("fc7",), "average", (96,)),
        ({"Q": [64]}, ("pool5",), "average", (64,)),
        ({"Q": [96], "pool": "max"}, ("pool5",), "max", (96,)),
    ],
)
def test_what_is_not_asked_for_is_what_a_store_has(
    of_one_net: Path, asked: dict, layers: tuple[str, ...], pool: str, scales: tuple[int, ...]
) -> None:
    stored = stored_settings(of_one_net, Features(), asked)
    assert (stored["layers"], stored["pool"], stored["Q"]) == (layers, pool, scales)


def test_what_a_store_has_not_all_of_is_to_be_named(of_one_net: Path) -> None:
    """Nothing is chosen, and no column made, that is neither there nor asked for."""

    def lines(**asked: object) -> list[str]:
        refused = refuses(lambda: stored_settings(of_one_net, Features(), asked), StoreError)
        return refused.lines

    _, *stored, last = lines()
    assert sorted(stored) == [
        "  net D, fc7, average: Q = 96",
        "  net D, pool5, average: Q = 64, 96",
        "  net D, pool5, max: Q = 96",
    ]
    assert "--layer and --pool and --Q" in last
    _, *stored, last = lines(layers=["pool5"])
    assert "--pool and --Q" in last
    assert "--layer" not in last
    assert "fc7" not in "".join(stored)
    assert "--pool and --Q" in lines(layers=["fc6"])[-1]
    named = {"layers": ["conv1_1"], "pool": "max", "Q": [32]}
    assert stored_settings(of_one_net, Features(), named)["nets"] == ("D",)


def test_nets_that_have_not_the_same_are_to_be_named(tmp_path: Path) -> None:
    """The columns of one net are not made of another."""
    store = ragged(tmp_path / "f", "/D/pool5/average/Q64", "/E/pool5/average/Q96")
    named = ["net E, pool5, average: Q = 96", "--Q"]
    refuses(lambda: stored_settings(store, Features(), {}), StoreError, named)
    stored = stored_settings(store, Features(), {"nets": ["E"]})
    assert (stored["nets"], stored["Q"]) == (("E",), (96,))
    assert stored_settings(store, Features(), {"Q": [64]})["nets"] == ("D",)


def test_svm_of_a_store_that_has_not_all(tmp_path: Path) -> None:
    """The command ends with what there is, a line each, and leaves the store as it was."""
    columns = ("/D/pool1/average/Q16", "/D/pool1/average/Q24", "/D/pool1/max/Q24")
    store = ragged(tmp_path / "f", *columns)
    words = ("svm", "--dataset", two_classes(tmp_path / "set"), "--features", store)
    printed = run(*words, status=5).err
    assert "\n  net D, pool1, average: Q = 16, 24\n" in printed
    assert "--pool and --Q." in printed
    assert {one.path for one in FeatureStore(store).columns} == set(columns)


def test_svm_on_a_store_on_a_packed_one_and_by_a_quality(tmp_path: Path) -> None:
    """Of the folder that was packed all is the same; a quality is computed into the store."""
    two_classes(tmp_path / "set", 4)
    words = ("--layer", "pool1", "--Q", "16", "--weights", "embedded", "--out", "st", "-q")
    run("extract", "set", *words, cwd=tmp_path)
    run("store", "pack", "st", "st.h5", cwd=tmp_path)
    words = ("svm", "--dataset", "set", "--jobs", "1", "--json", "-q", "--features")
    folder, packed = (run(*words, where, cwd=tmp_path).json for where in ("st", "st.h5"))
    assert "D: embedded (" in packed["settings"]["weights"][0]
    for name in ("measures", "tables", "settings"):
        assert packed[name] == folder[name]
    asked = run(*words, "st", "--quality", "fast", "--Q", "40", cwd=tmp_path).json["settings"]
    fast = read_quality("fast")
    assert (asked["layers"], asked["pool"]) == ([*fast.layers], fast.pool)
    assert len(FeatureStore(tmp_path / "st").columns) == 1 + len(fast.layers) * len(
        fast.pool.split("+")
    )
