"""What must be right before a feature store is written: the place, the names, their stats."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from vggfeat._io.atomic import TEMPORARY
from vggfeat.errors import ParameterError, StoreError
from vggfeat.features.catalogue import CATALOGUE, Header
from vggfeat.features.index import Stat, current
from vggfeat.features.manifest import MANIFEST, Manifest
from vggfeat.features.place import Place
from vggfeat.features.reading import look
from vggfeat.features.shards import FolderShards, Shards, decode, encode
from vggfeat.features.view import VIEW, lists_of_failed, sound_view


def unique(names: Sequence[str]) -> list[bytes]:
    """Encode names, each of which must come once."""
    keys = encode(names)
    if len(set(keys)) < len(keys):
        seen: set[bytes] = set()
        for name, key in zip(names, keys, strict=True):
            if key in seen:
                raise ParameterError.of("names", "FeatureStore", "different names", name)
            seen.add(key)
    return keys


def begun(files: Shards) -> tuple[list[Header], Manifest | None]:
    """Return what other runs left, and refuse a place that is used for something else."""
    if not isinstance(files, FolderShards):
        return [], None
    headers, manifest = look(files)
    if manifest is None:
        _refuse_strange(files.place)
    return headers, manifest


def _refuse_strange(place: Place) -> None:
    """Keep out of folders that hold something else: files of the store would replace it."""
    # A run that was killed at once leaves its first files, with no manifest yet; and one that
    # starts at the same moment has just written it. Repairing may leave what had no shards.
    names = place.names()
    ours: tuple[str, ...] = ("shards", TEMPORARY, MANIFEST)
    if "shards" in names:
        ours += (VIEW, CATALOGUE, *lists_of_failed(place))
    if any(not name.startswith(ours) for name in names):
        raise StoreError(
            f"{place} is no feature store, and not empty. Name a new or an empty folder with "
            "--out, or one that `vggfeat extract` made."
        )


def stats_of(
    keys: Sequence[bytes], stats: Sequence[Stat] | None, headers: Sequence[Header], files: Shards
) -> ArrayLike:
    """Return the stats (N, 2) of pictures; those of the store where only names are given."""
    if stats is not None:
        return stats
    view = sound_view(files.place) if isinstance(files, FolderShards) else None
    names, found = current(headers, view)
    held = dict(zip(names, found.tolist(), strict=True))
    return [held.get(key, (0, 0)) for key in keys]


def strangers(folder: object, asked: str, headers: Sequence[Header]) -> str:
    """Say that a store holds none of the pictures asked for."""
    return (
        f"{folder} holds features of other pictures: none of those asked for (such as {asked!r}) "
        f"is among them (such as {decode(headers[0].names[:1])[0]!r}). Use another --out for "
        "other pictures, or name the same ones as before, from the same folder."
    )
