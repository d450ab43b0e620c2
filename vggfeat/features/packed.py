"""A whole feature store in one HDF5 file that needs no other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import h5py
import numpy as np

from vggfeat._io.atomic import explain_os_errors
from vggfeat._io.checksums import has_valid_checksum
from vggfeat.errors import StoreError
from vggfeat.features.catalogue import Header, Rows
from vggfeat.features.files import damaged, held, opened
from vggfeat.features.manifest import Manifest
from vggfeat.features.shards import Block, Matrix, datasets_of, take
from vggfeat.hdf5 import texts

SEALED = "sealed"  # attribute of a file that ends with its digest


class PackedFile:
    """A packed store, read as if it were one shard; it cannot be written.

    Parameters
    ----------
    path : Path
        What :func:`vggfeat.features.export.pack` wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file:
            if "manifest" not in file.attrs or any(map(_virtual, datasets_of(file).values())):
                raise StoreError(
                    f"{path} is not a packed store. Give the folder of a store, or a file that "
                    "`vggfeat store pack` wrote."
                )
            self.sealed = SEALED in file.attrs
            [manifest] = texts(file, "manifest")
            self.manifest = Manifest.from_json(manifest, path)

    def headers(self, seen: Collection[str] = ()) -> list[Header]:
        """Describe the file, unless it was seen already."""
        if self.path.name in seen:
            return []
        with opened(self.path) as file:
            arrays, nets = datasets_of(file), self.manifest.nets
            return [
                Header(
                    self.path.name,
                    held(file, "names")[:].tolist(),
                    held(file, "stat")[:],
                    {net: record["settings"] for net, record in nets.items()},
                    {net: record["provenance"] for net, record in nets.items()},
                    {path: array.shape[1] for path, array in arrays.items()},
                    self.manifest.dtype,
                    {path: _absent(array) for path, array in arrays.items()},
                )
            ]

    def add(self, block: Block) -> str:
        """Refuse to write."""
        raise StoreError(f"{self.path} is a packed store, which can only be read.")

    def check(self, key: str) -> None:
        """Compare the file with its digest; refuse it if it is not what was written."""
        if not self.sound():
            raise damaged(self.path, "its bytes are not those that were written")

    def read(self, key: str, wanted: Mapping[str, Rows], verify: bool = False) -> dict[str, Matrix]:
        """Read rows of some arrays, after the file's digest if ``verify``.

        HDF5 itself checks every block, also without it; but where the address of a block is gone,
        it gives NaN for what was there.
        """
        if verify:
            self.check(key)
        with opened(self.path) as file:
            found = {path: take(held(file, path), rows) for path, rows in wanted.items()}
            for path, values in found.items():
                lacking = wanted[path][~np.isfinite(values).all(axis=1)]
                if len(lacking) and not np.isin(lacking, _absent(file[path])).all():
                    raise damaged(self.path, f"{path} lacks numbers that were written")
            return found

    def sound(self) -> bool:
        """Tell whether the file, if it was sealed, is what was written."""
        with explain_os_errors(self.path, "read"):
            return not self.sealed or has_valid_checksum(self.path)

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size


def create_packed(
    file: h5py.File, path: str, shape: tuple[int, int], dtype: str, absent: Rows
) -> h5py.Dataset:
    """Make an empty array of a packed file, with a checksum for each block of about 1 MB."""
    storage = {}
    if shape[0]:
        rows = min(shape[0], max(1, 2**18 // shape[1]))
        storage = {"chunks": (rows, shape[1]), "fletcher32": True}
    dataset = file.create_dataset(path, shape, dtype, fillvalue=np.nan, **storage)
    dataset.attrs["absent"] = absent
    return dataset


def _absent(dataset: h5py.Dataset) -> Rows:
    if dataset.attrs.get_id("absent").dtype.kind not in "iu":
        raise ValueError(f"{dataset.name} does not say which rows it lacks")
    rows: Rows = np.asarray(dataset.attrs["absent"])
    if rows.ndim != 1 or (rows.size and not _within(rows, dataset)):
        raise ValueError(f"{dataset.name} lacks rows that it cannot have")
    return rows


def _within(rows: Rows, dataset: h5py.Dataset) -> bool:
    return bool(rows.min() >= 0 and rows.max() < len(dataset))


def _virtual(dataset: h5py.Dataset) -> bool:
    return bool(dataset.is_virtual)
