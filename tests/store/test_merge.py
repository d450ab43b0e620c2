"""Stores become one, with every image once, whatever stops the work or disagrees."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.cli import run
from helpers.mistakes import refuses
from storing import (
    FC7,
    LARGE,
    POOL5,
    check,
    column,
    fill,
    ids_of,
    make_store,
    stamps_of,
    vectors,
)

from vggfeat.errors import FingerprintMismatch, ParameterError, StoreDamaged, StoreError
from vggfeat.store import merge as merging
from vggfeat.store import view
from vggfeat.store.column import Column
from vggfeat.store.export import export, pack
from vggfeat.store.maintenance import info, repair, verify
from vggfeat.store.merge import merge
from vggfeat.store.runs import write_run
from vggfeat.store.storage import Storage
from vggfeat.store.store import FeatureStore

# As folders are searched: the files of a folder before the folders in it.
NAMES = ["b.jpg", "z.jpg", "a/1.jpg", "a/2.jpg", "a-b/1.jpg", *(f"c/{n:02}.jpg" for n in range(20))]
FEW = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
D, E, A = (column(net=net) for net in "DEA")


def part(
    folder: Path, rows: Sequence[int], columns: Sequence[Column] = (FC7,), dtype: str = "float32"
) -> Path:
    """Make a finished store of some of the images, in shards of four."""
    make_store(folder, columns, [NAMES[row] for row in rows], size=4, dtype=dtype)
    return folder


def assert_whole(folder: Path, columns: Sequence[Column] = (FC7,)) -> None:
    """All images are there, in the order of one run, with the numbers of one run."""
    assert verify(folder) == []
    store = FeatureStore(folder)
    assert store.names == NAMES
    check(store, columns, NAMES)


def killed(
    folder: Path, names: Sequence[str], columns: Sequence[Column] = (FC7,), done: int = 2
) -> Path:
    """Make a store whose run over some images was killed after so many of them."""
    store = FeatureStore(folder, "a")
    store.add_columns(columns)
    store.begin(names)
    fill(store, columns, names[:done])
    return folder


def share(folder: Path, number: int, of: int, net: Column = FC7) -> Path:
    """Finish a share of the images in a folder."""
    names = NAMES[number - 1 :: of]
    store = FeatureStore(folder, "a")
    store.add_columns([net])
    store.begin(names, share=(number, of))
    fill(store, [net], names)
    store.finish(names, {}, (number, of))
    return folder


def shares(root: Path, numbers: Sequence[int], of: int) -> list[Path]:
    """Make finished shares of the images, each in a folder of its own."""
    return [share(root / f"{number}-of-{of}", number, of) for number in numbers]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parts_make_one_run(tmp_path: Path, dtype: str) -> None:
    """Folders and a packed file are joined into the store that one run would have made."""
    a, b, c = (part(tmp_path / str(n), range(n, len(NAMES), 3), dtype=dtype) for n in range(3))
    pack(c, tmp_path / "c.h5")
    done = merge([b, tmp_path / "c.h5", a], tmp_path / "all")
    assert (done.images, done.twice, done.copied, done.shards) == (len(NAMES), 0, len(NAMES), 1)
    assert_whole(tmp_path / "all")
    store = FeatureStore(tmp_path / "all", "a", dtype=dtype)
    assert fill(store, [FC7], NAMES) == 0  # a run over all of them has nothing to do
    np.testing.assert_array_equal(store.recall(NAMES, stamps_of(NAMES)), ids_of(NAMES))


def test_parts_are_only_read(tmp_path: Path) -> None:
    """Not a byte of them changes."""
    a, b = part(tmp_path / "a", range(12)), part(tmp_path / "b", range(8, 25))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    merge([a, b], tmp_path / "all")
    assert {path: path.read_bytes() for path in before} == before
    assert {path for each in (a, b) for path in each.rglob("*") if path.is_file()} == set(before)


def test_the_order_of_the_parts_changes_nothing(tmp_path: Path) -> None:
    """Also where two parts differ in what they hold of an image, to the byte."""
    a, b = part(tmp_path / "a", range(15)), tmp_path / "b"
    names = [NAMES[row] for row in range(10, 25)]
    store = FeatureStore(b, "a")
    store.add_columns([FC7])
    rounded = vectors(names, FC7.descriptor) + np.float32(1e-6)  # as another machine has it
    store.write(names, ids_of(names), stamps_of(names, 3), {FC7.descriptor: rounded})
    store.finish(names, {"torn.jpg": "torn"})
    merge([a, b], tmp_path / "one")
    merge([b, a], tmp_path / "other")
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "shards").iterdir()}
        for name in ("one", "other")
    )
    assert one == other
    for name in ("features.h5", "failed.csv"):
        files = [(tmp_path / folder / name).read_bytes() for folder in ("one", "other")]
        assert files[0] == files[1]


def test_an_image_given_twice_is_kept_once(tmp_path: Path) -> None:
    """It has every column that any part has of it."""
    part(tmp_path / "a", range(15))
    part(tmp_path / "b", range(10, 25))
    part(tmp_path / "c", range(25), [LARGE, POOL5])
    done = merge([tmp_path / name for name in "abc"], tmp_path / "all")
    assert (done.images, done.twice, done.copied) == (25, 25, 75)
    assert_whole(tmp_path / "all", [FC7, LARGE, POOL5])
    assert len(list((tmp_path / "all" / "shards").iterdir())) == 1


def test_columns_of_different_images(tmp_path: Path) -> None:
    """pool5 of some and fc7 of others: each image has what it had, in shards without gaps."""
    part(tmp_path / "a", range(15), [POOL5])
    part(tmp_path / "b", range(10, 25))
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert verify(tmp_path / "all") == []
    store = FeatureStore(tmp_path / "all")
    check(store, [POOL5], NAMES[:15])
    check(store, [FC7], NAMES[10:])
    assert store.complete() == NAMES[10:15]
    for path in (tmp_path / "all" / "shards").iterdir():
        with h5py.File(path) as file:
            for layer in file["D"]:
                assert not np.isnan(file[f"D/{layer}/average/Q256"][:]).any()


def test_a_second_merge_copies_what_is_new(tmp_path: Path) -> None:
    """What was merged before stays, and is not written again."""
    merge([part(tmp_path / "a", range(12))], tmp_path / "all")
    before = set((tmp_path / "all" / "shards").iterdir())
    done = merge([part(tmp_path / "b", range(12, 25))], tmp_path / "all")
    assert (done.images, done.copied) == (25, 13)
    assert before < set((tmp_path / "all" / "shards").iterdir())
    assert_whole(tmp_path / "all")


def test_an_interrupted_merge_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge that stopped after two shards of seven writes the other five."""
    parts = [part(tmp_path / "a", range(12)), part(tmp_path / "b", range(12, 25))]
    monkeypatch.setattr(merging, "SHARD_BYTES", 4 * 5 * 4)  # four rows

    def stop(done: int, total: int) -> None:
        assert total == 25
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(parts, tmp_path / "all", progress=stop)
    assert not info(tmp_path / "all")["finished"]
    done = merge(parts, tmp_path / "all")
    assert (done.shards, done.copied, done.twice) == (5, 17, 0)
    assert len(list((tmp_path / "all" / "shards").iterdir())) == 7
    assert info(tmp_path / "all")["finished"]
    assert_whole(tmp_path / "all")


def test_a_merge_says_once_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed right after run.json, which is written last, it has said what is left of a part."""
    make_store(tmp_path / "a", [D], FEW[:4])
    killed(tmp_path / "a", FEW[:4], [E])

    def stop(storage: Storage, run: Mapping[str, Any]) -> None:
        write_run(storage, run)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vggfeat.store.runs.write_run", stop)
        with pytest.raises(KeyboardInterrupt):
            merge([tmp_path / "a"], tmp_path / "all")
    assert not info(tmp_path / "all")["finished"]
    assert not merge([tmp_path / "a"], tmp_path / "all").finished
    make_store(tmp_path / "a", [D, E], FEW[:4])
    assert merge([tmp_path / "a"], tmp_path / "all").finished


def test_failed_images_go_along(tmp_path: Path) -> None:
    """What no part could read is told with its reason; what another part could, is not."""
    make_store(tmp_path / "1", names=NAMES[:13], failed={NAMES[12]: "torn"})
    make_store(tmp_path / "2", names=[*NAMES[13:], NAMES[0]], failed={NAMES[0]: "locked"})
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")
    assert FeatureStore(tmp_path / "all").failed == {NAMES[12]: "torn"}
    assert len(FeatureStore(tmp_path / "all").names) == 24
    assert info(tmp_path / "all")["asked"] == 25


def test_a_part_that_is_not_finished_is_remembered(tmp_path: Path) -> None:
    """The merged store lacks what no part has, however often it is merged, until a run ends."""
    part(tmp_path / "a", range(12))
    killed(tmp_path / "b", NAMES[12:22])
    for _ in range(2):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
        found = info(tmp_path / "all")
        assert (found["images"], found["asked"], found["finished"]) == (14, 22, False)
        assert FeatureStore(tmp_path / "all").runs[0]["new"] == 10
    merge([tmp_path / "all", part(tmp_path / "c", [0])], tmp_path / "again")
    assert (info(tmp_path / "again")["asked"], info(tmp_path / "again")["finished"]) == (22, False)
    make_store(tmp_path / "all", names=NAMES)
    assert info(tmp_path / "all")["finished"]
    assert_whole(tmp_path / "all")


def test_a_part_that_kept_nothing_is_remembered(tmp_path: Path) -> None:
    """A run that was killed before its first shard was asked for images all the same."""
    part(tmp_path / "a", range(12))
    FeatureStore(tmp_path / "b", "a").begin(NAMES[12:22])
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert (info(tmp_path / "all")["asked"], info(tmp_path / "all")["finished"]) == (22, False)
    merge([tmp_path / "a"], tmp_path / "b")
    assert FeatureStore(tmp_path / "b").runs[0]["new"] == 10


def test_shares_in_one_folder(tmp_path: Path) -> None:
    """Writers of one folder have no view; a merge, or the whole's run, makes one of all."""
    for number in (1, 2, 3, 4):
        share(tmp_path / "s", number, 4)
    assert not (tmp_path / "s" / "features.h5").exists()
    told = info(tmp_path / "s")
    assert (told["asked"], told["finished"], told["view"]) == (25, True, False)
    merge([tmp_path / "s"], tmp_path / "few")
    assert_whole(tmp_path / "few")
    make_store(tmp_path / "s", names=NAMES)
    assert_whole(tmp_path / "s")


def state(path: Path) -> tuple[bool, list[str]]:
    """Tell whether a store is finished, and which shares it lacks."""
    told = info(path)
    return told["finished"], told["missing"]


@pytest.mark.parametrize("later", [False, True])
def test_what_another_part_has_done_is_not_left(tmp_path: Path, later: bool) -> None:
    """A killed run counts for nothing where a part has all that it was asked for."""
    dead, whole = killed(tmp_path / "dead", NAMES[:25]), part(tmp_path / "whole", range(25))
    if later:
        assert not merge([dead], tmp_path / "all").finished
        assert state(tmp_path / "all") == (False, [])
        assert merge([whole], tmp_path / "all").finished
    else:
        assert merge([dead, whole], tmp_path / "all").finished
    assert state(tmp_path / "all") == (True, [])
    assert_whole(tmp_path / "all")


def test_what_another_part_has_done_in_part_is_left(tmp_path: Path) -> None:
    """Other columns, or fewer images, are not what a killed run was asked for."""
    dead = killed(tmp_path / "dead", NAMES[:25], [FC7, LARGE])
    whole, fewer = part(tmp_path / "whole", range(25)), part(tmp_path / "fewer", range(24))
    assert not merge([dead, whole], tmp_path / "1").finished
    assert not merge([killed(tmp_path / "two", NAMES[:25]), fewer], tmp_path / "2").finished
    assert not info(tmp_path / "1")["finished"]
    large = part(tmp_path / "large", range(25), [LARGE])
    assert merge([tmp_path / "1", large], tmp_path / "3").finished
    assert merge([tmp_path / "2", whole], tmp_path / "4").finished
    assert info(tmp_path / "3")["asked"] == info(tmp_path / "4")["asked"] == 25


def test_a_part_goes_on_with_a_longer_list(tmp_path: Path) -> None:
    """What an earlier merge said was left of the shorter list, the part itself says no more."""
    dead, other = killed(tmp_path / "dead", NAMES[:10]), part(tmp_path / "other", range(10, 15))
    assert not merge([dead, other], tmp_path / "all").finished
    part(dead, range(20))
    assert merge([dead, other], tmp_path / "all").finished
    assert state(tmp_path / "all") == (True, [])


def test_a_run_over_a_shorter_list_does_not_do_a_longer_one(tmp_path: Path) -> None:
    """What a part had left is left, whatever else was computed in the merged store."""
    dead = killed(tmp_path / "dead", NAMES[:10])
    assert not merge([dead], tmp_path / "all").finished
    part(tmp_path / "all", range(3))
    assert not merge([dead], tmp_path / "all").finished
    part(tmp_path / "all", range(10))
    assert merge([dead], tmp_path / "all").finished


def test_other_parts_say_nothing_of_what_is_left(tmp_path: Path) -> None:
    """A merge into a store that lacks a column of a list leaves it so, until its part is there."""
    make_store(tmp_path / "dead", [D], FEW[:4])
    killed(tmp_path / "dead", FEW[:4], [E])
    make_store(tmp_path / "other", [D, E], FEW[4:])
    for name in ("dead", "other", "dead"):
        assert not merge([tmp_path / name], tmp_path / "all").finished
    make_store(tmp_path / "dead", [D, E], FEW[:4])
    assert merge([tmp_path / "dead"], tmp_path / "all").finished


def test_a_trial_run_does_not_stay_left(tmp_path: Path) -> None:
    """A part was killed over two images, then over all: another part that has all finishes both."""
    dead = killed(tmp_path / "dead", NAMES[:2])
    killed(dead, NAMES[:10])
    whole = part(tmp_path / "whole", range(10))
    assert merge([dead, whole], tmp_path / "all").finished
    assert info(tmp_path / "all")["asked"] == 10


def test_another_list_does_not_do_what_was_left(tmp_path: Path) -> None:
    """A part that goes on with other images has not done those that it was killed over."""
    one, two = (killed(tmp_path / name, NAMES[:5]) for name in ("one", "two"))
    part(one, range(5, 15))
    assert not merge([one, two], tmp_path / "all").finished


def test_a_column_without_a_row_is_left(tmp_path: Path) -> None:
    """A part that was killed before its first row of a column is remembered for it."""
    make_store(tmp_path / "dead", [D], FEW[:4])
    killed(tmp_path / "dead", FEW[:4], [E], done=0)
    make_store(tmp_path / "same", [D], FEW[:4])
    for name in ("dead", "same"):
        assert not merge([tmp_path / name], tmp_path / "all").finished
    make_store(tmp_path / "dead", [D, E], FEW[:4])
    assert merge([tmp_path / "dead"], tmp_path / "all").finished


def test_killed_parts_over_the_same_images(tmp_path: Path) -> None:
    """Once they are through, the store was asked for as many images as it has."""
    parts = [killed(tmp_path / "1", NAMES[:10]), killed(tmp_path / "2", NAMES[5:15])]
    assert not merge(parts, tmp_path / "all").finished
    for number, rows in (("1", range(10)), ("2", range(5, 15))):
        part(tmp_path / number, rows)
    assert merge(parts, tmp_path / "all").finished
    assert info(tmp_path / "all")["asked"] == 15


def test_a_stopped_merge_forgets_nothing_that_was_left(tmp_path: Path) -> None:
    """The store that it goes into had a run of its own, which was killed."""

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    make_store(tmp_path / "all", [D], FEW[:4])
    killed(tmp_path / "all", FEW[:4], [E])
    make_store(tmp_path / "other", [D, E], FEW[4:])
    with pytest.raises(KeyboardInterrupt):
        merge([tmp_path / "other"], tmp_path / "all", progress=stop)
    assert not merge([tmp_path / "other"], tmp_path / "all").finished


def test_shares_that_are_missing_are_named(tmp_path: Path) -> None:
    """Until they are merged as well, or one run does all."""
    parts = shares(tmp_path, [1, 3, 4], 4)
    done = merge(parts, tmp_path / "all")
    assert (done.finished, done.missing) == (False, ("2/4",))
    assert state(tmp_path / "all") == (False, ["2/4"])
    assert info(tmp_path / "all")["asked"] == 25
    said = run("store", "info", tmp_path / "all").out
    assert "2/4" in said
    assert "--shard" in said
    said = run("store", "merge", *parts, "--out", tmp_path / "again").out
    assert "2/4" in said
    assert "--shard" in said
    assert merge(shares(tmp_path, [2], 4), tmp_path / "all").finished
    assert state(tmp_path / "all") == (True, [])
    assert_whole(tmp_path / "all")
    make_store(tmp_path / "again", names=NAMES)
    assert state(tmp_path / "again") == (True, [])


def test_shares_are_told_apart_by_columns(tmp_path: Path) -> None:
    """All shares of one net say nothing of those of another, in parts as in one folder."""
    parts = [share(tmp_path / f"D{number}", number, 3, D) for number in (1, 2, 3)]
    parts.append(share(tmp_path / "E1", 1, 3, E))
    done = merge(parts, tmp_path / "all")
    assert (done.finished, done.missing) == (False, ("2/3", "3/3"))
    assert state(tmp_path / "all") == (False, ["2/3", "3/3"])
    assert info(tmp_path / "all")["asked"] == 25
    for number in (1, 2, 3):
        share(tmp_path / "one", number, 3, D)
    share(tmp_path / "one", 1, 3, E)
    assert state(tmp_path / "one") == (False, ["2/3", "3/3"])  # those of E alone
    done = merge([share(tmp_path / f"E{n}", n, 3, E) for n in (2, 3)], tmp_path / "all")
    assert (done.finished, done.missing) == (True, ())
    assert_whole(tmp_path / "all", [D, E])


def test_shares_do_what_a_killed_run_did_not(tmp_path: Path) -> None:
    """All of a list's shares together are the whole of it."""
    dead = killed(tmp_path / "dead", NAMES[:25])
    assert not merge([dead, *shares(tmp_path, [1], 2)], tmp_path / "half").finished
    done = merge([tmp_path / "half", *shares(tmp_path, [2], 2)], tmp_path / "all")
    assert (done.finished, done.missing) == (True, ())
    assert_whole(tmp_path / "all")


def test_a_share_of_nothing_has_no_siblings(tmp_path: Path) -> None:
    """One too many of a short list is no sign of others."""
    parts = shares(tmp_path, [1, 2], 2)
    FeatureStore(parts[0], "a").finish([], {}, (30, 30))
    assert merge(parts, tmp_path / "all").finished


def test_images_that_changed_do_not_come_back(tmp_path: Path) -> None:
    """Of an image that was replaced only the newest row is joined; of one not yet read, none."""
    store = make_store(tmp_path / "a", names=FEW)
    fill(store, [FC7], FEW[:1], version=1)
    store.note(FEW[1:2], np.zeros((1, 2), np.int64), stamps_of(FEW[1:2], 1))
    store.finish(FEW, {})
    merge([tmp_path / "a"], tmp_path / "all")
    joined = FeatureStore(tmp_path / "all")
    assert joined.names == [FEW[0], *FEW[2:]]
    np.testing.assert_array_equal(joined.identify(FEW[:1]), ids_of(FEW[:1], 1))
    [values] = joined.read(names=FEW[:1]).values()
    np.testing.assert_array_equal(values, vectors(FEW[:1], FC7.descriptor, 1))


# Several nets


def check_nets(path: Path, held: Mapping[str, Sequence[str]]) -> None:
    """Compare all that a store tells with the images that each net has."""
    names = sorted(set().union(*held.values()))
    assert verify(path) == []
    told, store = info(path), FeatureStore(path)
    assert (told["images"], told["failed"]) == (len(names), 0)
    assert sorted(store.names) == names
    view = path / "features.h5" if path.is_dir() else path
    for net, own in held.items():
        only = column(net=net)
        check(store, [only], own)
        assert sorted(store.complete([only.descriptor])) == sorted(own)
        for name in set(names) - set(own):
            refuses(lambda: store.read([only.descriptor], [name]), StoreError, [name])  # noqa: B023
        assert told["columns"][only.descriptor.path]["rows"] == len(own)
        expected = vectors(store.names, only.descriptor)
        expected[[name not in own for name in store.names]] = np.nan
        with h5py.File(view) as file:  # as any program reads it
            assert file["names"].asstr()[:].tolist() == store.names
            np.testing.assert_array_equal(file[only.descriptor.path][:], expected)


@pytest.mark.parametrize("order", list(permutations("DEA")))
def test_nets_over_different_images(tmp_path: Path, order: Sequence[str]) -> None:
    """Stores of three nets, none of which has all images; a second merge changes nothing."""
    held = {"D": FEW[:2], "E": FEW[1:4], "A": FEW[3:]}
    for net, names in held.items():
        about = {"made by": net}
        make_store(tmp_path / net, [column(net=net)], names, provenance=about)
    for _ in range(2):
        merge([tmp_path / net for net in order], tmp_path / "all")
        check_nets(tmp_path / "all", held)
    nets = info(tmp_path / "all")["nets"]
    assert nets == {net: {"provenance": {"made by": net}} for net in "ADE"}


def test_a_merged_store_packs_and_exports(tmp_path: Path) -> None:
    """Of two nets over a, b, c and c, d, e, a packed file has five images, and a table one."""
    make_store(tmp_path / "1", [D], FEW[:3], provenance={"device": "cpu"})
    make_store(tmp_path / "2", [E], FEW[2:], provenance={"device": "cuda"})
    done = merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")
    assert (done.images, done.twice, done.copied) == (5, 1, 6)
    pack(tmp_path / "all", tmp_path / "one.h5")
    for path in (tmp_path / "all", tmp_path / "one.h5"):
        check_nets(path, {"D": FEW[:3], "E": FEW[2:]})
        nets = info(path)["nets"]
        assert nets["D"] == {"provenance": {"device": "cpu"}}
        assert nets["E"] == {"provenance": {"device": "cuda"}}
    assert export(tmp_path / "all", tmp_path / "x.npz") == 1  # that both nets have
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["names"].tolist() == ["c.jpg"]
        np.testing.assert_array_equal(
            arrays["E/fc7/average/Q256"], vectors(["c.jpg"], E.descriptor)
        )
    assert repair(tmp_path / "all").rebuilt == ()


def test_nets_over_overlapping_images_in_one_folder(tmp_path: Path) -> None:
    """Three nets in turn, each over other images, and the first again: all have theirs."""
    held = {"D": FEW[:3], "E": FEW[1:4], "A": FEW[2:]}
    for net, names in held.items():
        make_store(tmp_path, [column(net=net)], names)
    check_nets(tmp_path, held)
    make_store(tmp_path, [D], FEW[:3])
    check_nets(tmp_path, held)
    assert FeatureStore(tmp_path).names == FEW


def test_a_store_that_was_never_finished_hides_nothing(tmp_path: Path) -> None:
    """What a killed run of D wrote is in the view of E, and what a killed E wrote is merged."""
    fill(FeatureStore(tmp_path / "s", "a"), [D], FEW[:3])
    make_store(tmp_path / "s", [E], FEW[2:4])
    check_nets(tmp_path / "s", {"D": FEW[:3], "E": FEW[2:4]})
    fill(FeatureStore(tmp_path / "s", "a"), [E], FEW[2:])
    merge([tmp_path / "s"], tmp_path / "all")
    check_nets(tmp_path / "all", {"D": FEW[:3], "E": FEW[2:]})


# What does not fit


def other_settings(root: Path) -> None:
    make_store(root / "b", [column(flip=False)], NAMES[:3])


def other_type(root: Path) -> None:
    make_store(root / "b", names=NAMES[:3], dtype="float16")


def other_image(root: Path) -> None:
    store = FeatureStore(root / "b", "a")
    fill(store, [POOL5], NAMES[:3], version=1)
    store.finish(NAMES[:3], {})


def other_width(root: Path) -> None:
    wide = replace(FC7, width=6)
    store = FeatureStore(root / "b", "a")
    store.add_columns([wide])
    arrays = {wide.descriptor: np.ones((1, 6))}
    store.write(NAMES[:1], ids_of(NAMES[:1]), stamps_of(NAMES[:1]), arrays)
    store.finish(NAMES[:1], {})


@pytest.mark.parametrize(
    ("harm", "error", "mentions"),
    [
        (other_settings, FingerprintMismatch, ["/D/fc7/average/Q256", "flip: ", "True", "False"]),
        (other_type, StoreError, ["float32", "float16"]),
        (other_image, StoreError, ["'b.jpg'", "another"]),
        (other_width, StoreError, ["/D/fc7/average/Q256", "5", "6"]),
    ],
)
@pytest.mark.parametrize("into", [False, True])
def test_parts_that_do_not_fit(
    tmp_path: Path,
    harm: Callable[[Path], None],
    error: type[StoreError],
    mentions: list[str],
    into: bool,
) -> None:
    """Both parts are named with what differs, and nothing is written, wherever to."""
    part(tmp_path / "a", range(10))
    harm(tmp_path)
    out = tmp_path / ("a" if into else "all")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    parts = [tmp_path / "b"] if into else [tmp_path / "a", tmp_path / "b"]
    named = [str(tmp_path / "a"), str(tmp_path / "b")]
    refuses(lambda: merge(parts, out), error, [*mentions, *named])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    """No parts, parts without features, a stranger's folder, and a part as its own target."""
    a = part(tmp_path / "a", range(3))
    FeatureStore(tmp_path / "none", "a")
    refuses(lambda: merge(str(a), tmp_path / "all"), ParameterError, ["parts"])
    refuses(lambda: merge([a], tmp_path / "x" / ".." / "a"), StoreError, ["one of the parts"])
    refuses(lambda: merge([tmp_path / "none"], tmp_path / "all"), StoreError, ["no features"])
    refuses(lambda: merge([a, tmp_path / "nowhere"], tmp_path / "all"), StoreError, ["nowhere"])
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("")
    refuses(lambda: merge([a], tmp_path / "theirs"), StoreError, ["not empty"])
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_not_passed_on(tmp_path: Path, packed: bool) -> None:
    """What gets new digests is compared with its own first."""
    source = part(tmp_path / "a", range(4))
    [bad] = (source / "shards").iterdir()
    if packed:
        pack(source, tmp_path / "p.h5")
        source = bad = tmp_path / "p.h5"
    content = bytearray(bad.read_bytes())
    content[content.index(vectors(NAMES[1:2], FC7.descriptor).tobytes())] ^= 1
    bad.write_bytes(content)
    refuses(
        lambda: merge([source], tmp_path / "all"), StoreDamaged, ["not those that were written"]
    )
    assert not (tmp_path / "all").exists()


def test_a_merged_view_reads_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view over more shards than may be open has no arrays; merged, it has all."""
    monkeypatch.setattr(view, "OPEN", 3)
    part(tmp_path / "s", range(25))
    with h5py.File(tmp_path / "s" / "features.h5") as file:
        assert set(file) == {"names", "id", "stamp"}
        assert f"vggfeat store merge {tmp_path / 's'} --out" in str(file.attrs["note"])
    merge([tmp_path / "s"], tmp_path / "few")
    with h5py.File(tmp_path / "few" / "features.h5") as file:
        found = file[FC7.descriptor.path][:]
    np.testing.assert_array_equal(found, vectors(NAMES, FC7.descriptor))


# Writers at the same moment

RUN = """
import sys
from pathlib import Path
from storing import FC7, fill, make_store
from test_merge import NAMES
from vggfeat.store.store import FeatureStore
part, of = map(int, sys.argv[2].split("/"))
names = NAMES[part - 1::of]
print("open", flush=True)
sys.stdin.readline()
store = FeatureStore(sys.argv[1], "a")
share = None if of == 1 else (part, of)
store.begin(names, share=share)
fill(store, [FC7], names, size=4)
store.finish(names, {}, share)
"""


@pytest.mark.parametrize("shares", [["1/4", "2/4", "3/4", "4/4"], ["1/1", "1/1"]])
def test_processes_that_begin_at_once(tmp_path: Path, shares: list[str]) -> None:
    """Four shares, or twice the whole, written into a new store at once: one store of all."""
    tests = Path(__file__).parent
    environment = {"PYTHONPATH": ":".join([str(tests), str(tests.parent), *sys.path])}
    command = [sys.executable, "-c", RUN, str(tmp_path / "s")]
    runs = [
        subprocess.Popen(
            [*command, share], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        for share in shares
    ]
    for process in runs:
        assert process.stdout is not None
        process.stdout.readline()
    for process in runs:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in runs:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert merge([tmp_path / "s"], tmp_path / "all").copied == len(NAMES)
    assert_whole(tmp_path / "all")
