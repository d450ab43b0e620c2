"""The feature store: a table of columns that grows, and loses nothing."""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.mistakes import refuses
from hypothesis import given, settings
from hypothesis import strategies as st
from storing import (
    FC7,
    LARGE,
    NAMES,
    POOL5,
    check,
    column,
    fill,
    ids_of,
    make_store,
    stamps_of,
    vectors,
)

from vggfeat._io import atomic
from vggfeat.errors import FingerprintMismatch, ParameterError, StoreDamaged, StoreError
from vggfeat.store.column import Descriptor
from vggfeat.store.store import FeatureStore
from vggfeat.store.view import read_view_names


@pytest.fixture(params=[True, False], ids=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Name a folder, or none for a store in memory."""
    return tmp_path / "features" if request.param else None


def write(store: FeatureStore, names: list[str]) -> None:
    """Write one shard."""
    arrays = {FC7.descriptor: vectors(names, FC7.descriptor)}
    store.write(names, ids_of(names), stamps_of(names), arrays)


# What is written is read


def test_round_trip(folder: Path | None) -> None:
    """What is written in any order is read in any order."""
    store = FeatureStore(folder, "a")
    assert fill(store, [FC7, LARGE], order=lambda names: names[::-1]) == 12
    check(store, [FC7, LARGE], NAMES[::-1])
    assert store.names == NAMES
    assert store.complete() == NAMES


def test_float16(folder: Path | None) -> None:
    """Half precision is what numpy rounds to; too large a number is an error, not infinity."""
    store = make_store(folder, dtype="float16")
    check(store, [FC7], NAMES)
    huge = np.full((1, 5), 1e6)
    refuses(
        lambda: store.write(
            ["a.jpg"], ids_of(["a.jpg"]), stamps_of(["a.jpg"]), {FC7.descriptor: huge}
        ),
        StoreError,
        ["a.jpg", "float16", "float32"],
    )


def test_another_dtype_is_refused(tmp_path: Path) -> None:
    """Numbers of two precisions are not mixed in one store; an empty store takes either."""
    FeatureStore(tmp_path / "empty", "a", dtype="float16")
    assert FeatureStore(tmp_path / "empty", "a").dtype == "float32"
    make_store(tmp_path / "full")
    refuses(
        lambda: FeatureStore(tmp_path / "full", "a", dtype="float16"),
        StoreError,
        ["float32", "float16"],
    )


@settings(max_examples=30)
@given(
    order=st.permutations(NAMES),
    asked=st.lists(st.sampled_from(NAMES), min_size=1),
    size=st.integers(1, 12),
)
def test_any_selection_from_any_shards(order: list[str], asked: list[str], size: int) -> None:
    """Whatever the shards, any selection of names in any order gives their own rows."""
    store = FeatureStore(None, "a")
    fill(store, [FC7], order=lambda _: order, size=size)
    check(store, [FC7], asked)


def test_blocks(folder: Path | None) -> None:
    """Blocks have the asked size but the last, and together are what read gives."""
    store = make_store(folder)
    blocks = list(store.blocks([FC7.descriptor], rows=5))
    assert [len(names) for names, _ in blocks] == [5, 5, 2]
    together = np.concatenate([values[FC7.descriptor] for _, values in blocks])
    np.testing.assert_array_equal(together, vectors(NAMES, FC7.descriptor))


def test_names_of_any_bytes(tmp_path: Path) -> None:
    """A file name that is no UTF-8 comes back as Python's own file functions would name it."""
    names = ["a.jpg", "caf\udce9.jpg", "é.jpg", "日本.jpg"]
    make_store(tmp_path / "s", names=names)
    assert FeatureStore(tmp_path / "s").names == names
    check(FeatureStore(tmp_path / "s"), [FC7], names)


@pytest.mark.parametrize("names", [["a", "a"], ["a\0b"], ["\ud800"]])
def test_names_that_cannot_be_kept(names: list[str]) -> None:
    """Names that come twice or that no file can have are refused."""
    store = FeatureStore(None, "a")
    store.add_columns([FC7])
    values = {FC7.descriptor: np.zeros((len(names), 5))}
    pairs = np.zeros((len(names), 2), np.int64)
    with pytest.raises(ParameterError):
        store.write(names, pairs, pairs, values)


@pytest.mark.parametrize(
    ("descriptor", "values", "mentions"),
    [
        (LARGE.descriptor, np.zeros((2, 5)), "Q=384"),
        (FC7.descriptor, np.zeros((3, 5)), "(3, 5)"),
        (FC7.descriptor, np.zeros((2, 4)), "(2, 4)"),
        (FC7.descriptor, np.array([[0.0] * 5, [np.nan] * 5]), "b.jpg"),
    ],
)
def test_writes_that_do_not_fit(descriptor: Descriptor, values: np.ndarray, mentions: str) -> None:
    """Unknown columns, wrong shapes and numbers that are none are refused; nothing is kept."""
    store = FeatureStore(None, "a")
    store.add_columns([FC7])
    names = ["a.jpg", "b.jpg"]
    refuses(
        lambda: store.write(names, ids_of(names), stamps_of(names), {descriptor: values}),
        (ParameterError, StoreError),
        [mentions],
    )
    assert store.names == []


# A table that grows


def test_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    """What is there is never written again."""
    make_store(tmp_path / "s")
    before = sorted((tmp_path / "s" / "shards").iterdir())
    assert fill(FeatureStore(tmp_path / "s", "a")) == 0
    assert sorted((tmp_path / "s" / "shards").iterdir()) == before


def test_columns_and_images_are_added(tmp_path: Path) -> None:
    """Layers, poolings, scales, nets and images come in any order; each run adds what lacks."""
    other, largest = column("fc7", net="E"), column("pool5", "max", 512)
    make_store(tmp_path / "s", [POOL5], NAMES[:8])
    make_store(tmp_path / "s", [POOL5, largest], NAMES[4:])
    store = make_store(tmp_path / "s", [other], NAMES[:2])
    assert store.names == [*NAMES[:2], *NAMES[2:]]
    held = store.has([POOL5.descriptor, largest.descriptor, other.descriptor], NAMES)
    expected = [[True] * 12, [False] * 4 + [True] * 8, [True] * 2 + [False] * 10]
    np.testing.assert_array_equal(held.T, expected)
    check(FeatureStore(tmp_path / "s"), [POOL5], NAMES)
    check(FeatureStore(tmp_path / "s"), [largest], NAMES[4:])
    assert FeatureStore(tmp_path / "s").complete([POOL5.descriptor, other.descriptor]) == NAMES[:2]


def test_what_lacks_is_said_or_nan(tmp_path: Path) -> None:
    """An image that a column lacks is an error that says why, or NaN where that is asked for."""
    store = make_store(tmp_path / "s", names=NAMES[:3], failed={"02.jpg": "it is empty"})
    refuses(
        lambda: store.read(names=["00.jpg", "02.jpg"]),
        StoreError,
        ["02.jpg", "it is empty", "1 of 2"],
    )
    refuses(lambda: store.read(names=["11.jpg"]), StoreError, ["11.jpg", "not yet computed"])
    values = store.read(names=["02.jpg", "00.jpg"], missing="nan")[FC7.descriptor]
    assert np.isnan(values[0]).all()
    np.testing.assert_array_equal(values[1:], vectors(["00.jpg"], FC7.descriptor))
    refuses(
        lambda: store.read([LARGE.descriptor]),
        StoreError,
        ["/D/fc7/average/Q384", "/D/fc7/average/Q256"],
    )


def test_reading_everything_leaves_no_image_out_unsaid(tmp_path: Path) -> None:
    """By default rows are those of `names`; what lacks is an error or NaN, never a shift."""
    make_store(tmp_path / "s", [POOL5])
    store = make_store(tmp_path / "s", [FC7], NAMES[3:])
    refuses(store.read, StoreError, [NAMES[0], "/D/fc7/average/Q256", "complete", "3 of 12"])
    values = store.read(missing="nan")
    assert np.isnan(values[FC7.descriptor][store.names.index(NAMES[0])]).all()
    np.testing.assert_array_equal(values[POOL5.descriptor], vectors(store.names, POOL5.descriptor))
    by_path = store.read([POOL5.descriptor.path])[POOL5.descriptor]
    np.testing.assert_array_equal(by_path, values[POOL5.descriptor])
    assert sum(len(names) for names, _ in store.blocks(missing="nan", rows=5)) == 12
    refuses(lambda: store.read(POOL5.descriptor.path), ParameterError, ["columns"])
    refuses(lambda: store.read(["pool5"]), ParameterError, ["pool5", "/D/pool5/average/Q256"])


def test_scales_of_a_layer_have_the_same_settings(tmp_path: Path) -> None:
    """They are averaged: one with other settings is refused, of whatever Q."""
    make_store(tmp_path / "s")
    other = column(Q=384, flip=False)
    store = FeatureStore(tmp_path / "s", "a")
    refuses(lambda: store.add_columns([other]), FingerprintMismatch, ["Q256", "flip"])
    make_store(tmp_path / "s", [column("pool4", flip=False)])


def test_other_settings_are_refused(tmp_path: Path) -> None:
    """The refusal names each differing setting with both values; the store stays as it was."""
    make_store(tmp_path / "s")
    before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    refuses(
        lambda: FeatureStore(tmp_path / "s", "a").add_columns([column(flip=False)]),
        FingerprintMismatch,
        ["/D/fc7/average/Q256", "flip", "True", "False", "--out"],
    )
    after = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    assert before == after


def test_settings_without_a_row_bind_nobody(tmp_path: Path) -> None:
    """The column of a run that kept nothing takes the settings of the next."""
    FeatureStore(tmp_path / "s", "a").add_columns([FC7])
    make_store(tmp_path / "s", [column(flip=False)])
    [held] = FeatureStore(tmp_path / "s").columns.values()
    assert held.settings["flip"] is False


def test_another_writers_settings_are_met_before_a_shard(tmp_path: Path) -> None:
    """Two first writers of one column: the second is refused before it writes."""
    one, two = FeatureStore(tmp_path / "s", "a"), FeatureStore(tmp_path / "s", "a")
    one.add_columns([FC7])
    two.storage.remove(FC7.descriptor.file)  # as if it had looked before the first wrote
    two.add_columns([column(flip=False)])
    refuses(lambda: write(one, NAMES), FingerprintMismatch, ["flip"])
    assert write(two, NAMES) is None


def test_settings_with_rows_of_a_run_at_once_bind(tmp_path: Path) -> None:
    """What another run has written since a store was opened is not replaced by other settings."""
    one, two = FeatureStore(tmp_path / "s", "a"), FeatureStore(tmp_path / "s", "a")
    fill(one)
    refuses(lambda: two.add_columns([column(flip=False)]), FingerprintMismatch, ["flip"])
    check(FeatureStore(tmp_path / "s"), [FC7], NAMES)


def test_columns_of_others_are_their_own_affair(tmp_path: Path) -> None:
    """Settings that another run gives a column of its own, without rows so far, stop nobody."""
    FeatureStore(tmp_path / "s", "a").add_columns([POOL5])
    store = FeatureStore(tmp_path / "s", "a")
    store.add_columns([FC7])
    FeatureStore(tmp_path / "s", "a").add_columns([column("pool5", flip=False)])
    store.refresh()
    write(store, NAMES)
    check(FeatureStore(tmp_path / "s"), [FC7], NAMES)


def test_types_are_not_mixed_by_runs_that_begin_together(tmp_path: Path) -> None:
    """The run whose type was replaced before it wrote is refused; the store stays sound."""
    one = FeatureStore(tmp_path / "s", "a")
    one.add_columns([FC7])
    two = FeatureStore(tmp_path / "s", "a", dtype="float16")
    two.add_columns([FC7])
    refuses(lambda: write(one, NAMES), StoreError, ["float16", "float32", "--out"])
    write(two, NAMES)
    assert {header.dtype for header in FeatureStore(tmp_path / "s").index.headers} == {"float16"}


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


def test_rows_of_other_settings_do_not_count(tmp_path: Path) -> None:
    """A shard copied from a store with other settings is not taken for the column."""
    make_store(tmp_path / "s", names=NAMES[:4])
    make_store(tmp_path / "t", [column(flip=False)], NAMES[4:6])
    for shard in (tmp_path / "t" / "shards").iterdir():
        shutil.copy(shard, tmp_path / "s" / "shards")
    assert FeatureStore(tmp_path / "s").names == NAMES[:4]


# Which image it is


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


def test_the_view_does_not_show_what_has_changed(tmp_path: Path) -> None:
    """From the moment a run knows that an image has changed, features.h5 has no old row of it."""
    make_store(tmp_path / "s")
    store = FeatureStore(tmp_path / "s", "a")
    store.note(NAMES[:1], np.zeros((1, 2)), stamps_of(NAMES[:1], 1))
    store.save_notes()
    assert not (tmp_path / "s" / "features.h5").exists()
    refuses(lambda: store.read(names=NAMES[:1]), StoreError, [NAMES[0], "has changed"])
    store.finish(NAMES, {})
    with h5py.File(tmp_path / "s" / "features.h5") as file:
        assert file["names"].asstr()[:].tolist() == NAMES[1:]


# Several writers


def test_two_runs_lose_nothing(tmp_path: Path) -> None:
    """Runs with other images and other columns, side by side, are both there in the end."""
    one, two = FeatureStore(tmp_path / "s", "a"), FeatureStore(tmp_path / "s", "a")
    fill(one, [FC7], NAMES[:8])
    fill(two, [POOL5, LARGE], NAMES[4:])
    assert two.refresh()
    assert not two.refresh()
    two.finish(NAMES[4:], {})
    one.finish(NAMES[:8], {})
    reader = FeatureStore(tmp_path / "s")
    assert reader.names == NAMES
    check(reader, [FC7], NAMES[:8])
    check(reader, [POOL5, LARGE], NAMES[4:])


def test_a_lost_column_file_is_made_again(tmp_path: Path) -> None:
    """Shards say the settings too: readers and writers go on, and others are still refused."""
    make_store(tmp_path / "s")
    (tmp_path / "s" / FC7.descriptor.file).unlink()
    check(FeatureStore(tmp_path / "s"), [FC7], NAMES)
    refuses(
        lambda: FeatureStore(tmp_path / "s", "a").add_columns([column(flip=False)]),
        FingerprintMismatch,
        ["flip"],
    )
    assert (tmp_path / "s" / FC7.descriptor.file).is_file()


def test_provenance_is_that_of_the_writer(tmp_path: Path) -> None:
    """A run that computes nothing does not claim what others computed."""
    make_store(tmp_path / "s", provenance={"device": "first"})
    make_store(tmp_path / "s", provenance={"device": "second"})
    store = FeatureStore(tmp_path / "s")
    assert store.provenance("D") == {"device": "first"}
    assert [run["provenance"] for run in store.runs] == [{"device": "second"}]


# Files


def test_layout(tmp_path: Path) -> None:
    """A finished store holds the files that the design lists, and no others."""
    make_store(tmp_path / "s", [FC7, POOL5], failed={NAMES[0]: "it is empty"})
    files = {path.relative_to(tmp_path / "s").as_posix() for path in (tmp_path / "s").rglob("*")}
    shards = {name for name in files if name.startswith("shards/")}
    assert len(shards) == 3
    assert files - shards == {
        "manifest.json",
        "columns",
        "columns/D.fc7.average.Q256.json",
        "columns/D.pool5.average.Q256.json",
        "shards",
        "features.h5",
        "failed.csv",
        "run.json",
    }
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest == {"format": "vggfeat features", "version": 2, "dtype": "float32"}
    with (tmp_path / "s" / "failed.csv").open() as file:
        assert list(csv.reader(file)) == [["name", "reason"], [NAMES[0], "it is empty"]]


def test_any_hdf5_reader_sees_the_view(tmp_path: Path) -> None:
    """Another process with another working directory reads the moved store with h5py alone."""
    make_store(tmp_path / "s", [FC7], NAMES[::-1])
    make_store(tmp_path / "s", [POOL5], NAMES[:6])
    (tmp_path / "s").rename(tmp_path / "moved")
    code = (
        "import h5py, json, sys, numpy as np\n"
        "f = h5py.File(sys.argv[1]); fc7 = f['/D/fc7/average/Q256']\n"
        "names = [n.decode() for n in f['names'][:]]\n"
        "print(json.dumps([names, fc7[:].tolist(), json.loads(fc7.attrs['settings']),\n"
        "      np.isnan(f['/D/pool5/average/Q256'][:]).all(axis=1).tolist()]))"
    )
    view = str(tmp_path / "moved" / "features.h5")
    done = subprocess.run([sys.executable, "-c", code, view], cwd="/", capture_output=True)
    names, fc7, made, lacking = json.loads(done.stdout)
    assert names == [*NAMES[:6], *NAMES[6:]]  # the last list, then all others by name
    np.testing.assert_array_equal(np.float32(fc7), vectors(names, FC7.descriptor))
    assert made == dict(FC7.settings)
    assert lacking == [False] * 6 + [True] * 6


def test_a_view_over_too_many_shards_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 would read what it cannot open as NaN: the view then has names and a note."""
    monkeypatch.setattr("vggfeat.store.view.OPEN", 2)
    make_store(tmp_path / "s")
    with h5py.File(tmp_path / "s" / "features.h5") as file:
        assert set(file) == {"names", "id", "stamp"}
        assert b"store merge" in file.attrs["note"]
    check(FeatureStore(tmp_path / "s"), [FC7], NAMES)


def test_thousands_of_shards(tmp_path: Path) -> None:
    """From 64 shards on their headers are read from index.npz; a lost or old one does no harm."""
    names = [f"{number:03}" for number in range(100)]
    make_store(tmp_path / "s", names=names, size=1)
    opened: list[str] = []
    h5py_file = h5py.File

    class Counted(h5py_file):
        def __init__(self, name: object, *more: object, **options: object) -> None:
            opened.append(str(name))
            super().__init__(name, *more, **options)

    def count() -> int:
        opened.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(h5py, "File", Counted)
            assert FeatureStore(tmp_path / "s").names == names
        return sum("shards" in name for name in opened)

    assert count() == 0
    make_store(tmp_path / "s", names=[*names, "x", "y"], size=1)
    old = (tmp_path / "s" / "index.npz").read_bytes()
    names = [*names, "x", "y", "z"]
    fill(FeatureStore(tmp_path / "s", "a"), [FC7], names)
    assert count() == 1
    (tmp_path / "s" / "index.npz").write_bytes(old[:-90] + b"?" + old[-89:])
    assert count() == 103
    (tmp_path / "s" / "index.npz").unlink()
    assert count() == 103
    check(FeatureStore(tmp_path / "s"), [FC7], names)


def test_a_store_without_a_view(tmp_path: Path) -> None:
    """Killed before features.h5 was written, the images of all shards are there, by name."""
    fill(FeatureStore(tmp_path / "s", "a"), order=lambda names: names[::-1])
    assert FeatureStore(tmp_path / "s").names == NAMES
    (tmp_path / "s" / "features.h5").write_bytes(b"nothing of ours")
    assert FeatureStore(tmp_path / "s").names == NAMES
    assert read_view_names(FeatureStore(tmp_path / "s").storage) is None


def test_a_lost_manifest(tmp_path: Path) -> None:
    """The shards say enough to go on without manifest.json."""
    make_store(tmp_path / "s", dtype="float16")
    (tmp_path / "s" / "manifest.json").unlink()
    assert FeatureStore(tmp_path / "s").dtype == "float16"
    assert fill(FeatureStore(tmp_path / "s", "a", dtype="float16")) == 0


@pytest.mark.parametrize(
    ("text", "kind", "mentions"),
    [
        ("{", StoreDamaged, "store repair"),
        ("[1]", StoreError, "something else"),
        ('{"format": "vggfeat features", "version": 1}', StoreError, "an early vggfeat"),
        ('{"format": "vggfeat features", "version": 3}', StoreError, "a newer vggfeat"),
        ('{"format": "vggfeat features", "version": 2}', StoreDamaged, "dtype"),
    ],
)
@pytest.mark.parametrize("mode", ["r", "a"])
def test_manifests_that_are_none(
    tmp_path: Path, text: str, kind: type[Exception], mentions: str, mode: str
) -> None:
    """A manifest that is broken, of another program or another version is not written over."""
    make_store(tmp_path / "s")
    (tmp_path / "s" / "manifest.json").write_text(text)
    refuses(lambda: FeatureStore(tmp_path / "s", mode), kind, [mentions])
    assert (tmp_path / "s" / "manifest.json").read_text() == text


def test_what_is_no_store(tmp_path: Path) -> None:
    """An empty folder is none to read; a folder of other things is none to write."""
    refuses(lambda: FeatureStore(tmp_path), StoreError, ["manifest.json", "vggfeat extract"])
    refuses(lambda: FeatureStore(tmp_path / "absent"), StoreError, ["manifest.json"])
    (tmp_path / "thesis.tex").write_text("")
    refuses(lambda: FeatureStore(tmp_path, "a"), StoreError, ["not empty"])
    (tmp_path / "images" / "cat").mkdir(parents=True)
    refuses(lambda: FeatureStore(tmp_path / "images", "a"), StoreError, ["not empty"])
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        FeatureStore(tmp_path / "file", "a")
    refuses(lambda: FeatureStore(tmp_path, "w"), ParameterError, ["mode"])


def test_a_store_for_reading_is_not_written(tmp_path: Path) -> None:
    """Every method that writes says how to open the store for writing, and nothing changes."""
    make_store(tmp_path / "s")
    store = FeatureStore(tmp_path / "s")
    calls = {
        "add_columns": ([FC7],),
        "begin": (1,),
        "write": (["a"], [[1, 2]], [[1, 2]], {FC7.descriptor: np.zeros((1, 5))}),
        "note": (["a"], [[1, 2]], [[1, 2]]),
        "finish": ([], {}),
    }
    for name, arguments in calls.items():
        call = functools.partial(getattr(store, name), *arguments)
        refuses(call, StoreError, ['mode="a"'])
    assert FeatureStore(tmp_path / "s" / "features.h5").names == NAMES  # its view names it too


def test_leftovers_of_the_dead_are_removed(tmp_path: Path) -> None:
    """A run removes temporary files of killed processes, and none of those that live."""
    make_store(tmp_path / "s")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine, theirs = (
        tmp_path / "s" / "shards" / f"{atomic.TEMPORARY}{socket.gethostname()}-{pid}-aa"
        for pid in (os.getpid(), dead.pid)
    )
    for path in (mine, theirs):
        path.write_bytes(b"half")
    assert FeatureStore(tmp_path / "s").names == NAMES
    FeatureStore(tmp_path / "s", "a").finish(NAMES, {})
    assert mine.exists()
    assert not theirs.exists()


def test_the_folder_is_gone(tmp_path: Path) -> None:
    """A store whose folder was deleted meanwhile is not begun anew with a part of its rows."""
    store = make_store(tmp_path / "s")
    shutil.rmtree(tmp_path / "s")
    refuses(lambda: write(store, ["new.jpg"]), StoreError, ["again"])
    assert not (tmp_path / "s").exists()


def test_a_million_rows_open_within_a_second() -> None:
    """Ids, stamps, names and their order of a million images, from index.npz and the view."""
    from vggfeat.store.index import Index, Stamps
    from vggfeat.store.shard import ShardHeader

    names = [b"photos/%07d.jpg" % number for number in range(1_000_000)]
    rows = 4000
    headers = [
        ShardHeader(
            f"shards/{start}.h5",
            names[start : start + rows],
            np.arange(2 * start, 2 * (start + rows)).reshape(-1, 2),
            np.arange(2 * start, 2 * (start + rows)).reshape(-1, 2),
            {FC7.descriptor: FC7},
            "float32",
            1,
        )
        for start in range(0, len(names), rows)
    ]
    seconds = []
    for _ in range(3):
        start = time.process_time()
        index = Index(headers, {FC7.descriptor: FC7}, Stamps.join([]), names)
        seconds.append(time.process_time() - start)
    assert len(index.counted) == 1_000_000
    assert min(seconds) < 1
