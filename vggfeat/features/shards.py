"""The files of a feature store: immutable shards, each named by the digest of its bytes.

A shard is made in memory, hashed, written under a temporary name, synced and renamed, so that a
file with a shard's name is whole whenever it is seen, whatever killed its writer, and so that its
name says what its bytes must be. Shards are never changed afterwards.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from vggfeat.errors import ParameterError, StoreDamaged, StoreError
from vggfeat.features.catalogue import DTYPES, Header, Rows, read_catalogue, write_catalogue
from vggfeat.features.files import damaged, held
from vggfeat.features.place import Place
from vggfeat.hdf5 import arrays, texts, write_text

Matrix = NDArray[Any]

LIBVER = ("v108", "v110")  # checksummed metadata, and readable by HDF5 1.10 and later
GAP = 16  # rows that are read and thrown away rather than start another read
CATALOGUED = 64  # shards whose headers are no longer read one by one: that takes 1 ms each


def encode(names: Sequence[str]) -> list[bytes]:
    r"""Turn names into UTF-8; bytes of a file name that are no UTF-8 come back as they were.

    Raises
    ------
    ParameterError
        If a name cannot be kept.

    Examples
    --------
    >>> encode(["é", "caf\udce9"])
    [b'\xc3\xa9', b'caf\xe9']
    """
    encoded = []
    for name in names:
        try:
            encoded.append(name.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError as error:
            raise _bad_name(name) from error
        if "\0" in name:
            raise _bad_name(name)
    return encoded


def decode(names: Sequence[bytes]) -> list[str]:
    """Inverse of :func:`encode`."""
    if not names:
        return []
    # No name has a zero byte: a million are decoded at once in a third of the time.
    return b"\0".join(names).decode("utf-8", "surrogateescape").split("\0")


def _bad_name(name: str) -> ParameterError:
    return ParameterError.of("names", "FeatureStore", "names that a file can have", name)


@dataclass(frozen=True)
class Block:
    """Descriptors of some pictures, as one shard keeps them."""

    net: str
    settings: dict[str, Any]
    provenance: dict[str, Any]
    names: list[bytes]
    stats: NDArray[np.int64]
    arrays: dict[str, Matrix]
    generation: int = 1

    def header(self, key: str) -> Header:
        """Describe the block as the shard ``key``."""
        return Header(
            key,
            self.names,
            self.stats,
            {self.net: self.settings},
            {self.net: self.provenance},
            {path: array.shape[1] for path, array in self.arrays.items()},
            next(iter(self.arrays.values())).dtype.name,
            generation=self.generation,
        )

    def image(self) -> bytes:
        """Return the bytes of the HDF5 file.

        The file is made in memory, so that a full disk is met by a plain write, which fails
        cleanly, and so that the digest is of the bytes that were meant.
        """
        with in_memory() as file:
            write_names(file, self.names, self.stats)
            for path, array in self.arrays.items():
                file.create_dataset(path, data=array)
            file.attrs["version"] = 1
            file.attrs["generation"] = self.generation
            write_text(file, "net", self.net)
            write_text(file, "settings", json.dumps(self.settings))
            write_text(file, "provenance", json.dumps(self.provenance, default=str))
            file.flush()
            return bytes(file.id.get_file_image())


def in_memory() -> h5py.File:
    """Open a new HDF5 file that never touches the disk.

    HDF5 takes files of one name for one file, also those of other threads: each has its own.
    """
    name = f"in memory {secrets.token_hex(8)}"
    return h5py.File(name, "w", driver="core", backing_store=False, libver=LIBVER)


def write_names(
    file: h5py.File, names: list[bytes], stats: NDArray[np.int64], **storage: Any
) -> None:
    """Write ``/names`` and ``/stat``."""
    width = max(map(len, names), default=1) or 1
    text = np.array(names, h5py.string_dtype("utf-8", width))
    file.create_dataset("names", data=text, **storage)
    file.create_dataset("stat", data=np.asarray(stats, np.int64).reshape(-1, 2), **storage)


def datasets_of(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Return the arrays of descriptors in a file by their paths, in alphabetical order."""
    return {path: one for path, one in arrays(file).items() if path not in ("/names", "/stat")}


def generation_of(file: h5py.File) -> int:
    """Return the generation of a shard or view."""
    if file.attrs.get_id("generation").dtype.kind not in "iu":
        raise ValueError("its generation is no number")
    return int(file.attrs["generation"])


def take(dataset: h5py.Dataset, rows: Rows) -> Matrix:
    """Read rows of a dataset in any order, by few and bounded reads.

    Parameters
    ----------
    dataset : h5py.Dataset (N, D)
    rows : ndarray (n,)

    Returns
    -------
    ndarray (n, D)
    """
    if dataset.ndim != 2 or dataset.dtype.name not in DTYPES:
        raise ValueError(f"{dataset.name} holds no descriptors")
    if len(rows) and rows.max() >= len(dataset):
        raise ValueError(f"{dataset.name} has {len(dataset)} rows, not {rows.max() + 1}")
    if (together := consecutive(rows)) is not None:
        return np.asarray(dataset[together])
    result = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    order = np.argsort(rows, kind="stable")
    for some in np.split(order, np.flatnonzero(np.diff(rows[order]) > GAP) + 1):
        if len(some):
            first = rows[some[0]]
            result[some] = dataset[first : rows[some[-1]] + 1][rows[some] - first]
    return result


def consecutive(rows: Rows) -> slice | None:
    """Return rows that follow each other as a slice, which is read and written far faster.

    Examples
    --------
    >>> consecutive(np.array([4, 5, 6])), consecutive(np.array([4, 6]))
    (slice(4, 7, None), None)
    """
    if not len(rows) or (np.diff(rows) != 1).any():
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1)


class Shards(Protocol):
    """Where blocks are kept: a folder, memory, or one packed file."""

    def headers(self, seen: Collection[str] = ()) -> list[Header]:
        """Describe all shards but those seen already."""

    def add(self, block: Block) -> str:
        """Keep a block, and return the key of its shard."""

    def check(self, key: str) -> None:
        """Compare a shard with its digest; refuse it if it is not what was written."""

    def read(self, key: str, wanted: Mapping[str, Rows], verify: bool = False) -> dict[str, Matrix]:
        """Read rows of some arrays of one shard."""

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""


class MemoryShards:
    """Blocks that are kept in memory."""

    def __init__(self) -> None:
        self._blocks: dict[str, Block] = {}

    def headers(self, seen: Collection[str] = ()) -> list[Header]:
        """Describe all blocks but those seen already."""
        return [block.header(key) for key, block in self._blocks.items() if key not in seen]

    def add(self, block: Block) -> str:
        """Keep a block."""
        key = str(len(self._blocks))
        self._blocks[key] = block
        return key

    def check(self, key: str) -> None:
        """Nothing changes blocks in memory."""

    def read(self, key: str, wanted: Mapping[str, Rows], verify: bool = False) -> dict[str, Matrix]:
        """Read rows of some arrays of one block."""
        return {path: self._blocks[key].arrays[path][rows] for path, rows in wanted.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all descriptors."""
        arrays = (array for block in self._blocks.values() for array in block.arrays.values())
        return sum(array.nbytes for array in arrays)


class FolderShards:
    """Shards in the folder ``shards`` of a store.

    Parameters
    ----------
    place : Place
        Where the store lies.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    def keys(self) -> list[str]:
        """Return the names of all shard files in alphabetical order."""
        names = self.place.names("shards")
        return sorted(name for name in names if name.endswith(".h5") and not name.startswith("."))

    def headers(self, seen: Collection[str] = ()) -> list[Header]:
        """Describe all shards but those seen already; the catalogue tells of most without them."""
        known = set(seen)
        keys = [key for key in self.keys() if key not in known]
        listed = read_catalogue(self.place) if len(keys) >= CATALOGUED else {}
        headers = [listed.get(key) or self.header(key) for key in keys]
        unlisted = sum(key not in listed for key in keys)
        if not known and unlisted > max(CATALOGUED, len(keys) // 20):
            write_catalogue(self.place, headers)
        return headers

    def catalogue(self) -> None:
        """Bring the catalogue up to date, where there are shards enough to need one."""
        keys = self.keys()
        listed = read_catalogue(self.place) if len(keys) >= CATALOGUED else {}
        if len(keys) >= CATALOGUED and listed.keys() != set(keys):
            write_catalogue(self.place, [listed.get(key) or self.header(key) for key in keys])

    def header(self, key: str) -> Header:
        """Describe one shard, from its file."""
        with self._opened(key) as file:
            net, settings, provenance = texts(file, "net", "settings", "provenance")
            arrays = datasets_of(file)
            return Header(
                key,
                held(file, "names")[:].tolist(),
                held(file, "stat")[:],
                {net: json.loads(settings)},
                {net: json.loads(provenance)},
                {path: array.shape[1] for path, array in arrays.items()},
                next(iter(arrays.values())).dtype.name,
                generation=generation_of(file),
            )

    def add(self, block: Block) -> str:
        """Write a shard; it is durable when this returns."""
        image = block.image()
        key = hashlib.sha256(image).hexdigest() + ".h5"
        self.place.write(f"shards/{key}", image)
        return key

    def check(self, key: str) -> None:
        """Compare a shard with its digest; refuse it if it is not what was written."""
        if not self.sound(key):
            where = f"{self.place}/shards/{key}"
            raise damaged(where, "its bytes are not those that were written")

    def read(self, key: str, wanted: Mapping[str, Rows], verify: bool = False) -> dict[str, Matrix]:
        """Read rows of some arrays of one shard, after its digest if ``verify``."""
        if verify:
            self.check(key)
        with self._opened(key) as file:
            return {path: take(held(file, path), rows) for path, rows in wanted.items()}

    @contextmanager
    def _opened(self, key: str) -> Iterator[h5py.File]:
        """Open a shard; one that cannot be read is damaged only if its bytes have changed."""
        try:
            with self.place.opened(f"shards/{key}") as file:
                yield file
        except StoreDamaged as error:
            if not self._unchanged(key):
                raise
            raise StoreError(
                f"The shard {self.place}/shards/{key} cannot be read, though its bytes are those "
                f"that were written: {error.__cause__ or error}. Try another version of h5py, or "
                "move the file out of the store and run the same command again."
            ) from error

    def _unchanged(self, key: str) -> bool:
        try:
            return self.sound(key)
        except StoreError:  # it is gone
            return False

    def sound(self, key: str) -> bool:
        """Tell whether a shard holds the bytes that its name promises."""
        return self.place.sha256(f"shards/{key}") + ".h5" == key

    @property
    def nbytes(self) -> int:
        """Bytes of all files of the store."""
        top = [name for name in self.place.names() if name != "shards"]
        return self.place.nbytes([*top, *(f"shards/{key}" for key in self.keys())])
