"""The feature store: a table of columns that grows, crash-safe and resumable.

A store is a folder::

    features/
      manifest.json                      format, version, dtype; never changed
      columns/D.pool5.average.Q256.json  the settings of a column
      shards/<sha256>.h5                 immutable, named by their bytes
      index.npz, stamps-….npz            caches
      features.h5                        one view over all shards
      failed.csv, run.json               of the last run

A run computes, for each image, the columns it lacks. Writers may work side by side: each creates
files of its own, and nothing is read, changed and written back. HDF5 files are opened and closed
within each call, so none crosses a fork.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from vggfeat._io.text import counted
from vggfeat.errors import ParameterError, StoreError
from vggfeat.store import admission, runs
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.index import (
    Index,
    Notes,
    read_column_files,
    read_headers,
    read_view_names,
    write_headers,
)
from vggfeat.store.read import check_digest, read_columns
from vggfeat.store.runs import Share
from vggfeat.store.shard import (
    DTYPES,
    Bools,
    Floats,
    Matrix,
    Pairs,
    ShardHeader,
    build_shard,
    cast_rows,
    decode,
    encode,
    read_header,
)
from vggfeat.store.storage import (
    FOLDERS,
    MANIFEST,
    LocalStorage,
    MemoryStorage,
    Storage,
    build_manifest,
    folder_of,
    list_shards,
    open_storage,
    packed_file,
    read_manifest,
    shard_key,
    sweep,
)
from vggfeat.store.view import write_view

SHOWN = 3  # columns that a notebook shows of a store
INDEXED = 64  # shards whose headers are no longer read one by one: that takes 1 ms each


class FeatureStore:
    """Descriptors of images, on disk or in memory.

    Parameters
    ----------
    path : path or None
        Folder or address of a store, or a packed file; None keeps everything in memory.
    mode : {"r", "a"}
        Read what is there, or make a store where there is none and add to it.
    dtype : {"float32", "float16"}
        Type on disk of a new store; :meth:`read` gives float32.

    Attributes
    ----------
    columns : dict of Column
        What the store has, by :class:`Descriptor`.
    names : list of str
        The images that have any descriptor: those of the last whole run in its order, then all
        others by name.
    failed : dict
        By name, why images of the last run could not be used.
    dtype : str

    Raises
    ------
    StoreError
        If there is no store to read, the folder holds something else, or the dtype is another.
    StoreDamaged
        If a file of the store cannot be read.

    Notes
    -----
    One thread at a time may use an object. All names are in memory, 400 bytes an image.

    Examples
    --------
    >>> store = FeatureStore(None, "a")
    >>> pool5 = Column(Descriptor("D", "pool5", "average", 256), {"weights": "ab12"}, 2)
    >>> store.add_columns([pool5])
    >>> ids, stamps = np.array([[1, 2], [3, 4]]), np.array([[10, 5], [12, 5]])
    >>> values = {pool5.descriptor: np.array([[3.0, 4.0], [1.0, 2.0]])}
    >>> store.write(["b.jpg", "a.jpg"], ids, stamps, values)
    >>> store
    FeatureStore('memory', 'a', 2 images, /D/pool5/average/Q256)
    >>> store.names, store.read(names=["a.jpg"])[pool5.descriptor]
    (['a.jpg', 'b.jpg'], array([[1., 2.]], dtype=float32))
    """

    def __init__(
        self,
        path: Path | str | None,
        mode: Literal["r", "a"] = "r",
        *,
        dtype: str = DTYPES[0],
    ) -> None:
        if mode not in ("r", "a"):
            raise ParameterError.not_one_of("mode", "FeatureStore", ("r", "a"), mode)
        if dtype not in DTYPES:
            raise ParameterError.not_one_of("dtype", "FeatureStore", DTYPES, dtype)
        self.mode = mode
        self.packed = packed_file(path)
        self.storage: Storage = (
            LocalStorage(self.packed.parent) if self.packed else open_storage(folder_of(path))
        )
        self._headers: dict[str, ShardHeader] = {}
        self._admitted: dict[Descriptor, Column] = {}
        self._own: set[Descriptor] = set()  # the columns of this run
        self._notes = Notes(self.storage)
        self._first: list[bytes] | None = None  # names that come first; read when they are needed
        self._provenance: dict[str, Any] = {}
        self._new = 0
        self._index: Index | None = None
        self._names: list[str] | None = None
        self._failed: dict[str, str] | None = None
        self.dtype = self._open_packed(self.packed) if self.packed else self._open(dtype)

    def __repr__(self) -> str:
        paths = [column.path for column in self.index.held]
        columns = ", ".join(paths[:SHOWN])
        if len(paths) > SHOWN:
            columns += f" and {len(paths) - SHOWN} more"
        return (
            f"FeatureStore({str(self.packed or self.storage)!r}, {self.mode!r}, "
            f"{counted(len(self.index.counted), 'image')}, {columns or 'no columns'})"
        )

    # Opening

    def _open(self, dtype: str) -> str:
        held = read_manifest(self.storage)
        is_lost = held is None
        self._load()
        if is_lost and self._headers:  # every shard says its type
            held = next(iter(self._headers.values())).dtype
        if self.mode == "r":
            if held is None and not isinstance(self.storage, MemoryStorage):
                admission.refuse_absent(self.storage)
            return held or dtype
        if held is None:
            admission.refuse_strange(self.storage)
        new = build_manifest(dtype)
        if is_lost and held in (None, dtype) and not self.storage.write_new(MANIFEST, new):
            held = read_manifest(self.storage)
        if held and held != dtype:
            if self._headers:
                admission.refuse_other_dtype(self.storage, held, dtype)
            self.storage.write(MANIFEST, new)  # a run that kept nothing binds nobody
        return dtype

    def _open_packed(self, path: Path) -> str:
        if self.mode == "a":
            raise StoreError(f"{path} is a packed store, which can only be read.")
        with self.storage.open(path.name) as file:
            if "sealed" not in file.attrs:
                raise StoreError(
                    f"{path} is not a packed store. Give the folder of a store, or a file that "
                    "`vggfeat store pack` wrote."
                )
            header = read_header(file, path.name)
        self._headers[path.name] = header
        self._first = header.names
        return header.dtype

    def _load(self) -> bool:
        """Read what is new since the last time; return whether there were shards."""
        new = [key for key in list_shards(self.storage) if key not in self._headers]
        known = read_headers(self.storage, new) if len(new) >= INDEXED else {}
        for key in new:
            self._headers[key] = known.get(key) or self._read_header(key)
        self._notes.load()
        self._admitted |= read_column_files(self.storage)
        self._index = self._names = self._failed = None
        return bool(new)

    def _read_header(self, key: str) -> ShardHeader:
        with self.storage.open(key) as file:
            return read_header(file, key)

    # What is there

    @property
    def index(self) -> Index:
        """Where the descriptors of all images lie."""
        if self._index is None:
            columns = dict(self._admitted)
            for header in self._headers.values():  # a lost column file: the shards say it too
                for descriptor, column in header.columns.items():
                    columns.setdefault(descriptor, column)
            if self._first is None:
                self._first = read_view_names(self.storage) or []
            headers = list(self._headers.values())
            self._index = Index(headers, columns, self._notes.stamps, self._first)
        return self._index

    @property
    def columns(self) -> dict[Descriptor, Column]:
        """The columns that hold something, sorted."""
        index = self.index
        return {name: index.columns[name] for name in index.held}

    @property
    def names(self) -> list[str]:
        """The images that have any descriptor."""
        if self._names is None:
            index = self.index
            rows = index.counted
            whole = len(rows) == len(index.names)
            self._names = decode(index.names if whole else [index.names[row] for row in rows])
        return self._names

    @property
    def failed(self) -> dict[str, str]:
        """By name, why images of the last run could not be used."""
        if self._failed is None:
            self._failed = {} if self.packed else runs.read_failed(self.storage)
        return self._failed

    @property
    def runs(self) -> list[dict[str, Any]]:
        """What the last run, or each share of it, said: asked, new, failed, finished, share."""
        return [] if self.packed else runs.read_runs(self.storage)

    @property
    def begun(self) -> dict[str, Any]:
        """The provenance of the run that this object has begun; empty without one."""
        return dict(self._provenance)

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        if self.packed:
            return self.packed.stat().st_size
        return sum(sum(self.storage.list(folder).values()) for folder in FOLDERS)

    def provenance(self, of: str | Descriptor) -> dict[str, Any]:
        """Return what the writer of the newest shard of a net, or of a column, said of itself."""
        for header in reversed(self.index.headers):
            for name, column in header.columns.items():
                if of in (name, name.net) and column.digest == self.index.columns[name].digest:
                    own = header.provenance  # of a packed file: of each net
                    return dict(own.get(name.net, {})) if self.packed else own
        return {}

    def identify(self, names: Sequence[str], *, noted: bool = True) -> Pairs:
        """Return the ids (n, 2) of images; 0 of those that the store does not have.

        What was seen of them since their newest rows were written counts, unless `noted` is False.
        """
        index = self.index
        numbers = index.numbers(encode(names))
        ids = np.zeros((len(numbers), 2), np.int64)
        held = index.ids if noted else index.written
        ids[numbers >= 0] = held[numbers[numbers >= 0]]
        return ids

    def recall(self, names: Sequence[str], stamps: ArrayLike) -> Pairs:
        """Return the ids (n, 2) of images whose files look as they did once; 0 where unknown."""
        index = self.index
        return index.recall(index.numbers(encode(names)), _pairs(stamps, len(names), "stamps"))

    def has(
        self,
        columns: Sequence[Descriptor],
        names: Sequence[str],
        ids: ArrayLike | None = None,
        *,
        current: bool = False,
    ) -> Bools:
        """Tell which columns hold which images.

        Parameters
        ----------
        columns : sequence of Descriptor
        names : sequence of str
            The n images.
        ids : ndarray (n, 2), optional
            Which images they are, also where the store has had another under the name since; what
            is current by default.
        current : bool
            Whether rows of images that are no longer current do not count.

        Returns
        -------
        ndarray (n, len(columns)) of bool
        """
        index = self.index
        numbers = index.numbers(encode(names))
        wanted = None if ids is None else _pairs(ids, len(names), "ids")
        held = np.zeros((len(names), len(columns)), bool)
        for place, column in enumerate(columns):
            held[:, place] = index.places(column, numbers, wanted)[:, 0] >= 0
        if current and wanted is not None:
            held &= (self.identify(names) == wanted).all(axis=1)[:, None]
        return held

    def complete(self, columns: Sequence[Descriptor] | None = None) -> list[str]:
        """Return the names of the images, in order, that have all these columns."""
        index = self.index
        wanted = list(self.columns if columns is None else columns)
        held = np.ones(len(index.names), bool)
        for name in wanted:
            held &= index.where[name][:, 0] >= 0 if name in index.where else False
        return decode([index.names[row] for row in np.flatnonzero(held & bool(wanted))])

    # Reading

    def read(
        self,
        columns: Sequence[Descriptor | str] | None = None,
        names: Sequence[str] | None = None,
        *,
        missing: Literal["error", "nan"] = "error",
        verify: bool = False,
    ) -> dict[Descriptor, Floats]:
        """Read descriptors.

        Parameters
        ----------
        columns : sequence of Descriptor, optional
            Or their paths; all that the store has, by default.
        names : sequence of str, optional
            The n images, in any order and repeated at will; by default all of :attr:`names`.
            :meth:`complete` names those that have some columns.
        missing : {"error", "nan"}
            What becomes of an image that a column lacks.
        verify : bool
            Whether the digest of each shard is checked first.

        Returns
        -------
        dict of ndarray (n, D) of float32
            In the order of `columns`; rows in the order of `names`.

        Raises
        ------
        StoreError
            If an image or a column is not there; says why, if known.
        StoreDamaged
            If a shard cannot be read, or is not what was written.
        """
        wanted = self._existing(columns)
        names = self.names if names is None else names
        index = self.index
        numbers = index.numbers(encode(names))
        places = {name: index.places(name, numbers) for name in wanted}
        if missing == "error":
            self._refuse_missing(places, names)
        return read_columns(self.storage, index.headers, index.columns, places, verify=verify)

    def blocks(
        self,
        columns: Sequence[Descriptor | str] | None = None,
        names: Sequence[str] | None = None,
        rows: int = 1024,
        *,
        missing: Literal["error", "nan"] = "error",
    ) -> Iterator[tuple[list[str], dict[Descriptor, Floats]]]:
        """Read as :meth:`read` does, some images at a time, in bounded memory.

        Yields
        ------
        names, descriptors
        """
        wanted = self._existing(columns)
        every = list(self.names if names is None else names)
        for start in range(0, len(every), rows):
            some = every[start : start + rows]
            yield some, self.read(wanted, some, missing=missing)

    def check_digests(self) -> None:
        """Compare every shard, or the packed file, with its digest.

        Raises
        ------
        StoreDamaged
            If one is not what was written.
        """
        for key in self._headers:
            check_digest(self.storage, key)

    def _existing(self, columns: Sequence[Descriptor | str] | None) -> list[Descriptor]:
        held = self.columns
        if columns is None:
            return list(held)
        if isinstance(columns, str | Descriptor):
            raise ParameterError.of("columns", "FeatureStore", "a list of columns", columns)
        try:
            wanted = [Descriptor.parse(c) if isinstance(c, str) else c for c in columns]
        except ValueError as error:
            raise ParameterError(f"{error}.") from error
        if absent := [name for name in wanted if name not in held]:
            having = ", ".join(name.path for name in held) or "nothing"
            raise StoreError(
                f"{self.packed or self.storage} has no {absent[0].path}; it has {having}. Extract "
                f"it first: vggfeat extract --net {absent[0].net} --layer {absent[0].layer} "
                f"--pool {absent[0].pool} --Q {absent[0].Q}"
            )
        return wanted

    def _refuse_missing(self, places: Mapping[Descriptor, Any], names: Sequence[str]) -> None:
        for descriptor, where in places.items():
            absent = np.flatnonzero(where[:, 0] < 0)
            if len(absent):
                first = names[absent[0]]
                raise StoreError(
                    f"{first!r} is not in the store at {descriptor.path}: {self._why(first)}. "
                    f"({len(absent)} of {len(names)} images are absent.) Read fewer columns, or "
                    "those images that have them all: names=store.complete(columns); or "
                    'missing="nan".'
                )

    def _why(self, name: str) -> str:
        """Say why an image lacks a column."""
        [number] = self.index.numbers(encode([name]))
        if number >= 0 and self.index.written[number].any() and not self.index.ids[number].any():
            return "its file has changed since; run the same extraction again"
        return self.failed.get(name, "it was not asked for, or not yet computed")

    # Writing

    def check_writable(self) -> None:
        """Refuse to change a store that was opened for reading.

        Raises
        ------
        StoreError
        """
        if self.mode != "a":
            raise StoreError(
                f"{self.packed or self.storage} was opened for reading. Open it for writing with "
                'FeatureStore(path, mode="a").'
            )

    def add_columns(self, columns: Sequence[Column]) -> None:
        """Admit columns, before anything is computed for them.

        What outputs are called is no setting: the names that were given last are kept.

        Raises
        ------
        FingerprintMismatch
            If the store holds one of them with other settings, naming the differences.
        """
        self.check_writable()
        for column in columns:
            name = column.descriptor
            lost = self.index.columns.get(name) if self._headers else None  # as the shards say
            held = admission.create_column_file(self.storage, lost or column)
            renamed = held.digest == column.digest and column.outputs not in ((), held.outputs)
            if renamed or (held.digest != column.digest and not self._has_rows(held)):
                admission.replace_column_file(self.storage, column)
                held = column
            admission.refuse_other_settings(self.storage, held, column)
            self._refuse_other_scales(column)
            if name not in self.index.columns:
                self.index.add_column(held)
            elif self.index.columns[name] != held:
                self._index = self._names = None
            self._admitted[name] = held
            self._own.add(name)

    def _refuse_other_scales(self, column: Column) -> None:
        """Scales of one layer and pooling are averaged, so that they have the same settings.

        Class scores may be of several networks: those of each are averaged apart.
        """
        for name, other in self.columns.items():
            if name[:3] == column.descriptor[:3] and not column.outputs:
                admission.refuse_other_settings(self.storage, other, column)

    def _has_rows(self, column: Column) -> bool:
        """Tell whether a shard has rows of a column: without any it binds nobody to its settings.

        A run that began when this store was opened already may have written some since.
        """
        self._load()
        held = (header.columns.get(column.descriptor) for header in self._headers.values())
        return any(own is not None and own.digest == column.digest for own in held)

    def begin(
        self,
        names: Sequence[str],
        provenance: Mapping[str, Any] | None = None,
        share: Share | None = None,
    ) -> None:
        """Note that a run has begun.

        Parameters
        ----------
        names : sequence of str
            All images that it is asked for.
        provenance : mapping, optional
            Versions, device and the like, which all shards of the run get.
        share : (int, int), optional
            Part and number of parts.
        """
        self.check_writable()
        sweep(self.storage)
        self._provenance = json.loads(json.dumps(dict(provenance or {}), default=str))
        # When the run does not finish, nobody knows these.
        self._new = int((~self.identify(names, noted=False).any(axis=1)).sum())
        self._record(names, share, failed=0, finished=False)

    def _record(
        self, names: Sequence[str], share: Share | None, *, failed: int, finished: bool
    ) -> None:
        columns = {column.path for column in self._own}
        about = {
            "asked": len(names),
            "new": self._new,
            "failed": failed,
            "share": share,
            "provenance": self._provenance,
        }
        runs.record_run(self.storage, names, columns, about, finished=finished)

    def write(
        self,
        names: Sequence[str],
        ids: ArrayLike,
        stamps: ArrayLike,
        arrays: Mapping[Descriptor, Matrix],
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep descriptors of some images as one shard, which is durable on return.

        Parameters
        ----------
        names : sequence of str
            The n images, each once.
        ids, stamps : ndarray (n, 2)
            Which images they are, and what their files look like.
        arrays : mapping of Descriptor to ndarray (n, D)
            Finite numbers, of columns that were admitted.
        provenance : mapping, optional
            Versions, device and the like; what :meth:`begin` was given by default.

        Raises
        ------
        StoreError
            If a number is not finite in the store's dtype, the disk is full, or another run has
            given the store another dtype: what was written before is safe, and the same run goes
            on from there.
        FingerprintMismatch
            If another writer has admitted a column with other settings meanwhile.
        ParameterError
            If shapes, names or columns do not fit.
        """
        self.check_writable()
        if not len(names) or not arrays:
            return
        keys = encode(names)
        if len(set(keys)) < len(keys):
            raise ParameterError.of("names", "FeatureStore.write", "different names", names)
        if not self._headers:  # until there are rows, another run may have chosen another type
            held = read_manifest(self.storage) or self.dtype
            admission.refuse_other_dtype(self.storage, held, self.dtype)
        for descriptor in arrays:
            if descriptor not in self._admitted:
                raise ParameterError.not_one_of(
                    "arrays", "FeatureStore.write", list(self._admitted), descriptor
                )
            admission.refuse_changed(self.storage, self._admitted[descriptor])
        kept = {
            name: cast_rows(self._admitted[name], array, names, self.dtype)
            for name, array in arrays.items()
        }
        header = ShardHeader(
            "",
            keys,
            _pairs(ids, len(keys), "ids"),
            _pairs(stamps, len(keys), "stamps"),
            {name: self._admitted[name] for name in sorted(kept)},
            self.dtype,
            self._next_generation(),
            self._provenance if provenance is None else dict(provenance),
        )
        content = build_shard(header, kept)
        key = shard_key(content)
        self.storage.write(key, content)
        self._headers[key] = replace(header, key=key)
        self._index = self._names = None

    def _next_generation(self) -> int:
        """Return a generation above that of all rows and notes that are known."""
        rows = (header.generation for header in self._headers.values())
        return 1 + max(self._notes.generation, max(rows, default=0))

    def restore(
        self,
        columns: Sequence[Descriptor],
        names: Sequence[str],
        ids: ArrayLike,
        stamps: ArrayLike,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Make rows of images that came back current again: copy them into a new shard.

        Of all these images all these columns are there.
        """
        index = self.index
        numbers, wanted = index.numbers(encode(names)), _pairs(ids, len(names), "ids")
        places = {name: index.places(name, numbers, wanted) for name in columns}
        values = read_columns(self.storage, index.headers, index.columns, places)
        self.write(names, ids, stamps, values, provenance)

    def note(self, names: Sequence[str], ids: ArrayLike, stamps: ArrayLike) -> None:
        """Remember what n images look like now: :meth:`save_notes` keeps it.

        Their `ids` and `stamps` are (n, 2); an id is 0 where an image has changed and was not yet
        read, so that its descriptors are not read any more.
        """
        self.check_writable()
        seen = _pairs(stamps, len(names), "stamps")
        self._notes.add(encode(names), _pairs(ids, len(names), "ids"), seen, self.index.generation)
        self._index = self._names = None

    def save_notes(self) -> None:
        """Write what :meth:`note` was told; where an image has changed, ``features.h5`` goes."""
        self._notes.save(self.index)

    def refresh(self) -> bool:
        """Take in what others wrote since; return whether there was any of it.

        Raises
        ------
        FingerprintMismatch
            If one has admitted a column of this run with other settings.
        """
        before = {descriptor: self._admitted[descriptor] for descriptor in self._own}
        new = self._load()
        for descriptor, column in before.items():
            admission.refuse_other_settings(self.storage, self._admitted[descriptor], column)
        return new

    def finish(
        self,
        names: Sequence[str],
        failed: Mapping[str, str],
        share: Share | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Write ``features.h5``, ``failed.csv`` and ``run.json`` when a run is through.

        The view has the images of `names`, in that order, less those that have nothing; then all
        others that the store holds, by name. A share writes lists of its own, and no view.

        Parameters
        ----------
        names, share
            As :meth:`begin` takes them.
        failed : mapping of str
            By name, why images could not be used.
        record : mapping, optional
            What a merge says of the runs that it joins, in place of what a run says of itself.
        """
        self.check_writable()
        self.refresh()
        if share is None:
            self._first = encode(names)
            self._index = self._names = None
            self.write_caches()
            self._notes.merge_files(self.index)
        else:
            self.save_notes()
        runs.write_failed(self.storage, failed, share)
        self._failed = None
        if record is None:
            self._record(names, share, failed=len(failed), finished=True)
        else:
            runs.write_run(self.storage, {**record, "failed": len(failed)})
        if share is None:
            runs.remove_shares(self.storage)
        sweep(self.storage)

    def write_caches(self) -> None:
        """Write ``features.h5`` and, where there are shards enough to need it, ``index.npz``."""
        write_view(self.storage, self.index, self.dtype, self._provenance)
        if len(self._headers) >= INDEXED:
            write_headers(self.storage, self.index.headers)


def _pairs(values: ArrayLike, n: int, what: str) -> Pairs:
    pairs = np.asarray(values, np.int64).reshape(-1, 2)
    if len(pairs) != n:
        raise ParameterError.of(what, "FeatureStore", f"an array ({n}, 2)", np.shape(values))
    return pairs
