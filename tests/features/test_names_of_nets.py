"""Every picture that any net of a store has stays in sight, whoever writes next."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.mistakes import refuses
from storing import vectors

from vggfeat._io.checksums import append_checksum, strip_checksum
from vggfeat.errors import StoreError
from vggfeat.features.check import info, verify
from vggfeat.features.export import export, pack
from vggfeat.features.extraction import Extraction, Part
from vggfeat.features.merge import merge
from vggfeat.features.repair import repair
from vggfeat.features.sharding import WHOLE, Shard
from vggfeat.features.store import FeatureStore

NAMES = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
STATS = {name: (100 + number, 200 + number) for number, name in enumerate(NAMES)}
D, E, A = (Extraction(net, f"weights of {net}", ("fc7",)) for net in "DEA")


def part_of(extraction: Extraction) -> Part:
    return Part(extraction.net, "fc7", "average", 256)


def opened(folder: Path, extraction: Extraction, names: Sequence[str]) -> FeatureStore:
    return FeatureStore(folder, extraction, names, stats=[STATS[name] for name in names])


def run(
    folder: Path, extraction: Extraction, names: Sequence[str], *, finish: bool = True
) -> FeatureStore:
    """Write what a net makes of some pictures, as an extraction does."""
    store = opened(folder, extraction, names)
    lacking = [row for row, _ in store.missing([256])]
    part = part_of(extraction)
    store.write(lacking, {part: vectors([names[row] for row in lacking], part)})
    if finish:
        store.finish()
    return store


def check(path: Path, held: dict[Extraction, Sequence[str]]) -> None:
    """Compare all that a store tells with the pictures that each net has."""
    names = sorted(set().union(*held.values()))
    assert verify(path) == []
    told = info(path)
    assert (told["pictures"], told["asked"], told["failed"]) == (len(names), len(names), 0)
    for extraction, own in held.items():
        part = part_of(extraction)
        store = FeatureStore.open(path, extraction.net)
        assert sorted(store.names) == names
        assert sorted(store.view_names()) == sorted(own)
        np.testing.assert_array_equal(store.read(names=own)[part], vectors(list(own), part))
        for name in set(names) - set(own):
            refuses(lambda: store.read(names=[name]), StoreError, ["not yet computed", name])  # noqa: B023
        assert told["nets"][extraction.net]["arrays"] == {
            f"/{extraction.net}/Q256": {"rows": len(own), "D": 5}
        }
    check_by_h5py(path / "features.h5" if path.is_dir() else path, held)


def check_by_h5py(path: Path, held: dict[Extraction, Sequence[str]]) -> None:
    """Read a view, or a packed file, as any program would."""
    with h5py.File(path) as file:
        names = file["names"].asstr()[:].tolist()
        assert sorted(names) == sorted(set().union(*held.values()))
        for extraction, own in held.items():
            part = part_of(extraction)
            expected = vectors(names, part)
            expected[[name not in own for name in names]] = np.nan
            np.testing.assert_array_equal(file[f"{extraction.net}/Q256"][:], expected)


@pytest.mark.parametrize("turned", [False, True])
def test_two_nets_over_different_pictures_merge(tmp_path: Path, turned: bool) -> None:
    """A store of D over a, b, c and one of E over c, d, e are one store of five pictures."""
    run(tmp_path / "1", D, NAMES[:3])
    run(tmp_path / "2", E, NAMES[2:])
    parts = [tmp_path / "1", tmp_path / "2"]
    done = merge(parts[::-1] if turned else parts, tmp_path / "all")
    assert (done.pictures, done.twice, done.copied) == (5, 1, 6)
    held = {D: NAMES[:3], E: NAMES[2:]}
    check(tmp_path / "all", held)
    assert FeatureStore.open(tmp_path / "all", "D").names == NAMES
    pack(tmp_path / "all", tmp_path / "one.h5")
    check(tmp_path / "one.h5", held)
    assert export(tmp_path / "all", tmp_path / "x.npz") == 1  # that both nets have
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["names"].tolist() == ["c.jpg"]
        np.testing.assert_array_equal(arrays["E/Q256"], vectors(["c.jpg"], part_of(E)))
    assert repair(tmp_path / "all").rebuilt == ()


@pytest.mark.parametrize("order", list(permutations([0, 1, 2])))
def test_three_nets_merge(tmp_path: Path, order: tuple[int, ...]) -> None:
    """So are stores of three nets, none of which has all; a second merge changes nothing."""
    held = {D: NAMES[:2], E: NAMES[1:4], A: NAMES[3:]}
    parts = [run_in(tmp_path / net.net, net, names) for net, names in held.items()]
    for _ in range(2):
        merge([parts[number] for number in order], tmp_path / "all")
        check(tmp_path / "all", held)


def run_in(folder: Path, extraction: Extraction, names: Sequence[str]) -> Path:
    run(folder, extraction, names)
    return folder


@pytest.mark.parametrize("first", [D, E])
def test_a_second_net_over_fewer_pictures_hides_none(tmp_path: Path, first: Extraction) -> None:
    """Without a merge, too, the first net keeps its pictures; they come behind those of the run."""
    second = E if first is D else D
    run(tmp_path, first, NAMES)
    run(tmp_path, second, NAMES[3:])
    check(tmp_path, {first: NAMES, second: NAMES[3:]})
    assert FeatureStore.open(tmp_path, "D").names == [*NAMES[3:], *NAMES[:3]]


def test_nets_over_overlapping_pictures_in_one_folder(tmp_path: Path) -> None:
    """Three nets in turn, each over other pictures, and the first again: all have theirs."""
    held = {D: NAMES[:3], E: NAMES[1:4], A: NAMES[2:]}
    for extraction, names in held.items():
        run(tmp_path, extraction, names)
    check(tmp_path, held)
    run(tmp_path, D, NAMES[:3])
    check(tmp_path, held)
    assert FeatureStore.open(tmp_path, "A").names == NAMES


def test_a_store_that_was_never_finished_hides_none(tmp_path: Path) -> None:
    """What a killed run of D wrote is in the view of E, and what a killed E wrote is opened."""
    run(tmp_path, D, NAMES[:3], finish=False)
    run(tmp_path, E, NAMES[2:4])
    check(tmp_path, {D: NAMES[:3], E: NAMES[2:4]})
    run(tmp_path, E, NAMES[2:], finish=False)
    store = FeatureStore.open(tmp_path, "E")
    assert store.names == ["c.jpg", "d.jpg", "a.jpg", "b.jpg", "e.jpg"]
    assert store.view_names() == NAMES[2:]
    merge([tmp_path], tmp_path / "all")
    check(tmp_path / "all", {D: NAMES[:3], E: NAMES[2:]})


def test_a_picture_that_one_net_cannot_use_stays_with_the_other(tmp_path: Path) -> None:
    """One whose numbers overflow in E alone has its row of D, and a reason in failed.csv."""
    run(tmp_path, D, NAMES[:3])
    store = opened(tmp_path, E, NAMES[:3])
    store.write([0, 1], {part_of(E): vectors(NAMES[:2], part_of(E))})
    store.fail(2, "overflow")
    store.finish()
    assert FeatureStore.open(tmp_path, "D").view_names() == NAMES[:3]
    again = FeatureStore.open(tmp_path, "E")
    refuses(lambda: again.read(names=["c.jpg"]), StoreError, ["overflow"])


def test_what_was_left_out_of_the_view_does_not_come_back(tmp_path: Path) -> None:
    """A picture whose file is damaged now has no row, though another net's run follows."""
    run(tmp_path, D, NAMES[:3])
    store = FeatureStore(tmp_path, D, NAMES[:3], stats=[STATS["a.jpg"], STATS["b.jpg"], (7, 7)])
    store.fail(2, "torn")
    store.finish()
    run(tmp_path, E, NAMES[:2])
    for net in "DE":
        assert FeatureStore.open(tmp_path, net).names == NAMES[:2]
    assert info(tmp_path)["asked"] == 2


@pytest.mark.parametrize("catalogued", [1, 64])
def test_an_older_file_in_the_place_of_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalogued: int
) -> None:
    """What was written last counts, whatever the times of the files, also before a run ended."""
    monkeypatch.setattr("vggfeat.features.shards.CATALOGUED", catalogued)
    part = part_of(D)
    for number, stat in enumerate([(1, 900), (2, 100), (3, 500)]):
        store = FeatureStore(tmp_path, D, NAMES[:1], stats=[stat])
        store.write([0], {part: np.full((1, 5), float(number))})
        store.files.catalogue()
        [values] = FeatureStore.open(tmp_path).read().values()
        np.testing.assert_array_equal(values, np.full((1, 5), float(number)))
        [by_name] = FeatureStore(tmp_path, D, NAMES[:1]).read().values()
        np.testing.assert_array_equal(by_name, values)


def test_a_picture_that_came_back_is_the_one_that_is_read(tmp_path: Path) -> None:
    """After A, B and A again, a finished store has the descriptor of A, which was there."""
    part = part_of(D)
    for stat, value in (((1, 1), 1.0), ((2, 2), 2.0), ((1, 1), None)):
        store = FeatureStore(tmp_path, D, NAMES[:1], stats=[stat])
        assert (store.missing([256]) == []) == (value is None)
        if value is not None:
            store.write([0], {part: np.full((1, 5), value)})
        store.finish()
    [values] = FeatureStore.open(tmp_path).read().values()
    np.testing.assert_array_equal(values, np.full((1, 5), 1.0))


@pytest.mark.parametrize("first", [D, E])
def test_what_a_run_writes_after_another_has_finished_is_seen(
    tmp_path: Path, first: Extraction
) -> None:
    """Of two runs begun together, one finishes after three shards; the other is killed later."""
    second = E if first is D else D
    ended, killed = opened(tmp_path, first, NAMES[:3]), opened(tmp_path, second, NAMES[3:])
    for row, name in enumerate(NAMES[:3]):
        ended.write([row], {part_of(first): vectors([name], part_of(first))})
        if row == 0:
            killed.write([0], {part_of(second): vectors(NAMES[3:4], part_of(second))})
    ended.finish()
    killed.write([1], {part_of(second): vectors(NAMES[4:], part_of(second))})
    store = FeatureStore.open(tmp_path, second.net)
    assert (store.names, store.view_names()) == (NAMES, NAMES[3:])
    merge([tmp_path], tmp_path / "all")
    check(tmp_path / "all", {first: NAMES[:3], second: NAMES[3:]})


@pytest.mark.parametrize("finish", [True, False])
@pytest.mark.parametrize("shard", [WHOLE, Shard(2, 2)])
def test_a_replaced_picture_counts_though_its_run_began_first(
    tmp_path: Path, finish: bool, shard: Shard
) -> None:
    """A run that wrote three shards meanwhile does not bring the old descriptor back."""
    late = FeatureStore(tmp_path, E, NAMES[:1], stats=[(7, 7)], shard=shard)
    other = opened(tmp_path, D, NAMES[:3])
    for row, name in enumerate(NAMES[:3]):
        other.write([row], {part_of(D): vectors([name], part_of(D))})
    if finish:
        other.finish()
    late.write([0], {part_of(E): np.full((1, 5), 7.0)})
    for path in (tmp_path, tmp_path / "all"):
        store = FeatureStore.open(path, "E")
        np.testing.assert_array_equal(store.read(names=["a.jpg"])[part_of(E)], [[7.0] * 5])
        assert FeatureStore.open(path, "D").view_names() == ["b.jpg", "c.jpg"]
        if path == tmp_path:
            merge([tmp_path], tmp_path / "all")


def test_what_was_left_out_stays_out_though_another_run_goes_on(tmp_path: Path) -> None:
    """A list without a damaged picture holds, and what is written after it is seen beside it."""
    run(tmp_path, D, NAMES[:3])
    killed = opened(tmp_path, E, NAMES[:2])
    store = FeatureStore(tmp_path, D, NAMES[:3], stats=[STATS["a.jpg"], STATS["b.jpg"], (7, 7)])
    store.fail(2, "torn")
    store.finish()
    killed.write([0, 1], {part_of(E): vectors(NAMES[:2], part_of(E))})
    for net in "DE":
        store = FeatureStore.open(tmp_path, net)
        assert store.names == store.view_names() == NAMES[:2]


def test_a_view_of_an_earlier_version_goes_by_generations(tmp_path: Path) -> None:
    """It does not say of which shards it was made: what is newer than it counts."""
    run(tmp_path, D, NAMES[:2])
    content = (tmp_path / "features.h5").read_bytes()
    with h5py.File(io.BytesIO(strip_checksum(content)), "r+") as file:
        del file.attrs["shards"]
        file.flush()
        image = file.id.get_file_image()
    (tmp_path / "features.h5").write_bytes(append_checksum(image))
    run(tmp_path, E, NAMES[1:], finish=False)
    assert FeatureStore.open(tmp_path, "E").view_names() == NAMES[1:]
    assert FeatureStore.open(tmp_path, "D").view_names() == NAMES[:2]
