"""Repairing a feature store: damaged shards are moved aside, derived files are made anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.features.catalogue import CATALOGUE, Header, read_catalogue
from vggfeat.features.check import ALTERED, check_shard
from vggfeat.features.index import Index, current, newest
from vggfeat.features.manifest import MANIFEST, Manifest
from vggfeat.features.place import Place, place_of
from vggfeat.features.reading import look
from vggfeat.features.shards import FolderShards
from vggfeat.features.view import VIEW, check_view, sound_view, write_view


@dataclass(frozen=True)
class Repaired:
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


def repair(path: Path | str) -> Repaired:
    """Move what is damaged out of a store, so that all that is left can be trusted.

    Every shard is compared with its digest. One that differs is renamed to ``….h5.damaged``,
    which no reader looks at; so is a damaged manifest. The manifest, ``index.npz`` and
    ``features.h5`` are then made anew of the sound shards, as far as they need it. Nothing that is
    sound is changed, and nobody may write meanwhile. The command that made the store then computes
    what is missing, and nothing else.

    Parameters
    ----------
    path : path
        Folder of a store.

    Returns
    -------
    Repaired

    Raises
    ------
    StoreError
        If there is no store, it may not be written, or its manifest is that of another vggfeat.

    Examples
    --------
    >>> repair("features").aside  # doctest: +SKIP
    {'shards/0c5e….h5.damaged': 'its bytes are not those that were written'}
    """
    if Path(path).is_file():
        raise StoreError(f"{path} is a single file. Pack it anew, from the store that it is of.")
    files = FolderShards(place_of(path))
    try:
        manifest, damaged = Manifest.read(files.place), False
    except StoreDamaged:
        manifest, damaged = None, True
    keys = files.keys()
    if manifest is None and not damaged and not keys:
        raise StoreError(f"{files.place} is no feature store: it has no manifest.json.")
    checked = {key: check_shard(files, key, manifest)[1] for key in keys}
    left = {key: "; ".join(wrong) for key, wrong in checked.items() if wrong and wrong != [ALTERED]}
    altered = [f"shards/{key}" for key, wrong in checked.items() if wrong == [ALTERED]]
    altered += [MANIFEST] if damaged else []
    aside = {files.place.set_aside(name): ALTERED for name in altered}
    return Repaired(aside, left, () if left else tuple(_rebuilt(files)))


def _rebuilt(files: FolderShards) -> list[str]:
    """Make anew what is derived from shards, where it is wrong; return what was made."""
    place, made = files.place, []
    before, listed = place.read(CATALOGUE), read_catalogue(files.place)
    true = {key: files.header(key) for key in files.keys()}  # noqa: SIM118
    right = all(key in true and header.same_as(true[key]) for key, header in listed.items())
    if before is not None and not (listed and right):
        place.remove(CATALOGUE)
    files.catalogue()
    if (now := place.read(CATALOGUE)) != before and now is not None:
        made.append(CATALOGUE)
    headers = list(true.values())
    if Manifest.read(place) is None and headers:
        manifest = look(files)[1]
        assert manifest
        manifest.asked = len(newest(headers)[0])
        manifest.write(place)
        made.append(MANIFEST)
    if VIEW in place.names() and check_view(place, headers):
        made += _write_view(place, headers)
    return made


def _write_view(place: Place, headers: Sequence[Header]) -> list[str]:
    """Show what is left of the pictures that were shown; of all, if the view is lost.

    Returns what was made: nothing where nothing is left.
    """
    keys, stats = current(headers, sound_view(place))
    index = Index(keys, stats)
    index.add_all(headers)
    held = np.zeros(len(keys), bool)
    for path in index.where:
        held |= index.has([path])
    if manifest := Manifest.read(place):
        write_view(place, index, keys, np.flatnonzero(held), manifest)
        return [VIEW]
    place.remove(VIEW)
    return []
