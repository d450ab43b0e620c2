"""The feature store keeps what it was given, in order, and says so when it cannot."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storing import LARGE, NAMES, ONE, PART, STATS, fill, filled, vectors

from vggfeat.errors import (
    FingerprintMismatch,
    ParameterError,
    StoreDamaged,
    StoreError,
)
from vggfeat.features.check import info, verify
from vggfeat.features.extraction import Extraction, Part
from vggfeat.features.merge import merge
from vggfeat.features.store import FeatureStore


@pytest.mark.parametrize("on_disk", [True, False])
def test_round_trip(tmp_path, on_disk):
    """What is written in any order is read in the order of the names, in memory as on disk."""
    several = Extraction("D", "ab12", ("pool4", "pool5"), pool="average+max")
    store = FeatureStore(tmp_path / "f" if on_disk else None, several, NAMES)
    fill(store, [256, 384], order=lambda rows: random.Random(1).sample(rows, len(rows)))
    read = store.read()
    assert list(read) == several.parts([256, 384])
    for part, values in read.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, vectors(NAMES, part))
    assert store.dimensions == dict.fromkeys(several.parts([256, 384]), 5)
    assert store.nbytes >= 12 * 8 * 5 * 4


def test_reopened_store_misses_nothing(tmp_path):
    """A second run has nothing to do and adds no shard."""
    filled(tmp_path)
    shards = sorted((tmp_path / "shards").iterdir())
    again = FeatureStore(tmp_path, ONE, NAMES, stats=STATS)
    assert again.missing([256]) == []
    again.finish()
    assert sorted((tmp_path / "shards").iterdir()) == shards


def test_resume_computes_only_the_rest(tmp_path):
    """A run that stopped in the middle is told the rows and scales that are left."""
    first = FeatureStore(tmp_path, ONE, NAMES, stats=STATS)
    first.write([3, 1], {PART: vectors([NAMES[3], NAMES[1]], PART)})
    second = FeatureStore(tmp_path, ONE, NAMES, stats=STATS)
    assert [row for row, _ in second.missing([256])] == [0, 2, *range(4, 12)]
    assert second.missing([256, 384])[:2] == [(0, (256, 384)), (1, (384,))]
    fill(second, [256, 384])
    np.testing.assert_array_equal(second.read([384])[LARGE], vectors(NAMES, LARGE))


def test_growing_list_computes_the_new_pictures(tmp_path):
    """Pictures added to the list, before and between the others, are the only ones missing."""
    filled(tmp_path, NAMES[2:6], stats=STATS[2:6])
    grown = FeatureStore(tmp_path, ONE, NAMES, stats=STATS)
    assert [row for row, _ in grown.missing([256])] == [0, 1, *range(6, 12)]
    fill(grown, [256])
    grown.finish()
    np.testing.assert_array_equal(FeatureStore.open(tmp_path).read()[PART], vectors(NAMES, PART))


@pytest.mark.parametrize("stat", [(1, STATS[4][1]), (STATS[4][0], 1)])
def test_replaced_picture_is_computed_again(tmp_path, stat):
    """A file of another size or time under an old name does not get the old file's features."""
    filled(tmp_path)
    changed = [*STATS[:4], stat, *STATS[5:]]
    store = FeatureStore(tmp_path, ONE, NAMES, stats=changed)
    assert store.missing([256]) == [(4, (256,))]
    store.write([4], {PART: np.full((1, 5), 7.0)})
    store.finish()
    again = FeatureStore.open(tmp_path).read()[PART]
    np.testing.assert_array_equal(again[4], np.full(5, 7.0))
    np.testing.assert_array_equal(np.delete(again, 4, 0), vectors(NAMES[:4] + NAMES[5:], PART))
    assert verify(tmp_path) == []


def test_without_stats_names_identify_pictures(tmp_path):
    """A reader that knows only names finds what was written with stats."""
    filled(tmp_path)
    store = FeatureStore(tmp_path, ONE, NAMES[::-1])
    assert store.missing([256]) == []
    np.testing.assert_array_equal(store.read([256])[PART], vectors(NAMES[::-1], PART))


def test_other_settings_are_refused(tmp_path):
    """The refusal names each differing setting with both values, and the store stays as it was."""
    filled(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    other = Extraction("D", "cd34", ("fc7",), flip=False)
    with pytest.raises(FingerprintMismatch) as caught:
        FeatureStore(tmp_path, other, NAMES, stats=STATS)
    message = str(caught.value)
    assert "flip: stored True → asked False" in message
    assert "weights_sha256: stored ab12 → asked cd34" in message
    assert "precision" not in message
    assert "--out" in message
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_shard_of_other_settings_is_never_mixed_in(tmp_path):
    """A shard copied from a store with other settings is refused by its name."""
    filled(tmp_path / "a")
    filled(tmp_path / "b", extraction=Extraction("D", "ab12", ("fc7",), exif=False))
    [shard, *_] = (tmp_path / "b" / "shards").iterdir()
    shutil.copy(shard, tmp_path / "a" / "shards")
    with pytest.raises(FingerprintMismatch, match=f"(?s){shard.name}.*exif"):
        FeatureStore.open(tmp_path / "a")
    assert any(shard.name in problem for problem in verify(tmp_path / "a"))


def test_stores_merge_by_copying_shards(tmp_path):
    """Shards of the same settings made on several machines become one store in one folder."""
    filled(tmp_path / "a", NAMES[:6], stats=STATS[:6])
    filled(tmp_path / "b", NAMES[6:], stats=STATS[6:])
    for shard in (tmp_path / "b" / "shards").iterdir():
        shutil.copy(shard, tmp_path / "a" / "shards")
    store = FeatureStore(tmp_path / "a", ONE, NAMES, stats=STATS)
    assert store.missing([256]) == []
    store.finish()
    np.testing.assert_array_equal(
        FeatureStore.open(tmp_path / "a").read()[PART], vectors(NAMES, PART)
    )


def test_several_nets_live_in_one_store(tmp_path):
    """Each net has its own arrays over the same names, and readers must say which they mean."""
    filled(tmp_path)
    of_e = Extraction("E", "ef56", ("fc7",))
    store = FeatureStore(tmp_path, of_e, NAMES[:3], stats=STATS[:3])
    store.write([0, 2], {Part("E", "fc7", "average", 256): np.ones((2, 3))})
    store.fail(1, "truncated")
    store.finish()
    with pytest.raises(StoreError, match="D, E: say which"):
        FeatureStore.open(tmp_path)
    with pytest.raises(StoreError, match="D, E: not A"):
        FeatureStore.open(tmp_path, "A")
    assert FeatureStore.open(tmp_path, "E").names == NAMES
    assert FeatureStore.open(tmp_path, "E").view_names() == [NAMES[0], NAMES[2]]
    with h5py.File(tmp_path / "features.h5") as file:
        assert list(file) == ["D", "E", "names", "stat"]
        np.testing.assert_array_equal(file["D/Q256"][:], vectors(NAMES, PART))
    assert verify(tmp_path) == []
    assert info(tmp_path)["nets"]["E"]["arrays"] == {"/E/Q256": {"rows": 2, "D": 3}}


def test_other_pictures_are_refused(tmp_path):
    """A run over pictures of which the store holds none is pointed to another folder."""
    filled(tmp_path)
    with pytest.raises(StoreError, match=r"'x\.jpg'.*'\d\d\.jpg'.*--out"):
        FeatureStore(tmp_path, ONE, ["x.jpg"])
    cache = FeatureStore(tmp_path, ONE, ["x.jpg"], cache=True)
    assert cache.missing([256]) == [(0, (256,))]


def test_other_dtype_is_refused(tmp_path):
    """Numbers of two precisions are not mixed in one store."""
    filled(tmp_path)
    with pytest.raises(StoreError, match="holds float32, which cannot be mixed with float16"):
        FeatureStore(tmp_path, ONE, NAMES, dtype="float16")


@pytest.mark.parametrize("on_disk", [True, False])
def test_float16(tmp_path, on_disk):
    """Half precision is what numpy rounds to, and too large a number is an error, not infinity."""
    store = filled(tmp_path if on_disk else None, dtype="float16")
    expected = vectors(NAMES, PART).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(store.read()[PART], expected)
    with pytest.raises(StoreError, match=r"'03\.jpg'.*/D/Q384.*float32"):
        store.write([3], {LARGE: np.array([[1.0, 1e6]])})
    if on_disk:
        with h5py.File(tmp_path / "features.h5") as file:
            assert file["D/Q256"].dtype == np.float16


def test_memory_equals_disk(tmp_path):
    """The same calls give the same answers with and without a folder."""
    stores = [FeatureStore(folder, ONE, NAMES, stats=STATS) for folder in (tmp_path, None)]
    for store in stores:
        store.fail(7, "empty file")
        store.write([2, 0, 5], {PART: vectors([NAMES[2], NAMES[0], NAMES[5]], PART)})
        store.finish()
    disk, memory = stores
    assert disk.missing([384, 256]) == memory.missing([384, 256])
    assert disk.view_names([256]) == memory.view_names([256]) == ["00.jpg", "02.jpg", "05.jpg"]
    np.testing.assert_array_equal(disk.read()[PART], memory.read()[PART])
    for store in stores:
        with pytest.raises(StoreError, match=r"'07\.jpg'.*empty file.*1 of 2"):
            store.read([256], ["07.jpg", "02.jpg"])


def test_failed_pictures(tmp_path):
    """A failed picture has a line in failed.csv and no row, until a later run can use it."""
    odd = ['com,ma "quoted".jpg', "new\nline.jpg", "caf\udce9.jpg", "é.jpg"]
    store = FeatureStore(tmp_path, ONE, odd)
    for row in range(3):
        store.fail(row, f"reason, {row}")
    store.write([3], {PART: vectors(["é.jpg"], PART)})
    store.finish()
    text = (tmp_path / "failed.csv").read_text("utf-8", "surrogateescape")
    with (tmp_path / "failed.csv").open(newline="", errors="surrogateescape") as file:
        rows = list(csv.reader(file))
    assert rows == [["name", "reason"], *([name, f"reason, {n}"] for n, name in enumerate(odd[:3]))]
    assert "caf\udce9" in text
    opened = FeatureStore.open(tmp_path)
    assert opened.names == ["é.jpg"]
    with pytest.raises(StoreError, match="reason, 2"):
        opened.read(names=["caf\udce9.jpg"])
    again = FeatureStore(tmp_path, ONE, odd)
    assert len(again.missing([256])) == 3
    fill(again, [256])
    again.finish()
    assert not (tmp_path / "failed.csv").exists()
    assert FeatureStore.open(tmp_path).names == odd


def test_names_that_are_not_utf8(tmp_path):
    """A file name of any bytes comes back as Python's own file functions would name it."""
    odd = [os.fsdecode(b"caf\xe9.jpg"), "écrit.jpg", "日本/=1+1.jpg", "x" * 300]
    filled(tmp_path, odd, stats=None)
    assert FeatureStore.open(tmp_path).names == odd
    with h5py.File(tmp_path / "features.h5") as file:
        assert file["names"][0] == b"caf\xe9.jpg"
        assert file["names"].asstr(errors="surrogateescape")[:].tolist() == odd


@pytest.mark.parametrize(
    "names", [["a", "b", "a"], ["caf\udcc3\udca9", "café"], ["nul\0"], ["\ud800"]]
)
def test_names_that_cannot_be_kept(names):
    """Names that come twice, once encoded too, or that no file can have are refused."""
    with pytest.raises(ParameterError, match="'names' parameter"):
        FeatureStore(None, ONE, names)


@pytest.mark.parametrize(
    ("rows", "part", "values", "expected"),
    [
        ([0, 0], PART, np.ones((2, 5)), "different rows"),
        ([12], PART, np.ones((1, 5)), "different rows"),
        ([-1], PART, np.ones((1, 5)), "different rows"),
        ([0], PART, np.ones((2, 5)), r"arrays \(1, D\)"),
        ([0], PART, np.ones(5), r"arrays \(1, D\)"),
        ([0], PART, np.ones((1, 4)), r"arrays \(1, 5\)"),
        ([0], Part("E", "fc7", "average", 256), np.ones((1, 5)), "parts of"),
        ([0], PART, np.full((1, 5), np.nan), r"'00\.jpg'.*not finite"),
    ],
)
def test_writes_that_do_not_fit(tmp_path, rows, part, values, expected):
    """Wrong rows, shapes, parts and numbers are refused before anything is written."""
    store = filled(tmp_path)
    before = sorted((tmp_path / "shards").iterdir())
    with pytest.raises(ValueError, match=expected):
        store.write(rows, {part: values})
    assert sorted((tmp_path / "shards").iterdir()) == before


def test_scales_that_are_absent(tmp_path):
    """Asking for a scale that was never extracted says which there are."""
    with pytest.raises(StoreError, match=r"at Q = 512, only at Q in \[256\]"):
        filled(tmp_path).read([512])


def test_interrupted_second_scale_keeps_the_first(tmp_path):
    """A run that is stopped while it adds a scale leaves all pictures readable at the old one."""
    filled(tmp_path)
    store = FeatureStore(tmp_path, ONE, NAMES, stats=STATS)
    store.write([5, 6], {LARGE: vectors(NAMES[5:7], LARGE)})
    store.finish()
    opened = FeatureStore.open(tmp_path)
    assert opened.view_names([256]) == NAMES
    assert opened.view_names([256, 384]) == NAMES[5:7]
    np.testing.assert_array_equal(opened.read()[LARGE], vectors(NAMES[5:7], LARGE))
    with h5py.File(tmp_path / "features.h5") as file:
        assert np.isnan(file["D/Q384"][:]).all(axis=1).tolist() == [
            name not in NAMES[5:7] for name in NAMES
        ]


@settings(max_examples=30, deadline=None)
@given(asked=st.lists(st.sampled_from(NAMES)), seed=st.integers(0, 99), size=st.integers(1, 12))
def test_read_any_selection(asked, seed, size):
    """Whatever the shards, any selection of names in any order gives their own rows."""
    store = FeatureStore(None, ONE, NAMES)
    fill(store, [256], size, order=lambda rows: random.Random(seed).sample(rows, len(rows)))
    np.testing.assert_array_equal(store.read([256], asked)[PART], vectors(asked, PART))


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(NAMES), seed=st.integers(0, 99), size=st.integers(1, 12))
def test_view_in_any_order(tmp_path_factory, order, seed, size):
    """Plain h5py sees the rows in the order of the last list, however the shards lie."""
    folder = tmp_path_factory.mktemp("store")
    store = FeatureStore(folder, ONE, NAMES)
    fill(store, [256], size, order=lambda rows: random.Random(seed).sample(rows, len(rows)))
    FeatureStore(folder, ONE, order).finish()
    with h5py.File(folder / "features.h5") as file:
        assert file["names"].asstr()[:].tolist() == list(order)
        np.testing.assert_array_equal(file["D/Q256"][:], vectors(list(order), PART))
    assert verify(folder) == []


def test_blocks_cover_all_pictures_once(tmp_path):
    """Blocks have the asked size but the last, and together are what read gives."""
    store = filled(tmp_path)
    names, parts = zip(*store.blocks([256], rows_per_block=5), strict=True)
    assert [len(some) for some in names] == [5, 5, 2]
    assert [name for some in names for name in some] == NAMES
    np.testing.assert_array_equal(
        np.concatenate([part[PART] for part in parts]), vectors(NAMES, PART)
    )


def test_view_for_any_reader(tmp_path):
    """Another process with another working directory reads the moved store with h5py alone."""
    filled(tmp_path / "before", scales=(256, 384))
    (tmp_path / "before").rename(tmp_path / "after")
    script = (
        "import h5py, sys; file = h5py.File(sys.argv[1]);"
        "print(file['names'].asstr()[3], file['D/Q384'].shape, *file['D/Q384'][3].tolist())"
    )
    for folder, path in ((tmp_path, "after/features.h5"), ("/", tmp_path / "after/features.h5")):
        output = subprocess.run(
            [sys.executable, "-c", script, path], cwd=folder, capture_output=True, check=True
        ).stdout.split()
        assert output[:3] == [b"03.jpg", b"(12,", b"5)"]
        assert [float(x) for x in output[3:]] == vectors(["03.jpg"], LARGE)[0].tolist()


def test_killed_before_the_view_was_written(tmp_path):
    """Without features.h5 the pictures of all shards are there, in alphabetical order."""
    store = FeatureStore(tmp_path, ONE, NAMES, stats=STATS)
    store.write([9, 4, 6], {PART: vectors([NAMES[9], NAMES[4], NAMES[6]], PART)})
    opened = FeatureStore.open(tmp_path)
    assert opened.names == [NAMES[4], NAMES[6], NAMES[9]]
    np.testing.assert_array_equal(opened.read()[PART], vectors(opened.names, PART))
    assert info(tmp_path)["finished"] is False
    assert (info(tmp_path)["asked"], info(tmp_path)["pictures"]) == (12, 3)


def test_opened_store_cannot_be_written(tmp_path):
    """A store that was opened without its settings is for reading."""
    filled(tmp_path)
    with pytest.raises(StoreError, match="only be read"):
        FeatureStore.open(tmp_path).write([0], {PART: np.ones((1, 5))})


def test_lost_manifest_is_rebuilt(tmp_path):
    """The shards say enough to go on without manifest.json."""
    filled(tmp_path, provenance={"device": "cpu"})
    (tmp_path / "manifest.json").unlink()
    assert verify(tmp_path) == ["manifest.json is missing; the next run rebuilds it"]
    np.testing.assert_array_equal(FeatureStore.open(tmp_path).read()[PART], vectors(NAMES, PART))
    with pytest.raises(FingerprintMismatch):
        FeatureStore(tmp_path, Extraction("D", "x", ("fc7",)), NAMES)
    FeatureStore(tmp_path, ONE, NAMES)
    assert json.loads((tmp_path / "manifest.json").read_text())["nets"]["D"] == {
        "settings": ONE.to_dict(),
        "fingerprint": ONE.fingerprint,
        "provenance": {"device": "cpu"},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "damaged.*store repair"),
        ('{"short_name": "a web page"}', "belongs to something else"),
        ('{"format": "vggfeat features", "version": 99}', "newer vggfeat"),
        ('{"format": "vggfeat features", "version": 1, "typ": 1}', "damaged"),
    ],
)
def test_manifests_that_are_none(tmp_path, text, expected):
    """A manifest that is broken, of another program or of a newer version is not written over."""
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=expected):
        FeatureStore(tmp_path, ONE, NAMES)
    assert (tmp_path / "manifest.json").read_text() == text


def test_no_store(tmp_path):
    """A folder or a file that is no store is said to be none."""
    with pytest.raises(StoreError, match="no feature store"):
        FeatureStore.open(tmp_path)
    with pytest.raises(StoreError, match="no feature store"):
        verify(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(StoreError, match="not a packed store"):
        FeatureStore.open(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(StoreDamaged, match=r"text\.h5"):
        FeatureStore.open(tmp_path / "text.h5")


def test_provenance_is_that_of_the_writer(tmp_path):
    """A run that computes nothing does not claim what others computed."""
    filled(tmp_path, NAMES[:6], provenance={"device": "cuda", "torch": "2.6"})
    idle = FeatureStore(tmp_path, ONE, NAMES[:6], stats=STATS[:6], provenance={"device": "cpu"})
    idle.finish()
    assert info(tmp_path)["nets"]["D"]["provenance"] == {"device": "cuda", "torch": "2.6"}
    filled(tmp_path, NAMES, provenance={"device": "cpu"})
    assert info(tmp_path)["nets"]["D"]["provenance"] == {"device": "cpu"}


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "No space left.*free some space, and run the same command"),
        (errno.EFBIG, "could not be written.*ulimit -f unlimited"),
        (errno.EACCES, "could not be written.*allow it"),
    ],
)
def test_full_or_forbidden_disk(tmp_path, monkeypatch, number, expected):
    """A failed write says that the rest is safe, and leaves no temporary file."""
    store = FeatureStore(tmp_path, ONE, NAMES, stats=STATS)
    store.write([0, 1], {PART: vectors(NAMES[:2], PART)})

    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StoreError, match=expected):
            store.write([2], {PART: vectors(NAMES[2:3], PART)})
    assert [path.suffix for path in (tmp_path / "shards").iterdir()] == [".h5"]
    assert fill(FeatureStore(tmp_path, ONE, NAMES, stats=STATS), [256]) == 10


def test_folder_that_is_a_file(tmp_path):
    """A store cannot be made where a file is."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file could not be written"):
        FeatureStore(tmp_path / "file", ONE, NAMES)


def test_info(tmp_path):
    """The summary counts pictures, failures, shards and bytes, and is plain JSON."""
    store = FeatureStore(tmp_path, ONE, NAMES, stats=STATS)
    store.fail(0, "empty")
    store.write(range(1, 12), {PART: vectors(NAMES[1:], PART)})
    store.finish()
    found = info(tmp_path)
    expected = {"asked": 12, "pictures": 11, "failed": 1, "shards": 1, "finished": True}
    assert expected.items() <= found.items()
    assert found["nets"]["D"]["arrays"] == {"/D/Q256": {"rows": 11, "D": 5}}
    assert found["bytes"] == sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    json.dumps(found)


def test_empty_list(tmp_path):
    """A list of no pictures makes a store of no rows."""
    store = FeatureStore(tmp_path, ONE, [])
    assert store.missing([256]) == []
    store.finish()
    assert verify(tmp_path) == []


def test_leftovers_of_the_dead_are_removed(tmp_path):
    """A run removes temporary files of killed processes, and none of those that live."""
    store = FeatureStore(tmp_path, ONE, NAMES, stats=STATS)
    host = os.uname().nodename
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = tmp_path / "shards" / f".tmp-{host}-{child.pid}-00"
    live = tmp_path / "shards" / f".tmp-{host}-{os.getppid()}-00"
    elsewhere = tmp_path / f".tmp-other-host-{child.pid}-00"
    for path in (dead, live, elsewhere):
        path.write_bytes(b"half")
    assert verify(tmp_path) == [
        f"{dead.name} is left over from a killed run; the next run removes it"
    ]
    fill(store, [256])
    store.finish()
    assert [path.exists() for path in (dead, live, elsewhere)] == [False, True, True]
    os.utime(elsewhere, (0, 0))
    store.finish()
    assert not elsewhere.exists()


@pytest.mark.slow
def test_two_thousand_shards(tmp_path):
    """A store of thousands of shards opens in seconds, and merged its view shows every row."""
    names = [f"{number}.jpg" for number in range(4000)]
    store = FeatureStore(tmp_path, ONE, names)
    values = np.arange(4000, dtype=np.float32)[:, None]
    for row in range(2000):
        store.write([row, row + 2000], {PART: values[[row, row + 2000]]})
    start = time.perf_counter()
    store.finish()
    FeatureStore.open(tmp_path)
    assert time.perf_counter() - start < 20
    with h5py.File(tmp_path / "features.h5") as file:
        assert "D" not in file  # it would read as NaN where a process may not open 2,000 files
    merge([tmp_path], tmp_path / "few")
    with h5py.File(tmp_path / "few" / "features.h5") as file:
        assert sorted(file["D/Q256"][:, 0]) == values[:, 0].tolist()


def test_layout(tmp_path):
    """A finished store holds the files that the documentation lists, and no others."""
    filled(tmp_path)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["features.h5", "manifest.json", "shards"]
    for shard in (tmp_path / "shards").iterdir():
        assert shard.stem == hashlib.sha256(shard.read_bytes()).hexdigest()
