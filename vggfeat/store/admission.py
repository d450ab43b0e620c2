"""What a store takes in: columns that it lacks, or whose settings are its own; and where it begins.

Each column has a file, which whoever comes first creates; all others read it and compare.
"""

from __future__ import annotations

from typing import NoReturn

from vggfeat._io.atomic import TEMPORARY
from vggfeat._io.text import printable
from vggfeat.errors import FingerprintMismatch, StoreError
from vggfeat.store.column import Column, differences
from vggfeat.store.index import INDEX, list_stamps
from vggfeat.store.labels import LABELS
from vggfeat.store.runs import FAILED, RUN, list_shares
from vggfeat.store.storage import DAMAGED, FOLDERS, MANIFEST, VIEW, LocalStorage, Storage


def create_column_file(storage: Storage, column: Column) -> Column:
    """Create the file of a column; return the column of the file that was there before."""
    file = column.descriptor.file
    if (content := storage.read(file)) is None:
        if storage.write_new(file, column.to_json().encode()):
            return column
        content = storage.read(file)
    return Column.from_json(content or b"", f"{storage}/{file}")


def replace_column_file(storage: Storage, column: Column) -> None:
    """Write the file of a column in place of the one that is there."""
    storage.write(column.descriptor.file, column.to_json().encode())


def refuse_other_settings(storage: Storage, held: Column, asked: Column) -> None:
    """Keep rows that were made with other settings out of a column, naming the differences."""
    if held.digest != asked.digest:
        raise FingerprintMismatch(
            f"{printable(storage)} holds {held.descriptor.path} that was made with other "
            f"settings:\n{differences(held.settings, asked.settings)}\n"
            "Use another path for the new settings, or ask for the stored ones."
        )


def refuse_changed(storage: Storage, column: Column) -> None:
    """Refuse to write rows of a column whose file others have changed, or is gone."""
    where = f"{storage}/{column.descriptor.file}"
    if (content := storage.read(column.descriptor.file)) is None:
        raise StoreError(
            f"{where} is gone. Run the same command again: what was in the store and is no longer "
            "there is computed anew."
        )
    refuse_other_settings(storage, Column.from_json(content, where), column)


def refuse_other_dtype(storage: Storage, held: str, asked: str) -> None:
    """Keep numbers of another type out of a store."""
    if held != asked:
        raise StoreError(
            f"{storage} holds {held}, which cannot be mixed with {asked}. Ask for {held}, or use "
            "another path."
        )


def refuse_absent(storage: Storage) -> NoReturn:
    """Say that there is no store to read."""
    give = "Give the folder that `vggfeat extract` or `vggfeat classify` wrote, or a packed file."
    if isinstance(storage, LocalStorage) and not storage.path.exists():
        raise StoreError(f"There is no feature store {storage}. Check the spelling. {give}")
    raise StoreError(f"{storage} is no feature store: it has no {MANIFEST}. {give}")


def refuse_strange(storage: Storage) -> None:
    """Keep out of folders that hold something else: files of the store would replace it."""
    ours = {MANIFEST, VIEW, INDEX, *list_stamps(storage)}
    ours |= {name for own in (FAILED, RUN, LABELS) for name in list_shares(storage, own)}
    others = {n for n in storage.list() if not n.startswith(TEMPORARY)} - ours
    if isinstance(storage, LocalStorage) and storage.path.is_dir():
        others |= {p.name for p in storage.path.iterdir() if p.is_dir()}.difference(FOLDERS)
    if any(not name.endswith(DAMAGED) for name in others):
        raise StoreError(
            f"{storage} is no feature store, and not empty. Name a new or an empty folder, "
            "or one that `vggfeat extract` made."
        )
