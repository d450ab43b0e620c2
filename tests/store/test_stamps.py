"""Which image it is: what was seen of images since their rows were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.mistakes import refuses
from storing import (
    FC7,
    LARGE,
    NAMES,
    POOL5,
    check,
    fill,
    ids_of,
    make_store,
    stamps_of,
    vectors,
)

from vggfeat.errors import StoreError
from vggfeat.store.store import FeatureStore


@pytest.fixture(params=[True, False], ids=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Name a folder, or none for a store in memory."""
    return tmp_path / "features" if request.param else None


def test_of_notes_in_several_files_the_last_counts(tmp_path: Path) -> None:
    """What another run once saw of an image does not hide that the image has changed since."""
    make_store(tmp_path / "s")
    for ids, version in ((ids_of(NAMES[:1]), 1), (np.zeros((1, 2)), 2)):
        store = FeatureStore(tmp_path / "s", "a")
        store.note(NAMES[:1], ids, stamps_of(NAMES[:1], version))
        store.save_notes()
    assert FeatureStore(tmp_path / "s").names == NAMES[1:]
    fill(FeatureStore(tmp_path / "s", "a"), names=NAMES[:1], version=1)
    store = FeatureStore(tmp_path / "s", "a")
    assert store.identify(NAMES[:1]).tolist() == ids_of(NAMES[:1], 1).tolist()
    store.finish(NAMES, {})
    check(FeatureStore(tmp_path / "s"), [FC7], NAMES[1:])


def test_a_touched_image_is_the_same(folder: Path | None) -> None:
    """An image seen unchanged under a new stamp keeps its descriptor, and is known by either."""
    store = make_store(folder)
    store.note(NAMES[:2], ids_of(NAMES[:2]), stamps_of(NAMES[:2], 1))
    store.save_notes()
    again = store if folder is None else FeatureStore(folder)
    check(again, [FC7], NAMES)
    for version in (0, 1):
        recalled = again.recall(NAMES[:2], stamps_of(NAMES[:2], version))
        np.testing.assert_array_equal(recalled, ids_of(NAMES[:2]))
    assert not again.recall(NAMES[2:3], stamps_of(NAMES[2:3], 1)).any()


def test_a_changed_image_is_not_read(tmp_path: Path) -> None:
    """Once it is known that an image has changed, its old descriptor is never read again."""
    make_store(tmp_path / "s", [FC7, LARGE])
    store = FeatureStore(tmp_path / "s", "a")
    store.note(NAMES[:1], np.zeros((1, 2)), stamps_of(NAMES[:1], 1))
    store.save_notes()
    reader = FeatureStore(tmp_path / "s")
    assert reader.names == NAMES[1:]
    refuses(lambda: reader.read(names=NAMES[:1]), StoreError, [NAMES[0]])
    fill(store, [FC7], NAMES[:1], version=1)
    reader = FeatureStore(tmp_path / "s")
    new = reader.read([FC7.descriptor], NAMES[:1])[FC7.descriptor]
    np.testing.assert_array_equal(new, vectors(NAMES[:1], FC7.descriptor, 1))
    assert not reader.has([LARGE.descriptor], NAMES[:1]).any()


@pytest.mark.parametrize("finished", [True, False])
def test_the_newest_row_counts(tmp_path: Path, finished: bool) -> None:
    """A replaced image's last descriptor is read, whatever the times, finished or not."""
    for version in (0, 5, 2, 0):
        store = FeatureStore(tmp_path / "s", "a")
        store.add_columns([FC7])
        arrays = {FC7.descriptor: vectors(NAMES, FC7.descriptor, version)}
        store.write(NAMES, ids_of(NAMES, version), stamps_of(NAMES, version), arrays)
        if finished:
            store.finish(NAMES, {})
        found = FeatureStore(tmp_path / "s").read([FC7.descriptor], NAMES)[FC7.descriptor]
        np.testing.assert_array_equal(found, arrays[FC7.descriptor])


def test_an_image_that_came_back_is_restored(tmp_path: Path) -> None:
    """The row of an image that was replaced and put back is copied, not computed."""
    make_store(tmp_path / "s", [FC7, POOL5])
    store = FeatureStore(tmp_path / "s", "a")
    fill(store, [FC7], NAMES[:3], version=1)
    wanted = [FC7.descriptor, POOL5.descriptor]
    assert store.has(wanted, NAMES[:3], ids_of(NAMES[:3])).all()
    assert not store.has(wanted, NAMES[:3], ids_of(NAMES[:3]), current=True).any()
    store.restore(wanted, NAMES[:3], ids_of(NAMES[:3]), stamps_of(NAMES[:3]))
    for each in (store, FeatureStore(tmp_path / "s")):
        check(each, [FC7, POOL5], NAMES)


def test_stamps_of_shares_become_one(tmp_path: Path) -> None:
    """Each share notes in a file of its own; the last whole run replaces them."""
    make_store(tmp_path / "s")
    for part in (1, 2):
        store = FeatureStore(tmp_path / "s", "a")
        mine = NAMES[part - 1 :: 2]
        store.note(mine, ids_of(mine), stamps_of(mine, 1))
        store.finish(mine, {"x.jpg": "it is empty"} if part == 2 else {}, share=(part, 2))
    files = {path.name for path in (tmp_path / "s").iterdir()}
    assert sum(name.startswith("stamps-") for name in files) == 2
    assert "failed-2-of-2.csv" in files
    assert "failed-1-of-2.csv" not in files
    assert FeatureStore(tmp_path / "s").failed == {"x.jpg": "it is empty"}
    FeatureStore(tmp_path / "s", "a").finish(NAMES, {})
    files = {path.name for path in (tmp_path / "s").iterdir()}
    [stamps] = (name for name in files if name.startswith("stamps-"))
    assert files == {"columns", "shards", "manifest.json", "features.h5", "run.json", stamps}
    recalled = FeatureStore(tmp_path / "s").recall(NAMES, stamps_of(NAMES, 1))
    np.testing.assert_array_equal(recalled, ids_of(NAMES))


def test_notes_of_two_runs_at_once_are_both_kept(tmp_path: Path) -> None:
    """Whatever the order in which they write and finish: neither writes the other's file."""
    make_store(tmp_path / "s")
    one, two = FeatureStore(tmp_path / "s", "a"), FeatureStore(tmp_path / "s", "a")
    for store, name in ((one, NAMES[0]), (two, NAMES[1])):
        store.note([name], np.zeros((1, 2)), stamps_of([name], 1))
    two.save_notes()
    one.save_notes()
    assert FeatureStore(tmp_path / "s").names == NAMES[2:]
    one.finish(NAMES, {})
    assert FeatureStore(tmp_path / "s").names == NAMES[2:]
    two.note([NAMES[2]], np.zeros((1, 2)), stamps_of([NAMES[2]], 1))
    two.save_notes()
    FeatureStore(tmp_path / "s", "a").finish(NAMES, {})
    assert FeatureStore(tmp_path / "s").names == NAMES[3:]
