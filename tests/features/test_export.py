"""Stores leave as one file, a table or arrays, whole or not at all."""

from __future__ import annotations

import csv
import os
import re
import shutil
import sys
from itertools import product

import h5py
import numpy as np
import pytest
from storing import LARGE, NAMES, ONE, PART, STATS, filled, vectors

from vggfeat.errors import MissingExtra, ParameterError, StoreDamaged, StoreError
from vggfeat.features.check import info, verify
from vggfeat.features.export import export, pack
from vggfeat.features.store import FeatureStore
from vggfeat.settings import Extraction
from vggfeat.store.column import Descriptor

ODD = ['=1+1,"x".jpg', "caf\udce9.jpg", *NAMES[2:]]
E_PART = Descriptor("E", "fc7", "average", 256)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pack(tmp_path, dtype):
    """The packed file stands alone, looks like the view to h5py, and opens as a store."""
    filled(tmp_path / "f", dtype=dtype)
    options = {"stats": STATS, "dtype": dtype, "provenance": {"device": "cpu"}}
    partly = FeatureStore(tmp_path / "f", ONE, NAMES, **options)
    partly.write([2], {LARGE: vectors(NAMES[2:3], LARGE)})
    partly.finish()
    before = FeatureStore.open(tmp_path / "f").read([256])[PART]
    pack(tmp_path / "f", tmp_path / "one.h5")
    shutil.rmtree(tmp_path / "f")
    with h5py.File(tmp_path / "one.h5") as file:
        assert file["names"].asstr()[:].tolist() == NAMES
        np.testing.assert_array_equal(file["D/Q256"][:], before)
        assert np.isnan(file["D/Q384"][:, 0]).sum() == 11
    store = FeatureStore.open(tmp_path / "one.h5")
    np.testing.assert_array_equal(store.read([256], NAMES[::-1])[PART], before[::-1])
    assert store.view_names([384]) == ["02.jpg"]
    assert verify(tmp_path / "one.h5") == []
    assert info(tmp_path / "one.h5")["nets"]["D"]["provenance"] == {"device": "cpu"}
    assert [path.name for path in tmp_path.iterdir()] == ["one.h5"]
    pack(tmp_path / "one.h5", tmp_path / "two.h5")
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "two.h5").read([256])[PART], before)


def test_flipped_number_in_a_packed_file_is_found(tmp_path):
    """A packed file's digest tells that a block changed; HDF5's own checksum refuses it too."""
    filled(tmp_path / "f")
    pack(tmp_path / "f", tmp_path / "one.h5")
    content = bytearray((tmp_path / "one.h5").read_bytes())
    place = content.index(vectors(NAMES[3:4], PART).tobytes())
    content[place] ^= 1
    (tmp_path / "one.h5").write_bytes(content)
    [problem] = verify(tmp_path / "one.h5")
    assert "its bytes are not those that were written" in problem
    for checked in (False, True):
        with pytest.raises(StoreDamaged):
            FeatureStore.open(tmp_path / "one.h5").read(verify=checked)


def test_pack_refuses_a_small_disk(tmp_path, monkeypatch):
    """Packing says how much it needs before it fills the disk."""
    filled(tmp_path / "f")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))
    with pytest.raises(StoreError, match=r"needs \d+ B, but only 9 B are free"):
        pack(tmp_path / "f", tmp_path / "one.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("target", ["features.h5", "shards/x.h5"])
def test_targets_inside_the_store_are_refused(tmp_path, target):
    """Packing a store over its own files would destroy it."""
    filled(tmp_path)
    with pytest.raises(StoreError, match="among the files of the store"):
        pack(tmp_path, tmp_path / target)


@pytest.fixture
def two_nets(tmp_path, monkeypatch):
    """Make a store of two nets with odd names, to be exported in blocks of 5."""
    monkeypatch.setattr("vggfeat.features.export.BLOCK", 5)
    filled(tmp_path / "f", ODD)
    filled(tmp_path / "f", ODD, Extraction("E", "ef56", ("fc7",)))
    return tmp_path / "f"


def test_export_npz(two_nets, tmp_path):
    """Numpy loads the names and one array for each part, without pickles."""
    assert export(two_nets, tmp_path / "x.npz") == 12
    with np.load(tmp_path / "x.npz") as arrays:
        assert sorted(arrays) == ["D/Q256", "E/Q256", "names"]
        assert arrays["names"].tolist() == ODD
        np.testing.assert_array_equal(arrays["E/Q256"], vectors(ODD, E_PART))


def test_export_csv(two_nets, tmp_path):
    """Pandas reads back every float32 to the last bit, and names as they are."""
    pandas = pytest.importorskip("pandas")
    export(two_nets, tmp_path / "x.csv")
    frame = pandas.read_csv(tmp_path / "x.csv", encoding_errors="backslashreplace")
    assert frame["name"].tolist() == [ODD[0], r"caf\xe9.jpg", *NAMES[2:]]
    assert b"\ncaf\xe9.jpg," in (tmp_path / "x.csv").read_bytes()
    assert frame.columns[1:].tolist() == [f"{net}/Q256/{d}" for net in "DE" for d in range(5)]
    expected = np.hstack([vectors(ODD, PART), vectors(ODD, E_PART)])
    np.testing.assert_array_equal(frame.iloc[:, 1:].to_numpy(np.float32), expected)


def test_no_name_is_changed_in_csv(tmp_path):
    """Names that a spreadsheet would take for formulas, or that CSV must quote, come back."""
    odd = ["-a.jpg", "=1+1.jpg", "+1.jpg", "@x.jpg", "'b.jpg", "''c.jpg", "\t1.jpg", "a\rb.jpg"]
    odd += ["a\nb.jpg", 'quo"te.jpg', "com,ma.jpg", "caf\udce9.jpg", " x.jpg", "-1"]
    store = FeatureStore(tmp_path / "f", ONE, [*odd, "-bad.jpg"])
    store.write(range(len(odd)), {PART: vectors(odd, PART)})
    store.fail(len(odd), "=it is 'torn'")
    store.finish()
    export(tmp_path / "f", tmp_path / "x.csv")
    for path, column in ((tmp_path / "x.csv", odd), (tmp_path / "f" / "failed.csv", ["-bad.jpg"])):
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            assert [row[0] for row in csv.reader(file)][1:] == column
    assert FeatureStore.open(tmp_path / "f").failed == {"-bad.jpg": "=it is 'torn'"}


def test_export_parquet(two_nets, tmp_path):
    """Pyarrow reads a column of lists for each part; a name's odd bytes are escaped."""
    parquet = pytest.importorskip("pyarrow.parquet")
    export(two_nets, tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table["name"].to_pylist() == [ODD[0], r"caf\xe9.jpg", *NAMES[2:]]
    np.testing.assert_array_equal(table["D/Q256"].to_pylist(), vectors(ODD, PART))


def test_no_two_names_become_one_in_parquet(tmp_path):
    """A byte and what it is written as are told apart, also behind backslashes; all come back."""
    parquet = pytest.importorskip("pyarrow.parquet")
    pieces = [b"\\", b"x", b"xff", b"\xff", b"xFF"]
    made = {b"a" + b"".join(some) for n in range(5) for some in product(pieces, repeat=n)}
    names = [os.fsdecode(name) for name in sorted(made)]
    filled(tmp_path / "f", names, stats=[(1, 1)] * len(names))
    export(tmp_path / "f", tmp_path / "x.parquet")
    written = parquet.read_table(tmp_path / "x.parquet")["name"].to_pylist()
    assert written[names.index(r"a\xff")] == r"a\\xff"
    assert [read_back(one) for one in written] == [os.fsencode(name) for name in names]


def read_back(text):
    """Read what the documentation says, letter by letter."""
    made, rest = b"", text.encode()
    while rest:
        run = len(rest) - len(rest.lstrip(b"\\"))
        rest = rest[run:]
        if not re.match(rb"x[0-9a-fA-F]{2}", rest):
            made, rest = made + b"\\" * run + rest[:1], rest[1:]
            continue
        made += b"\\" * (run // 2)
        if run % 2:
            made, rest = made + bytes.fromhex(rest[1:3].decode()), rest[3:]
        else:
            made, rest = made + rest[:1], rest[1:]
    return made


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_export_of_a_matrix(two_nets, tmp_path, kind):
    """A function of the parts of all nets makes the one matrix that is written."""
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "matrix"
    export(two_nets, path, kind, matrix=lambda parts: sum(parts.values()))
    if kind == "npz":
        with np.load(path) as arrays:
            found = arrays["X"]
    elif kind == "csv":
        frame = pandas.read_csv(path, encoding_errors="backslashreplace")
        found = frame[[f"x{column}" for column in range(5)]].to_numpy(np.float32)
    else:
        found = np.array(pandas.read_parquet(path)["X"].tolist())
    np.testing.assert_allclose(found, vectors(ODD, PART) + vectors(ODD, E_PART), rtol=1e-6)


def test_export_that_cannot_be(two_nets, tmp_path, monkeypatch):
    """An unknown format, a missing pyarrow and an empty store are named."""
    with pytest.raises(ParameterError, match="'npz', 'csv', 'parquet'"):
        export(two_nets, tmp_path / "x.xlsx")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="vggfeat\\[parquet\\]"):
        export(two_nets, tmp_path / "x.parquet")
    FeatureStore(tmp_path / "empty", ONE, NAMES)
    with pytest.raises(StoreError, match="holds no features yet"):
        export(tmp_path / "empty", tmp_path / "x.csv")


def test_export_failure_leaves_the_old_file(two_nets, tmp_path):
    """A target is replaced only by a whole file."""
    (tmp_path / "x.csv").write_text("old")

    def fail(parts):
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        export(two_nets, tmp_path / "x.csv", matrix=fail)
    assert (tmp_path / "x.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "x.csv"]
