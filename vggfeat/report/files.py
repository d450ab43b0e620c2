"""A result as files for other programs: JSON with everything, CSV with the tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat._io.atomic import make_folder, write_atomic
from vggfeat.localization.judged import LocalisationResult

Rows = Iterable[Sequence[object]]
Tables = Mapping[str, tuple[Sequence[str], Rows]]


def write_localisation(folder: Path, result: LocalisationResult) -> list[Path]:
    """Write ``results.json``, ``classes.csv`` and ``images.csv`` of a test of localisation.

    Parameters
    ----------
    folder : Path
        Where to; made if absent. Files of an earlier result are replaced.
    result : LocalisationResult
        Errors are shares from 0 to 1, empty where there is none.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    StoreError
        If the disk is full or the folder may not be written.
    """
    plain = result.to_dict()
    tables = {"classes": _flat(plain["classes"]), "images": _flat(plain["images"])}
    return _write(folder, plain, tables)


def _write(folder: Path, plain: Mapping[str, Any], tables: Tables) -> list[Path]:
    text = json.dumps(plain, indent=1, allow_nan=False) + "\n"
    contents = {"results.json": text.encode()}
    contents |= {f"{name}.csv": _csv(head, rows) for name, (head, rows) in tables.items()}
    make_folder(folder)
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def _flat(rows: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], Rows]:
    """Make a table of figures and words; lists, such as boxes, are in the JSON alone."""
    columns = [name for name, value in rows[0].items() if not isinstance(value, list | tuple)]
    return columns, ([row[name] for name in columns] for row in rows)


def _csv(head: Sequence[str], rows: Rows) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # which quotes \r and \n in names
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _cell(value: object) -> object:
    """Write floats in full, so that they read back, and NaN as nothing."""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else repr(float(value))
    return value
