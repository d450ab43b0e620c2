"""The feature store: raw descriptors of pictures, per net and scale, crash-safe and resumable.

A store is a folder::

    features/
      manifest.json    the settings and fingerprint of each net, dtype, provenance
      shards/*.h5      immutable, each named by the sha256 of its bytes
      features.h5      one virtual view over all shards: /names (N,), /D/Q384 (N, D)
      failed.csv       name,reason of the pictures that the last run could not use

Only good pictures are in it: a failed one has no row anywhere and is tried again by the next run.
A run that was killed goes on where it stopped; writers may work side by side, each writes shards
of its own. HDF5 files are opened and closed within each call, so none crosses a fork.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.errors import ParameterError, StoreError
from vggfeat.features.extraction import Extraction, Part
from vggfeat.features.files import TEMPORARY, refusals
from vggfeat.features.index import Stat, newest
from vggfeat.features.manifest import Manifest
from vggfeat.features.reading import Reader, look
from vggfeat.features.shards import (
    Block,
    FolderShards,
    Header,
    Matrix,
    MemoryShards,
    Rows,
    Shards,
    decode,
    encode,
)
from vggfeat.features.view import write_failed, write_view

DTYPES = ("float32", "float16")


class FeatureStore(Reader):
    """Descriptors of a list of pictures, on disk or in memory.

    Parameters
    ----------
    folder : path or None
        Where the store is, or is made; None keeps everything in memory.
    extraction : Extraction
        Settings that make the descriptors; others than those stored for its net are refused.
    names : sequence of str
        The N pictures, each once.
    stats : sequence of (int, int), optional
        What tells each picture's file from another of its name, as from ``ImageSet.stats``; (0, 0)
        for a picture without a file. What is stored under a name with another stat is computed
        again. Without ``stats`` the names alone identify the pictures.
    dtype : {"float32", "float16"}
        Type on disk; :meth:`read` gives float32.
    provenance : mapping, optional
        Versions, device and the like, kept with what this run writes.
    cache : bool
        Whether the store serves many lists of pictures: it is no error if it holds none of
        ``names``, and :meth:`finish` writes no view of this one list.

    Attributes
    ----------
    failed : dict
        Reason by name of the pictures that could not be used.

    Raises
    ------
    FingerprintMismatch
        If the store holds features of this net made with other settings.
    StoreDamaged
        If a file of the store cannot be read.
    StoreError
        If the store has another dtype, holds only other pictures, or may not be written.
    ParameterError
        If a name comes twice or cannot be kept, or an argument is out of its range.

    Notes
    -----
    One thread at a time may use an object. To open a store, the names of all its shards are read:
    about 1 s for each 1,000 shards.

    Examples
    --------
    >>> extraction = Extraction("D", "ab12", ("fc7",))
    >>> store = FeatureStore(None, extraction, ["a.jpg", "b.jpg"])
    >>> store.missing([384])
    [(0, (384,)), (1, (384,))]
    >>> [part] = extraction.parts([384])
    >>> store.write([1, 0], {part: np.array([[3.0, 4.0], [1.0, 2.0]])})
    >>> store.missing([384])
    []
    >>> store.read([384])[part]
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    """

    def __init__(
        self,
        folder: Path | str | None,
        extraction: Extraction,
        names: Sequence[str],
        *,
        stats: Sequence[Stat] | None = None,
        dtype: str = "float32",
        provenance: Mapping[str, Any] | None = None,
        cache: bool = False,
    ) -> None:
        if dtype not in DTYPES:
            raise ParameterError.not_one_of("dtype", "FeatureStore", DTYPES, dtype)
        keys = _unique(names)
        if stats is not None and len(stats) != len(keys):
            raise ParameterError.of("stats", "FeatureStore", f"{len(keys)} pairs", len(stats))
        files: Shards = MemoryShards()
        headers: list[Header] = []
        manifest = None
        if folder is not None:
            files = FolderShards(Path(folder))
            headers, manifest = look(files)
            if manifest is None:
                _refuse_strange(files.folder)
            elif not any(extraction.net in header.settings for header in headers):
                # A run that ended before it kept anything binds nobody to its settings.
                manifest.nets.pop(extraction.net, None)
                manifest.dtype = dtype if not headers else manifest.dtype
        self._provenance = json.loads(json.dumps(dict(provenance or {}), default=str))
        manifest = manifest or Manifest(dtype)
        manifest.admit(extraction, self._provenance, folder)
        if manifest.dtype != dtype:
            raise StoreError(
                f"{folder} holds {manifest.dtype}, which cannot be mixed with {dtype}. Ask for "
                f"{manifest.dtype}, or use another --out."
            )
        if stats is None:
            held = newest(headers)
            stats = [held.get(key, (0, 0)) for key in keys]
        self._start(files, manifest, headers, extraction, keys, stats)
        self._writable, self._wrote = True, False
        self._cache = cache
        if headers and keys and not self.index.known and not cache:
            raise StoreError(_strangers(folder, self.names[0], headers))
        if isinstance(files, FolderShards):
            files.create()
            manifest.asked = len(keys)
            manifest.write(files.folder)

    def missing(self, scales: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
        """List what is still to be computed.

        Parameters
        ----------
        scales : sequence of int
            Test scales Q.

        Returns
        -------
        list of (row, scales)
            Rows of ``names``, ascending, each with the scales at which a layer or pooling of it
            is missing.
        """
        lacking = np.array([~self._complete([Q]) for Q in scales], bool)
        lacking = lacking.reshape(len(scales), len(self.names))
        return [
            (int(row), tuple(Q for Q, lacks in zip(scales, lacking[:, row], strict=True) if lacks))
            for row in np.flatnonzero(lacking.any(axis=0))
        ]

    def write(self, rows: Sequence[int], descriptors: Mapping[Part, Matrix]) -> None:
        """Keep descriptors of some pictures as one shard, which is durable on return.

        Parameters
        ----------
        rows : sequence of int
            The n pictures, as rows of ``names``, each once.
        descriptors : mapping of Part to ndarray (n, D)
            Finite numbers.

        Raises
        ------
        StoreError
            If a number is not finite in the store's dtype, or the disk is full: what was written
            before is safe, and the same run goes on from there.
        ParameterError
            If shapes, rows or parts are not those of this store.
        """
        if not self._writable:
            raise StoreError("A store from FeatureStore.open can only be read.")
        where = np.asarray(rows, np.intp)
        if not len(where) or not descriptors:
            return
        order = np.argsort(where)
        where = where[order]
        if (np.diff(where) == 0).any() or where[0] < 0 or where[-1] >= len(self.names):
            expected = f"different rows in 0…{len(self.names) - 1}"
            raise ParameterError.of("rows", "FeatureStore.write", expected, list(rows))
        block = Block(
            self.extraction.net,
            self.extraction.to_dict(),
            self._provenance,
            [self._keys[row] for row in where],
            self.index.stats[where],
            {
                self.extraction.path(part): self._checked(part, np.asarray(values), order, where)
                for part, values in descriptors.items()
            },
        )
        self.index.add(block.header(self.files.add(block)))
        self._wrote = True

    def _checked(self, part: Part, values: Matrix, order: Rows, rows: Rows) -> Matrix:
        """Bring an array into a shard's order and type."""
        if part not in self.extraction.parts([part.Q]):
            expected = f"parts of {self.extraction.parts([part.Q])}"
            raise ParameterError.of("descriptors", "FeatureStore.write", expected, part)
        if values.ndim != 2 or len(values) != len(rows):
            expected = f"arrays ({len(rows)}, D)"
            raise ParameterError.of("descriptors", "FeatureStore.write", expected, values.shape)
        width = self.index.dimensions.get(self.extraction.path(part), values.shape[1])
        if values.shape[1] != width:
            expected = f"arrays ({len(rows)}, {width}), as those written before"
            raise ParameterError.of("descriptors", "FeatureStore.write", expected, values.shape)
        with np.errstate(over="ignore"):
            kept = values[order].astype(self.manifest.dtype)
        bad = np.flatnonzero(~np.isfinite(kept).all(axis=1))
        if len(bad):
            half = " Values beyond 65504 need dtype float32." if kept.dtype == np.float16 else ""
            raise StoreError(
                f"The descriptor of {self.names[rows[bad[0]]]!r} at {self.extraction.path(part)} "
                f"is not finite in {kept.dtype.name}, so it was not kept.{half}"
            )
        return kept

    def fail(self, row: int, reason: str) -> None:
        """Remember why a picture cannot be used, for ``failed.csv``."""
        self.failed[self.names[row]] = reason

    def finish(self) -> None:
        """Write ``features.h5`` and ``failed.csv`` when a run is through.

        The view has the pictures of ``names``, in that order, less those that failed and those
        of which this net has nothing. Where a picture lacks a scale or another net, because that
        was never asked for or not reached, its row reads as NaN.
        """
        if not isinstance(self.files, FolderShards):
            return
        if not self._cache:
            self._write_view(self.files)
        with refusals(self.files.folder):
            for leftover in self.files.leftovers():
                leftover.unlink(missing_ok=True)

    def _write_view(self, files: FolderShards) -> None:
        self._meet_others(files)
        held = np.zeros(len(self.names), bool)
        for path in map(self.extraction.path, self.dimensions):
            held |= self.index.has([path])
        held[[row for row, name in enumerate(self.names) if name in self.failed]] = False
        rows = np.flatnonzero(held)
        write_view(files.folder, self.index, self._keys, rows, self.manifest)
        write_failed(files.folder, self.failed)

    def _meet_others(self, files: FolderShards) -> None:
        """Take in what other writers did meanwhile."""
        headers = files.headers(self.index.keys)
        current = Manifest.read(files.folder) or self.manifest
        current.admit(self.extraction, self._provenance, files.folder)
        current.admit_headers(headers, files.folder)
        for header in headers:
            self.index.add(header)
        if self._wrote:
            current.nets[self.extraction.net]["provenance"] = self._provenance
        current.asked = len(self.names)
        current.write(files.folder)
        self.manifest = current

    @property
    def unseen(self) -> int:
        """Number of pictures that are kept here, not asked for, and therefore not in the view."""
        return len(self.index.others)


def _unique(names: Sequence[str]) -> list[bytes]:
    keys = encode(names)
    if len(set(keys)) < len(keys):
        seen: set[bytes] = set()
        for name, key in zip(names, keys, strict=True):
            if key in seen:
                raise ParameterError.of("names", "FeatureStore", "different names", name)
            seen.add(key)
    return keys


def _refuse_strange(folder: Path) -> None:
    """Keep out of folders that hold something else: files of the store would replace it."""
    if not folder.is_dir():
        return
    # A run that was killed at once leaves its first files, with no manifest yet.
    strange = [path for path in folder.iterdir() if not path.name.startswith(("shards", TEMPORARY))]
    if strange:
        raise StoreError(
            f"{folder} is no feature store, and not empty. Name a new or an empty folder with "
            "--out, or one that `vggfeat extract` made."
        )


def _strangers(folder: Path | str | None, asked: str, headers: Sequence[Header]) -> str:
    return (
        f"{folder} holds features of other pictures: none of those asked for (such as {asked!r}) "
        f"is among them (such as {decode(headers[0].names[:1])[0]!r}). Use another --out for "
        "other pictures, or name the same ones as before, from the same folder."
    )
