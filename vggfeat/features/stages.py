"""What the workers of a cluster do: decode, describe, write; each is a stage of Ray Data.

Rows between the stages have one column of bytes: pictures have any shape and any number of scales.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.data.batches import HELD_PIXELS, Decoded, batches
from vggfeat.data.images import Crop, Picture, load
from vggfeat.errors import PictureError, StoreError
from vggfeat.features.aggregate import Matrix
from vggfeat.features.dense import DenseExtractor
from vggfeat.features.describing import described, shards
from vggfeat.features.device import describe_device
from vggfeat.features.extraction import Extraction, Part
from vggfeat.features.index import Stat
from vggfeat.features.manifest import Manifest
from vggfeat.features.network import Network
from vggfeat.features.shards import Block, FolderShards, MemoryShards
from vggfeat.features.store import FeatureStore

COLUMN = "pickled"
Rows = dict[str, Any]
"""A block of Ray Data: its columns by name."""


def pack(things: Iterable[object]) -> Rows:
    """Make rows for the next stage, one of each thing.

    Examples
    --------
    >>> unpack(pack(["a", (1, 2)]))
    ['a', (1, 2)]
    """
    return {COLUMN: np.array([pickle.dumps(one, protocol=5) for one in things], object)}


def unpack(rows: Rows) -> list[Any]:
    """Inverse of :func:`pack`."""
    # Made by another stage of the same run, and never read from a file.
    return [pickle.loads(one) for one in rows[COLUMN]]  # noqa: S301


@dataclass(frozen=True)
class Asked:
    """A picture to describe, and all that the workers must know of it.

    Parameters
    ----------
    row : int
        Its place in the list of names.
    name, stat
        What it is called in the store, and what tells it from others of its name.
    picture : Picture
        Where it is read from; None once it is decoded.
    scales : tuple of int
        Test scales Q that the store lacks.
    """

    row: int
    name: str
    stat: Stat
    picture: Picture | None
    scales: tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """What became of a picture: descriptors, or the reason why there are none.

    Parameters
    ----------
    asked : Asked
    parts : dict
        Its descriptors (D,).
    reason : str
        Why there are none.
    node : str
        Where it was decoded.
    device : str
        What described it.
    overflow : bool
        Whether it could be read, and has no finite descriptor.
    """

    asked: Asked
    parts: dict[Part, Matrix] = field(default_factory=dict)
    reason: str = ""
    node: str = ""
    device: str = ""
    overflow: bool = False


@dataclass(frozen=True)
class Kept:
    """What one writer did: its node, shards by their keys, rows in them, and failures."""

    node: str
    shards: list[str]
    rows: list[int]
    failed: list[Found]


@dataclass(frozen=True)
class Target:
    """Where writers keep descriptors: the store's files, its settings and what stands behind.

    `generation` is the highest of the shards that were there.
    """

    files: FolderShards
    extraction: Extraction
    dtype: str
    provenance: dict[str, Any]
    generation: int = 0

    def check(self) -> None:
        """Refuse to write where the driver would not see it.

        Raises
        ------
        StoreError
            If this node does not see the store.
        """
        manifest = Manifest.read(self.files.place)
        held = manifest.nets.get(self.extraction.net) if manifest else None
        if held is None or held["fingerprint"] != self.extraction.fingerprint:
            raise unseen(self.files, socket.gethostname())


def unseen(files: FolderShards, node: str) -> StoreError:
    """Say that a node and this one do not have the store in common."""
    return StoreError(
        f"The node {node} does not see the store {files.place} as this one does. Put it on a file "
        "system, or at an address, that all nodes of the cluster have in common, and name it by "
        "the same path."
    )


def decode(rows: Rows, *, exif: bool) -> Iterator[Rows]:
    """Decode one round of pictures; a large one comes in pieces, so that they stay bounded."""
    [pictures] = unpack(rows)
    node = socket.gethostname()
    piece: list[tuple[Asked, Decoded]] = []
    held = 0
    for asked in pictures:
        decoded = _decoded(asked, exif)
        piece.append((replace(asked, picture=None), decoded))
        held += sum(pixels.shape[0] * pixels.shape[1] for pixels in decoded.pixels.values())
        if held > HELD_PIXELS:
            yield pack([(node, piece)])
            piece, held = [], 0
    if piece:
        yield pack([(node, piece)])


def _decoded(asked: Asked, exif: bool) -> Decoded:
    assert asked.picture is not None
    try:
        return Decoded(asked.row, load(asked.picture, asked.scales, exif=exif))
    except PictureError as error:
        return Decoded(asked.row, {}, error)


class Describe:
    """An actor that holds the network; rows in are pieces of rounds, rows out are pictures.

    Parameters
    ----------
    network : Network
    dtype : str
        In which descriptors are kept.
    """

    def __init__(self, network: Network, dtype: str) -> None:
        self.network = network
        self.dtype = dtype

    @cached_property
    def extractor(self) -> DenseExtractor:
        """The network; opened with the first pictures, so that an error is that of a task."""
        return self.network.opened()

    def __call__(self, rows: Rows) -> Rows:
        """Describe one piece."""
        [(node, piece)] = unpack(rows)
        good = (decoded for _, decoded in piece if decoded.error is None)
        parts: dict[int, dict[Part, Matrix]] = {asked.row: {} for asked, _ in piece}
        overflowed: dict[int, str] = {}
        for batch in batches(good, self.extractor.pixel_budget):
            for row, own, reason in described(self.extractor, batch, self.dtype):
                parts[row] |= own
                if reason:
                    overflowed[row] = reason
        device = describe_device(self.extractor.device)
        found = []
        for asked, decoded in piece:
            reason = overflowed.get(asked.row) or str(decoded.error or "")
            own = {} if reason else parts[asked.row]
            found.append(Found(asked, own, reason, node, device, asked.row in overflowed))
        return pack(found)


def write(rows: Rows, *, target: Target) -> Rows:
    """Keep pictures as shards of their own, and tell which they are."""
    found: list[Found] = unpack(rows)
    good = {one.asked.row: one for one in found if not one.reason}
    keys: list[str] = []
    if good:
        target.check()
    for numbers, arrays in shards({row: one.parts for row, one in good.items()}):
        keys += _shard([good[row] for row in numbers], arrays, target)
    failed = [one for one in found if one.reason]
    return pack([Kept(socket.gethostname(), keys, list(good), failed)])


def _shard(pictures: list[Found], arrays: dict[Part, Matrix], target: Target) -> list[str]:
    store = FeatureStore(
        None,
        target.extraction,
        [one.asked.name for one in pictures],
        stats=[one.asked.stat for one in pictures],
        dtype=target.dtype,
        provenance={
            **target.provenance,
            "device": ", ".join(sorted({one.device for one in pictures})),
        },
    )
    store.files = _Outlet(target.files)
    store.index.generation = target.generation
    store.write(range(len(pictures)), arrays)
    return store.index.keys


class _Outlet(MemoryShards):
    """Passes blocks on to a store of which nothing is read: what others wrote is theirs."""

    def __init__(self, files: FolderShards) -> None:
        super().__init__()
        self._files = files

    def add(self, block: Block) -> str:
        """Write a block there."""
        return self._files.add(block)


def absolute(picture: Picture) -> Picture:
    """Name a picture's file from the root, as workers run in other folders.

    Examples
    --------
    >>> str(absolute("/data/a.jpg"))
    '/data/a.jpg'
    """
    if isinstance(picture, Crop):
        return Crop(picture.path.absolute(), picture.box)
    return Path(picture).absolute() if isinstance(picture, str | Path) else picture
