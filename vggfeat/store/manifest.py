"""What makes a folder a store: ``manifest.json``, which is written once and never changed."""

from __future__ import annotations

import json
from pathlib import Path

from vggfeat._io import atomic
from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.store.index import INDEX, list_stamps
from vggfeat.store.shard import DTYPES, FOLDER, VERSION
from vggfeat.store.storage import LocalStorage, Storage
from vggfeat.store.view import FAILED, RUN, VIEW, list_shares

MANIFEST = "manifest.json"
FORMAT = "vggfeat features"
DAMAGED = ".damaged"  # what a file's name ends in that repairing has set aside


def build_manifest(dtype: str) -> bytes:
    """Return the content of a store's manifest."""
    return json.dumps({"format": FORMAT, "version": VERSION, "dtype": dtype}).encode()


def refuse_strange(storage: Storage) -> None:
    """Keep out of folders that hold something else: files of the store would replace it.

    Raises
    ------
    StoreError
    """
    ours = {MANIFEST, VIEW, INDEX, *list_stamps(storage)}
    ours |= {name for own in (FAILED, RUN) for name in list_shares(storage, own)}
    others = {n for n in storage.list() if not n.startswith(atomic.TEMPORARY)} - ours
    if any(not name.endswith(DAMAGED) for name in others) or _has_other_folders(storage):
        raise StoreError(
            f"{storage} is no feature store, and not empty. Name a new or an empty folder with "
            "--out, or one that `vggfeat extract` made."
        )


def packed_file(path: Path | str | None) -> Path | None:
    """Return the path of a packed file; None for a folder, an address, or the view of a store."""
    if path is None or not Path(path).is_file():
        return None
    return None if _is_view(Path(path)) else Path(path)


def folder_of(path: Path | str | None) -> Path | str | None:
    """Return the folder of a store, also where its view is named."""
    return Path(path).parent if path is not None and _is_view(Path(path)) else path


def _is_view(path: Path) -> bool:
    return path.name == VIEW and (path.parent / FOLDER).is_dir()


def parse_manifest(content: bytes, where: str) -> str:
    """Return the dtype that a manifest says.

    Raises
    ------
    StoreDamaged
        If the text cannot be read.
    StoreError
        If it is no store's manifest, or that of another version.
    """
    try:
        held = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreDamaged(
            f"{where} is damaged: {error}. Make it anew of the shards with: vggfeat store repair "
            f"{where.rpartition('/')[0]}."
        ) from error
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise StoreError(f"{where} belongs to something else. Choose another --out.")
    if (version := held.get("version")) != VERSION and isinstance(version, int):
        age = "a newer" if version > VERSION else "an early"
        raise StoreError(
            f"{where} was written by {age} vggfeat (format {version}; this one reads {VERSION}). "
            "Extract into another folder."
        )
    if content not in map(build_manifest, DTYPES):
        raise StoreDamaged(
            f"{where} is damaged: its format, version and dtype are not what was written. Make it "
            f"anew of the shards with: vggfeat store repair {where.rpartition('/')[0]}."
        )
    return str(held["dtype"])


def no_store(where: object) -> str:
    """Say that a place is no store."""
    return (
        f"{where} is no feature store: it has no {MANIFEST}. Give the folder that `vggfeat "
        "extract` or `vggfeat classify --out` wrote, or a packed file."
    )


def _has_other_folders(storage: Storage) -> bool:
    if not isinstance(storage, LocalStorage) or not storage.path.is_dir():
        return False
    ours = (FOLDER, "columns")
    return any(path.is_dir() and path.name not in ours for path in storage.path.iterdir())
