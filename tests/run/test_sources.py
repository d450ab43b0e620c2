"""Stores that others made: recognised by what the pictures are, refused where they differ."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from helpers.cli import run
from PIL import Image
from support import noise, random_weights

from vggfeat.data.imagesets import ImageSet, find_pictures
from vggfeat.data.schema import DatasetCard
from vggfeat.data.settings import Features
from vggfeat.errors import DataError, PictureError, StoreError
from vggfeat.features.export import pack
from vggfeat.features.store import FeatureStore
from vggfeat.nets.formats import write
from vggfeat.run.describe import Described, describe
from vggfeat.run.sources import stored, stored_settings

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
    """Draw a folder of pictures, and extract it as people do, with names below the folder."""
    root = tmp_path_factory.mktemp("made")
    (root / "tree" / "JPEGImages").mkdir(parents=True)
    for i in range(4):
        Image.fromarray(noise(40 + i, 32, i)).save(root / "tree" / "JPEGImages" / f"00{i}.png")
    extract(root, "store", "--weights", "embedded")
    assert FeatureStore.open(root / "store").names[0] == "tree/JPEGImages/000.png"
    return root


@pytest.fixture
def images(made: Path, tmp_path: Path) -> ImageSet:
    """Name the pictures as a data set does, not as their files are."""
    shutil.copytree(made / "tree", tmp_path / "tree")
    paths = sorted((tmp_path / "tree" / "JPEGImages").iterdir())
    return ImageSet(tuple(path.stem for path in paths), tuple(paths))


@pytest.fixture
def store(made: Path) -> Path:
    return made / "store"


def extract(root: Path, out: str, *more: str) -> Path:
    run("extract", root / "tree", *SETTINGS, "--out", root / out, *more, "-q")
    return root / out


def never(net: str) -> NoReturn:
    raise AssertionError(f"net {net} was opened")


def read(images: ImageSet, folder: Path, features: Features = FEATURES) -> Described:
    return describe(CARD, images, features, never, folder=folder)


def test_pictures_are_known_by_content(images: ImageSet, store: Path) -> None:
    """Under the data set's names come the rows that the store has under its own, without a net."""
    found = read(
        images.take([2, 0, 3, 1]), store, FEATURES.but(normalize="none", aggregate="stack")
    )
    own = FeatureStore.open(store)
    names = [f"tree/JPEGImages/00{i}.png" for i in (2, 0, 3, 1)]
    parts = own.read(names=names)
    assert np.array_equal(found.X, np.concatenate(list(parts.values()), axis=1))
    assert found.images.names == ("002", "000", "003", "001")
    assert (found.summary.computed, found.summary.present) == (0, 4)
    assert found.provenance["D"]["weights"]["source"] == "embedded"


def test_a_part_of_what_a_store_has_can_be_asked_for(images: ImageSet, store: Path) -> None:
    """One layer, pooling and scale of two of each are those very columns."""
    one = FEATURES.but(layers=["pool1"], pool="max", Q=[24], normalize="none")
    [expected] = (
        values
        for part, values in FeatureStore.open(store).read([24]).items()
        if part[1:3] == ("pool1", "max")
    )
    assert np.array_equal(read(images, store, one).X, expected)


def test_a_packed_store_serves_as_well(images: ImageSet, store: Path, tmp_path: Path) -> None:
    """A file that was packed gives the rows of its folder; a net that it lacks is an error."""
    pack(store, tmp_path / "packed.h5")
    assert np.array_equal(read(images, tmp_path / "packed.h5").X, read(images, store).X)
    with pytest.raises(DataError, match="holds the nets D, not E"):
        read(images, tmp_path / "packed.h5", FEATURES.but(nets=["E"]))


def test_a_store_that_lacks_pictures_is_refused(
    images: ImageSet, store: Path, draw: Callable[..., Path]
) -> None:
    """How many are there is said, and the command that extracts the rest."""
    new = draw("tree/JPEGImages/009.png", seed=9)
    more = ImageSet((*images.names, "009"), (*images.pictures, new))
    with pytest.raises(DataError, match=r"4 of the 5 pictures.*vggfeat extract.*--layer pool1"):
        read(more, store)
    with pytest.raises(DataError, match="nothing at Q = 32"):
        read(images, store, FEATURES.but(Q=[16, 32]))


def test_a_changed_picture_is_not_taken_for_the_old_one(images: ImageSet, store: Path) -> None:
    """The same name and shape with other pixels is another picture."""
    Image.fromarray(noise(41, 32, seed=77)).save(images.pictures[1])
    with pytest.raises(DataError, match="3 of the 4 pictures"):
        read(images, store)


def test_two_pictures_that_changed_places_keep_their_rows(images: ImageSet, store: Path) -> None:
    """A picture found under the name of another is a picture that the store does not have."""
    one, other = map(Path, images.pictures[:2])
    swapped = one.read_bytes(), other.read_bytes()
    other.write_bytes(swapped[0])
    one.write_bytes(swapped[1])
    with pytest.raises(DataError, match="2 of the 4 pictures"):
        read(images, store)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"layers": ["conv1_2"]}, "layers"),
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
    with pytest.raises(StoreError, match=f"another setting of {named}:"):
        read(images, store, FEATURES.but(**setting))


def test_a_pooling_that_was_not_kept_is_refused(images: ImageSet, tmp_path: Path) -> None:
    """From averages no maximum can be had."""
    folder = extract(tmp_path, "f", "--pool", "average")
    with pytest.raises(StoreError, match="another setting of pool:"):
        read(images, folder, FEATURES.but(pool="max"))


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
    with pytest.raises(StoreError, match="another setting of weights:"):
        read(images, folder, FEATURES.but(weights=files[1]))


def test_unreadable_pictures_stay_out_and_mended_ones_come_in(
    images: ImageSet, tmp_path: Path
) -> None:
    """What could not be read is no gap of the store; once it can be read, it is one."""
    good = Path(images.pictures[2]).read_bytes()
    Path(images.pictures[2]).write_bytes(b"")
    folder = extract(tmp_path, "f", "--weights", "embedded")
    found = read(images, folder)
    assert found.images.names == ("000", "001", "003")
    assert found.failed == {"002": "the file is empty"}
    Path(images.pictures[2]).write_bytes(good)
    with pytest.raises(DataError, match="3 of the 4 pictures"):
        read(images, folder)


def test_a_store_of_these_very_names_can_be_gone_on_with(
    images: ImageSet, store: Path, tmp_path: Path
) -> None:
    """Where names are those of the store, what is new is no error but left to a network."""
    assert stored(store, "D", find_pictures([str(tmp_path / "tree")]), FEATURES) is not None
    Image.fromarray(noise(40, 32, seed=9)).save(tmp_path / "tree" / "JPEGImages" / "009.png")
    assert stored(store, "D", find_pictures([str(tmp_path / "tree")]), FEATURES) is None


def test_what_is_no_store_has_no_settings(store: Path, tmp_path: Path) -> None:
    """A store tells how it was made; an empty folder says nothing."""
    told = stored_settings(store, FEATURES)
    assert told.pop("weights")[0].startswith("D=")
    assert FEATURES.but(**told) == FEATURES
    assert (told["nets"], told["Q"]) == (("D",), (16, 24))
    assert stored_settings(tmp_path, FEATURES) == {}
    assert stored(tmp_path, "D", ImageSet((), ()), FEATURES) is None


def test_pictures_with_equal_borders_are_not_confused(tmp_path: Path) -> None:
    """Two bitmaps of one name and size that differ in the middle alone keep their own rows."""
    for colour, level in (("red", 10), ("blue", 200)):
        (tmp_path / "tree" / colour).mkdir(parents=True)
        pixels = np.full((300, 200, 3), 255, np.uint8)
        pixels[140:160] = level
        Image.fromarray(pixels).save(tmp_path / "tree" / colour / "0.bmp")
    store = extract(tmp_path, "store", "--weights", "embedded")
    found = find_pictures([str(tmp_path / "tree")])
    rows = read(found, store).X
    own = FeatureStore.open(store)
    [part] = own.extraction.parts([16])[:1]
    norms = [np.linalg.norm(own.read([16], [name])[part]) for name in found.names]
    assert norms[0] != norms[1]
    assert not np.allclose(rows[0], rows[1])
    renamed = ImageSet(("a", "b"), found.pictures)
    assert np.array_equal(read(renamed, store).X, rows)


def test_the_order_asked_for_is_the_order_of_the_columns(images: ImageSet, store: Path) -> None:
    """What stands behind the rows is what was asked for, so that a model of them predicts."""
    turned = FEATURES.but(layers=["pool1", "conv1_1"], normalize="none", Q=[16], pool="max")
    found = read(images, store, turned)
    assert found.extractions[0].layers == ("pool1", "conv1_1")
    assert found.extractions[0].pool == "max"
    names = [f"tree/JPEGImages/00{i}.png" for i in range(4)]
    parts = FeatureStore.open(store).read([16], names)
    expected = [parts[part] for part in found.extractions[0].parts([16])]
    assert np.array_equal(found.X, np.concatenate(expected, axis=1))


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


def test_a_bad_picture_stops_a_stored_run_if_asked_to(images: ImageSet, store: Path) -> None:
    """With on_bad_image="error" a picture that a store lacks for being damaged is an error."""
    bad = Path(str(images.pictures[0])).with_name("bad.png")
    bad.write_bytes(b"no picture")
    more = ImageSet((*images.names, "bad"), (*images.pictures, bad))
    assert read(more, store).failed.keys() == {"bad"}
    with pytest.raises(PictureError, match="bad"):
        describe(CARD, more, FEATURES, never, folder=store, on_bad_image="error")
