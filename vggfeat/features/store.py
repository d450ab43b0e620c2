"""The feature store: raw descriptors of pictures, per net and scale, crash-safe and resumable.

A store is a folder::

    features/
      manifest.json    the settings and fingerprint of each net, dtype, provenance
      shards/*.h5      immutable, each named by the sha256 of its bytes
      index.npz        what 64 shards or more hold, so that a store of thousands opens at once
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
from vggfeat.features.catalogue import DTYPES, Header, Rows
from vggfeat.features.extraction import Extraction, Part
from vggfeat.features.index import Index, Stat, current
from vggfeat.features.manifest import Manifest
from vggfeat.features.opening import begun, stats_of, strangers, unique
from vggfeat.features.place import place_of
from vggfeat.features.reading import Reader
from vggfeat.features.sharding import WHOLE, Shard
from vggfeat.features.shards import Block, FolderShards, Matrix, MemoryShards, Shards
from vggfeat.features.view import sound_view, write_failed, write_view


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
    shard : Shard
        Which share of a longer list ``names`` are, where writers of several share the store: it is
        then a cache, and pictures that fail are listed in ``failed-3-of-16.csv``.

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
    One thread at a time may use an object. All names are in memory, 400 bytes a picture.

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
        shard: Shard = WHOLE,
    ) -> None:
        if dtype not in DTYPES:
            raise ParameterError.not_one_of("dtype", "FeatureStore", DTYPES, dtype)
        keys = unique(names)
        if stats is not None and len(stats) != len(keys):
            raise ParameterError.of("stats", "FeatureStore", f"{len(keys)} pairs", len(stats))
        files: Shards = MemoryShards() if folder is None else FolderShards(place_of(folder))
        headers, held = begun(files)
        manifest = held or Manifest(dtype)
        if held and not any(extraction.net in header.settings for header in headers):
            # A run that ended before it kept anything binds nobody to its settings.
            manifest.nets.pop(extraction.net, None)
            manifest.dtype = dtype if not headers else manifest.dtype
        self._provenance = json.loads(json.dumps(dict(provenance or {}), default=str))
        manifest.admit(extraction, self._provenance, folder)
        manifest.admit_dtype(dtype, folder)
        known = stats_of(keys, stats, headers, files)
        self._start(files, manifest, headers, extraction, keys, known)
        self._writable, self._wrote = True, False
        self._passed: set[str] = set()  # shards of others that were only looked at
        self._cache, self._shard = cache or shard != WHOLE, shard
        if headers and keys and not self.index.known and not self._cache:
            raise StoreError(strangers(folder, self.names[0], headers))
        if isinstance(files, FolderShards):
            files.place.create()
            manifest.asked = len(keys) + self.others
            if held:
                manifest.write(files.place)
            elif not manifest.found(files.place):
                self._agree(files)

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
        self.check_writable()
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
            self._next_generation(),
        )
        if isinstance(self.files, FolderShards) and not self._wrote:
            self._agree(self.files)  # who began at the same moment may have other settings
        self.index.add(block.header(self.files.add(block)))
        self._wrote = True

    def _next_generation(self) -> int:
        """Return the generation of the shard to be written.

        Another run may have written other files under these names since this one began: what is
        written next is newer. Otherwise runs of one list would not make the same files.
        """
        if isinstance(self.files, FolderShards):
            unread = self.files.headers([*self.index.keys, *self._passed])
            self._passed.update(header.key for header in unread)
            others = [header.generation for header in unread if self.index.contradicts(header)]
            self.index.generation = max([self.index.generation, *others])
        return self.index.generation + 1

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

    def promise(self, *, deterministic: bool) -> None:
        """Note with all that is written from now on whether its bits are to be had again.

        Raises
        ------
        StoreError
            If they are, and the store has descriptors of which they are not.
        """
        self.check_writable()
        if deterministic:
            self.check_deterministic()
        self._provenance["deterministic"] = deterministic

    def fail(self, row: int, reason: str) -> None:
        """Remember why a picture cannot be used, for ``failed.csv``."""
        self.check_writable()
        self.failed[self.names[row]] = reason

    def finish(self) -> None:
        """Write ``features.h5`` and ``failed.csv`` when a run is through.

        The view has the pictures of ``names``, in that order, less those that failed and those
        of which no net has anything; then all others that the store holds, by name. Where a
        picture lacks a scale or a net, because that was never asked for or not reached, its row
        reads as NaN.
        """
        self.check_writable()
        if not isinstance(self.files, FolderShards):
            return
        place = self.files.place
        if not self._cache:
            self._write_view(self.files)
        if self._shard != WHOLE:
            write_failed(place, self.failed, self._shard)
        for leftover in place.leftovers():
            place.remove(leftover)

    def meet_others(self) -> bool:
        """Take in what other writers of this list did meanwhile.

        Returns
        -------
        bool
            Whether there was any of it. A share of a list belongs to one writer: it meets nobody.

        Raises
        ------
        FingerprintMismatch
            If they have other settings.
        """
        self.check_writable()
        before = self.index.known
        if isinstance(self.files, FolderShards) and self._shard == WHOLE:
            self._meet(self.files)
        return self.index.known > before

    def _write_view(self, files: FolderShards) -> None:
        self._meet(files)
        keys, index = self._with_others(files) if self.others else (self._keys, self.index)
        own = set(map(self.extraction.path, self.dimensions))
        held = np.zeros(len(keys), bool)
        for path in own:
            held |= index.has([path])
        held[[row for row, name in enumerate(self.names) if name in self.failed]] = False
        for path in index.where.keys() - own:
            held |= index.has([path])
        self.manifest.asked = len(keys)
        self.manifest.write(files.place)
        write_view(files.place, index, keys, np.flatnonzero(held), self.manifest)
        write_failed(files.place, self.failed, WHOLE)
        files.catalogue()

    def _with_others(self, files: FolderShards) -> tuple[list[bytes], Index]:
        """Add to the pictures of this run, behind them, those of other nets and lists, by name."""
        known = set(self.index.keys)
        headers = [header for header in files.headers() if header.key in known]
        names, stats = current(headers, sound_view(files.place))
        others = [row for row, name in enumerate(names) if name in self.index.others]
        others.sort(key=names.__getitem__)
        keys = [*self._keys, *(names[row] for row in others)]
        index = Index(keys, np.concatenate([self.index.stats, stats[others]]))
        index.add_all(headers)
        return keys, index

    def _meet(self, files: FolderShards) -> None:
        headers = files.headers(self.index.keys)
        self._agree(files, headers)
        self.index.add_all(headers)

    def _agree(self, files: FolderShards, headers: Sequence[Header] = ()) -> None:
        """Settle the manifest with that of others, or refuse settings that are not theirs."""
        agreed = Manifest.read(files.place) or self.manifest
        agreed.admit(self.extraction, self._provenance, files.place)
        agreed.admit_dtype(self.manifest.dtype, files.place)
        agreed.admit_headers(headers, files.place)
        if self._wrote:
            agreed.nets[self.extraction.net]["provenance"] = self._provenance
        agreed.asked = len(self.names) + self.others
        agreed.write(files.place)
        self.manifest = agreed

    @property
    def others(self) -> int:
        """Number of pictures that are kept here and not among ``names``; the view has them last."""
        return len(self.index.others)
