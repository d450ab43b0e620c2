"""HDF5 files with lists round which HDF5 goes for ever, in each place there is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from vggfeat.hdf5 import write_text
from vggfeat.settings import Extraction

NAMES = [f"{number}.jpg" for number in range(12)]
ONE = Extraction("D", "ab12", ("fc7",))


def virtual(file: h5py.File, name: str) -> None:
    """Make an array that shows another file's."""
    layout = h5py.VirtualLayout((12, 5), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (12, 5))
    file.create_virtual_dataset(name, layout)


def filled(file: h5py.File, name: str) -> None:
    """Make an array without numbers whose fill value is a text."""
    file.create_dataset(name, (12, 5), h5py.string_dtype(), fillvalue="a text")


def filled_by_a_kind(file: h5py.File, name: str) -> None:
    """Make one whose datatype is elsewhere in the file."""
    file["kind"] = h5py.string_dtype()
    file.create_dataset(name, (12, 5), file["kind"], fillvalue="a text")


def arrays_without_end(folder: Path) -> Iterator[bytes]:
    """Make files with an array, in each place, that needs a list as it is opened."""
    makers: tuple[Callable[[h5py.File, str], None], ...] = (virtual, filled, filled_by_a_kind)
    path = folder / "made.h5"
    for make in makers:
        for libver in ("earliest", "v110"):
            for name in ("D/Q256", "names", "stat", "D", "more"):
                with h5py.File(path, "w", libver=libver) as file:
                    make(file, name)
                    if not name.startswith("D"):
                        file["D/Q256"] = np.zeros((12, 5), "f4")
                    _described(file)
                yield endless(path.read_bytes())
    yield endless(virtual_root(path))


def virtual_root(path: Path) -> bytes:
    """Make a file whose first group is no group but a virtual array."""
    with h5py.File(path, "w", libver="v110") as file:
        virtual(file, "more")
        file["D/Q256"] = np.zeros((12, 5), "f4")
        _described(file)
        address = file.id.links.get_info(b"more").u
    content = path.read_bytes()
    start = content[:36] + address.to_bytes(8, "little")
    return start + checksum(start).to_bytes(4, "little") + content[len(start) + 4 :]


def checksum(content: bytes) -> int:
    """Return what HDF5 ends its headers with: the function lookup3 of Bob Jenkins."""
    a = b = c = (0xDEADBEEF + len(content)) % 2**32
    for at in range(0, len(content), 12):
        block = content[at : at + 12].ljust(12, b"\0")
        a, b, c = (
            (word + int.from_bytes(block[i : i + 4], "little")) % 2**32
            for word, i in ((a, 0), (b, 4), (c, 8))
        )
        if at + 12 < len(content):
            for by in (4, 6, 8, 16, 19, 4):
                a, c = (a - c) % 2**32 ^ _turned(c, by), (c + b) % 2**32
                a, b, c = b, c, a
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _turned(b, by)) % 2**32
        a, b, c = b, c, a
    return b


def _turned(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) % 2**32


def texts_without_end(folder: Path) -> Iterator[bytes]:
    """Make files with a text, in each place there is, in such a list."""
    text = h5py.string_dtype()
    path = folder / "made.h5"
    for kind, value in ((text, "D"), (np.dtype([("a", text)]), ("D",))):
        for name in ("net", "names"):
            with h5py.File(path, "w") as file:
                if name == "net":
                    file.attrs.create("net", np.array(value, kind), dtype=kind)
                else:
                    file["names"] = np.array([value] * 12, kind)
                file.attrs["settings"] = file.attrs["provenance"] = "{}"
                file["D/Q256"] = np.zeros((12, 5), "f4")
                file["stat"] = np.zeros((12, 2), np.int64)
            yield endless(path.read_bytes())


def _described(file: h5py.File) -> None:
    """Say of a file what every shard and packed file says, in texts of one length."""
    nets = {"D": {"settings": ONE.to_dict(), "fingerprint": ONE.fingerprint, "provenance": {}}}
    told = {"format": "vggfeat features", "version": 1, "dtype": "float32", "asked": 1}
    write_text(file, "net", "D")
    write_text(file, "settings", json.dumps(ONE.to_dict()))
    write_text(file, "provenance", "{}")
    write_text(file, "manifest", json.dumps({**told, "nets": nets}))
    for name, values in (("names", [one.encode() for one in NAMES]), ("stat", np.zeros((12, 2)))):
        if name not in file:
            file[name] = np.array(values, "S9" if name == "names" else np.int64)


def endless(content: bytes) -> bytes:
    """Make what is left free in a list of texts take no room: HDF5 goes round it for ever."""
    at = content.index(b"GCOL") + 16
    while int.from_bytes(content[at : at + 2], "little"):
        at += 16 + -(-int.from_bytes(content[at + 8 : at + 16], "little") // 8) * 8
    return content[: at + 8] + bytes(8) + content[at + 16 :]
