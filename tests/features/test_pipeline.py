"""The one path's bookkeeping: what is lacking, resuming, bad images, interruption."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, local
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from helpers.mistakes import refuses
from helpers.seams import before_batches, round_size, shard_rows
from PIL import Image
from support import noise, random_weights

from vggfeat.data.imageset import ImageSet, find_images
from vggfeat.errors import FingerprintMismatch, ImageError, ParameterError, StoreError
from vggfeat.features import pipeline
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import Run, RunOptions, Summary, extract
from vggfeat.features.plan import Plan
from vggfeat.store.column import Descriptor
from vggfeat.store.store import FeatureStore

WEIGHTS = random_weights("A", ["pool2"])


def small(layers: str | tuple[str, ...] = "pool2", **settings: Any) -> DenseExtractor:
    return DenseExtractor("A", layers, weights=WEIGHTS, precision="fp32", device="cpu", **settings)


def pool2(Q: int = 32) -> Descriptor:
    return Descriptor("A", "pool2", "average", Q)


@pytest.fixture
def images(draw: Callable[..., Path]) -> ImageSet:
    for i in range(9):
        path = draw(f"images/{i}.png", 40 + 7 * (i % 3), 40, seed=i)
    return find_images([str(path.parent)])


def run(
    images: ImageSet,
    folder: Path | None,
    scales: tuple[int, ...] = (32,),
    extractor: DenseExtractor | None = None,
    **settings: Any,
) -> tuple[FeatureStore, Summary]:
    store = FeatureStore(folder, "a")
    return store, extract(images, extractor or small(), scales, store, **settings)


def values(store: FeatureStore, images: ImageSet, Q: int = 32) -> np.ndarray:
    return store.read([pool2(Q)], images.names)[pool2(Q)]


def alone(images: ImageSet, Q: int = 32) -> np.ndarray:
    """Describe every image in a run of its own: whose features are whose cannot go wrong."""
    rows = []
    for name, image in zip(images.names, images.images, strict=True):
        store, _ = run(ImageSet((name,), (image,)), None, (Q,))
        rows += [*store.read().values()]
    return np.concatenate(rows)


def test_every_row_is_its_own_image(images: ImageSet, tmp_path: Path) -> None:
    """Mixed shapes, batched and written to disk, come back in order."""
    store, summary = run(images, tmp_path / "f", (32, 48))
    assert (summary.images, summary.computed, summary.failed) == (9, 9, 0)
    for Q in (32, 48):
        np.testing.assert_allclose(values(store, images, Q), alone(images, Q), rtol=1e-4, atol=1e-4)


def test_a_second_run_computes_nothing(images: ImageSet, tmp_path: Path) -> None:
    """What is in the store is not computed again; a new scale costs that scale alone."""
    run(images, tmp_path / "f")
    _, summary = run(images, tmp_path / "f")
    assert (summary.present, summary.computed) == (9, 0)
    store, summary = run(images, tmp_path / "f", (32, 48))
    assert summary.computed == 9
    assert list(store.columns) == [pool2(32), pool2(48)]
    assert run(images, tmp_path / "f", (32, 48))[1].computed == 0
    assert [list(header.columns) for header in store.index.headers] == [[pool2(32)], [pool2(48)]]


def test_the_look_at_the_store_is_of_the_time(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million images it takes a while, in which the run describes none."""
    clock = [100.0]

    def plan(*given: Any) -> Plan:
        clock[0] += 5
        return Plan(*given)

    monkeypatch.setattr(pipeline, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(pipeline, "Plan", plan)
    assert run(images, None)[1].seconds == 5


def test_only_what_an_image_lacks_is_computed(images: ImageSet, tmp_path: Path) -> None:
    """More layers, poolings, scales and images cost what is new of them, and are the same rows."""
    some = images.take(range(5))
    run(some, tmp_path / "f")
    more = small(("conv1_1", "pool2"), pool="average+max")
    store, summary = run(images, tmp_path / "f", (32, 48), more)
    assert (summary.computed, summary.present) == (9, 0)
    assert summary.added == {7: 5}  # of eight columns
    asked = set(more.descriptors((32, 48)))
    written = {len(header.names): set(header.columns) for header in store.index.headers[1:]}
    assert written == {5: asked - {pool2()}, 4: asked}
    whole, _ = run(images, None, (32, 48), more)
    for name, expected in whole.read(names=images.names).items():
        found = store.read([name], images.names)[name]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_runs_at_once_take_in_what_others_wrote(images: ImageSet, tmp_path: Path) -> None:
    """What another run has done meanwhile is not computed again."""
    others: list[Summary] = []

    def interfere(done: Summary) -> None:
        if done.computed == 1 and not others:
            others.append(Summary(9))  # once
            others.append(run(images, tmp_path / "f")[1])

    with shard_rows(1):
        store, summary = run(images, tmp_path / "f", progress=interfere, workers=1)
    assert others[-1].computed == 9
    assert summary.computed + summary.present == 9
    assert summary.present >= 2  # the others were under way: one described, five decoded
    np.testing.assert_allclose(values(store, images), alone(images), rtol=1e-4, atol=1e-4)


def test_a_decoding_thread_sees_one_plan(images: ImageSet, tmp_path: Path) -> None:
    """What another run wrote of a replaced image meanwhile is not taken for all of it."""
    run(images, tmp_path / "f", extractor=small(("pool1", "pool2")))
    Path(str(images.images[2])).write_bytes(Path(str(images.images[7])).read_bytes())
    store = FeatureStore(tmp_path / "f", "a")
    ours = Run(images, small(("pool1", "pool2")), RunOptions((32,)), store)
    run(images, tmp_path / "f")  # pool2 alone
    image = tuple(FeatureStore(tmp_path / "f").identify([images.names[2]])[0].tolist())
    seen = []

    def has(*given: Any, **more: Any) -> Any:
        seen.append(ours.plan.lacking_of(2, image))
        return FeatureStore.has(store, *given, **more)

    store.refresh()
    with mock.patch.object(store, "has", has):
        ours.look()
    lacking = [layer for layer, _ in ours.plan.lacking_of(2, image)[32]]
    assert lacking == ["pool1"]
    assert [layer for keys in seen[0].values() for layer, _ in keys] == ["pool1", "pool2"]


def test_what_has_no_stamp_is_counted_once(images: ImageSet, tmp_path: Path) -> None:
    """Arrays are known only when they are read, whatever another run writes meanwhile."""
    arrays = ImageSet(images.names, tuple(noise(40, 40, seed) for seed in range(9)))
    others: list[Summary] = []
    told: list[int] = []

    def interfere(done: Summary) -> None:
        told.append(done.present)
        if done.computed == 4 and not others:
            others.append(run(arrays, tmp_path / "f")[1])

    with shard_rows(1):
        _, summary = run(arrays, tmp_path / "f", progress=interfere, workers=1)
    assert (summary.computed + summary.present, min(told)) == (9, 0)


def test_bad_images_are_absent_and_named(images: ImageSet, tmp_path: Path) -> None:
    """A bad image has no row, its neighbours keep theirs, and mended it is done next time."""
    expected = alone(images)
    broken = Path(str(images.images[4]))
    good = broken.read_bytes()
    broken.write_bytes(good[:100])
    store, summary = run(images, tmp_path / "f")
    assert (summary.computed, summary.failed) == (8, 1)
    held = images.take([0, 1, 2, 3, 5, 6, 7, 8])
    assert store.names == list(held.names)
    np.testing.assert_allclose(
        values(store, held), np.delete(expected, 4, axis=0), rtol=1e-4, atol=1e-4
    )
    assert list(store.failed) == [images.names[4]]

    broken.write_bytes(good)
    store, summary = run(images, tmp_path / "f")
    assert (summary.computed, summary.failed) == (1, 0)
    np.testing.assert_allclose(values(store, images), expected, rtol=1e-4, atol=1e-4)


def test_stopping_at_a_bad_image_keeps_what_was_done(images: ImageSet, tmp_path: Path) -> None:
    """With on_bad_image="error" the run ends at the image, and names it."""
    Path(str(images.images[5])).write_bytes(b"")
    with round_size(2), pytest.raises(ImageError, match=r"5\.png: the file is empty"):
        run(images, tmp_path / "f", on_bad_image="error")
    assert run(images, tmp_path / "f")[1].present == 4


def test_ctrl_c_keeps_what_is_complete(images: ImageSet, tmp_path: Path) -> None:
    """An interruption in the middle of a shard writes the images that were finished."""

    def interrupt(summary: Summary) -> None:
        if summary.computed >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "f", progress=interrupt)
    store, summary = run(images, tmp_path / "f")
    assert summary.present >= 3
    np.testing.assert_allclose(values(store, images), alone(images), rtol=1e-4, atol=1e-4)


def test_a_replaced_image_is_computed_again(images: ImageSet, tmp_path: Path) -> None:
    """An image changed under its name loses its old features."""
    run(images, tmp_path / "f")
    Path(str(images.images[2])).write_bytes(Path(str(images.images[7])).read_bytes())
    store, summary = run(images, tmp_path / "f")
    assert summary.computed == 1
    found = values(store, images)
    np.testing.assert_allclose(found[2], found[7], rtol=1e-5)


def test_touched_and_killed_nothing_is_copied(images: ImageSet, tmp_path: Path) -> None:
    """What a killed run held for changed is only noted by the next, which finds it unchanged."""
    run(images, tmp_path / "f")
    before = alone(images)
    for image in images.images:
        os.utime(Path(str(image)), (1, 1))
    Run(images, small(), RunOptions((32,)), FeatureStore(tmp_path / "f", "a")).plan.note_changed()
    assert FeatureStore(tmp_path / "f").names == []
    shards = set((tmp_path / "f" / "shards").iterdir())
    store, summary = run(images, tmp_path / "f")
    assert (summary.computed, summary.present) == (0, 9)
    assert set((tmp_path / "f" / "shards").iterdir()) == shards
    np.testing.assert_array_equal(values(store, images), before)
    store, summary = run(images, tmp_path / "f")
    assert (summary.computed, summary.present) == (0, 9)
    np.testing.assert_array_equal(values(FeatureStore(tmp_path / "f"), images), before)


def test_an_image_replaced_under_a_run_and_brought_back_is_computed(
    images: ImageSet, tmp_path: Path
) -> None:
    """What is read is not kept under the stamp of the file that was there before."""
    own, other = Path(str(images.images[8])), Path(str(images.images[0]))
    stat, content = own.stat(), own.read_bytes()
    store = FeatureStore(tmp_path / "f", "a")
    run_of_all = Run(images, small(), RunOptions((32,)), store)
    own.write_bytes(other.read_bytes())
    run_of_all.all(workers=1)
    own.write_bytes(content)
    os.utime(own, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    store, summary = run(images, tmp_path / "f")
    assert (summary.computed, summary.present) == (1, 8)
    np.testing.assert_allclose(values(store, images), alone(images), rtol=1e-4, atol=1e-4)


def test_what_was_read_last_counts(images: ImageSet, tmp_path: Path) -> None:
    """An image that another run had read before it was replaced is that which is there now."""
    store = FeatureStore(tmp_path / "f", "a")
    ours = Run(images, small(), RunOptions((32,)), store)
    with shard_rows(1):
        run(images, tmp_path / "f")
    Path(str(images.images[8])).write_bytes(Path(str(images.images[0])).read_bytes())
    ours.all(workers=1)
    found = values(FeatureStore(tmp_path / "f"), images)
    np.testing.assert_allclose(found, alone(images), rtol=1e-4, atol=1e-4)


def test_other_settings_are_refused(images: ImageSet, tmp_path: Path) -> None:
    """Features made otherwise are never mixed, and the error names the setting."""
    run(images, tmp_path / "f")
    with pytest.raises(FingerprintMismatch, match="flip: stored True → asked False"):
        run(images, tmp_path / "f", extractor=small(flip=False))


@pytest.mark.parametrize("scales", [32, np.int64(32), np.array([32]), range(32, 33)], ids=repr)
def test_scales_are_one_or_several(scales: Any, images: ImageSet) -> None:
    store, summary = run(images, None, scales)
    assert summary.computed == 9
    assert list(store.columns) == [pool2()]


@pytest.mark.parametrize(
    ("name", "wrong", "mentions"),
    [
        ("images", ["a.png"], "find_images"),
        ("images", "a.png", "find_images"),
        ("extractor", "D", 'DenseExtractor("D",'),
        ("store", "features", 'FeatureStore(path, mode="a")'),
        ("store", Path("features"), 'FeatureStore(path, mode="a")'),
        ("scales", "32", "Q"),
        ("scales", None, "Q"),
        *(("workers", wrong, "workers") for wrong in (0, -1, "2")),
    ],
    ids=str,
)
def test_a_wrong_argument_is_refused_with_what_makes_a_right_one(
    name: str, wrong: object, mentions: str, images: ImageSet
) -> None:
    right = {
        "images": images,
        "extractor": small(),
        "scales": [32],
        "store": FeatureStore(None, "a"),
    }
    refuses(lambda: extract(**{**right, name: wrong}), ParameterError, [mentions])


def test_unknown_policies_are_refused(images: ImageSet) -> None:
    """Only skip and error are ways to treat a bad image."""
    with pytest.raises(ParameterError, match="'skip', 'error'"):
        run(images, None, on_bad_image="ignore")


def test_a_folder_of_something_else_is_left_alone(images: ImageSet, tmp_path: Path) -> None:
    """A folder that holds other files is refused, and they stay as they were."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.csv").write_text("precious")
    with pytest.raises(StoreError, match="not empty"):
        run(images, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["precious.csv"]


def test_another_image_of_the_same_name_and_size_is_another(tmp_path: Path) -> None:
    """Images of two folders that share name and size keep their own features."""
    for folder, seed in (("a", 1), ("b", 2)):
        path = tmp_path / folder / "p" / "1.bmp"
        path.parent.mkdir(parents=True)
        Image.fromarray(noise(40, 40, seed)).save(path)
        os.utime(path, ns=(10**18, 10**18 + seed))
    a, b = (find_images([str(tmp_path / folder / "p")]) for folder in "ab")
    assert a.names == b.names
    run(a, tmp_path / "f")
    store, summary = run(b, tmp_path / "f")
    assert summary.computed == 1
    np.testing.assert_allclose(values(store, b), alone(b), rtol=1e-5)


def test_a_run_that_kept_nothing_binds_nobody(images: ImageSet, tmp_path: Path) -> None:
    """After a run that ended before its first shard, other settings may use the folder."""
    FeatureStore(tmp_path / "f", "a").add_columns(small(flip=False).columns([32]))
    assert run(images, tmp_path / "f")[1].computed == 9


def test_another_list_is_appended(images: ImageSet, tmp_path: Path) -> None:
    """Images of the last run come first, in its order; all others follow, by name."""
    run(images.take([3, 1]), tmp_path / "f")
    store, summary = run(images.take([8, 0]), tmp_path / "f")
    assert summary.computed == 2
    assert store.names == [images.names[row] for row in (8, 0, 1, 3)]
    assert FeatureStore(tmp_path / "f").names == store.names
    np.testing.assert_allclose(
        values(store, images.take([1, 8])), alone(images.take([1, 8])), rtol=1e-4, atol=1e-4
    )


def test_shares_leave_lists_of_their_own(images: ImageSet, tmp_path: Path) -> None:
    """What a share could not read is in a file of its own, which the whole run replaces."""
    Path(str(images.images[0])).write_bytes(b"")
    for part, rows in ((1, [0, 2, 4]), (2, [1, 3])):
        run(images.take(rows), tmp_path / "f", share=(part, 2))
    files = {path.name for path in (tmp_path / "f").iterdir()}
    assert {"failed-1-of-2.csv", "run-1-of-2.json", "run-2-of-2.json"} <= files
    assert not {"failed.csv", "features.h5"} & files
    assert list(FeatureStore(tmp_path / "f").failed) == [images.names[0]]
    _, summary = run(images.take(range(5)), tmp_path / "f")
    assert (summary.present, summary.computed, summary.failed) == (4, 0, 1)
    files = {path.name for path in (tmp_path / "f").iterdir()}
    assert {"failed.csv", "features.h5", "run.json"} <= files
    assert not any("-of-2" in name for name in files)


def test_threads_that_share_a_network_have_their_own_rows(images: ImageSet, tmp_path: Path) -> None:
    """Two threads describe at the same moment, to layers of other depths, and get their rows."""
    shared, both, begun = small(("pool1", "pool2")), Barrier(2), local()
    run(images.take(range(4)), tmp_path / "0", extractor=small("pool1"))

    def meet(*_: Any) -> None:
        if not hasattr(begun, "at"):
            begun.at = both.wait(60)

    def describe(number: int, rows: range) -> np.ndarray:
        store, summary = run(images.take(rows), tmp_path / str(number), extractor=shared)
        assert summary.computed == len(rows)
        return values(store, images.take(rows))

    with before_batches(meet), ThreadPoolExecutor(2) as pool:
        found = list(pool.map(describe, range(2), [range(4), range(4, 9)]))
    np.testing.assert_allclose(np.concatenate(found), alone(images), rtol=1e-4, atol=1e-4)


def test_threads_extract_side_by_side(images: ImageSet, tmp_path: Path) -> None:
    """Several stores written by threads of one process do not meet."""
    with ThreadPoolExecutor(4) as pool:
        folders = [tmp_path / str(i) for i in range(4)]
        done = list(pool.map(lambda folder: run(images, folder)[1].computed, folders))
    assert done == [9] * 4


@pytest.mark.parametrize("progress", [None, False, True])
def test_the_bar_of_the_command_line_is_shown_if_asked(
    progress: bool | None, images: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    """With progress=True it is drawn on stderr; by default nothing is printed."""
    run(images, None, progress=progress)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert (f"{len(images)}/{len(images)}" in printed.err) == (progress is True)


def test_the_logger_says_what_the_command_prints(
    images: ImageSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Network, device, precision and store are said at INFO; an image left out is a warning."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    several = ImageSet((*images.names, "broken.png"), (*images.images, broken))
    with caplog.at_level("INFO", logger="vggfeat"):
        run(several, tmp_path / "f")
    assert {record.name for record in caplog.records} == {"vggfeat"}
    said = dict.fromkeys(("INFO", "WARNING"), "")
    for record in caplog.records:
        said[record.levelname] += record.getMessage()
    assert said["WARNING"].startswith("broken.png: ")
    for part in ("Net A, pool2", "fp32", "CPU", str(tmp_path / "f"), f"{len(images)} of"):
        assert part in said["INFO"]
