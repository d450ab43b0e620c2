"""Shards: immutable HDF5 files, each named by the SHA-256 of its bytes.

A shard is made in memory, hashed, written whole or not at all, and never changed: a file with a
shard's name is whole whenever it is seen, and its name says what its bytes must be. Views and
packed files have the same layout::

    /names (n,) UTF-8, /id (n, 2) int64, /stamp (n, 2) int64, /D/pool5/average/Q256 (n, D), …
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from vggfeat.errors import ParameterError, StoreDamaged, StoreError, VggfeatError
from vggfeat.store.column import JSON, Column, Descriptor

Matrix = NDArray[Any]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Rows = NDArray[np.intp]
Pairs = NDArray[np.int64]
"""Ids or stamps of n images, (n, 2)."""

FOLDER = "shards"
VERSION = 2
DTYPES = ("float32", "float16")
LIBVER = ("v108", "v110")  # checksummed metadata, and readable by HDF5 1.10 and later
GAP = 16  # rows that are read and thrown away rather than start another read
LONGEST = 60_000  # bytes of an attribute of fixed length
MANY = 1 << 26  # half-precision numbers for which it pays to load torch
ENVIRONMENT = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of the machine, which say nothing about the file."""


@dataclass(frozen=True)
class ShardHeader:
    """All that a shard says, without its descriptors.

    Parameters
    ----------
    key : str
        Name of the file in its storage.
    names : list of bytes
        The n images.
    ids, stamps : ndarray (n, 2) of int64
        Which image each is, and what its file looked like.
    columns : dict of Column
    dtype : str
    generation : int
        One more than the highest that its writer had seen: which of two rows is newer.
    provenance : dict
        Versions, device and the like of its writer.
    absent : dict
        Rows without a descriptor by column; only a packed file has any.
    """

    key: str
    names: list[bytes]
    ids: Pairs
    stamps: Pairs
    columns: dict[Descriptor, Column]
    dtype: str
    generation: int = 0
    provenance: dict[str, JSON] = field(default_factory=dict)
    absent: dict[Descriptor, Rows] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pairs in (self.ids, self.stamps):
            if pairs.dtype != np.int64 or pairs.shape != (len(self.names), 2):
                raise ValueError(f"it has {len(self.names)} names, and ids of {pairs.shape}")
        if self.dtype not in DTYPES:
            raise ValueError(f"it holds {self.dtype}")


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
        except UnicodeEncodeError:
            encoded.append(b"\0")
        if b"\0" in encoded[-1]:
            raise ParameterError.of("names", "FeatureStore", "names that a file can have", name)
    return encoded


def decode(names: Sequence[bytes]) -> list[str]:
    """Inverse of :func:`encode`."""
    # No name has a zero byte: a million are decoded at once in a third of the time.
    return b"\0".join(names).decode("utf-8", "surrogateescape").split("\0") if names else []


def build_shard(header: ShardHeader, arrays: Mapping[Descriptor, Matrix]) -> bytes:
    """Return the bytes of a shard; its header needs no key yet.

    The file is made in memory, so that a full disk is met by a plain write, and so that the digest
    is of the bytes that were meant.
    """
    with create_in_memory() as file:
        write_rows(file, header.names, header.ids, header.stamps)
        for descriptor, array in arrays.items():
            dataset = file.create_dataset(descriptor.path, data=array)
            write_column(dataset, header.columns[descriptor])
        file.attrs["version"] = VERSION
        file.attrs["generation"] = header.generation
        write_text(file, "provenance", json.dumps(header.provenance, default=str))
        file.flush()
        return bytes(file.id.get_file_image())


def cast_rows(column: Column, array: Matrix, names: Sequence[str], dtype: str) -> Matrix:
    """Bring descriptors into the type in which they are kept, in which they must be finite."""
    values, path = np.asarray(array), column.descriptor.path
    if values.shape != (len(names), column.width):
        expected = f"arrays ({len(names)}, {column.width}) of {path}"
        raise ParameterError.of("arrays", "FeatureStore.write", expected, values.shape)
    with np.errstate(over="ignore"):
        kept: Matrix = values.astype(dtype)
    bad = np.flatnonzero(~np.isfinite(kept).all(axis=1))
    if len(bad):
        half = " Values beyond 65504 need dtype float32." if dtype == "float16" else ""
        raise StoreError(
            f"The descriptor of {names[bad[0]]!r} at {path} is not finite in {dtype}, so it was "
            f"not kept.{half}"
        )
    return kept


def create_in_memory() -> h5py.File:
    """Open a new HDF5 file that never touches the disk."""
    # HDF5 takes files of one name for one file, also those of other threads.
    name = f"in memory {secrets.token_hex(8)}"
    return h5py.File(name, "w", driver="core", backing_store=False, libver=LIBVER)


def write_rows(
    file: h5py.File, names: Sequence[bytes], ids: Pairs, stamps: Pairs, **storage: Any
) -> None:
    """Write ``/names``, ``/id`` and ``/stamp``."""
    width = max(map(len, names), default=1) or 1
    text = np.array(names, h5py.string_dtype("utf-8", width))
    file.create_dataset("names", data=text, **storage)
    file.create_dataset("id", data=ids, **storage)
    file.create_dataset("stamp", data=stamps, **storage)


def write_column(dataset: h5py.Dataset, column: Column) -> None:
    """Write the settings of a column to its array."""
    write_text(dataset, "settings", json.dumps(column.settings))
    if column.outputs:
        write_text(dataset, "outputs", json.dumps(column.outputs))
    if column.S is not None:
        write_text(dataset, "S", json.dumps(column.S))


def write_text(holder: h5py.HLObject, name: str, text: str) -> None:
    """Write a text as an attribute, of fixed length where HDF5 can hold it so."""
    content = text.encode()
    fixed = 0 < len(content) <= LONGEST
    dtype = h5py.string_dtype("utf-8", len(content) if fixed else None)
    holder.attrs.create(name, content if fixed else text, dtype=dtype)


def read_text(holder: h5py.HLObject, name: str) -> str:
    """Read a text attribute."""
    text = holder.attrs[name]
    return text.decode() if isinstance(text, bytes) else str(text)


def read_header(file: h5py.File, key: str) -> ShardHeader:
    """Describe a shard or a packed file."""
    if int(file.attrs["version"]) != VERSION:
        raise ValueError(
            f"it has version {file.attrs['version']}, and this vggfeat reads {VERSION}"
        )
    columns, absent, dtypes = {}, {}, set[str]()
    for descriptor, dataset in datasets(file).items():
        outputs = json.loads(read_text(dataset, "outputs")) if "outputs" in dataset.attrs else ()
        S = json.loads(read_text(dataset, "S")) if "S" in dataset.attrs else None
        settings = dict(json.loads(read_text(dataset, "settings")))
        S = tuple(S) if isinstance(S, list) else S
        columns[descriptor] = Column(descriptor, settings, dataset.shape[1], tuple(outputs), S)
        dtypes.add(dataset.dtype.name)
        if "absent" in dataset.attrs:
            absent[descriptor] = np.asarray(dataset.attrs["absent"], np.intp)
    names = stored(file, "names")
    if names.dtype.kind != "S" or names.ndim != 1:
        raise ValueError("its names are no texts")
    if len(dtypes) > 1:
        raise ValueError(f"it mixes {' and '.join(sorted(dtypes))}")
    return ShardHeader(
        key,
        names[:].tolist(),
        stored(file, "id")[:],
        stored(file, "stamp")[:],
        columns,
        dtypes.pop() if dtypes else DTYPES[0],
        int(file.attrs["generation"]),
        dict(json.loads(read_text(file, "provenance"))),
        absent,
    )


def datasets(file: h5py.File) -> dict[Descriptor, h5py.Dataset]:
    """Return the arrays of a file's columns, in alphabetical order."""
    paths: list[str] = []
    file.visititems(
        lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None
    )
    found = {}
    for path in sorted(set(paths) - {"names", "id", "stamp"}):
        dataset = stored(file, path)
        if dataset.ndim != 2 or dataset.dtype.name not in DTYPES:
            raise ValueError(f"{path} holds no descriptors")
        found[Descriptor.parse(f"/{path}")] = dataset
    return found


def stored(file: h5py.File, path: str) -> h5py.Dataset:
    """Return an array whose numbers lie in this very file."""
    dataset = file[path]
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise ValueError(f"{path} is no array, or takes its numbers from another file")
    return dataset


def read_rows(dataset: h5py.Dataset, rows: Rows) -> Matrix:
    """Read rows (n,) of an array (N, D) in any order, by few and bounded reads."""
    if len(rows) and rows.max() >= len(dataset):
        raise ValueError(f"{dataset.name} has {len(dataset)} rows, not {rows.max() + 1}")
    if (together := as_slice(rows)) is not None:
        return np.asarray(dataset[together])
    result = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    order = np.argsort(rows, kind="stable")
    for some in np.split(order, np.flatnonzero(np.diff(rows[order]) > GAP) + 1):
        if len(some):
            first = rows[some[0]]
            result[some] = dataset[first : rows[some[-1]] + 1][rows[some] - first]
    return result


def as_slice(rows: Rows) -> slice | None:
    """Return rows that follow each other as a slice, which is read and written far faster.

    Examples
    --------
    >>> as_slice(np.array([4, 5, 6])), as_slice(np.array([4, 6]))
    (slice(4, 7, None), None)
    """
    if not len(rows) or (np.diff(rows) != 1).any():
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1)


def to_float32(values: Matrix, into: NDArray[np.float32]) -> None:
    """Write numbers into float32; half precision by torch, measured at 70 times numpy's rate."""
    if values.dtype != np.float16 or not ("torch" in sys.modules or values.size >= MANY):
        into[...] = values
        return
    try:
        import torch
    except ImportError:
        into[...] = values
        return
    # torch refuses arrays that may not be written, such as a memory map's.
    torch.from_numpy(into).copy_(torch.from_numpy(np.require(values, requirements="W")))


@contextmanager
def open_hdf5(where: Path | str, content: BinaryIO | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file, or what was read of it, for reading; say what to do if that fails."""
    locking = {} if content else {"locking": False}
    try:
        with h5py.File(content or where, "r", **locking) as file:
            yield file
    except VggfeatError:
        raise
    except OSError as error:
        if error.errno in ENVIRONMENT:
            raise StoreError(f"{where} could not be read: {error}") from error
        foreign = "signature not found" in str(error)
        raise damaged(where, "it is no HDF5 file" if foreign else str(error)) from error
    except MemoryError as error:
        raise StoreError(
            f"{where} could not be read: it needs more memory than there is"
        ) from error
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = error.args[0] if error.args else error
        raise damaged(where, str(reason)) from error


def damaged(where: Path | str, reason: str) -> StoreDamaged:
    """Say which file is damaged and how to get its features back."""
    folder = os.path.dirname(where)  # noqa: PTH120  # of an address as well
    if PurePath(folder).name != FOLDER:
        return StoreDamaged(
            f"{where} cannot be used: {reason}. Name the folder that `vggfeat extract` wrote, or "
            "what `vggfeat store pack` makes of it."
        )
    return StoreDamaged(
        f"The shard {where} is damaged: {reason}. Move aside all that is, with: vggfeat store "
        f"repair {os.path.dirname(folder)}. Then run the same command again: it computes what is "  # noqa: PTH120
        "missing."
    )
