"""Taking features out of a store: one packed HDF5 file, npz, csv or parquet."""

from __future__ import annotations

import csv
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vggfeat._io.atomic import replacing, sweep
from vggfeat._io.checksums import append_checksum_to
from vggfeat._io.text import size
from vggfeat.errors import MissingExtra, ParameterError, StoreError
from vggfeat.features.extraction import Part
from vggfeat.features.packed import SEALED, create_packed
from vggfeat.features.shards import LIBVER, FolderShards, Matrix, encode, write_names
from vggfeat.features.store import FeatureStore
from vggfeat.hdf5 import write_text

BLOCK = 1024  # rows in memory at a time
# Backslashes that would be taken for those of a byte's escape; Python decodes a byte that is no
# UTF-8 to one of these surrogates.
_AS_A_BYTE = re.compile(r"\\+(?=x[0-9a-fA-F]{2}|[\udc80-\udcff])")

Combine = Callable[[Mapping[Part, Matrix]], Matrix]
Blocks = Iterator[tuple[list[str], dict[str, Matrix]]]


def pack(source: Path | str, target: Path | str) -> None:
    """Write all of a store's view into one HDF5 file that needs no other.

    The file has the layout of ``features.h5``, with a checksum for every block of about 1 MB, and
    :meth:`FeatureStore.open` reads it.

    Parameters
    ----------
    source : path
        Folder of a store.
    target : path
        File to write, or to replace once the new one is whole.

    Raises
    ------
    StoreError
        If there is no store, it is empty, or the disk is too small.
    StoreDamaged
        If something in it is not what was written.
    """
    stores = _stores(source, target)
    store = next(iter(stores.values()))
    with replacing(Path(target)) as temporary:
        _check_space(store, Path(target))
        with h5py.File(temporary, "w", libver=LIBVER, locking=False) as file:
            storage = {"chunks": True, "fletcher32": True} if store.names else {}
            write_names(file, encode(store.names), store.index.stats, **storage)
            write_text(file, "manifest", store.manifest.to_json())
            file.attrs[SEALED] = True
            for path, dimension in sorted(store.index.dimensions.items()):
                shape = (len(store.names), dimension)
                absent = np.flatnonzero(~store.index.has([path]))
                if len(absent) == len(store.names):
                    continue
                dataset = create_packed(file, path, shape, store.manifest.dtype, absent)
                for rows in _ranges(len(store.names)):
                    dataset[rows[0] : rows[-1] + 1] = store.gather([path], rows)[path]
        append_checksum_to(temporary)


def export(
    source: Path | str,
    target: Path | str,
    format: str | None = None,  # noqa: A002 (the word that everyone uses)
    *,
    scales: Sequence[int] | None = None,
    matrix: Combine | None = None,
) -> int:
    r"""Write the pictures that have all scales asked for as npz, csv or parquet, block by block.

    ============  ==================================  ==========================================
    format        without ``matrix``                  with ``matrix``
    ============  ==================================  ==========================================
    ``npz``       ``names`` and ``D/Q384`` (N, D), …  ``names`` and ``X``
    ``csv``       ``name``, ``D/Q384/0``, …           ``name``, ``x0``, …
    ``parquet``   ``name`` and a column of lists for  ``name`` and a column of lists ``X``
                  each array, ``D/Q384``, …
    ============  ==================================  ==========================================

    Numbers in csv are the shortest that read back as the same float32. Names are written as they
    are, quoted where csv needs it. Parquet holds only valid UTF-8: another byte of a name becomes
    ``\xNN``, and a name's own backslashes before such a byte, or before ``x`` and two hexadecimal
    digits, are doubled. So the last of an odd number of them there begins a byte, and no two names
    become one.

    Parameters
    ----------
    source : path
        Folder of a store, or a packed file.
    target : path
        File to write, or to replace once the new one is whole.
    format : {"npz", "csv", "parquet"}, optional
        By default what the name of ``target`` ends in.
    scales : sequence of int, optional
        Test scales Q; all that the store has, by default.
    matrix : callable, optional
        Makes one matrix (n, D) of the descriptors of n pictures, of all nets of the store, row
        by row: :func:`vggfeat.features.aggregate.aggregate`, for example.

    Returns
    -------
    int
        Number of pictures written.

    Raises
    ------
    StoreError
        If there is no store, or no picture has all that was asked for.
    StoreDamaged
        If something in it is not what was written.
    MissingExtra
        If pyarrow is needed and not installed.
    """
    target = Path(target)
    chosen = target.suffix.removeprefix(".") if format is None else format
    if chosen not in WRITERS:
        raise ParameterError.not_one_of("format", "export", WRITERS, chosen)
    stores = _stores(source, target)
    names = _common_names(stores, scales)

    def blocks() -> Blocks:
        return _blocks(stores, names, scales, matrix)

    WRITERS[chosen](target, names, blocks)
    return len(names)


def _stores(source: Path | str, target: Path | str) -> dict[str, FeatureStore]:
    """Open all nets of a store, and keep the target out of its files."""
    stores = FeatureStore.open_all(source)
    store = next(iter(stores.values()), None)
    if store is None or not store.index.dimensions:
        raise StoreError(f"{source} holds no features yet. Run `vggfeat extract` first.")
    if isinstance(store.files, FolderShards):
        folder = Path(str(store.files.place)).resolve()
        if Path(target).resolve().parent in (folder, folder / "shards"):
            raise StoreError(f"{target} would lie among the files of the store. Choose another.")
    store.check_digests()  # or what is damaged would get a digest that is right
    sweep(Path(target).parent)
    return {net: store for net, store in stores.items() if store.scales}


def _common_names(stores: Mapping[str, FeatureStore], scales: Sequence[int] | None) -> list[str]:
    first, *others = [store.view_names(scales) for store in stores.values()]
    common = set(first).intersection(*others)
    if not common:
        held = sorted({Q for store in stores.values() for Q in store.scales})
        raise StoreError(
            "No picture has all nets and scales asked for. The store has Q = "
            f"{', '.join(map(str, held))}. Ask for fewer scales."
        )
    return [name for name in first if name in common]


def _blocks(
    stores: Mapping[str, FeatureStore],
    names: Sequence[str],
    scales: Sequence[int] | None,
    matrix: Combine | None,
) -> Blocks:
    for start in range(0, len(names), BLOCK):
        some = list(names[start : start + BLOCK])
        parts: dict[Part, Matrix] = {}
        arrays: dict[str, Matrix] = {}
        for store in stores.values():
            for part, values in store.read(scales, some).items():
                parts[part] = values
                arrays[store.extraction.path(part).removeprefix("/")] = values
        yield some, arrays if matrix is None else {"X": np.asarray(matrix(parts), np.float32)}


def _write_npz(target: Path, names: Sequence[str], blocks: Callable[[], Blocks]) -> None:
    """Write each array as a stream: one pass over the store for each."""
    _, arrays = next(blocks())
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("names.npy", "w") as member:
            np.lib.format.write_array(member, np.array(names), allow_pickle=False)
        for path, first in arrays.items():
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(names), first.shape[1])}
            with archive.open(f"{path}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for _, block in blocks():
                    member.write(block[path].astype("<f4").tobytes())


def _write_csv(target: Path, names: Sequence[str], blocks: Callable[[], Blocks]) -> None:
    with (
        replacing(target) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        for number, (some, arrays) in enumerate(blocks()):
            if not number:
                writer.writerow(["name", *_columns(arrays)])
            values = np.concatenate(list(arrays.values()), axis=1).astype(str)
            writer.writerows([name, *row] for name, row in zip(some, values.tolist(), strict=True))


def _columns(arrays: Mapping[str, Matrix]) -> list[str]:
    return [
        f"x{column}" if path == "X" else f"{path}/{column}"
        for path, values in arrays.items()
        for column in range(values.shape[1])
    ]


def _write_parquet(target: Path, names: Sequence[str], blocks: Callable[[], Blocks]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra.of("Parquet export", "pyarrow", "parquet") from error

    def table(some: list[str], arrays: dict[str, Matrix]) -> Any:
        lists = {
            path: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
            for path, values in arrays.items()
        }
        return pa.table({"name": pa.array(map(_valid, encode(some)), pa.string()), **lists})

    _, arrays = next(blocks())
    schema = table(list(names[:1]), {path: values[:1] for path, values in arrays.items()}).schema
    with replacing(target) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for some, arrays in blocks():
            writer.write_table(table(some, arrays))


def _valid(name: bytes) -> str:
    """Write a name in valid UTF-8, each in its own way."""
    text = name.decode("utf-8", "surrogateescape")
    text = _AS_A_BYTE.sub(r"\g<0>\g<0>", text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


WRITERS: dict[str, Callable[[Path, Sequence[str], Callable[[], Blocks]], None]] = {
    "npz": _write_npz,
    "csv": _write_csv,
    "parquet": _write_parquet,
}


def _check_space(store: FeatureStore, target: Path) -> None:
    """Refuse early, for HDF5 takes a full disk badly."""
    width = np.dtype(store.manifest.dtype).itemsize
    needed = len(store.names) * width * sum(store.index.dimensions.values())
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise StoreError(f"{target} needs {size(needed)}, but only {size(free)} are free there.")


def _ranges(rows: int) -> Iterator[Any]:
    for start in range(0, rows, BLOCK):
        yield np.arange(start, min(start + BLOCK, rows))
