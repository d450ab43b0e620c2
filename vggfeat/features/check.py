"""Looking after a feature store: what it holds, and whether it is sound."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.features.catalogue import CATALOGUE, Header, check_catalogue, read_catalogue
from vggfeat.features.manifest import Manifest, extraction_of
from vggfeat.features.packed import PackedFile
from vggfeat.features.place import Place, place_of
from vggfeat.features.shards import FolderShards, Shards
from vggfeat.features.store import FeatureStore
from vggfeat.features.view import VIEW, check_view

BLOCK = 1024  # rows that are checked at a time
ALTERED = "its bytes are not those that were written"
MISSING = "manifest.json is missing; the next run rebuilds it"


def info(path: Path | str) -> dict[str, Any]:
    """Say what a store holds.

    Parameters
    ----------
    path : path
        Folder of a store, or a packed file.

    Returns
    -------
    dict
        ``path``, ``dtype``, ``nets`` (each with ``settings``, ``fingerprint``, ``provenance`` and
        ``arrays``: rows and D by HDF5 path), ``pictures``, ``asked``, ``failed``, ``finished``,
        ``shards``, ``leftovers`` and ``bytes``, all of plain JSON types.

    Raises
    ------
    StoreError
        If there is no store.
    """
    stores = FeatureStore.open_all(path)
    store = next(iter(stores.values()))
    files = store.files
    place = files.place if isinstance(files, FolderShards) else None
    nets = {
        net: {**record, "arrays": _arrays(store, net)}
        for net, record in store.manifest.nets.items()
    }
    return {
        "path": str(path),
        "dtype": store.manifest.dtype,
        "nets": nets,
        "pictures": len(store.names),
        "asked": store.manifest.asked,
        "failed": len(store.failed),
        "finished": place is None or VIEW in place.names(),
        "shards": len(store.index.keys),
        "leftovers": len(place.leftovers()) if place else 0,
        "bytes": store.nbytes,
    }


def verify(path: Path | str) -> list[str]:
    """Read all of a store and list what is wrong with it.

    Each shard's bytes are compared with the sha256 that is its name; names, rows, types and
    settings must agree, no number may be NaN or infinite, and ``features.h5`` must show what the
    shards hold.

    Parameters
    ----------
    path : path
        Folder of a store, or a packed file.

    Returns
    -------
    list of str
        One sentence for each problem; empty if the store is sound.
    """
    try:
        if Path(path).is_file():
            return _check_packed(Path(path))
        return _check_folder(FolderShards(place_of(path)))
    except StoreDamaged as error:
        return [str(error)]


def _check_folder(files: FolderShards) -> list[str]:
    manifest, problems = check_manifest(files.place)
    keys, listed = files.keys(), read_catalogue(files.place)
    if problems == [MISSING] and not keys:
        raise StoreError(f"{files.place} is no feature store: it has no manifest.json.")
    headers = []
    dimensions: dict[str, set[int]] = defaultdict(set)
    for key in keys:
        header, wrong = check_shard(files, key, manifest)
        problems += [f"shard {key}: {problem}" for problem in wrong]
        if header is None:
            continue
        headers.append(header)
        if key in listed and not listed[key].same_as(header):
            problems.append(f"{CATALOGUE} is wrong about the shard {key}; repairing makes it anew")
        for name, dimension in header.datasets.items():
            dimensions[name].add(dimension)
    problems += [
        f"{name} has different dimensions in different shards: {sorted(several)}"
        for name, several in dimensions.items()
        if len(several) > 1
    ]
    problems += _check_settings(manifest) if manifest else []
    problems += check_catalogue(files.place)
    problems += check_view(files.place, headers)
    problems += [
        f"{leftover.rpartition('/')[2]} is left over from a killed run; the next run removes it"
        for leftover in files.place.leftovers()
    ]
    return problems


def check_shard(
    files: FolderShards, key: str, manifest: Manifest | None
) -> tuple[Header | None, list[str]]:
    """Return what a shard says of itself, if its bytes are whole, and list what is wrong with it.

    A damaged HDF5 file is not opened: the library may crash on it.
    """
    if not files.sound(key):
        return None, [ALTERED]
    try:
        header = files.header(key)
        return header, _check(files, header, manifest)
    except StoreError as error:  # a stranger's, or this h5py cannot read it
        return None, [str(error)]


def check_manifest(place: Place) -> tuple[Manifest | None, list[str]]:
    """Return the manifest, if it is whole, and what is wrong with it."""
    try:
        manifest = Manifest.read(place)
    except StoreError as error:
        return None, [str(error)]
    return manifest, [] if manifest else [MISSING]


def _check_packed(path: Path) -> list[str]:
    files = PackedFile(path)
    if not files.sound():
        return [f"{path} is damaged: its bytes are not those that were written"]
    [header] = files.headers()
    return _check_settings(files.manifest) + _check(files, header, files.manifest)


def _check(files: Shards, header: Header, manifest: Manifest | None) -> list[str]:
    """List what is wrong inside one file."""
    problems = []
    if len(set(header.names)) < len(header.names):
        problems.append("a name comes twice")
    if header.stats.shape != (len(header.names), 2):
        problems.append(f"{len(header.names)} names, but /stat has shape {header.stats.shape}")
    if manifest and header.dtype != manifest.dtype:
        problems.append(f"holds {header.dtype}, the manifest says {manifest.dtype}")
    for net, settings in header.settings.items():
        held = manifest.nets.get(net, {}).get("fingerprint") if manifest else None
        if held not in (None, extraction_of(settings, header.key).fingerprint):
            problems.append(f"features of net {net} with other settings than the manifest's")
    for path in header.datasets:
        problems += _check_numbers(files, header, path)
    return problems


def _check_numbers(files: Shards, header: Header, path: str) -> list[str]:
    """List rows that lack numbers, or have some where none should be."""
    present = np.ones(len(header.names), bool)
    present[header.absent.get(path, [])] = False
    for start in range(0, len(present), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(present)))
        try:
            values = files.read(header.key, {path: rows})[path]
        except StoreError as error:
            return [f"{path} cannot be read: {error}"]
        if not np.array_equal(np.isfinite(values).all(axis=1), present[rows]):
            return [f"{path} has numbers that are not finite"]
    return []


def _check_settings(manifest: Manifest) -> list[str]:
    return [
        f"the manifest's settings of net {net} are not those of its fingerprint"
        for net, record in manifest.nets.items()
        if (manifest.extraction(net).net, manifest.extraction(net).fingerprint)
        != (net, record["fingerprint"])
    ]


def _arrays(store: FeatureStore, net: str) -> dict[str, dict[str, int]]:
    return {
        path: {"rows": int(store.index.has([path]).sum()), "D": dimension}
        for path, dimension in sorted(store.index.dimensions.items())
        if path.startswith(f"/{net}/")
    }
