"""Reading a feature store: descriptors in the order asked for, whole or in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.features.catalogue import Header, Rows
from vggfeat.features.extraction import Extraction, Part
from vggfeat.features.half import widen
from vggfeat.features.index import Index, Stats, current
from vggfeat.features.manifest import Manifest
from vggfeat.features.packed import PackedFile
from vggfeat.features.place import place_of
from vggfeat.features.shards import FolderShards, Shards, consecutive, decode, encode
from vggfeat.features.view import VIEW, read_failed, read_view


class Reader:
    """The reading half of :class:`vggfeat.features.store.FeatureStore`.

    Attributes
    ----------
    extraction : Extraction
        Settings that made the descriptors of the store's net.
    names : list of str
        The N pictures.
    failed : dict
        Reason by name of the pictures that could not be used.
    manifest : Manifest
        Settings of all nets that the store holds.
    index : Index
        Where each picture lies.
    files : Shards
        What holds the descriptors.
    """

    _writable = False

    def _start(
        self,
        files: Shards,
        manifest: Manifest,
        headers: Sequence[Header],
        extraction: Extraction,
        keys: list[bytes],
        stats: ArrayLike,
    ) -> None:
        self.extraction = extraction
        self.names = decode(keys)
        self.failed: dict[str, str] = {}
        self.manifest = manifest
        self.index = Index(keys, stats)
        self.files = files
        self._keys = keys
        self.index.add_all(headers)
        behind = [one.provenance.get(extraction.net) for one in headers]
        self._mixed = any(one is not None and not one.get("deterministic") for one in behind)

    def check_writable(self) -> None:
        """Refuse to change a store that was opened for reading.

        Raises
        ------
        StoreError
            Saying how it is opened for writing.
        """
        if not self._writable:
            raise StoreError(
                "A store from FeatureStore.open can only be read. Open it for writing with "
                "FeatureStore(path, extraction, names, stats=images.stats())."
            )

    def check_deterministic(self) -> None:
        """Refuse descriptors whose bits depend on what was described with them.

        Raises
        ------
        StoreError
            If the store has some of its net that were computed without ``deterministic``.
        """
        if self._mixed:
            raise StoreError(
                f"The store holds descriptors of net {self.extraction.net} that were computed "
                "without --deterministic: their last bits depend on the pictures beside them. "
                "Name another folder, or leave --deterministic out."
            )

    @classmethod
    def open(cls, path: Path | str, net: str | None = None) -> Self:
        """Open what is there for reading, whatever its settings.

        Parameters
        ----------
        path : path
            Folder of a store, or a packed file.
        net : str, optional
            Which net, where the store holds several.

        Returns
        -------
        The store
            Its names are those of ``features.h5``, in that order, then those that a run which
            did not end wrote since, sorted. Of a picture that was replaced, the row written last
            counts.

        Raises
        ------
        StoreError
            If there is no store, or it does not hold the net.
        """
        found = _find(path)
        return cls._reading(found, _one_net(found.manifest, net, path))

    @classmethod
    def open_all(cls, path: Path | str) -> dict[str, Self]:
        """Open every net of a store for reading, as :meth:`open` does one."""
        found = _find(path)
        return {net: cls._reading(found, net) for net in found.manifest.nets}

    @classmethod
    def _reading(cls, found: _Found, net: str) -> Self:
        store = cls.__new__(cls)
        extraction = found.manifest.extraction(net)
        store._start(
            found.files, found.manifest, found.headers, extraction, found.keys, found.stats
        )
        store.failed = found.failed
        return store

    def read(
        self,
        scales: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        *,
        verify: bool = False,
    ) -> dict[Part, NDArray[np.float32]]:
        """Read descriptors.

        Parameters
        ----------
        scales : sequence of int, optional
            Test scales Q; all that the store has, by default.
        names : sequence of str, optional
            Pictures, in any order and repeated at will; ``view_names(scales)`` by default.
        verify : bool
            Whether the sha256 of each shard is checked first.

        Returns
        -------
        dict of Part to ndarray (n, D) of float32
            In stacking order; rows in the order of ``names``.

        Raises
        ------
        StoreError
            If a picture is not there; says why, if known.
        StoreDamaged
            If a shard cannot be read, or is not what was written.
        """
        scales = self._present(scales)
        return self.read_rows(scales, self.rows(scales, names), verify=verify)

    def read_rows(
        self, scales: Sequence[int], rows: Rows, *, verify: bool = False
    ) -> dict[Part, NDArray[np.float32]]:
        """Read as :meth:`read` does, by rows of ``names``, (n,), such as :meth:`rows` gives."""
        paths = {part: self.extraction.path(part) for part in self.extraction.parts(scales)}
        arrays = self.gather(list(paths.values()), rows, verify=verify)
        return {part: arrays[path] for part, path in paths.items()}

    def blocks(
        self, scales: Sequence[int] | None = None, rows_per_block: int = 1024
    ) -> Iterator[tuple[list[str], dict[Part, NDArray[np.float32]]]]:
        """Read all pictures of ``view_names(scales)`` in blocks, in bounded memory.

        Yields
        ------
        names, descriptors
            As :meth:`read` takes and gives them.
        """
        scales = self._present(scales)
        rows = np.flatnonzero(self._complete(scales))
        for start in range(0, len(rows), rows_per_block):
            some = rows[start : start + rows_per_block]
            yield [self.names[row] for row in some], self.read_rows(scales, some)

    def gather(
        self, paths: Sequence[str], rows: Rows, *, verify: bool = False
    ) -> dict[str, NDArray[np.float32]]:
        """Read rows of ``names`` by HDF5 path, of any net; NaN where the store has nothing."""
        result = {
            path: np.empty((len(rows), self.index.dimensions[path]), np.float32) for path in paths
        }
        for path, values in result.items():
            values[~self.index.has([path])[rows]] = np.nan
        for shard, plan in self.index.plan(paths, rows).items():
            wanted = {path: source for path, (source, _) in plan.items()}
            for path, values in self.files.read(self.index.keys[shard], wanted, verify).items():
                places = plan[path][1]
                if values.shape[1] != self.index.dimensions[path]:
                    raise StoreDamaged(f"{path} of {self.index.keys[shard]} has another width.")
                if (together := consecutive(places)) is not None:
                    widen(values, result[path][together])
                else:
                    result[path][places] = values
        return result

    def check_digests(self) -> None:
        """Compare every file that holds descriptors with its digest, also those of other nets.

        Raises
        ------
        StoreDamaged
            If one is not what was written.
        """
        for key in self.index.keys:
            self.files.check(key)

    def view_names(self, scales: Sequence[int] | None = None) -> list[str]:
        """Return the names, in order, of the pictures that have all these scales."""
        complete = self._complete(self.scales if scales is None else scales)
        return [self.names[row] for row in np.flatnonzero(complete)]

    @property
    def scales(self) -> list[int]:
        """All Q of which the store has something for this net, ascending."""
        return sorted({part.Q for part in self.dimensions})

    @property
    def dimensions(self) -> dict[Part, int]:
        """D of every part of this net that the store has."""
        prefix = f"/{self.extraction.net}/"
        present = {
            int(path.rpartition("/Q")[2]) for path in self.index.where if path.startswith(prefix)
        }
        return {
            part: self.index.dimensions[self.extraction.path(part)]
            for part in self.extraction.parts(sorted(present))
            if self.extraction.path(part) in self.index.dimensions
        }

    @property
    def nbytes(self) -> int:
        """Bytes on disk, or in memory."""
        return self.files.nbytes

    def _complete(self, scales: Sequence[int]) -> NDArray[np.bool_]:
        """Tell which pictures have all these scales; of no scales there is nothing to have."""
        if not len(scales):
            return np.zeros(len(self.names), bool)
        return self.index.has(map(self.extraction.path, self.extraction.parts(scales)))

    def _present(self, scales: Sequence[int] | None) -> Sequence[int]:
        """Check scales against those that the store has."""
        if scales is None:
            return self.scales
        if absent := sorted(set(scales) - set(self.scales)):
            raise StoreError(
                f"The store has nothing of net {self.extraction.net} at Q = {absent[0]}, only at "
                f"Q in {self.scales}. Extract it first: vggfeat extract --net "
                f"{self.extraction.net} --Q {absent[0]}"
            )
        return scales

    def rows(self, scales: Sequence[int], names: Sequence[str] | None = None) -> Rows:
        """Return the rows of ``names``, (n,), of pictures; of all that have these scales, if None.

        Raises
        ------
        StoreError
            If one of the pictures, or every picture, lacks one of the scales.
        """
        complete = self._complete(scales)
        if names is None:
            if len(complete) and not complete.any():
                raise StoreError(
                    f"No picture of the store has all of Q in {list(scales)}. Finish the "
                    "extraction, or ask for fewer scales."
                )
            return np.flatnonzero(complete)
        rows = self.index.rows(encode(names))
        absent = np.flatnonzero((rows < 0) | ~complete[rows] if len(complete) else rows < 0)
        if len(absent):
            first = names[absent[0]]
            reason = self.failed.get(first, "it was not asked for, or not yet computed")
            raise StoreError(
                f"{first!r} is not in the store at Q in {list(scales)}: {reason}. "
                f"({len(absent)} of {len(rows)} pictures are absent.)"
            )
        return rows


class _Found(NamedTuple):
    """What :meth:`Reader.open` found."""

    files: FolderShards | PackedFile
    manifest: Manifest
    headers: list[Header]
    keys: list[bytes]
    stats: Stats
    failed: dict[str, str]


def _find(path: Path | str) -> _Found:
    local = Path(path)
    if local.is_file() and not (local.name == VIEW and (local.parent / "shards").is_dir()):
        packed = PackedFile(local)
        [header] = packed.headers()
        return _Found(packed, packed.manifest, [header], header.names, header.stats, {})
    place = place_of(local.parent if local.is_file() else path)
    files = FolderShards(place)
    headers, manifest = look(files)
    if manifest is None:
        raise StoreError(
            f"{place} is no feature store: it has no manifest.json. Give the folder that "
            "`vggfeat extract` or `vggfeat classify --out` wrote, or a packed file."
        )
    keys, stats = current(headers, read_view(place))
    return _Found(files, manifest, headers, keys, stats, read_failed(place))


def look(files: FolderShards) -> tuple[list[Header], Manifest | None]:
    """Return the shards and the manifest, which is rebuilt from them if it is lost."""
    manifest, headers = Manifest.read(files.place), files.headers()
    if manifest is None and headers:
        manifest = Manifest(headers[0].dtype)
    if manifest is not None:
        manifest.admit_headers(headers, files.place)
    return headers, manifest


def _one_net(manifest: Manifest, net: str | None, path: Path | str) -> str:
    nets = list(manifest.nets)
    if net is None and len(nets) == 1:
        return nets[0]
    if net not in nets:
        asked = "say which" if net is None else f"not {net}"
        raise StoreError(f"{path} holds the nets {', '.join(nets) or 'none'}: {asked}.")
    return net
