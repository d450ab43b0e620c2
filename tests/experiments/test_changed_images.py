"""No descriptor of an image that is gone is taken for that of the file in its place."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from helpers.cli import run
from helpers.killing import KILLED, ended, forked
from helpers.mistakes import refuses
from helpers.seams import shard_rows, signal_at_batch
from packing import pack
from PIL import Image

from vggfeat.data.datasets.card import DatasetCard
from vggfeat.data.imageset import ImageSet, find_images
from vggfeat.errors import DataError
from vggfeat.experiments.features import Described, describe
from vggfeat.experiments.sources import Networks
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import Summary, extract
from vggfeat.features.transformer import VGGFeatures
from vggfeat.settings import Features
from vggfeat.store.export import export
from vggfeat.store.export import pack as pack_store
from vggfeat.store.store import FeatureStore

FEATURES = Features(layers=("pool1",), Q=(32,), weights="embedded", normalize="none")
CARD = DatasetCard(name="mine", reader="folders")
RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)
TIMES = {"older": -(10**12), "newer": 1}  # nanoseconds; with the same size and time it is the same


def bitmap(path: Path, colour: tuple[int, int, int]) -> Path:
    """Draw an uncompressed image of 480 kB; two of them differ in the middle alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((400, 400, 3), 255, np.uint8)
    pixels[150:250, 150:250] = colour
    Image.fromarray(pixels).save(path, "BMP")
    return path


def replaced(path: Path, colour: tuple[int, int, int], by: int) -> None:
    """Draw another image in the place of one, `by` nanoseconds newer."""
    before = path.stat()
    bitmap(path, colour)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + by))


@pytest.fixture(scope="module")
def extractor() -> DenseExtractor:
    return DenseExtractor("D", "pool1", weights="embedded", precision="fp32", device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Draw two classes of two images."""
    for name, colour in (("red", RED), ("blue", BLUE)):
        for number in range(2):
            bitmap(tmp_path / "d" / name / f"{name}{number}.bmp", colour)
    return tmp_path / "d"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "f"


def extracted(
    folder: Path, store: Path, extractor: DenseExtractor, *, finish: bool = True
) -> Summary:
    """Extract as the command does; or as one that is killed before it ends."""
    images, opened = find_images([str(folder)]), FeatureStore(store, "a")
    if not finish:
        opened.finish = lambda *given: None  # type: ignore[method-assign]
    return extract(images, extractor, [32], opened)


def never(net: str, store: FeatureStore | None) -> NoReturn:
    raise AssertionError(f"net {net} was opened")


def read(images: ImageSet, store: Path, network: Networks) -> Described:
    return describe(CARD, images, FEATURES, network, folder=store)


def fresh(images: ImageSet, extractor: DenseExtractor) -> np.ndarray:
    """Describe images without any store on disk."""
    store = FeatureStore(None, "a")
    extract(images, extractor, [32], store)
    [values] = store.read(names=images.names).values()
    return values


def check(found: Described, images: ImageSet, extractor: DenseExtractor, computed: int) -> None:
    """Compare rows with those that are made without a store, and how many were computed."""
    assert (found.summary.computed, found.summary.present) == (computed, 4 - computed)
    np.testing.assert_allclose(found.X, fresh(images, extractor), rtol=1e-5)


def check_store(store: Path, images: ImageSet, extractor: DenseExtractor) -> None:
    [values] = FeatureStore(store).read(names=images.names).values()
    np.testing.assert_allclose(values, fresh(images, extractor), rtol=1e-5)


@pytest.mark.parametrize("time", TIMES)
def test_a_replaced_image_is_computed_again(
    folder: Path, extractor: DenseExtractor, store: Path, time: str
) -> None:
    """Whatever the new file's time, `extract` and `svm --features` describe it, and it alone."""
    extracted(folder, store, extractor)
    replaced(folder / "blue" / "blue1.bmp", RED, TIMES[time])
    images = find_images([str(folder)])
    check(read(images, store, lambda net, store: extractor), images, extractor, computed=1)
    replaced(folder / "blue" / "blue0.bmp", GREEN, TIMES[time])
    assert extracted(folder, store, extractor).computed == 1
    check_store(store, images, extractor)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_replaced_image_under_another_name(
    folder: Path, extractor: DenseExtractor, tmp_path: Path, time: str, packed: bool
) -> None:
    """It is computed; where it cannot be, as the store is packed, it is said how many are there."""
    extracted(folder, store := tmp_path / "f", extractor)
    if packed:
        pack_store(store, tmp_path / "one.h5")
        store = tmp_path / "one.h5"
    images = find_images([str(folder)])
    images = ImageSet(tuple(Path(name).stem for name in images.names), images.images)
    check(read(images, store, never), images, extractor, computed=0)
    replaced(folder / "blue" / "blue1.bmp", RED, TIMES[time])
    if packed:
        refuses(lambda: read(images, store, never), DataError, ["3 of the 4 images"])
    else:
        check(read(images, store, lambda net, store: extractor), images, extractor, computed=1)


@pytest.mark.parametrize("time", TIMES)
def test_an_unfinished_store_is_not_believed_either(
    folder: Path, extractor: DenseExtractor, store: Path, tmp_path: Path, time: str
) -> None:
    """Of what killed runs wrote the newest counts: for whoever opens it, and for who has files."""
    extracted(folder, store, extractor, finish=False)
    for name in ("blue0", "blue1"):
        replaced(folder / "blue" / f"{name}.bmp", RED, TIMES[time])
    assert extracted(folder, store, extractor, finish=False).computed == 2
    images = find_images([str(folder)])
    check_store(store, images, extractor)
    assert export(store, tmp_path / "x.npz") == 4
    with np.load(tmp_path / "x.npz") as arrays:
        order = [images.names.index(name) for name in arrays["names"].tolist()]
        expected = fresh(images, extractor)[order]
        np.testing.assert_allclose(arrays["D/pool1/average/Q32"], expected, rtol=1e-5)
    check(read(images, store, never), images, extractor, computed=0)


def test_a_run_killed_after_a_finished_one(
    folder: Path, extractor: DenseExtractor, store: Path
) -> None:
    """A row that was written since the view counts more than the view's."""
    extracted(folder, store, extractor)
    replaced(folder / "blue" / "blue1.bmp", RED, TIMES["older"])
    assert extracted(folder, store, extractor, finish=False).computed == 1
    check_store(store, find_images([str(folder)]), extractor)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_replaced_by_an_older_file_and_killed(
    folder: Path, extractor: DenseExtractor, store: Path
) -> None:
    """Killed before it comes to a changed image, a run leaves nobody its old descriptor."""
    extracted(folder, store, extractor)
    for name in ("blue/blue1", "red/red1"):
        replaced(folder / f"{name}.bmp", GREEN, TIMES["older"])
    images = find_images([str(folder)])
    expected = dict(zip(images.names, fresh(images, extractor), strict=True))
    with shard_rows(1), signal_at_batch(2, signal.SIGKILL):
        assert ended(forked(lambda: extracted(folder, store, extractor))) == KILLED
    for _ in range(2):  # as it was left, and with everything there
        left = FeatureStore(store)
        lacking = set(images.names) - set(left.complete())
        [values] = left.read(names=left.names).values()
        for name, row in zip(left.names, values, strict=True):
            np.testing.assert_allclose(row, expected[name], rtol=1e-5)
        assert extracted(folder, store, extractor).computed == len(lacking)
    assert not lacking


def test_images_deleted_and_added(folder: Path, extractor: DenseExtractor, store: Path) -> None:
    """A new image under the name of a deleted one is computed; so is one under a new name."""
    extracted(folder, store, extractor)
    (folder / "red" / "red1.bmp").unlink()
    (folder / "blue" / "blue1.bmp").rename(folder / "red" / "red1.bmp")
    bitmap(folder / "blue" / "blue9.bmp", GREEN)
    images = find_images([str(folder)])
    check(read(images, store, lambda net, store: extractor), images, extractor, computed=2)


def touch(folder: Path) -> Path:
    for path in folder.rglob("*.bmp"):
        os.utime(path, (10**9, 10**9))
    return folder


def copy(folder: Path) -> Path:
    """Copy files without their times."""
    other = folder.parent / "copy" / folder.name
    shutil.copytree(folder, other, copy_function=shutil.copyfile)
    return other


def unpack(folder: Path) -> Path:
    """Unpack them anew from an archive that keeps whole seconds."""
    with tarfile.open(folder.parent / "all.tar", "w") as archive:
        archive.add(folder, folder.name)
    with tarfile.open(folder.parent / "all.tar") as archive:
        archive.extractall(folder.parent / "unpacked", filter="data")
    return folder.parent / "unpacked" / folder.name


@pytest.mark.parametrize("change", [touch, copy, unpack])
def test_times_alone_change_nothing(
    folder: Path, extractor: DenseExtractor, store: Path, change: Callable[[Path], Path]
) -> None:
    """Files that were touched, copied or unpacked anew are the same images: nothing is computed."""
    extracted(folder, store, extractor)
    other = change(folder)
    images = find_images([str(other)])
    assert other == folder or not np.array_equal(
        images.stamps(), find_images([str(folder)]).stamps()
    )
    assert read(images, store, never).summary.present == 4
    done = extracted(other, store, extractor)
    assert (done.computed, done.present) == (0, 4)


def test_a_tar_packed_anew(extractor: DenseExtractor, tmp_path: Path) -> None:
    """A member is another image by its content alone, not by its name, place, size or time."""
    for colour, computed in ((RED, 1), (BLUE, 1), (BLUE, 0)):
        content = bitmap(tmp_path / "one.bmp", colour).read_bytes()
        pack(tmp_path / "t.tar", {"a/1.bmp": content})
        assert extracted(tmp_path / "t.tar", tmp_path / "f", extractor).computed == computed


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """List the files of images that are opened, by name."""
    names: list[str] = []
    listening = True

    def hear(event: str, given: tuple[Any, ...]) -> None:
        if listening and event == "open" and str(given[0]).endswith(".bmp"):
            names.append(Path(given[0]).name)

    sys.addaudithook(hear)
    yield names
    listening = False  # Python forgets no hook


def bytes_read() -> int:
    """Return how many bytes this process has read so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux's /proc")
def test_each_file_is_opened_and_read_once(
    folder: Path, extractor: DenseExtractor, store: Path, opened: list[str]
) -> None:
    """A run opens each image once, for all columns and scales; one that changed nothing, none.

    A listing looks at the head of each folder's first image, which may be a drawing.
    """
    both = DenseExtractor(
        "D", ("conv1_1", "pool1"), weights="embedded", pool="average+max", precision="fp32",
        device="cpu",
    )  # fmt: skip
    heads = [min(path.name for path in of.glob("*.bmp")) for of in sorted(folder.iterdir())]
    once = sorted([*heads, *(path.name for path in folder.rglob("*.bmp"))])
    total = sum(path.stat().st_size for path in folder.rglob("*.bmp"))

    def opens(network: DenseExtractor, *scales: int) -> list[str]:
        opened.clear()
        before = bytes_read()
        extract(find_images([str(folder)]), network, scales, FeatureStore(store, "a"))
        read = bytes_read() - before
        all_read = total * (len(opened) > len(heads))
        assert all_read <= read < all_read + total / 4
        return sorted(opened)

    for network, scales in ((extractor, [32]), (extractor, [32]), (both, [32, 48])):
        assert opens(network, *scales) == once
        assert opens(network, *scales) == heads
        touch(folder)  # so that they look like others
    replaced(folder / "blue" / "blue1.bmp", GREEN, TIMES["older"])
    opened.clear()
    assert extracted(folder, store, both).computed == 1
    assert sorted(opened) == sorted([*heads, "blue1.bmp"])


@pytest.mark.parametrize("time", TIMES)
def test_a_transformers_cache(folder: Path, tmp_path: Path, time: str) -> None:
    """A cached transformer gives what one without a cache gives."""
    paths = sorted(folder.rglob("*.bmp"))
    settings = {"layer": "pool1", "Q": 32, "weights": "embedded", "precision": "fp32"}
    VGGFeatures(cache=tmp_path / "cache", **settings).transform(paths)
    replaced(paths[0], RED, TIMES[time])
    cached = VGGFeatures(cache=tmp_path / "cache", **settings).transform(paths)
    np.testing.assert_allclose(cached, VGGFeatures(**settings).transform(paths), rtol=1e-5)


def test_the_figure_is_that_of_the_images_there_are(tmp_path: Path) -> None:
    """`svm --features` after all images became equal: one class has all, the other none."""
    paths = [tmp_path / "d" / name / f"{name}{k}.bmp" for name in ("red", "blue") for k in range(6)]
    words = ("--layer", "pool1", "--Q", "32")
    for path in paths:
        bitmap(path, RED if path.parent.name == "red" else BLUE)
    run("extract", "d", *words, "--out", "st", "--relative-to", "d", cwd=tmp_path)
    for path in paths:
        replaced(path, RED, 1)
    for store in (("--features", "st"), ()):
        done = run("svm", "--dataset", "d", *words, *store, "--C", "1", "--json", cwd=tmp_path)
        assert [split["recall"] for split in done.json["tables"]["splits"]] == [0.5] * 3
