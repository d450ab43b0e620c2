"""Texts and arrays of HDF5 files: those of ours, and of strangers with lists that never end."""

from __future__ import annotations

import io
import json
from pathlib import Path
from time import process_time
from typing import Any

import h5py
import numpy as np
import pytest
from fuzz.hdf5 import ONE, arrays_without_end, endless

from vggfeat import hdf5
from vggfeat.errors import StoreDamaged, WeightsError
from vggfeat.features.export import pack
from vggfeat.features.store import FeatureStore
from vggfeat.hdf5 import COMPACT, HEAD, arrays, check_lists, item, opened, texts, write_text
from vggfeat.nets.formats import read


@pytest.mark.parametrize("text", ["", "net", "größer\n", "é" * COMPACT], ids=len)
def test_texts_come_back(tmp_path: Path, text: str) -> None:
    """Of any length; those that fit are read without HDF5's lists, by anyone."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_text(file, "text", text)
        assert texts(file, "text") == [text]
    content = (tmp_path / "x.h5").read_bytes()
    assert (b"GCOL" in content) == (not 0 < len(text.encode()) <= COMPACT)
    with h5py.File(io.BytesIO(content), "r") as file:
        assert texts(file, "text") == [text]
        with pytest.raises(KeyError):
            texts(file, "other")


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
        assert texts(file, "one", "two") == ["a text", "b" * 100]
    path.write_bytes(endless(good))
    for source in (path, io.BytesIO(endless(good))):
        with pytest.raises(ValueError, match="no end"):
            opened(source)
    with h5py.File(path, "r") as file, pytest.raises(ValueError, match="no end"):
        texts(file, "one")


def entries(*told: tuple[int, int]) -> bytes:
    """Make a list of entries, each of a number and a size that need not be true."""
    made = b"".join(
        number.to_bytes(8, "little") + size.to_bytes(8, "little") for number, size in told
    )
    return b"GCOL\1\1\0\0" + (HEAD + len(made)).to_bytes(8, "little") + made


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (entries((1, 0), (0, 16)), True),
        (entries((1, 8), (0, 99), (0, 16)), True),  # the second is the content of the first
        (entries((0, 0)), False),
        (entries((1, 2**64 - 1), (0, 0)), False),  # rounded up, this is 0 bytes of content
        (entries((1, 2**64 - 80)), False),
        (entries((1, 32)), False),
        (entries((0, 17)), False),
        (b"GCOL\2" + bytes(40), True),  # another version: HDF5 refuses it
    ],
)
def test_lists_are_walked_as_hdf5_does(tmp_path: Path, content: bytes, whole: bool) -> None:
    """What takes no room, or leads out, is found wherever in the file it is."""
    for before in (0, 5):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.create_dataset("x", data=np.frombuffer(bytes(before) + content, np.uint8))
        with h5py.File(tmp_path / "x.h5", "r") as file:
            if whole:
                check_lists(file)
            else:
                with pytest.raises(ValueError, match="no end"):
                    check_lists(file)


def test_lists_within_lists_are_refused_soon(tmp_path: Path) -> None:
    """Heads all over a file of a megabyte, each with the rest of it to walk."""
    one = b"GCOL\1\0\0\0" + (1 << 40).to_bytes(8, "little") + (1).to_bytes(8, "little")
    content = (one + (16).to_bytes(8, "little")) * (1 << 15)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=np.frombuffer(content, np.uint8))
    begun = process_time()
    with h5py.File(tmp_path / "x.h5", "r") as file, pytest.raises(ValueError, match="no end"):
        check_lists(file)
    assert process_time() - begun < 5  # not hours


def test_other_attributes_are_no_texts(tmp_path: Path) -> None:
    """Numbers, arrays of texts, and texts within other types are refused by name."""
    text = h5py.string_dtype()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["number"] = 5
        file.attrs["several"] = ["a", "b"]
        file.attrs.create("within", np.array(("x",), [("a", text)]), dtype=[("a", text)])
        for name in file.attrs:
            with pytest.raises(ValueError, match=f"attribute {name} is no text"):
                texts(file, name)


def test_arrays_are_found(tmp_path: Path) -> None:
    """As h5py finds them, in files of any age; links that lead out or round are passed over."""
    for libver in ("earliest", "v108", "latest"):
        with h5py.File(tmp_path / "x.h5", "w", libver=libver) as file:
            for name in ("b", "a/b", "a/c/ä", "a-b", *(f"many/{number}" for number in range(99))):
                file.create_dataset(name, data=[1.5]).attrs["more"] = np.zeros(5000)
            file["a/round"] = file["a"]
            file["soft"] = h5py.SoftLink("/a/b")
            file["out"] = h5py.ExternalLink("x.h5", "/b")
            file["type"] = np.dtype("i4")
        with opened(tmp_path / "x.h5") as file:
            theirs: list[str] = []
            file.visit(theirs.append)
            of_arrays = [name for name in theirs if isinstance(file[name], h5py.Dataset)]
            assert list(arrays(file)) == sorted(f"/{name}" for name in of_arrays)
            assert all(item(file, path) == found for path, found in arrays(file).items())
            for path in ("soft", "out", "out/b"):
                with pytest.raises(ValueError, match="in another file"):
                    item(file, path)
            for path in ("a/x", "a/b/c"):
                with pytest.raises(KeyError, match=path):
                    item(file, path)


def test_arrays_without_end_are_refused(tmp_path: Path) -> None:
    """HDF5 would never come back from opening one, nor from asking what it is."""
    path = tmp_path / "x.h5"
    for content in arrays_without_end(tmp_path):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no end"), opened(path) as file:
            arrays(file)


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Note when all lists of a file are walked, and do not."""
    walked: list[object] = []
    monkeypatch.setattr(hdf5, "_walk", walked.append)
    hdf5._walk_once.cache_clear()
    return walked


def test_our_files_are_opened_by_their_headers_alone(tmp_path: Path, walks: list[object]) -> None:
    """A shard and a packed file, however large they are."""
    made = FeatureStore(tmp_path / "store", ONE, ["a.jpg", "b.jpg"])
    [part] = ONE.parts([256])
    made.write([0], {part: np.ones((1, 5), "f4")})
    pack(tmp_path / "store", tmp_path / "packed.h5")
    for path in (tmp_path / "packed.h5", *(tmp_path / "store" / "shards").iterdir()):
        with opened(path) as file:
            assert item(file, "D/Q256").shape[1] == 5
            assert list(arrays(file)) == ["/D/Q256", "/names", "/stat"]
    assert not walks


@pytest.mark.parametrize(
    "other",
    [{"libver": "earliest"}, {"userblock_size": 512}, {"fs_strategy": "page", "fs_persist": True}],
    ids=str,
)
def test_other_files_are_walked_once(
    tmp_path: Path, walks: list[object], other: dict[str, Any]
) -> None:
    """Those that may keep headers elsewhere than ours do, at once, and not each time."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", **{"libver": "v110", **other}) as file:
        file["a/b"] = np.arange(5)
    for _ in range(3):
        with opened(path) as file:
            assert len(walks) == 1
            assert item(file, "a/b")[4] == 4
            assert list(arrays(file)) == ["/a/b"]
    path.write_bytes(path.read_bytes() + b"more")
    with opened(path):
        assert len(walks) == 2


@pytest.mark.parametrize("order", [0, h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED])
@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("phases", [None, (3, 2)])
@pytest.mark.parametrize("attributes", [0, 5, 30])
@pytest.mark.parametrize("virtual", [False, True])
def test_headers_of_every_kind(
    tmp_path: Path,
    walks: list[object],
    order: int,
    times: bool,
    phases: tuple[int, int] | None,
    attributes: int,
    virtual: bool,
) -> None:
    """A virtual array is told from others whatever else its header holds, in one piece or more."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_attr_creation_order(order)
    plan.set_obj_track_times(times)
    if phases:
        plan.set_attr_phase_change(*phases)
    space = h5py.h5s.create_simple((12, 5))
    if virtual:
        plan.set_virtual(space, b"other.h5", b"x", space)
    with h5py.File(tmp_path / "x.h5", "w", libver="v110") as file:
        made = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, space, plan)
        for number in range(attributes):
            h5py.Dataset(made).attrs[str(number)] = np.zeros(number * 50 + 1)
    with opened(tmp_path / "x.h5") as file:
        assert not walks
        assert item(file, "x").is_virtual == virtual
    assert bool(walks) == virtual


FIXED, TEXT = (3, b"\x13" + bytes(7)), (3, b"\x19" + bytes(7))
CONTIGUOUS, VIRTUAL = (8, b"\4\1" + bytes(16)), (8, b"\4\3" + bytes(16))


def header(messages: list[tuple[int, bytes]], flags: int = 0) -> bytes:
    """Make the header of an object by hand, as the format's specification has it."""
    order = bytes(2) if flags & 4 else b""
    body = b"".join(
        bytes((kind,)) + len(content).to_bytes(2, "little") + b"\0" + order + content
        for kind, content in messages
    )
    extra = bytes(16 * bool(flags & 32) + 4 * bool(flags & 16))
    size = len(body).to_bytes(1 << (flags & 3), "little")
    return b"OHDR\2" + bytes((flags,)) + extra + size + body + bytes(4)


def continued(at: int, length: int) -> tuple[int, bytes]:
    return 16, at.to_bytes(8, "little") + length.to_bytes(8, "little")


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 16, 32, 55])
def test_a_header_is_read_to_its_end(tmp_path: Path, flags: int) -> None:
    """Whatever its flags, and wherever it goes on; what leads nowhere or round is none of ours."""
    more = b"OCHK" + header([VIRTUAL], flags & 4)[7:]
    for messages, plain in (
        ([FIXED, CONTIGUOUS], True),
        ([(0, bytes(9)), FIXED, VIRTUAL], False),
        ([TEXT, CONTIGUOUS], False),
        ([(3, b"\2\2" + bytes(8)), CONTIGUOUS], False),  # a datatype that is elsewhere
        ([(8, b"\5\1" + bytes(16))], False),  # a layout of a later format
        ([FIXED, continued(500, len(more)), CONTIGUOUS], False),
        ([continued(500, 4)], False),
        ([continued(500, 1 << 20)], False),
        ([continued(1 << 63, 40)], False),
        ([continued(2**64 - 1, 2**64 - 1)], False),
    ):
        path = tmp_path / "header"
        path.write_bytes(header(messages, flags).ljust(500, b"\0") + more)
        with path.open("rb") as file:
            assert hdf5._plain(file.fileno(), 0) == plain, messages
            assert not hdf5._plain(file.fileno(), 1)


def test_a_header_that_goes_round_is_left_soon(tmp_path: Path) -> None:
    """A continuation that names itself is no header of ours."""
    around = b"OCHK" + header([continued(100, 28)])[7:]
    path = tmp_path / "header"
    path.write_bytes(header([continued(100, 28)]).ljust(100, b"\0") + around)
    begun = process_time()
    with path.open("rb") as file:
        assert not hdf5._plain(file.fileno(), 0)
    assert process_time() - begun < 5


def test_links_with_odd_names(tmp_path: Path) -> None:
    """A name that is no UTF-8 is found; one that HDF5 would take for a path is refused."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["aXb"] = np.arange(5)
        file.create_dataset("y", data=[1])
        file.id.links.move(b"y", file.id, b"\xff")
    with opened(path) as file:
        assert [len(found) for found in arrays(file).values()] == [5, 1]
    path.write_bytes(path.read_bytes().replace(b"aXb", b"a/b"))
    with opened(path) as file, pytest.raises(ValueError, match="leads elsewhere"):
        arrays(file)


def test_weights_with_a_list_without_end_are_refused(tmp_path: Path) -> None:
    """A stranger's Keras file is looked through before any of it is opened."""
    path = tmp_path / "x.h5"
    path.write_bytes(endless(listed(path)))
    with pytest.raises(WeightsError, match="no end"):
        read(path)


def test_other_integers_are_refused(tmp_path: Path) -> None:
    """Lists are looked through with the integers that every writer uses."""
    plan = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    plan.set_sizes(4, 4)
    name = bytes(tmp_path / "x.h5")
    h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, plan).close()
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file.attrs["one"] = "a text"
        with pytest.raises(ValueError, match="integers"):
            texts(file, "one")


def shard(store: Path, change: bool) -> None:
    """Write a shard as earlier versions did, with texts in a list; ``change``: one without end."""
    made = FeatureStore(store, ONE, ["a.jpg"])
    [part] = ONE.parts([256])
    made.write([0], {part: np.ones((1, 5), "f4")})
    [path] = (store / "shards").glob("*.h5")
    with h5py.File(path, "r+") as file:
        names = ("net", "settings", "provenance")
        for name, text in zip(names, texts(file, *names), strict=True):
            file.attrs[name] = text
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
