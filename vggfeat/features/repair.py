"""Mending a feature store: what is damaged is moved aside, and what is missing then is told."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.features.catalogue import CATALOGUE, Header, read_catalogue
from vggfeat.features.check import MISSING, check_manifest, check_shard
from vggfeat.features.index import Index, Stat, newest
from vggfeat.features.manifest import MANIFEST, Manifest
from vggfeat.features.place import Place, place_of
from vggfeat.features.reading import look
from vggfeat.features.shards import FolderShards, decode
from vggfeat.features.view import VIEW, check_view, read_view, shown_by, write_view

ANYTHING = "the same command that made the store computes what is missing, and nothing else"


@dataclass(frozen=True)
class Repaired:
    """What was mended.

    Parameters
    ----------
    aside : dict
        What was wrong with each file that was moved aside, by its new name.
    rebuilt : tuple of str
        Files that were made anew of the sound shards.
    missing : dict
        Names of the pictures that the store no longer has, by the HDF5 path of the array.
    unknown : int
        Shards that were moved aside of which nothing else tells what they held.
    commands : tuple of str
        What computes the missing ones, and no others; PICTURES are those given before.
    """

    aside: dict[str, str] = field(default_factory=dict)
    rebuilt: tuple[str, ...] = ()
    missing: dict[str, list[str]] = field(default_factory=dict)
    unknown: int = 0
    commands: tuple[str, ...] = ()


def repair(path: Path | str) -> Repaired:
    """Move what is damaged out of a store, so that all that is left can be trusted.

    Every shard is compared with its digest. One that is damaged is renamed to ``….h5.damaged``,
    which no reader looks at; so is a damaged manifest. The manifest, ``index.npz`` and
    ``features.h5`` are then made anew of the sound shards, as far as they need it. Nothing that is
    sound is changed, and nobody may write meanwhile.

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
        If there is no store, or it may not be written.

    Examples
    --------
    >>> repair("features").missing  # doctest: +SKIP
    {'/D/Q256': ['boat_0001.jpg', 'boat_0002.jpg']}
    """
    if Path(path).is_file():
        raise StoreError(f"{path} is a single file. Pack it anew, from the store that it is of.")
    files = FolderShards(place_of(path))
    manifest, wrong = check_manifest(files.place)
    if wrong == [MISSING] and not files.keys():
        raise StoreError(f"{files.place} is no feature store: it has no manifest.json.")
    bad = _bad(files, manifest)
    lost, unknown = _lost(files, bad)
    aside = {files.place.set_aside(f"shards/{key}"): why for key, why in bad.items()}
    if wrong and wrong != [MISSING]:
        aside[files.place.set_aside(MANIFEST)] = "it is not what was written"
    headers, rebuilt = _rebuilt(files, bool(bad or lost))
    missing = _missing(lost, headers)
    known = manifest or Manifest.read(files.place)
    commands = _commands(files.place, known, headers, missing, unknown)
    return Repaired(aside, tuple(rebuilt), missing, unknown, commands)


def _bad(files: FolderShards, manifest: Manifest | None) -> dict[str, str]:
    """Say what is wrong with each damaged shard."""
    checked = {key: check_shard(files, key, manifest)[1] for key in files.keys()}  # noqa: SIM118
    return {key: "; ".join(wrong) for key, wrong in checked.items() if wrong}


def _lost(
    files: FolderShards, bad: Collection[str]
) -> tuple[dict[str, list[tuple[bytes, Stat]]], int]:
    """Say what damaged and deleted shards held, as far as something tells, and of how many not."""
    listed, shown = read_catalogue(files.place), shown_by(files.place)
    deleted = (listed.keys() | shown.keys()) - set(files.keys())
    lost: dict[str, list[tuple[bytes, Stat]]] = {}
    unknown = 0
    for key in sorted(deleted.union(bad)):
        held = _listed(listed[key]) if key in listed else shown.get(key, {})
        for path, some in held.items():
            lost.setdefault(path, []).extend(some)
        unknown += not held
    return lost, unknown


def _listed(header: Header) -> dict[str, list[tuple[bytes, Stat]]]:
    stats = header.stats.tolist()
    pairs = [(name, _stat(stat)) for name, stat in zip(header.names, stats, strict=True)]
    return dict.fromkeys(header.datasets, pairs)


def _stat(pair: Sequence[int]) -> Stat:
    return pair[0], pair[1]


def _rebuilt(files: FolderShards, dropped: bool) -> tuple[list[Header], list[str]]:
    """Make anew what is derived from shards, where it is wrong; return them, and what was made."""
    place, made = files.place, []
    before = place.read(CATALOGUE)
    true = {key: files.header(key) for key in files.keys()}  # noqa: SIM118
    listed = read_catalogue(place)
    lies = any(key in true and not one.same_as(true[key]) for key, one in listed.items())
    if before is not None and (dropped or lies or not listed):
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
    if VIEW in place.names() and (dropped or check_view(place, headers)):
        made += _write_view(place, headers)
    return headers, made


def _write_view(place: Place, headers: Sequence[Header]) -> list[str]:
    """Show what is left of the pictures that were shown; of all, if the view is lost.

    Returns what was made: nothing where nothing is left.
    """
    try:
        keys, stats = read_view(place) or newest(headers)
    except StoreDamaged:
        keys, stats = newest(headers)
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


def _missing(
    lost: dict[str, list[tuple[bytes, Stat]]], headers: Sequence[Header]
) -> dict[str, list[str]]:
    """Leave out what other shards have too."""
    missing = {}
    for path, some in lost.items():
        pictures = dict(some)
        index = Index(list(pictures), list(pictures.values()))
        index.add_all(headers)
        absent = [name for name, has in zip(pictures, index.has([path]), strict=True) if not has]
        if absent:
            missing[path] = sorted(decode(absent))
    return dict(sorted(missing.items()))


def _commands(
    place: Place,
    manifest: Manifest | None,
    headers: Sequence[Header],
    missing: Collection[str],
    unknown: int,
) -> tuple[str, ...]:
    """Write the commands that compute arrays again; where it is not known which, all of them."""
    paths = set(missing)
    if unknown:
        paths |= {path for header in headers for path in header.datasets}
    made = []
    for net in sorted({path.split("/")[1] for path in paths}):
        if manifest is None or net not in manifest.nets:
            return (ANYTHING,)
        scales = {int(path.rpartition("/Q")[2]) for path in paths if path.split("/")[1] == net}
        made.append(_command(place, manifest, net, sorted(scales)))
    return tuple(made) or ((ANYTHING,) if unknown else ())


def _command(place: Place, manifest: Manifest, net: str, scales: Sequence[int]) -> str:
    """Write the command that computes a net's descriptors with the settings of the store."""
    made = manifest.extraction(net)
    origin = (manifest.nets[net].get("provenance") or {}).get("weights", {}).get("origin")
    words = ["vggfeat", "extract", "PICTURES", "--out", str(place), "--net", net]
    for layer in made.layers:
        words += ["--layer", layer]
    for Q in scales:
        words += ["--Q", str(Q)]
    words += ["--weights", str(origin)] if origin else []
    words += [] if made.flip else ["--no-flip"]
    words += [] if made.pool == "average" else ["--pool", made.pool]
    words += [] if made.locations == "raw" else ["--normalize", "locations"]
    words += [] if made.exif else ["--ignore-exif"]
    words += [] if made.precision == "fp32" else ["--precision", made.precision]
    words += [] if manifest.dtype == "float32" else ["--dtype", manifest.dtype]
    return shlex.join(words)
