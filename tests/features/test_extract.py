"""The one path's bookkeeping: resuming, bad pictures, interruption, several layers."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import noise, random_weights

from vggfeat.data.imagesets import ImageSet, find_pictures
from vggfeat.errors import FingerprintMismatch, ParameterError, PictureError, StoreError
from vggfeat.features import extract as module
from vggfeat.features.dense import DenseExtractor
from vggfeat.features.extract import Summary, extract
from vggfeat.features.rounds import ROUND
from vggfeat.features.store import FeatureStore

WEIGHTS = random_weights("A", ["pool2"])


def small(layers: str | tuple[str, ...] = "pool2", **settings: object) -> DenseExtractor:
    return DenseExtractor("A", layers, weights=WEIGHTS, precision="fp32", device="cpu", **settings)


@pytest.fixture
def images(draw: Callable[..., Path]) -> ImageSet:
    for i in range(9):
        path = draw(f"pictures/{i}.png", 40 + 7 * (i % 3), 40, seed=i)
    return find_pictures([str(path.parent)])


def run(
    images: ImageSet, folder: Path | None, scales: tuple[int, ...] = (32,), **settings: object
) -> tuple[FeatureStore, Summary]:
    extractor = small()
    store = FeatureStore(folder, extractor.extraction, images.names, stats=images.stats())
    return store, extract(images, extractor, scales, store, **settings)


def alone(images: ImageSet, Q: int = 32) -> np.ndarray:
    """Every picture in a run of its own: whose features are whose cannot go wrong."""
    rows = []
    for name, picture in zip(images.names, images.pictures, strict=True):
        store, _ = run(ImageSet((name,), (picture,)), None, (Q,))
        rows += [*store.read([Q]).values()]
    return np.concatenate(rows)


def test_every_row_is_its_own_picture(images: ImageSet, tmp_path: Path) -> None:
    """Mixed shapes, batched and written to disk, come back in order."""
    store, summary = run(images, tmp_path / "f", (32, 48))
    assert (summary.pictures, summary.computed, summary.failed) == (9, 9, 0)
    for part, values in store.read([32, 48]).items():
        np.testing.assert_allclose(values, alone(images, part.Q), rtol=1e-4, atol=1e-4)


def test_a_second_run_computes_nothing(images: ImageSet, tmp_path: Path) -> None:
    """What is in the store is not computed again; a new scale costs that scale alone."""
    run(images, tmp_path / "f")
    _, summary = run(images, tmp_path / "f")
    assert (summary.present, summary.computed) == (9, 0)
    store, summary = run(images, tmp_path / "f", (32, 48))
    assert summary.computed == 9
    assert store.scales == [32, 48]
    assert run(images, tmp_path / "f", (32, 48))[1].computed == 0


def test_runs_at_once_share_the_list(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another run does meanwhile is left to it, and is in the store once."""
    monkeypatch.setitem(ROUND, "cpu", 1)
    monkeypatch.setattr(module, "ROWS_PER_SHARD", 2)
    others: list[Summary] = []

    def interfere(done: Summary) -> None:
        if done.computed == 1 and not others:
            others.append(Summary(9))  # once
            others.append(run(images, tmp_path / "f")[1])

    store, summary = run(images, tmp_path / "f", progress=interfere, workers=1)
    assert others[-1].computed == 9
    assert summary.computed + summary.present == 9
    assert summary.present >= 2  # the others were under way: two described, five decoded
    rows = sum(len(header.names) for header in store.files.headers())
    assert rows == 9
    np.testing.assert_allclose(*store.read([32]).values(), alone(images), rtol=1e-4, atol=1e-4)


def test_bad_pictures_are_absent_and_named(images: ImageSet, tmp_path: Path) -> None:
    """A bad picture has no row, its neighbours keep theirs, and mended it is done next time."""
    expected = alone(images)
    broken = Path(str(images.pictures[4]))
    good = broken.read_bytes()
    broken.write_bytes(good[:100])
    store, summary = run(images, tmp_path / "f")
    assert (summary.computed, summary.failed) == (8, 1)
    names = store.view_names([32])
    assert names == [name for name in images.names if name != "pictures/4.png"]
    [values] = store.read([32]).values()
    np.testing.assert_allclose(values, np.delete(expected, 4, axis=0), rtol=1e-4, atol=1e-4)
    assert "4.png" in (tmp_path / "f" / "failed.csv").read_text()

    broken.write_bytes(good)
    store, summary = run(images, tmp_path / "f")
    assert (summary.computed, summary.failed) == (1, 0)
    [values] = store.read([32]).values()
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)


def test_stopping_at_a_bad_picture_keeps_what_was_done(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With on_bad_image="error" the run ends at the picture, and names it."""
    monkeypatch.setitem(ROUND, "cpu", 2)
    Path(str(images.pictures[5])).write_bytes(b"")
    with pytest.raises(PictureError, match=r"5\.png: the file is empty"):
        run(images, tmp_path / "f", on_bad_image="error")
    assert run(images, tmp_path / "f")[1].present == 4


def test_ctrl_c_keeps_what_is_complete(images: ImageSet, tmp_path: Path) -> None:
    """An interruption in the middle of a shard writes the pictures that were finished."""

    def interrupt(summary: Summary) -> None:
        if summary.computed >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "f", progress=interrupt)
    store, summary = run(images, tmp_path / "f")
    assert summary.present >= 3
    [values] = store.read([32]).values()
    np.testing.assert_allclose(values, alone(images), rtol=1e-4, atol=1e-4)


def test_a_replaced_picture_is_computed_again(images: ImageSet, tmp_path: Path) -> None:
    """A picture changed under its name loses its old features."""
    run(images, tmp_path / "f")
    Path(str(images.pictures[2])).write_bytes(Path(str(images.pictures[7])).read_bytes())
    store, summary = run(images, tmp_path / "f")
    assert summary.computed == 1
    [values] = store.read([32]).values()
    np.testing.assert_allclose(values[2], values[7], rtol=1e-5)


def test_other_settings_are_refused(images: ImageSet, tmp_path: Path) -> None:
    """Features made otherwise are never mixed, and the error names the setting."""
    run(images, tmp_path / "f")
    with pytest.raises(FingerprintMismatch, match="flip"):
        FeatureStore(tmp_path / "f", small(flip=False).extraction, images.names)


def test_several_layers_and_pools_are_kept_apart(images: ImageSet) -> None:
    """Each layer and pooling has an array of its own, equal to that of a run for it alone."""
    extractor = small(("conv1_1", "pool2"), pool="average+max")
    store = FeatureStore(None, extractor.extraction, images.names)
    extract(images, extractor, [32], store)
    found = store.read([32])
    assert [(p.layer, p.pool, v.shape[1]) for p, v in found.items()] == [
        ("conv1_1", "average", 64),
        ("conv1_1", "max", 64),
        ("pool2", "average", 128),
        ("pool2", "max", 128),
    ]
    expected = run(images, None)[0].read([32])
    for part, values in expected.items():
        np.testing.assert_allclose(found[part], values, rtol=1e-5, atol=1e-5)


def test_a_store_of_other_pictures_or_settings_is_refused(images: ImageSet) -> None:
    """Rows can never be filed under a neighbour's name, or under other settings."""
    swapped = ImageSet(images.names[::-1], images.pictures[::-1])
    store = FeatureStore(None, small().extraction, images.names)
    with pytest.raises(ParameterError, match="other pictures or settings"):
        extract(swapped, small(), [32], store)
    with pytest.raises(ParameterError, match="other pictures or settings"):
        extract(images, small(flip=False), [32], store)


def test_unknown_policies_are_refused(images: ImageSet) -> None:
    """Only skip and error are ways to treat a bad picture."""
    with pytest.raises(ParameterError, match="'skip', 'error'"):
        run(images, None, on_bad_image="ignore")


def test_a_folder_of_something_else_is_left_alone(images: ImageSet, tmp_path: Path) -> None:
    """A folder that holds other files is refused, and they stay as they were."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "failed.csv").write_text("precious")
    with pytest.raises(StoreError, match="not empty"):
        run(images, tmp_path / "mine")
    assert (tmp_path / "mine" / "failed.csv").read_text() == "precious"


def test_another_picture_of_the_same_name_size_and_time_is_another(tmp_path: Path) -> None:
    """Pictures of two folders that share name, size and time keep their own features."""
    for folder, seed in (("a", 1), ("b", 2)):
        path = tmp_path / folder / "p" / "1.bmp"
        path.parent.mkdir(parents=True)
        Image.fromarray(noise(40, 40, seed)).save(path)
        os.utime(path, ns=(10**18, 10**18))
    a, b = (find_pictures([str(tmp_path / folder / "p")]) for folder in "ab")
    run(a, tmp_path / "f")
    store, summary = run(b, tmp_path / "f")
    assert summary.computed == 1
    [values] = store.read([32]).values()
    np.testing.assert_allclose(values, alone(b), rtol=1e-5)


def test_a_run_that_kept_nothing_binds_nobody(images: ImageSet, tmp_path: Path) -> None:
    """After a run that ended before its first shard, other settings may use the folder."""
    FeatureStore(tmp_path / "f", small(flip=False).extraction, images.names)
    assert run(images, tmp_path / "f")[1].computed == 9


def test_pictures_of_another_list_are_counted(images: ImageSet, tmp_path: Path) -> None:
    """A run over part of the pictures reads that part, and says how many more are kept."""
    run(images, tmp_path / "f")
    store, _ = run(ImageSet(images.names[:4], images.pictures[:4]), tmp_path / "f")
    assert (len(store.view_names()), store.others) == (4, 5)
    assert FeatureStore.open(tmp_path / "f").names == list(images.names)


def test_threads_extract_side_by_side(images: ImageSet, tmp_path: Path) -> None:
    """Several stores written by threads of one process do not meet."""
    with ThreadPoolExecutor(4) as pool:
        folders = [tmp_path / str(i) for i in range(4)]
        done = list(pool.map(lambda folder: run(images, folder)[1].computed, folders))
    assert done == [9] * 4
