"""Which columns a store takes in: those that it lacks, and those whose settings are its own.

Each column has a file, which whoever comes first creates; all others read it and compare.
"""

from __future__ import annotations

from vggfeat._io.text import printable
from vggfeat.errors import FingerprintMismatch
from vggfeat.store.column import Column, Descriptor, differences
from vggfeat.store.storage import Storage


def read_column_files(storage: Storage) -> dict[Descriptor, Column]:
    """Return the columns that have files.

    Raises
    ------
    StoreDamaged
        If one is not what was written.
    """
    columns = {}
    for name in (f"columns/{bare}" for bare in storage.list("columns")):
        if name.endswith(".json") and (content := storage.read(name)):
            column = Column.from_json(content, f"{storage}/{name}")
            columns[column.descriptor] = column
    return columns


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
    """Keep rows that were made with other settings out of a column.

    Raises
    ------
    FingerprintMismatch
        Naming the differences.
    """
    if held.digest != asked.digest:
        raise FingerprintMismatch(
            f"{printable(storage)} holds {held.descriptor.path} that was made with other "
            f"settings:\n{differences(held.settings, asked.settings)}\n"
            "Use another --out for the new settings, or ask for the stored ones."
        )
