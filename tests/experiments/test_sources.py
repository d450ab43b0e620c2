"""Stores that others made: recognised by what the images are, refused where they differ."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from helpers.cli import run
from helpers.mistakes import refuses
from helpers.seams import before_batches
from PIL import Image
from storing import make_store
from support import noise, random_weights

from vggfeat.data.datasets.card import DatasetCard
from vggfeat.data.imageset import ImageSet, find_images
from vggfeat.errors import DataError, ImageError, StoreError
from vggfeat.experiments.features import Described, describe
from vggfeat.experiments.predict import check_columns
from vggfeat.experiments.quality import preset
from vggfeat.experiments.sources import open_source, stored_settings
from vggfeat.features.extractor import DenseExtractor
from vggfeat.nets.formats import write
from vggfeat.settings import Execution, Features
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.export import pack
from vggfeat.store.store import FeatureStore

CARD = DatasetCard(name="mine", reader="folders")
SETTINGS = [
    "--layer",
    "conv1_1",
    "--layer",
    "pool1",
    "--pool",
    "average+max",
    "--Q",
    "16",
    "--Q",
    "24",
]
FEATURES = Features(layers=("conv1_1", "pool1"), pool="average+max", Q=(16, 24), weights="embedded")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a folder of images, and extract it as people do, with names below the folder."""
    root = tmp_path_factory.mktemp("made")
    (root / "tree" / "JPEGImages").mkdir(parents=True)
    for i in range(4):
        Image.fromarray(noise(40 + i, 32, i)).save(root / "tree" / "JPEGImages" / f"00{i}.png")
    extract(root, "store", "--weights", "embedded")
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


def extract(root: Path, out: str, *more: str) -> Path:
    run("extract", root / "tree", *SETTINGS, "--out", root / out, *more, "-q")
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


def test_images_are_known_by_content(images: ImageSet, store: Path) -> None:
    """Under the data set's names come the rows that the store has under its own, without a net."""
    found = read(
        images.take([2, 0, 3, 1]), store, FEATURES.but(normalize="none", aggregate="stack")
    )
    assert np.array_equal(found.X, stacked(store, FEATURES, (2, 0, 3, 1)))
    assert found.images.names == ("002", "000", "003", "001")
    assert (found.summary.computed, found.summary.present) == (0, 4)
    assert found.provenance["D"]["weights"]["source"] == "embedded"


def test_a_part_of_what_a_store_has_can_be_asked_for(images: ImageSet, store: Path) -> None:
    """One layer, pooling and scale of two of each are those very columns."""
    one = FEATURES.but(layers=["pool1"], pool="max", Q=[24], normalize="none")
    assert np.array_equal(read(images, store, one).X, stacked(store, one))


def test_a_packed_store_serves_as_well(images: ImageSet, store: Path, tmp_path: Path) -> None:
    """A file that was packed gives the rows of its folder; what it lacks is an error."""
    pack(store, tmp_path / "packed.h5")
    assert np.array_equal(read(images, tmp_path / "packed.h5").X, read(images, store).X)
    for lacking in ({"nets": ["E"]}, {"Q": [16, 32]}, {"layers": ["conv1_2"]}):
        with pytest.raises(DataError, match=r"0 of the 4 images.*vggfeat extract IMAGES --net"):
            read(images, tmp_path / "packed.h5", FEATURES.but(**lacking))


def test_a_packed_store_says_what_made_it(images: ImageSet, store: Path, tmp_path: Path) -> None:
    """Its weights are named in results, and others by name are refused as those of its folder."""
    pack(store, packed := tmp_path / "packed.h5")
    assert read(images, packed).provenance == read(images, store).provenance
    assert stored_settings(packed, Features(), {}) == stored_settings(store, Features(), {})
    with pytest.raises(StoreError, match=r"other settings:\n  weights: stored .* → asked authors"):
        read(images, packed, FEATURES.but(weights="authors"))


def test_what_a_store_lacks_is_computed_into_it(
    images: ImageSet, tmp_path: Path, draw: Callable[..., Path]
) -> None:
    """A new image, scale or layer costs that alone, under the names that the store has."""
    folder = extract(tmp_path, "f", "--weights", "embedded", "--precision", "fp32")
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
    folder = extract(tmp_path, "f", "--weights", "embedded", "--precision", "fp32")
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


def test_a_changed_image_is_not_taken_for_the_old_one(images: ImageSet, store: Path) -> None:
    """The same name and shape with other pixels is another image, which is to be computed."""
    Image.fromarray(noise(41, 32, seed=77)).save(images.images[1])
    with pytest.raises(AssertionError, match="net D was opened"):
        read(images, store)


def test_two_images_that_changed_places_are_computed(images: ImageSet, store: Path) -> None:
    """An image found under the name of another is an image that the store does not have."""
    first, second = map(Path, images.images[:2])
    swapped = first.read_bytes(), second.read_bytes()
    second.write_bytes(swapped[0])
    first.write_bytes(swapped[1])
    with pytest.raises(AssertionError, match="net D was opened"):
        read(images, store)


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
    """A store that was made otherwise is none of what is asked for; the error names the setting."""
    with pytest.raises(StoreError, match=f"other settings:\n  {named}: stored .* → asked") as told:
        read(images, store, FEATURES.but(**setting))
    first, *differing, last = told.value.lines  # a line each, as a terminal shows them
    assert first.endswith("other settings:")
    assert any(line.startswith(f"  {named}: stored ") for line in differing)
    assert last.startswith("Ask for the stored ones")


def test_a_model_of_other_settings_is_refused() -> None:
    """What it was trained with and what is here stand in a line of their own."""
    extractor = network("D", None)
    column = extractor.columns([16])[0]
    trained = replace(column, settings={**column.settings, "weights": "0", "flip": False})
    first, *differing, last = refuses(
        lambda: check_columns(extractor, [trained]), StoreError, [column.descriptor.path]
    ).lines
    assert [line.split(":")[0].strip() for line in differing] == ["weights", "flip"]
    assert "\n" not in first + last
    check_columns(extractor, [column])


def test_a_file_of_weights_is_compared_by_its_numbers(
    images: ImageSet, store: Path, tmp_path: Path
) -> None:
    """A store of one file's weights is not taken for a store of another file's."""
    files = []
    for seed in (0, 1):
        made = random_weights("D", ["pool1"], seed)
        told = {"net": "D", "source": "random", "licence": "none"}
        path = tmp_path / f"{seed}.safetensors"
        files.append(str(write(path, made.state, made.pixels, **told)))
    folder = extract(tmp_path, "f", "--weights", files[0])
    assert len(read(images, folder, FEATURES.but(weights=files[0])).X) == 4
    with pytest.raises(StoreError, match="weights: stored"):
        read(images, folder, FEATURES.but(weights=files[1]))


def test_unreadable_images_stay_out_and_mended_ones_come_in(
    images: ImageSet, tmp_path: Path
) -> None:
    """What could not be read is no gap of the store; once it can be read, it is one."""
    good = Path(images.images[2]).read_bytes()
    Path(images.images[2]).write_bytes(b"")
    folder = extract(tmp_path, "f", "--weights", "embedded", "--precision", "fp32")
    found = read(images, folder)
    assert found.images.names == ("000", "001", "003")
    assert found.failed == {"002": "the file is empty"}
    Path(images.images[2]).write_bytes(good)
    found = describe(CARD, images, FEATURES, network, folder=folder)
    assert (found.summary.computed, found.summary.present) == (1, 3)


def test_what_is_no_store_has_no_settings(store: Path, tmp_path: Path) -> None:
    """A store tells how it was made; an empty folder says nothing."""
    told = stored_settings(store, FEATURES, {})
    assert told.pop("weights")[0].startswith("D=")
    assert FEATURES.but(**told) == FEATURES
    assert (told["nets"], told["Q"]) == (("D",), (16, 24))
    assert stored_settings(tmp_path, FEATURES, {}) == {}
    with pytest.raises(AssertionError, match="net D was opened"):
        open_source(ImageSet((), ()), "D", FEATURES, tmp_path, never)


def ragged(folder: Path, *paths: str) -> Path:
    """Make a store of these columns alone, as several runs of `vggfeat extract` do."""
    settings = {"weights": "0", "flip": True, "exif": True, "locations": "raw"}
    columns = [Column(Descriptor.parse(path), settings, 5) for path in paths]
    make_store(folder, columns)
    return folder


def test_what_a_store_has_not_all_of_is_to_be_named(tmp_path: Path) -> None:
    """Nothing is chosen, and no column made, that is neither there nor asked for."""
    store = ragged(
        tmp_path / "f",
        *("/D/pool5/average/Q64", "/D/pool5/average/Q96", "/D/pool5/max/Q96", "/D/fc7/average/Q96"),
    )
    told = refuses(
        lambda: stored_settings(store, Features(), {}), StoreError, ["--layer and --pool and --Q"]
    ).lines
    assert sorted(told[1:-1]) == [
        "  net D, fc7, average: Q = 96",
        "  net D, pool5, average: Q = 64, 96",
        "  net D, pool5, max: Q = 96",
    ]
    told = refuses(
        lambda: stored_settings(store, Features(), {"layers": ["pool5"]}), StoreError, ["--Q"]
    ).lines
    assert told[-1] == "Say which you want with --pool and --Q."
    assert "fc7" not in "".join(told)
    for named, layers, pool, scales in (
        ({"layers": ["features.30"], "pool": "average"}, ("pool5",), "average", (64, 96)),
        ({"layers": ["fc7"]}, ("fc7",), "average", (96,)),
        ({"Q": [64]}, ("pool5",), "average", (64,)),
        ({"Q": [96], "pool": "max"}, ("pool5",), "max", (96,)),
    ):
        found = stored_settings(store, Features(), named)
        assert (found["layers"], found["pool"], found["Q"]) == (layers, pool, scales), named
    named = {"layers": ["conv1_1"], "pool": "max", "Q": [32]}
    assert stored_settings(store, Features(), named)["nets"] == ("D",)
    with pytest.raises(StoreError, match="Say which you want with --pool and --Q"):
        stored_settings(store, Features(), {"layers": ["fc6"]})


def test_nets_that_have_not_the_same_are_to_be_named(tmp_path: Path) -> None:
    """The columns of one net are not made of another."""
    store = ragged(tmp_path / "f", "/D/pool5/average/Q64", "/E/pool5/average/Q96")
    with pytest.raises(StoreError, match=r"net E, pool5, average: Q = 96\nSay .* with --Q"):
        stored_settings(store, Features(), {})
    found = stored_settings(store, Features(), {"nets": ["E"]})
    assert (found["nets"], found["Q"]) == (("E",), (96,))
    assert stored_settings(store, Features(), {"Q": [64]})["nets"] == ("D",)


def test_svm_of_a_store_that_has_not_all(tmp_path: Path) -> None:
    """The command ends with what there is, a line each, and leaves the store as it was."""
    for name in ("a/0.png", "a/1.png", "b/2.png", "b/3.png"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(32, 32, int(path.stem))).save(path)
    columns = ("/D/pool1/average/Q16", "/D/pool1/average/Q24", "/D/pool1/max/Q24")
    store = ragged(tmp_path / "f", *columns)
    words = ["svm", "--dataset", tmp_path / "set", "--features", store]
    told = run(*words, status=5).err
    assert "\n  net D, pool1, average: Q = 16, 24\n" in told
    assert "--pool and --Q." in told
    assert {one.path for one in FeatureStore(store).columns} == set(columns)


def test_images_with_equal_borders_are_not_confused(tmp_path: Path) -> None:
    """Two bitmaps of one name and size that differ in the middle alone keep their own rows."""
    for colour, level in (("red", 10), ("blue", 200)):
        (tmp_path / "tree" / colour).mkdir(parents=True)
        pixels = np.full((300, 200, 3), 255, np.uint8)
        pixels[140:160] = level
        Image.fromarray(pixels).save(tmp_path / "tree" / colour / "0.bmp")
    store = extract(tmp_path, "store", "--weights", "embedded")
    found = find_images([str(tmp_path / "tree")])
    rows = read(found, store).X
    assert not np.allclose(*FeatureStore(store).read(names=found.names).popitem()[1])
    assert not np.allclose(rows[0], rows[1])
    renamed = ImageSet(("a", "b"), found.images)
    assert np.array_equal(read(renamed, store).X, rows)


def test_the_order_asked_for_is_the_order_of_the_columns(images: ImageSet, store: Path) -> None:
    """What stands behind the rows is what was asked for, so that a model of them predicts."""
    turned = FEATURES.but(layers=["pool1", "conv1_1"], normalize="none", Q=[16], pool="max")
    found = read(images, store, turned)
    names = [column.descriptor for column in found.columns]
    assert names == [Descriptor("D", layer, "max", 16) for layer in ("pool1", "conv1_1")]
    assert np.array_equal(found.X, stacked(store, turned))


def test_weights_that_changed_under_their_name_are_noticed(
    images: ImageSet, made: Path, tmp_path: Path
) -> None:
    """A file of weights is compared by its numbers, however its path is spelt."""
    file = tmp_path / "w.safetensors"
    for seed in (0, 1):
        drawn = random_weights("D", ["pool1"], seed)
        write(file, drawn.state, drawn.pixels, net="D", source="random", licence="none")
        if seed == 0:
            store = extract(made, f"of-{tmp_path.name}", "--weights", str(file))
            read(images, store, FEATURES.but(weights=str(file)))
    with pytest.raises(StoreError, match="weights"):
        read(images, store, FEATURES.but(weights=str(file)))


def test_normalised_locations_are_no_raw_ones(images: ImageSet, made: Path, tmp_path: Path) -> None:
    """A store of L2-normalised locations does not pass for one of raw ones."""
    store = extract(
        made, f"l2-{tmp_path.name}", "--weights", "embedded", "--normalize", "locations"
    )
    read(images, store, FEATURES.but(normalize="locations"))
    with pytest.raises(StoreError, match="locations"):
        read(images, store)


def test_a_bad_image_stops_a_stored_run_if_asked_to(images: ImageSet, store: Path) -> None:
    """With on_bad_image="error" an image that a store lacks for being damaged is an error."""
    bad = Path(str(images.images[0])).with_name("bad.png")
    bad.write_bytes(b"no image")
    more = ImageSet((*images.names, "bad"), (*images.images, bad))
    assert read(more, store).failed.keys() == {"bad"}
    strict = Execution(on_bad_image="error")
    with pytest.raises(ImageError, match="bad"):
        describe(CARD, more, FEATURES, never, folder=store, execution=strict)


def test_svm_on_a_packed_store(tmp_path: Path) -> None:
    """The command names weights, device and figure as of the folder that was packed."""
    for label, level in (("dark", 60), ("light", 190)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(6):
            pixels = noise(32, 32, i) // 4 + np.uint8(level)
            Image.fromarray(pixels).save(tmp_path / "set" / label / f"{label}{i}.png")
    how = ["--layer", "pool1", "--Q", "16", "--weights", "embedded", "--out", "st", "-q"]
    run("extract", "set", *how, cwd=tmp_path)
    run("store", "pack", "st", "st.h5", cwd=tmp_path)
    words = ["svm", "--dataset", "set", "--jobs", "1", "--features"]
    folder, packed = (run(*words, where, "--json", cwd=tmp_path).json for where in ("st", "st.h5"))
    assert "D: embedded (" in packed["settings"]["weights"][0]
    for name in ("measures", "tables", "settings"):
        assert packed[name] == folder[name]


def test_a_quality_is_not_replaced_by_what_a_store_has(tmp_path: Path) -> None:
    """It names layers, scales and pooling: they are computed into the store, and used."""
    for label, level in (("dark", 60), ("light", 190)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(4):
            pixels = noise(32, 32, i) // 4 + np.uint8(level)
            Image.fromarray(pixels).save(tmp_path / "set" / label / f"{label}{i}.png")
    how = ["--layer", "pool1", "--Q", "16", "--weights", "embedded", "--out", "st", "-q"]
    run("extract", "set", *how, cwd=tmp_path)
    words = ["svm", "--dataset", "set", "--features", "st", "--jobs", "1", "--json", "-q"]
    asked = run(*words, "--quality", "fast", "--Q", "40", cwd=tmp_path).json["settings"]
    fast = preset("fast", Features())
    assert (asked["layers"], asked["pool"]) == ([*fast.layers], fast.pool)
    paths = [one.path for one in FeatureStore(tmp_path / "st").columns]
    assert len(paths) == 1 + len(fast.layers) * len(fast.pool.split("+"))
