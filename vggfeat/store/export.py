"""Taking features out of a store: one packed HDF5 file, npz, npy, csv or parquet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import product, starmap
from pathlib import Path

import h5py
import numpy as np

from vggfeat._io.atomic import replacing, sweep
from vggfeat._io.checksums import append_checksum_to
from vggfeat._io.text import size
from vggfeat.errors import ParameterError, StoreError
from vggfeat.store.column import Descriptor
from vggfeat.store.feature_files import WRITERS, Blocks, Content
from vggfeat.store.labels import read_labels
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
from vggfeat.store.view import refuse_incomplete

BLOCK = 1024  # rows in memory at a time
CHUNK = 1 << 18  # numbers of a packed file that share a checksum

Combine = Callable[[Mapping[Descriptor, Matrix]], Matrix]


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
    names: Sequence[str] | None = None,
    matrix: Combine | None = None,
) -> int:
    r"""Write the images that have all columns asked for as npz, npy, csv or parquet, by blocks.

    ============  ==================================  ==========================================
    format        without ``matrix``                  with ``matrix``
    ============  ==================================  ==========================================
    ``npz``       ``names`` and an array (N, D) for   ``names`` and ``X``
                  each, ``D/pool5/average/Q256``, …
    ``csv``       ``name``,                           ``name``, ``x0``, …
                  ``D/pool5/average/Q256/0``, …
    ``parquet``   ``name`` and a column of lists for  ``name`` and a column of lists ``X``
                  each, ``D/pool5/average/Q256``, …
    ``npy``       an array (N, D), of one column      an array (N, D)
    ============  ==================================  ==========================================

    What is known of labels and splits follows the names: ``label`` and ``split``, in npz ``labels``
    and ``splits``. Beside ``x.npy``, ``x.names.csv`` has names and labels. An npz with ``X`` has
    the paths of its columns in ``columns``.

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
    format : {"npz", "npy", "csv", "parquet"}, optional
        By default what the name of ``target`` ends in.
    columns : sequence of Descriptor, optional
        What to write, in this order, as :func:`choose_columns` finds it; all that the store has,
        by default.
    names : sequence of str, optional
        Images to write, in this order, those that lack a column left out; all by default.
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
        If there is no store, no image has all that was asked for, or one array is to be several.
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
    whole = store.complete(wanted)
    rows = whole if names is None else [name for name in names if name in {*whole}]
    paths = [name.path for name in wanted]
    if not rows:
        raise StoreError(f"No image has all of {', '.join(paths)}. Ask for fewer of them.")
    if chosen == "npy" and matrix is None and len(paths) > 1:
        raise StoreError(f"{target} is one array, and there are {', '.join(paths)}. Ask for one.")

    def blocks() -> Blocks:
        for some, arrays in store.blocks(wanted, rows, BLOCK):
            if matrix is None:
                yield some, {name.path[1:]: values for name, values in arrays.items()}
            else:
                yield some, {"X": np.asarray(matrix(arrays), np.float32)}

    labels = {} if store.packed else read_labels(store.storage)
    WRITERS[chosen](target, Content.of(rows, labels, paths, blocks))
    return len(rows)


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
    if not store.packed:
        refuse_incomplete(store.storage)
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


def _check_space(store: FeatureStore, target: Path) -> None:
    """Refuse early, for HDF5 takes a full disk badly."""
    width = sum(column.width for column in store.columns.values())
    needed = len(store.names) * width * np.dtype(store.dtype).itemsize
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise StoreError(f"{target} needs {size(needed)}, but only {size(free)} are free there.")
