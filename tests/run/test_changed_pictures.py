"""No descriptor of an image that is gone is taken for that of the file in its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from helpers.cli import run
from helpers.mistakes import refuses
from packing import pack
from PIL import Image

from vggfeat.data.imagesets import ImageSet, find_pictures
from vggfeat.data.schema import DatasetCard
from vggfeat.errors import DataError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import Summary, extract
from vggfeat.features.transformer import VGGFeatures
from vggfeat.run.describe import Described, describe
from vggfeat.settings import Features
from vggfeat.store.export import export
from vggfeat.store.export import pack as pack_store
from vggfeat.store.store import FeatureStore

FEATURES = Features(layers=("pool1",), Q=(32,), weights="embedded", normalize="none")
CARD = DatasetCard(name="mine", reader="folders")
RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)
TIMES = {"older": -(10**12), "newer": 10**12}


def bitmap(path: Path, colour: tuple[int, int, int]) -> Path:
    """Draw an uncompressed picture of 480 kB; two of them differ in the middle alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((400, 400, 3), 255, np.uint8)
    pixels[150:250, 150:250] = colour
    Image.fromarray(pixels).save(path, "BMP")
    return path


def replaced(path: Path, colour: tuple[int, int, int], by: int) -> None:
    """Draw another picture in the place of one, `by` nanoseconds newer."""
    before = path.stat()
    bitmap(path, colour)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + by))


@pytest.fixture(scope="module")
def extractor() -> DenseExtractor:
    return DenseExtractor("D", "pool1", weights="embedded", precision="fp32", device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Draw two classes of two pictures."""
    for name, colour in (("red", RED), ("blue", BLUE)):
        for number in range(2):
            bitmap(tmp_path / "d" / name / f"{name}{number}.bmp", colour)
    return tmp_path / "d"


def extracted(
    folder: Path, store: Path, extractor: DenseExtractor, *, finish: bool = True
) -> Summary:
    """Extract as the command does; or as one that is killed before it ends."""
    images = find_pictures([str(folder)])
    opened = FeatureStore(store, "a")
    if not finish:
        opened.finish = lambda *_: None  # type: ignore[method-assign]
    return extract(images, extractor, [32], opened)


def never(net: str, store: object) -> NoReturn:
    raise AssertionError(f"net {net} was opened")


def read(images: ImageSet, store: Path, network: Callable[..., DenseExtractor]) -> Described:
    return describe(CARD, images, FEATURES, network, folder=store)


def fresh(images: ImageSet, extractor: DenseExtractor) -> np.ndarray:
    """Describe pictures without any store on disk."""
    store = FeatureStore(None, "a")
    extract(images, extractor, [32], store)
    [values] = store.read(names=images.names).values()
    return values


@pytest.mark.parametrize("time", TIMES)
def test_a_replaced_image_is_computed_again(
    folder: Path, extractor: DenseExtractor, tmp_path: Path, time: str
) -> None:
    """Whatever the new file's time, `extract` and `svm --features` describe it, and it alone."""
    extracted(folder, tmp_path / "f", extractor)
    replaced(folder / "blue" / "blue1.bmp", RED, TIMES[time])
    images = find_pictures([str(folder)])
    found = read(images, tmp_path / "f", lambda net, store: extractor)
    assert (found.summary.computed, found.summary.present) == (1, 3)
    np.testing.assert_allclose(found.X, fresh(images, extractor), rtol=1e-5)
    replaced(folder / "blue" / "blue0.bmp", GREEN, TIMES[time])
    assert extracted(folder, tmp_path / "f", extractor).computed == 1
    [values] = FeatureStore(tmp_path / "f").read(names=images.names).values()
    np.testing.assert_allclose(values, fresh(images, extractor), rtol=1e-5)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("packed", [False, True])
def test_under_other_names_a_replaced_image_is_another(
    folder: Path, extractor: DenseExtractor, tmp_path: Path, time: str, packed: bool
) -> None:
    """It is computed; where that cannot be, it is said how many images the store has."""
    extracted(folder, tmp_path / "f", extractor)
    store = tmp_path / "f"
    if packed:
        store = tmp_path / "one.h5"
        pack_store(tmp_path / "f", store)
    images = find_pictures([str(folder)])
    names = images.names if packed else tuple(Path(name).stem for name in images.names)
    images = ImageSet(names, images.pictures)
    assert np.array_equal(read(images, store, never).X, fresh(images, extractor))
    replaced(folder / "blue" / "blue1.bmp", RED, TIMES[time])
    if packed:
        refuses(lambda: read(images, store, never), DataError, ["3 of the 4 images"])
    else:
        found = read(images, store, lambda net, store: extractor)
        assert (found.summary.computed, found.summary.present) == (1, 3)
        np.testing.assert_allclose(found.X, fresh(images, extractor), rtol=1e-5)


@pytest.mark.parametrize("time", TIMES)
def test_an_unfinished_store_is_not_believed_either(
    folder: Path, extractor: DenseExtractor, tmp_path: Path, time: str
) -> None:
    """Of what killed runs wrote the newest counts: for whoever opens it, and for who has files."""
    extracted(folder, tmp_path / "f", extractor, finish=False)
    for name in ("blue0", "blue1"):
        replaced(folder / "blue" / f"{name}.bmp", RED, TIMES[time])
    assert extracted(folder, tmp_path / "f", extractor, finish=False).computed == 2
    images = find_pictures([str(folder)])
    expected = fresh(images, extractor)
    [values] = FeatureStore(tmp_path / "f").read(names=images.names).values()
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert export(tmp_path / "f", tmp_path / "x.npz") == 4
    with np.load(tmp_path / "x.npz") as arrays:
        order = [images.names.index(name) for name in arrays["names"].tolist()]
        np.testing.assert_allclose(arrays["D/pool1/average/Q32"], expected[order], rtol=1e-5)
    np.testing.assert_allclose(read(images, tmp_path / "f", never).X, expected, rtol=1e-5)


def test_a_run_killed_after_a_finished_one(
    folder: Path, extractor: DenseExtractor, tmp_path: Path
) -> None:
    """A row that was written since the view counts more than the view's."""
    extracted(folder, tmp_path / "f", extractor)
    replaced(folder / "blue" / "blue1.bmp", RED, TIMES["older"])
    assert extracted(folder, tmp_path / "f", extractor, finish=False).computed == 1
    images = find_pictures([str(folder)])
    [values] = FeatureStore(tmp_path / "f").read(names=images.names).values()
    np.testing.assert_allclose(values, fresh(images, extractor), rtol=1e-5)


def test_images_deleted_and_added(folder: Path, extractor: DenseExtractor, tmp_path: Path) -> None:
    """A new picture under the name of a deleted one is computed; so is one under a new name."""
    extracted(folder, tmp_path / "f", extractor)
    (folder / "red" / "red1.bmp").unlink()
    (folder / "blue" / "blue1.bmp").rename(folder / "red" / "red1.bmp")
    bitmap(folder / "blue" / "blue9.bmp", GREEN)
    images = find_pictures([str(folder)])
    found = read(images, tmp_path / "f", lambda net, store: extractor)
    assert (found.summary.computed, found.summary.present) == (2, 2)
    np.testing.assert_allclose(found.X, fresh(images, extractor), rtol=1e-5)


def test_times_alone_change_nothing(
    folder: Path, extractor: DenseExtractor, tmp_path: Path
) -> None:
    """Files that were touched, or copied anew, are the same pictures: nothing is computed."""
    extracted(folder, tmp_path / "f", extractor)
    for path in folder.rglob("*.bmp"):
        os.utime(path, (10**9, 10**9))
    assert extracted(folder, tmp_path / "f", extractor).computed == 0
    assert read(find_pictures([str(folder)]), tmp_path / "f", never).summary.present == 4


@pytest.mark.parametrize("time", TIMES)
def test_a_transformers_cache(folder: Path, tmp_path: Path, time: str) -> None:
    """A cached transformer gives what one without a cache gives."""
    paths = sorted(folder.rglob("*.bmp"))
    settings = {"layer": "pool1", "Q": 32, "weights": "embedded", "precision": "fp32"}
    VGGFeatures(cache=tmp_path / "cache", **settings).transform(paths)
    replaced(paths[0], RED, TIMES[time])
    cached = VGGFeatures(cache=tmp_path / "cache", **settings).transform(paths)
    np.testing.assert_allclose(cached, VGGFeatures(**settings).transform(paths), rtol=1e-5)


def test_a_tar_packed_anew(extractor: DenseExtractor, tmp_path: Path) -> None:
    """A member of the same name, place, size and time, with another content, is another picture."""
    for colour, computed in ((RED, 1), (BLUE, 1), (BLUE, 0)):
        content = bitmap(tmp_path / "one.bmp", colour).read_bytes()
        pack(tmp_path / "t.tar", {"a/1.bmp": content})
        assert extracted(tmp_path / "t.tar", tmp_path / "f", extractor).computed == computed


def test_the_figure_is_that_of_the_pictures_there_are(tmp_path: Path) -> None:
    """`svm --features` after all pictures changed says what `svm` without a store says."""
    for repaint in (False, True):
        for name in ("red", "blue"):
            for number in range(6):
                path = tmp_path / "d" / name / f"{name}{number}.bmp"
                if repaint:
                    replaced(path, RED, TIMES["older"])
                else:
                    bitmap(path, RED if name == "red" else BLUE)
        if not repaint:
            words = ["--layer", "pool3", "--Q", "64", "--out", "st", "--relative-to", "d"]
            run("extract", "d", *words, cwd=tmp_path)
    words = ["svm", "--dataset", "d", "--layer", "pool3", "--Q", "64", "--json"]
    results = [
        run(*words, "--features", "st", cwd=tmp_path).json["result"],
        run(*words, cwd=tmp_path).json["result"],
    ]
    for result in results:  # of twelve equal pictures one class has all, the other none
        assert [split["mean_class_recall"] for split in result["splits"]] == [0.5] * 3
