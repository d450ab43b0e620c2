"""Texts of HDF5 files: short, long and empty ones, and lists of them that never end."""

from __future__ import annotations

import io
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from fuzz.stores import endless

from vggfeat.errors import StoreDamaged
from vggfeat.features.extraction import Extraction
from vggfeat.features.store import FeatureStore
from vggfeat.hdf5 import COMPACT, attribute, write_text

ONE = Extraction("D", "ab12", ("fc7",))


@pytest.mark.parametrize("text", ["", "net", "größer\n", "é" * COMPACT], ids=len)
def test_texts_come_back(tmp_path: Path, text: str) -> None:
    """Of any length; those that fit are read without HDF5's lists, by anyone."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_text(file, "text", text)
        assert attribute(file, "text") == text
    content = (tmp_path / "x.h5").read_bytes()
    assert (b"GCOL" in content) == (not 0 < len(text.encode()) <= COMPACT)
    with h5py.File(io.BytesIO(content), "r") as file:
        assert attribute(file, "text") == text
        with pytest.raises(KeyError):
            attribute(file, "other")


def listed(path: Path) -> bytes:
    """Make a file whose texts lie in a list, as h5py writes them unasked."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"one": "a text", "two": "b" * 100})
    return path.read_bytes()


def test_a_list_without_end_is_refused(tmp_path: Path) -> None:
    """HDF5 would never come back from it: not of a file on disk, and not of one in memory."""
    path = tmp_path / "x.h5"
    good = listed(path)
    with h5py.File(path) as file:
        assert attribute(file, "two") == "b" * 100
    path.write_bytes(endless(good))
    for where in (path, io.BytesIO(endless(good))):
        with h5py.File(where, "r") as file, pytest.raises(ValueError, match="no end"):
            attribute(file, "one")


def test_other_integers_are_refused(tmp_path: Path) -> None:
    """Lists are looked through with the integers that every writer uses."""
    plan = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    plan.set_sizes(4, 4)
    name = bytes(tmp_path / "x.h5")
    h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, plan).close()
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file.attrs["one"] = "a text"
        with pytest.raises(ValueError, match="integers"):
            attribute(file, "one")


def shard(store: Path, change: bool) -> None:
    """Write a shard as earlier versions did, with texts in a list; ``change``: one without end."""
    made = FeatureStore(store, ONE, ["a.jpg"])
    [part] = ONE.parts([256])
    made.write([0], {part: np.ones((1, 5), "f4")})
    [path] = (store / "shards").glob("*.h5")
    with h5py.File(path, "r+") as file:
        for name in ("net", "settings", "provenance"):
            file.attrs[name] = attribute(file, name)
    if change:
        path.write_bytes(endless(path.read_bytes()))


def test_stores_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Their shards have the same attributes; a stranger's among them is refused, and ends."""
    shard(tmp_path / "old", False)
    assert json.loads(FeatureStore.open(tmp_path / "old").manifest.to_json())["dtype"] == "float32"
    assert FeatureStore.open(tmp_path / "old").read([256])
    shard(tmp_path / "bad", True)
    with pytest.raises(StoreDamaged, match="no end"):
        FeatureStore.open(tmp_path / "bad").read([256])


def test_names_of_any_length_are_refused(tmp_path: Path) -> None:
    """Arrays that lie in a list are of no use here: names have one length."""
    shard(tmp_path / "bad", False)
    [path] = (tmp_path / "bad" / "shards").glob("*.h5")
    with h5py.File(path, "r+") as file:
        del file["names"]
        file["names"] = ["a.jpg"]
    with pytest.raises(StoreDamaged, match="one length"):
        FeatureStore.open(tmp_path / "bad").read([256])
