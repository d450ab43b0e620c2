"""What a run leaves when it is through: the files of a store, its caches and its view."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.mistakes import refuses
from storing import (
    FC7,
    NAMES,
    POOL5,
    check,
    fill,
    make_store,
    stamps_of,
    vectors,
)

from vggfeat._io import atomic
from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.store.export import export, pack
from vggfeat.store.index import read_view_names
from vggfeat.store.maintenance import info, repair
from vggfeat.store.merge import merge
from vggfeat.store.store import FeatureStore


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


def test_a_view_that_was_copied_alone_says_what_it_lacks(tmp_path: Path) -> None:
    """In an attribute, since HDF5 reads NaN without an error."""
    make_store(tmp_path / "s")
    (tmp_path / "s" / "features.h5").rename(tmp_path / "mine.h5")
    with h5py.File(tmp_path / "mine.h5") as file:
        assert np.isnan(file[FC7.descriptor.path][:]).all()
        for name in ("shards/", "vggfeat store pack"):
            assert name in str(file.attrs["note"])


def test_a_copy_that_lacks_a_shard_is_not_passed_on(tmp_path: Path) -> None:
    """What is written of it would lack images without a word; repaired, it is what is there."""
    make_store(tmp_path / "s")
    fill(FeatureStore(tmp_path / "s", "a"), [FC7], ["more.jpg"])
    FeatureStore(tmp_path / "s", "a").finish([*NAMES, "more.jpg"], {})
    max((tmp_path / "s" / "shards").iterdir(), key=lambda path: path.stat().st_size).unlink()
    for pass_on in (
        lambda: export(tmp_path / "s", tmp_path / "x.csv"),
        lambda: pack(tmp_path / "s", tmp_path / "x.h5"),
        lambda: merge([tmp_path / "s"], tmp_path / "m"),
    ):
        refuses(pass_on, StoreDamaged, ["shards/", "vggfeat store repair"])
    assert len(info(tmp_path / "s")["absent"]) == 1
    repair(tmp_path / "s")
    assert export(tmp_path / "s", tmp_path / "x.csv") == len(NAMES) + 1 - 5


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
