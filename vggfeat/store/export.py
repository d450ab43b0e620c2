"""Taking features out of a store: one packed HDF5 file, npz, csv or parquet."""

from __future__ import annotations

import csv
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product, starmap
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vggfeat._io.atomic import replacing, sweep
from vggfeat._io.checksums import append_checksum_to
from vggfeat._io.text import size
from vggfeat.errors import MissingExtra, ParameterError, StoreError
from vggfeat.store.column import Descriptor
from vggfeat.store.read import read_columns
from vggfeat.store.shard import (
    FOLDER,
    LIBVER,
    VERSION,
    Matrix,
    encode,
    write_column,
    write_rows,
    write_text,
)
from vggfeat.store.storage import LocalStorage
from vggfeat.store.store import FeatureStore

BLOCK = 1024  # rows in memory at a time
CHUNK = 1 << 18  # numbers of a packed file that share a checksum
# Backslashes that would be taken for those of a byte's escape; Python decodes a byte that is no
# UTF-8 to one of these surrogates.
_AS_A_BYTE = re.compile(r"\\+(?=x[0-9a-fA-F]{2}|[\udc80-\udcff])")

Combine = Callable[[Mapping[Descriptor, Matrix]], Matrix]
Blocks = Iterator[tuple[list[str], dict[str, Matrix]]]


def pack(source: Path | str, target: Path | str) -> None:
    """Write all of a store into one HDF5 file that needs no other.

    The file has the layout of ``features.h5``, with a checksum for every block of about 1 MB, and
    :class:`FeatureStore` reads it.

    Parameters
    ----------
    source : path
        Folder or address of a store.
    target : path
        File to write, or to replace once the new one is whole.

    Raises
    ------
    StoreError
        If there is no store, it is empty, or the disk is too small.
    StoreDamaged
        If something in it is not what was written.

    Examples
    --------
    >>> pack("features", "features-packed.h5")  # doctest: +SKIP
    """
    store, target = _open(source, target), Path(target)
    index, columns, rows = store.index, store.columns, store.index.counted
    _check_space(store, target)
    with replacing(target) as temporary:
        with h5py.File(temporary, "w", libver=LIBVER, locking=False) as file:
            checked = {"chunks": True, "fletcher32": True}
            write_rows(file, encode(store.names), index.ids[rows], index.stamps[rows], **checked)
            file.attrs["sealed"] = True
            file.attrs["version"] = VERSION
            file.attrs["generation"] = index.generation
            by_net = {name.net: store.provenance(name.net) for name in columns}
            write_text(file, "provenance", json.dumps(by_net))
            for name, column in columns.items():
                places = index.where[name][rows]
                dataset = file.create_dataset(
                    name.path,
                    (len(rows), column.width),
                    store.dtype,
                    chunks=(min(len(rows), max(1, CHUNK // column.width)), column.width),
                    fletcher32=True,
                    fillvalue=np.nan,
                )
                write_column(dataset, column)
                dataset.attrs["absent"] = np.flatnonzero(places[:, 0] < 0)
                for start in range(0, len(rows), BLOCK):
                    some = {name: places[start : start + BLOCK]}
                    values = read_columns(store.storage, index.headers, columns, some)[name]
                    dataset[start : start + BLOCK] = values.astype(store.dtype)
        append_checksum_to(temporary)


def export(
    source: Path | str,
    target: Path | str,
    format: str | None = None,  # noqa: A002 (the word that everyone uses)
    *,
    columns: Sequence[Descriptor] | None = None,
    matrix: Combine | None = None,
) -> int:
    r"""Write the images that have all columns asked for as npz, csv or parquet, block by block.

    ============  ==================================  ==========================================
    format        without ``matrix``                  with ``matrix``
    ============  ==================================  ==========================================
    ``npz``       ``names`` and an array (N, D) for   ``names`` and ``X``
                  each, ``D/pool5/average/Q256``, …
    ``csv``       ``name``,                           ``name``, ``x0``, …
                  ``D/pool5/average/Q256/0``, …
    ``parquet``   ``name`` and a column of lists for  ``name`` and a column of lists ``X``
                  each, ``D/pool5/average/Q256``, …
    ============  ==================================  ==========================================

    Numbers in csv are the shortest that read back as the same float32. Names are written as they
    are, quoted where csv needs it. Parquet holds only valid UTF-8: another byte of a name becomes
    ``\xNN``, and a name's own backslashes before such a byte, or before ``x`` and two hexadecimal
    digits, are doubled. So the last of an odd number of them there begins a byte, and no two names
    become one.

    Parameters
    ----------
    source : path
        Folder or address of a store, or a packed file.
    target : path
        File to write, or to replace once the new one is whole.
    format : {"npz", "csv", "parquet"}, optional
        By default what the name of ``target`` ends in.
    columns : sequence of Descriptor, optional
        What to write, in this order, as :func:`choose_columns` finds it; all that the store has,
        by default.
    matrix : callable, optional
        Makes one matrix (n, D) of the descriptors of n images, by :class:`Descriptor`, row by
        row: :func:`vggfeat.features.aggregate.aggregate`, for example.

    Returns
    -------
    int
        Number of images written.

    Raises
    ------
    StoreError
        If there is no store, or no image has all that was asked for.
    StoreDamaged
        If something in it is not what was written.
    MissingExtra
        If pyarrow is needed and not installed.

    Examples
    --------
    >>> pool5 = Descriptor("D", "pool5", "average", 256)
    >>> export("features", "features.npz", columns=[pool5])  # doctest: +SKIP
    4192
    """
    target = Path(target)
    chosen = target.suffix.removeprefix(".") if format is None else format
    if chosen not in WRITERS:
        raise ParameterError.not_one_of("format", "export", WRITERS, chosen)
    store = _open(source, target)
    wanted = list(store.columns if columns is None else columns)
    names = store.complete(wanted)
    if not names:
        held = ", ".join(name.path for name in wanted)
        raise StoreError(f"No image has all of {held}. Ask for fewer of them.")

    def blocks() -> Blocks:
        for some, arrays in store.blocks(wanted, names, BLOCK):
            if matrix is None:
                yield some, {name.path[1:]: values for name, values in arrays.items()}
            else:
                yield some, {"X": np.asarray(matrix(arrays), np.float32)}

    WRITERS[chosen](target, names, blocks)
    return len(names)


def _open(source: Path | str, target: Path | str) -> FeatureStore:
    """Open a store that holds something, and keep the target out of its files."""
    store = FeatureStore(source)
    if not store.columns:
        raise StoreError(f"{source} holds no features yet. Run `vggfeat extract` first.")
    if isinstance(store.storage, LocalStorage) and not store.packed:
        folder = store.storage.path.resolve()
        if Path(target).resolve().parent in (folder, folder / FOLDER, folder / "columns"):
            raise StoreError(f"{target} would lie among the files of the store. Choose another.")
    store.check_digests()  # or what is damaged would get a digest that is right
    sweep(Path(target).parent)
    return store


def choose_columns(
    store: FeatureStore,
    *,
    nets: Sequence[str] = (),
    layers: Sequence[str] = (),
    pools: Sequence[str] = (),
    scales: Sequence[int] = (),
) -> list[Descriptor]:
    """Return the columns of what is named, each net's together, in the order of the names.

    Parameters
    ----------
    store : FeatureStore
    nets, layers, pools, scales : sequence, optional
        Whatever the store has where none is named. Every net has all combinations of the rest.

    Raises
    ------
    StoreError
        If one of them is not there; names the columns that are.

    Examples
    --------
    >>> store = FeatureStore(None, "a")
    >>> choose_columns(store)
    []
    """
    held = store.columns
    named = [list(values) for values in (nets, layers, pools, scales)]
    every = [values or sorted({name[place] for name in held}) for place, values in enumerate(named)]
    chosen = [name for name in starmap(Descriptor, product(*every)) if name in held]
    for asked in product(every[0], *(values or [None] for values in named[1:])):
        words = dict(zip(Descriptor._fields, asked, strict=True))
        words = {what: value for what, value in words.items() if value is not None}
        if not any(words.items() <= name._asdict().items() for name in chosen):
            raise StoreError(
                f"{store.packed or store.storage} has no column of "
                f"{' '.join(f'--{what} {value}' for what, value in words.items())}. It has:",
                *(
                    f"  --{what} {', '.join(map(str, sorted({name[k] for name in held})))}"
                    for k, what in enumerate(Descriptor._fields)
                ),
                "Ask for columns that `vggfeat store info` lists; with --net, those of some nets.",
            )
    return chosen


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
                fronts = [("x" if path == "X" else f"{path}/", v) for path, v in arrays.items()]
                heads = [f"{front}{at}" for front, v in fronts for at in range(v.shape[1])]
                writer.writerow(["name", *heads])
            values = np.concatenate(list(arrays.values()), axis=1).astype(str)
            writer.writerows([name, *row] for name, row in zip(some, values.tolist(), strict=True))


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
    width = sum(column.width for column in store.columns.values())
    needed = len(store.names) * width * np.dtype(store.dtype).itemsize
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise StoreError(f"{target} needs {size(needed)}, but only {size(free)} are free there.")
