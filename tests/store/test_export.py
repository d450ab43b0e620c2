"""Stores leave as one file, a table or arrays, whole or not at all."""

from __future__ import annotations

import csv
import os
import re
import shutil
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.mistakes import refuses
from storing import FC7, LARGE, NAMES, POOL5, check, column, fill, ids_of, make_store, vectors

from vggfeat.errors import MissingExtra, ParameterError, StoreDamaged, StoreError
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.export import choose_columns, export, pack
from vggfeat.store.maintenance import info, verify
from vggfeat.store.store import FeatureStore

ODD = ['=1+1,"x".jpg', "caf\udce9.jpg", *NAMES[2:]]
E_FC7 = column(net="E")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pack(tmp_path: Path, dtype: str) -> None:
    """The packed file stands alone, looks like the view to h5py, and opens as a store."""
    make_store(tmp_path / "f", dtype=dtype, provenance={"device": "cpu"})
    make_store(tmp_path / "f", [LARGE], NAMES[2:3], dtype=dtype, provenance={"device": "cpu"})
    shown = FeatureStore(tmp_path / "f").names
    pack(tmp_path / "f", tmp_path / "one.h5")
    shutil.rmtree(tmp_path / "f")
    with h5py.File(tmp_path / "one.h5") as file:
        assert file["names"].asstr()[:].tolist() == shown
        found = file[FC7.descriptor.path]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found[:], vectors(shown, FC7.descriptor).astype(dtype))
        assert np.isnan(file[LARGE.descriptor.path][:, 0]).sum() == 11
        np.testing.assert_array_equal(file["id"][:], ids_of(shown))
    store = FeatureStore(tmp_path / "one.h5")
    check(store, [FC7], NAMES[::-1])
    assert store.complete([LARGE.descriptor]) == ["02.jpg"]
    refuses(lambda: store.read([LARGE.descriptor], NAMES), StoreError, ["00.jpg"])
    assert verify(tmp_path / "one.h5") == []
    told = info(tmp_path / "one.h5")
    assert told["nets"] == {"D": {"provenance": {"device": "cpu"}}}
    assert (told["images"], told["shards"], told["finished"]) == (12, 1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["one.h5"]
    pack(tmp_path / "one.h5", tmp_path / "two.h5")
    check(FeatureStore(tmp_path / "two.h5"), [FC7], NAMES)


def test_a_packed_file_keeps_all_that_a_column_says(tmp_path: Path) -> None:
    """Settings, names of outputs and the training scale come back."""
    scores = Column(
        Descriptor("D", "fc8", "softmax", 256), {"weights": "ab"}, 5, tuple("vwxyz"), (256, 512)
    )
    make_store(tmp_path / "f", [scores])
    pack(tmp_path / "f", tmp_path / "one.h5")
    assert FeatureStore(tmp_path / "one.h5").columns == {scores.descriptor: scores}


def test_a_flipped_number_in_a_packed_file_is_found(tmp_path: Path) -> None:
    """A packed file's digest tells that a block changed; HDF5's own checksum refuses it too."""
    make_store(tmp_path / "f")
    pack(tmp_path / "f", tmp_path / "one.h5")
    content = bytearray((tmp_path / "one.h5").read_bytes())
    content[content.index(vectors(NAMES[3:4], FC7.descriptor).tobytes())] ^= 1
    (tmp_path / "one.h5").write_bytes(content)
    [problem] = verify(tmp_path / "one.h5")
    assert "its bytes are not those that were written" in problem
    for checked in (False, True):
        with pytest.raises(StoreDamaged):
            FeatureStore(tmp_path / "one.h5").read(verify=checked)


def test_pack_refuses_a_small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing says how much it needs before it fills the disk."""
    make_store(tmp_path / "f")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))
    refuses(lambda: pack(tmp_path / "f", tmp_path / "one.h5"), StoreError, ["240 B", "9 B"])
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("target", ["features.h5", "shards/x.h5", "columns/x.h5"])
def test_targets_inside_the_store_are_refused(tmp_path: Path, target: str) -> None:
    """Packing a store over its own files would destroy it."""
    make_store(tmp_path)
    refuses(lambda: pack(tmp_path, tmp_path / target), StoreError, ["among the files"])


@pytest.fixture
def two_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a store of two nets with odd names, to be exported in blocks of 5."""
    monkeypatch.setattr("vggfeat.store.export.BLOCK", 5)
    make_store(tmp_path / "f", [FC7, E_FC7], ODD)
    return tmp_path / "f"


def test_export_npz(two_nets: Path, tmp_path: Path) -> None:
    """Numpy loads the names and one array for each column, without pickles."""
    assert export(two_nets, tmp_path / "x.npz") == 12
    with np.load(tmp_path / "x.npz") as arrays:
        assert sorted(arrays) == ["D/fc7/average/Q256", "E/fc7/average/Q256", "names"]
        assert arrays["names"].tolist() == ODD
        found = arrays["E/fc7/average/Q256"]
    np.testing.assert_array_equal(found, vectors(ODD, E_FC7.descriptor))


def test_export_csv(two_nets: Path, tmp_path: Path) -> None:
    """Pandas reads back every float32 to the last bit, and names as they are."""
    pandas = pytest.importorskip("pandas")
    export(two_nets, tmp_path / "x.csv")
    frame = pandas.read_csv(tmp_path / "x.csv", encoding_errors="backslashreplace")
    assert frame["name"].tolist() == [ODD[0], r"caf\xe9.jpg", *NAMES[2:]]
    assert b"\ncaf\xe9.jpg," in (tmp_path / "x.csv").read_bytes()
    expected = [f"{net}/fc7/average/Q256/{number}" for net in "DE" for number in range(5)]
    assert frame.columns[1:].tolist() == expected
    values = np.hstack([vectors(ODD, one.descriptor) for one in (FC7, E_FC7)])
    np.testing.assert_array_equal(frame.iloc[:, 1:].to_numpy(np.float32), values)


def test_no_name_is_changed_in_csv(tmp_path: Path) -> None:
    """Names that a spreadsheet would take for formulas, or that CSV must quote, come back."""
    odd = ["-a.jpg", "=1+1.jpg", "+1.jpg", "@x.jpg", "'b.jpg", "''c.jpg", "\t1.jpg", "a\rb.jpg"]
    odd += ["a\nb.jpg", 'quo"te.jpg', "com,ma.jpg", "caf\udce9.jpg", " x.jpg", "-1"]
    failed = {"-bad.jpg": "=it is 'torn'"}
    make_store(tmp_path / "f", names=[*odd, "-bad.jpg"], failed=failed)
    export(tmp_path / "f", tmp_path / "x.csv")
    for path, names in ((tmp_path / "x.csv", odd), (tmp_path / "f" / "failed.csv", ["-bad.jpg"])):
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            assert [row[0] for row in csv.reader(file)][1:] == names
    assert FeatureStore(tmp_path / "f").failed == failed


def test_export_parquet(two_nets: Path, tmp_path: Path) -> None:
    """Pyarrow reads a column of lists for each of the store; a name's odd bytes are escaped."""
    parquet = pytest.importorskip("pyarrow.parquet")
    export(two_nets, tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table["name"].to_pylist() == [ODD[0], r"caf\xe9.jpg", *NAMES[2:]]
    found = table["D/fc7/average/Q256"].to_pylist()
    np.testing.assert_array_equal(found, vectors(ODD, FC7.descriptor))


def test_no_two_names_become_one_in_parquet(tmp_path: Path) -> None:
    """A byte and what it is written as are told apart, also behind backslashes; all come back."""
    parquet = pytest.importorskip("pyarrow.parquet")
    pieces = [b"\\", b"x", b"xff", b"\xff", b"xFF"]
    made = {b"a" + b"".join(some) for n in range(5) for some in product(pieces, repeat=n)}
    names = [os.fsdecode(name) for name in sorted(made)]
    make_store(tmp_path / "f", names=names, size=1000)
    export(tmp_path / "f", tmp_path / "x.parquet")
    written = parquet.read_table(tmp_path / "x.parquet")["name"].to_pylist()
    assert written[names.index(r"a\xff")] == r"a\\xff"
    assert [read_back(one) for one in written] == [os.fsencode(name) for name in names]


def read_back(text: str) -> bytes:
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
def test_export_of_a_matrix(two_nets: Path, tmp_path: Path, kind: str) -> None:
    """A function of the columns of all nets makes the one matrix that is written."""
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "matrix"

    def add(arrays: Mapping[Descriptor, np.ndarray]) -> np.ndarray:
        assert list(arrays) == [FC7.descriptor, E_FC7.descriptor]
        return arrays[FC7.descriptor] + arrays[E_FC7.descriptor]

    export(two_nets, path, kind, matrix=add)
    if kind == "npz":
        with np.load(path) as arrays:
            found = arrays["X"]
    elif kind == "csv":
        frame = pandas.read_csv(path, encoding_errors="backslashreplace")
        found = frame[[f"x{number}" for number in range(5)]].to_numpy(np.float32)
    else:
        found = np.array(pandas.read_parquet(path)["X"].tolist())
    expected = vectors(ODD, FC7.descriptor) + vectors(ODD, E_FC7.descriptor)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, [FC7, LARGE, POOL5]),
        ({"scales": [384]}, [LARGE]),
        ({"layers": ["fc7"], "scales": [384, 256]}, [LARGE, FC7]),
        ({"nets": ["D"], "layers": ["pool5", "fc7"]}, [POOL5, FC7, LARGE]),
        ({"layers": ["pool5"], "pools": ["average"]}, [POOL5]),
    ],
)
def test_export_of_some_columns(
    tmp_path: Path, chosen: dict[str, Any], expected: list[Column]
) -> None:
    """Nets, layers, poolings and scales choose what is written, and with it which images."""
    make_store(tmp_path / "f")
    make_store(tmp_path / "f", [LARGE], NAMES[:9])
    make_store(tmp_path / "f", [POOL5], NAMES[3:])
    held = dict(zip(map(id, (FC7, LARGE, POOL5)), (NAMES, NAMES[:9], NAMES[3:]), strict=True))
    names = [name for name in NAMES if all(name in held[id(one)] for one in expected)]
    columns = choose_columns(FeatureStore(tmp_path / "f"), **chosen)
    assert export(tmp_path / "f", tmp_path / "x.npz", columns=columns) == len(names)
    with np.load(tmp_path / "x.npz") as arrays:
        assert list(arrays) == ["names", *(one.descriptor.path[1:] for one in expected)]
        assert sorted(arrays["names"].tolist()) == names
        for one in expected:
            own = vectors(arrays["names"].tolist(), one.descriptor)
            np.testing.assert_array_equal(arrays[one.descriptor.path[1:]], own)


def test_export_that_cannot_be(
    two_nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown format, a scale or net that lacks, a missing pyarrow and an empty store."""
    npz = tmp_path / "x.npz"
    refuses(lambda: export(two_nets, tmp_path / "x.xlsx"), ParameterError, ["'npz'", "'parquet'"])
    held = ["--net D, E", "--layer fc7", "--pool average", "--Q 256"]

    def lacks(**named: Any) -> None:
        [[value], *_] = named.values()
        mentions = [*held, f"{value}"]
        refuses(lambda: choose_columns(FeatureStore(two_nets), **named), StoreError, mentions)

    lacks(scales=[512])
    lacks(layers=["pool5"])
    lacks(pools=["max"], nets=["D"])
    lacks(nets=["A"])
    fill(FeatureStore(two_nets, "a"), [LARGE], ODD[:3])  # of net D alone
    lacks(scales=[384])
    lacks(layers=["fc7"], scales=[384])
    make_store(tmp_path / "apart", names=NAMES[:3])
    make_store(tmp_path / "apart", [POOL5], NAMES[3:])
    refuses(lambda: export(tmp_path / "apart", npz), StoreError, ["/D/pool5/average/Q256"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refuses(lambda: export(two_nets, tmp_path / "x.parquet"), MissingExtra, ["vggfeat[parquet]"])
    FeatureStore(tmp_path / "empty", "a")
    refuses(lambda: export(tmp_path / "empty", npz), StoreError, ["no features"])
    refuses(lambda: pack(tmp_path / "empty", tmp_path / "x.h5"), StoreError, ["no features"])
    assert not npz.exists()


def test_a_failure_leaves_the_old_file(two_nets: Path, tmp_path: Path) -> None:
    """A target is replaced only by a whole file."""
    (tmp_path / "x.csv").write_text("old")

    def fail(arrays: Mapping[Descriptor, np.ndarray]) -> np.ndarray:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        export(two_nets, tmp_path / "x.csv", matrix=fail)
    assert (tmp_path / "x.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "x.csv"]


@pytest.mark.parametrize("use", ["h5", "npz", "csv"])
@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_not_passed_on(tmp_path: Path, use: str, packed: bool) -> None:
    """What gets new digests, or goes to others, is compared with its own first."""
    source = tmp_path / "f"
    make_store(source)
    bad = next((source / "shards").iterdir())
    if packed:
        pack(source, tmp_path / "p.h5")
        source = bad = tmp_path / "p.h5"
    content = bytearray(bad.read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    out = tmp_path / f"out.{use}"
    write = pack if use == "h5" else export
    with pytest.raises(StoreDamaged):
        write(source, out)
    assert not out.exists()
