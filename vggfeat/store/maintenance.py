"""Looking after a store: what it holds, whether it is sound, and how it becomes sound again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vggfeat._io.checksums import has_valid_checksum, strip_checksum
from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.store.admission import refuse_absent
from vggfeat.store.column import Column, Descriptor, differences
from vggfeat.store.index import INDEX, list_stamps, write_headers
from vggfeat.store.runs import (
    FAILED,
    RUN,
    join_shares,
    list_shares,
    missing_shares,
    name_share,
    read_list,
    read_run,
)
from vggfeat.store.shard import DTYPES, ShardHeader, read_header, stored
from vggfeat.store.storage import (
    DAMAGED,
    MANIFEST,
    VIEW,
    LocalStorage,
    Storage,
    build_manifest,
    folder_of,
    has_sound_bytes,
    list_leftovers,
    list_shards,
    open_storage,
    packed_file,
    parse_manifest,
    sweep,
)
from vggfeat.store.store import FeatureStore
from vggfeat.store.view import check_view, find_missing_shards

BLOCK = 1024  # rows that are checked at a time
ALTERED = "its bytes are not those that were written"
MISSING = "it is missing; repairing makes it anew"


def info(path: Path | str) -> dict[str, Any]:
    """Say what a store holds.

    Parameters
    ----------
    path : path
        Folder or address of a store, or a packed file.

    Returns
    -------
    dict
        ``path``, ``dtype``, ``columns`` (by path: ``rows``, ``D``, ``settings`` and their
        ``digest``), ``nets`` (of each the ``provenance``), ``images``, ``asked``, ``failed``,
        ``finished`` (whether all is there), ``shares`` (of each that left a record, ``"3/16"``,
        whether it is finished), ``missing`` (their siblings that did not), ``view`` (whether
        ``features.h5`` is there and newer than all shares of a run), ``shards``, ``absent``
        (shards that it shows and that are not there), ``leftovers`` and ``bytes``, all of plain
        JSON types.

    Raises
    ------
    StoreError
        If there is no store.

    Examples
    --------
    >>> info("features")["images"]  # doctest: +SKIP
    9963
    """
    store = FeatureStore(path)
    index, columns, runs = store.index, store.columns, store.runs
    shares = {name_share(run["share"]): run["finished"] for run in runs if run["share"]}
    joined = join_shares(runs)
    missing = missing_shares(joined)
    # A whole run removes what shares left, which write no view.
    has_view = bool(store.packed) or (VIEW in store.storage.list() and not shares)
    all_shares = not missing and any(asked for own in joined.values() for asked in own.values())
    return {
        "path": str(path),
        "dtype": store.dtype,
        "columns": {
            name.path: {
                "rows": int((index.where[name][:, 0] >= 0).sum()),
                "D": column.width,
                "settings": dict(column.settings),
                "digest": column.digest,
            }
            for name, column in columns.items()
        },
        "nets": {
            net: {"provenance": store.provenance(net)}
            for net in sorted({name.net for name in columns})
        },
        "images": len(store.names),
        "absent": [] if store.packed else find_missing_shards(store.storage),
        "asked": count_asked(store),
        "failed": len(store.failed),
        "finished": (has_view or all_shares) and all(run["finished"] for run in runs),
        "shares": shares,
        "missing": list(map(name_share, missing)),
        "view": has_view,
        "shards": len(index.headers),
        "leftovers": 0 if store.packed else len(list_leftovers(store.storage)),
        "bytes": store.nbytes,
    }


def verify(path: Path | str) -> list[str]:
    """Read all of a store and list what is wrong with it.

    Each shard's bytes are compared with the SHA-256 that is its name; names, rows, types and
    settings must agree, no number may be NaN or infinite, and the caches and ``features.h5`` must
    be what was written.

    Parameters
    ----------
    path : path
        Folder or address of a store, or a packed file.

    Returns
    -------
    list of str
        One sentence for each problem; empty if the store is sound.

    Raises
    ------
    StoreError
        If there is no store, or it is that of another vggfeat.

    Examples
    --------
    >>> verify("features")  # doctest: +SKIP
    []
    """
    if packed := packed_file(path):
        return _check_packed(packed)
    storage = open_storage(folder_of(path))
    survey = _Survey(storage)
    wrong = dict.fromkeys(survey.lost, MISSING) | survey.damaged | survey.unusable
    problems = [f"{name}: {why}" for name, why in sorted(wrong.items())]
    problems += _check_caches(storage)
    return problems + [
        f"{path.name} is left over from a killed run; the next run removes it"
        for path in list_leftovers(storage)
    ]


@dataclass(frozen=True)
class RepairSummary:
    """What was mended.

    Parameters
    ----------
    aside : dict
        What was wrong with each file that was moved aside, by its new name.
    left : dict
        What is wrong with each shard that was left where it is, as its bytes are those that were
        written, by its name.
    rebuilt : tuple of str
        Files that were made anew of the sound shards; none while a shard was left.
    """

    aside: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    rebuilt: tuple[str, ...] = ()


def repair(path: Path | str) -> RepairSummary:
    """Move what is damaged out of a store, so that all that is left can be trusted.

    Every shard is compared with its digest. One that differs is renamed to ``….h5.damaged``,
    which no reader looks at; so is a damaged manifest, or the damaged file of a column. These,
    ``index.npz`` and ``features.h5`` are then made anew of the sound shards, as far as they need
    it. Nothing that is sound is changed, and nobody may write meanwhile. The command that made the
    store then computes what is missing, and nothing else.

    Parameters
    ----------
    path : path
        Folder or address of a store.

    Returns
    -------
    RepairSummary

    Raises
    ------
    StoreError
        If there is no store, it may not be written, or it is that of another vggfeat.

    Examples
    --------
    >>> repair("features").aside  # doctest: +SKIP
    {'shards/0c5e….h5.damaged': 'its bytes are not those that were written'}
    """
    if packed_file(path):
        raise StoreError(f"{path} is a single file. Pack it anew, from the store that it is of.")
    storage = open_storage(folder_of(path))
    survey = _Survey(storage)
    sweep(storage)
    aside = {}
    for name, why in survey.damaged.items():
        storage.write(name + DAMAGED, storage.read(name) or b"")
        storage.remove(name)
        aside[name + DAMAGED] = why
    if survey.unusable:
        return RepairSummary(aside, survey.unusable)
    for name, content in survey.lost.items():
        storage.write_new(name, content)
    return RepairSummary(aside, {}, (*survey.lost, *_rebuild_caches(path, survey)))


class _Survey:
    """A look at every file of a store: what the shards that can be read say, and what is wrong."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.headers: dict[str, ShardHeader] = {}
        self.damaged: dict[str, str] = {}  # why files are not what was written
        self.unusable: dict[str, str] = {}  # why shards that are so cannot be used all the same
        self.lost: dict[str, bytes] = {}  # content of absent or damaged files, as the shards say
        for key in list_shards(storage):
            self._check_shard(key)
        self.dtype = self._check_manifest()
        self._check_columns()
        for name in list_stamps(storage):
            if strip_checksum(storage.read(name) or b"") is None:
                self.damaged[name] = ALTERED
        for read, record in ((read_run, RUN), (read_list, FAILED)):
            for name in list_shares(storage, record):
                try:
                    read(storage, name)
                except StoreDamaged:
                    self.damaged[name] = ALTERED

    def _check_shard(self, key: str) -> None:
        """Check what a shard says of itself; one that is damaged is not opened: HDF5 may crash."""
        if not has_sound_bytes(self.storage, key):
            self.damaged[key] = ALTERED
            return
        try:
            with self.storage.open(key) as file:
                header = read_header(file, key)
                problems = _check_file(file, header)
        except (StoreError, AttributeError) as error:  # a stranger's, or this h5py cannot read it
            self.unusable[key] = f"it cannot be read: {error.__cause__ or error}"
            return
        if problems:
            self.unusable[key] = "; ".join(problems)
        else:
            self.headers[key] = header

    def _check_manifest(self) -> str:
        """Return the type of the store's numbers."""
        dtype, here = None, [header.dtype for header in self.headers.values()]
        content = self.storage.read(MANIFEST)
        try:
            dtype = None if content is None else parse_manifest(content, self.storage)
        except StoreError as error:
            if not here and not isinstance(error, StoreDamaged):
                raise  # nothing says that it is a store of this vggfeat
            self.damaged[MANIFEST] = ALTERED
        if dtype is None and here:
            dtype = here[0]
            self.lost[MANIFEST] = build_manifest(dtype)
        if dtype is None and not (self.damaged or self.unusable):
            refuse_absent(self.storage)
        for key, header in self.headers.items():
            if header.dtype != dtype:
                self.unusable[key] = f"it holds {header.dtype}, and the store {dtype}"
        return dtype or DTYPES[0]

    def _check_columns(self) -> None:
        """Compare the files of columns with what the shards say of them."""
        files = self._read_columns()
        shards: dict[Descriptor, dict[str, Column]] = defaultdict(dict)
        for key, header in self.headers.items():
            for name, column in header.columns.items():
                shards[name][key] = column
        for name, by_key in sorted(shards.items()):
            newest = by_key[max(by_key, key=lambda key: (self.headers[key].generation, key))]
            held = files.get(name)
            if held is None and all(map(newest.is_like, by_key.values())):
                self.lost[name.file] = newest.to_json().encode()
                continue
            for key, column in by_key.items():
                if held is None or not held.is_like(column):
                    self.unusable[key] = _differing(column, held or _another(by_key, column))

    def _read_columns(self) -> dict[Descriptor, Column]:
        """Return the columns whose files are what was written."""
        columns = {}
        for bare in sorted(self.storage.list("columns")):
            name = f"columns/{bare}"
            if not name.endswith(".json") or bare.startswith("."):
                continue
            content = self.storage.read(name) or b""
            try:
                column = Column.from_json(content, name)
            except StoreDamaged:
                self.damaged[name] = ALTERED
                continue
            if (column.descriptor.file, column.to_json().encode()) == (name, content):
                columns[column.descriptor] = column
            else:
                self.damaged[name] = ALTERED
        return columns


def _another(by_key: Mapping[str, Column], column: Column) -> Column:
    return next((other for other in by_key.values() if not other.is_like(column)), column)


def _differing(column: Column, other: Column) -> str:
    lines = differences(other.settings, column.settings, "elsewhere", "here").splitlines()
    what = "; ".join(line.strip() for line in lines) or "width"
    return f"its {column.descriptor.path} was made with other settings than elsewhere ({what})"


def _check_file(file: h5py.File, header: ShardHeader) -> list[str]:
    """List what is wrong inside a shard or a packed file."""
    problems = [] if len(set(header.names)) == len(header.names) else ["a name comes twice"]
    for name in header.columns:
        array = stored(file, name.path)
        present = np.ones(len(header.names), bool)
        present[header.absent.get(name, [])] = False
        if len(array) != len(present):
            problems.append(f"{len(present)} names, and {len(array)} rows of {name.path}")
        elif not all(_is_finite(array, present)):
            problems.append(f"{name.path} has numbers that are not finite")
    return problems


def _is_finite(array: h5py.Dataset, present: np.ndarray[Any, np.dtype[np.bool_]]) -> Iterator[bool]:
    """Tell of each block of rows whether the numbers are finite in those that are present alone."""
    for start in range(0, len(present), BLOCK):
        finite = np.isfinite(array[start : start + BLOCK]).all(axis=1)
        yield np.array_equal(finite, present[start : start + BLOCK])


def _check_packed(path: Path) -> list[str]:
    if not has_valid_checksum(path):
        return [f"{path} is damaged: {ALTERED}"]
    try:
        FeatureStore(path)  # refuses what is no packed file
        with LocalStorage(path.parent).open(path.name) as file:
            return _check_file(file, read_header(file, path.name))
    except StoreDamaged as error:
        return [str(error)]


def _check_caches(storage: Storage) -> list[str]:
    """Say which of the caches and the view is not what was written."""
    content = storage.read(INDEX)
    if content is None or strip_checksum(content) is not None:
        return check_view(storage)
    return [f"{INDEX} is not what was written; repairing makes it anew", *check_view(storage)]


def _rebuild_caches(path: Path | str, survey: _Survey) -> Iterator[str]:
    """Make the index and the view anew where they need it; give their names."""
    problems = _check_caches(survey.storage)
    for name in (INDEX, VIEW):
        if not any(problem.startswith(name) for problem in problems):
            continue
        if not survey.headers:
            survey.storage.remove(name)
            continue
        if name == INDEX:
            write_headers(survey.storage, list(survey.headers.values()))
        else:
            FeatureStore(path, "a", dtype=survey.dtype).write_caches()
        yield name


def count_asked(store: FeatureStore) -> int:
    """Count the images that the last run, or all shares of it together, was asked for."""
    runs = store.runs
    whole = sum(run["asked"] for run in runs if not run["share"])
    shares = sum(run["asked"] for run in runs if run["share"])
    return max(whole, shares) if runs else len(store.names)
