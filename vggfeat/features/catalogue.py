"""The catalogue of a feature store: what all its shards say of themselves, in one file.

To open a store, the names of every row of every shard must be known. Read from thousands of shards
they take seconds, from ``index.npz`` a fraction of one. A shard is named by the digest of its
bytes, so that what was noted of it once stays true: the file may be old, lost, or written by
several at once. What it does not list is read from the shards, and shards that are gone are passed
over.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.checksums import append_checksum, strip_checksum
from vggfeat.errors import StoreError
from vggfeat.features.place import Place

CATALOGUE = "index.npz"

DTYPES = ("float32", "float16")
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Header:
    """What a shard says of itself without its descriptors.

    Parameters
    ----------
    key : str
        Name of the file.
    names : list of bytes
        Pictures, one for each of the ``n`` rows.
    stats : ndarray (n, 2) of int64
        What tells each picture's file from others of its name: see ``ImageSet.stats``.
    settings : dict
        Settings of the extraction, by net.
    provenance : dict
        What the writer said of itself, by net.
    datasets : dict
        D of each array, by its HDF5 path.
    absent : dict
        Rows without a descriptor, by HDF5 path; only a packed file has any.
    dtype : str
        Type of the descriptors.
    generation : int
        More than that of the shards that its writer knew, and of those that were there when it was
        written and have another file's row of a name: what tells the newer row of two.
    """

    key: str
    names: list[bytes]
    stats: NDArray[np.int64]
    settings: dict[str, dict[str, Any]]
    provenance: dict[str, dict[str, Any]]
    datasets: dict[str, int]
    dtype: str
    absent: dict[str, Rows] = field(default_factory=dict)
    generation: int = 0

    def __post_init__(self) -> None:
        """Refuse what is of another kind than a writer makes it: a stranger may have."""
        plain = (self.settings, self.provenance, self.datasets, self.absent)
        if not all(isinstance(one, dict) for one in plain) or self.dtype not in DTYPES:
            raise ValueError(f"it does not say what it holds, or holds {self.dtype}")
        if not all(type(name) is bytes for name in self.names):
            raise ValueError("its names are no texts")
        if self.stats.dtype != np.int64 or self.stats.shape != (len(self.names), 2):
            raise ValueError(f"it has {len(self.names)} names, but /stat has {self.stats.shape}")
        if not all(isinstance(D, int) and D > 0 for D in self.datasets.values()):
            raise ValueError("its arrays have no width")

    def same_as(self, other: Header) -> bool:
        """Tell whether both say the same of their shard."""
        same = self.names == other.names and np.array_equal(self.stats, other.stats)
        return same and self.generation == other.generation and _kind(self) == _kind(other)


def write_catalogue(place: Place, headers: Sequence[Header]) -> None:
    """Note what shards say of themselves; where nothing may be written, that is no error."""
    kinds: dict[str, int] = {}
    kind = [kinds.setdefault(_kind(header), len(kinds)) for header in headers]
    content = io.BytesIO()
    np.savez(
        content,
        keys=_text([header.key.encode() for header in headers]),
        kinds=np.frombuffer(("[" + ",".join(kinds) + "]").encode(), np.uint8),
        kind=np.array(kind, np.int64),
        rows=np.array([len(header.names) for header in headers], np.int64),
        generations=np.array([header.generation for header in headers], np.int64),
        names=_text([name for header in headers for name in header.names]),
        stats=np.concatenate([header.stats for header in headers]),
    )
    with suppress(StoreError):
        image = content.getvalue()
        place.write(CATALOGUE, append_checksum(image))


def read_catalogue(place: Place) -> dict[str, Header]:
    """Return what is noted, by the key of the shard; nothing where the file cannot be used."""
    content = place.read(CATALOGUE)
    image = None if content is None else strip_checksum(content)
    if image is None:
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(image)) as archive:
            if sum(one.file_size for one in archive.infolist()) > len(image):
                return {}  # it was written without compression, and would not unpack to more
        with np.load(io.BytesIO(image), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _headers(arrays)
    # Damaged, or a stranger's: whatever is wrong with it, it is written anew.
    except Exception:
        return {}


def check_catalogue(place: Place) -> list[str]:
    """Say if the catalogue, where there is one, is not what was written."""
    content = place.read(CATALOGUE)
    if content is None or strip_checksum(content) is not None:
        return []
    return [f"{CATALOGUE} is not what was written, and passed over; repairing makes it anew"]


def _headers(arrays: dict[str, NDArray[Any]]) -> dict[str, Header]:
    kinds = json.loads(arrays["kinds"].tobytes())
    names, stats = arrays["names"].tobytes().split(b"\0"), arrays["stats"]
    ends = np.cumsum(arrays["rows"]).tolist()
    starts = [0, *ends[:-1]]
    keys = arrays["keys"].tobytes().decode().split("\0")
    if not len(names) == len(stats) == ends[-1] or min(arrays["rows"]) < 0:
        raise ValueError("rows, names and stats do not agree")
    each = (keys, starts, ends, arrays["kind"].tolist(), arrays["generations"].tolist())
    return {
        key: Header(key, names[start:end], stats[start:end], **kinds[kind], generation=generation)
        for key, start, end, kind, generation in zip(*each, strict=True)
    }


def _kind(header: Header) -> str:
    """Return as JSON what most shards have in common."""
    names = ("settings", "provenance", "datasets", "dtype")
    return json.dumps({name: getattr(header, name) for name in names})


def _text(parts: Sequence[bytes]) -> NDArray[np.uint8]:
    """Join names, none of which has a zero byte."""
    return np.frombuffer(b"\0".join(parts), np.uint8)
