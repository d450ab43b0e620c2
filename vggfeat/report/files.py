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
from vggfeat.svm.results import SVMResult
from vggfeat.svm.voc_results import APResult

Rows = Iterable[Sequence[object]]
Tables = Mapping[str, tuple[Sequence[str], Rows]]


def write_results(
    folder: Path, result: SVMResult | APResult, extra: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write ``results.json`` and the tables of a result.

    Parameters
    ----------
    folder : Path
        Where to; made if absent. Files of an earlier result are replaced.
    result : SVMResult or APResult
        Recalls give ``classes.csv``, ``validation.csv``, ``confusion.csv`` and ``mistakes.csv``;
        average precisions give ``classes.csv``, ``validation.csv``, ``curves.csv``,
        ``rankings.csv`` and ``scores.csv``. Shares are from 0 to 1, and empty where there is none.
    extra : mapping, optional
        More of the run for ``results.json``, as plain JSON types: data set, settings, paper's
        figures, provenance. The result stands beside it under ``"result"``.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    StoreError
        If the disk is full or the folder may not be written.

    Examples
    --------
    >>> import tempfile
    >>> from vggfeat.svm.protocols import evaluate, random_splits
    >>> X, labels = np.repeat(np.eye(2), 8, axis=0), np.repeat([0, 1], 8)
    >>> result = evaluate(X, labels, ["cat", "dog"], random_splits(labels))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = write_results(Path(folder), result, {"dataset": "pets"})
    ...     print((Path(folder) / "classes.csv").read_text())
    class,recall,tested
    cat,1.0,12
    dog,1.0,12
    """
    tables = _recall_tables(result) if isinstance(result, SVMResult) else _ap_tables(result)
    return _write(folder, {**(extra or {}), "result": result.to_dict()}, tables)


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


def _recall_tables(result: SVMResult) -> Tables:
    classes, tested = result.class_names, result.confusion.sum(axis=1)
    splits = range(1, len(result.splits) + 1)
    scores = np.array([split.search.overall for split in result.splits])
    return {
        "classes": (
            ("class", "recall", "tested"),
            zip(classes, result.recalls, tested, strict=True),
        ),
        "validation": (
            ("C", *(f"split {number}" for number in splits)),
            ((C, *scores[:, i]) for i, C in enumerate(result.splits[0].search.grid)),
        ),
        "confusion": (
            ("true", *classes),
            ((name, *row) for name, row in zip(classes, result.confusion, strict=True)),
        ),
        "mistakes": (
            ("image", "true", "predicted", "margin"),
            (
                (result.names[one.row], classes[one.true], classes[one.predicted], one.margin)
                for one in result.mistakes()
            ),
        ),
    }


def _ap_tables(result: APResult) -> Tables:
    classes = result.class_names
    names = [result.names[row] for row in result.parts["test"]]
    of_classes = zip(
        classes,
        result.ap11,
        result.area,
        result.C,
        result.validation_per_class,
        *(result.positives[part] for part in ("train", "val", "test")),
        strict=True,
    )
    return {
        "classes": (
            ("class", "ap11", "area", "C", "validation", "train", "val", "test"),
            of_classes,
        ),
        "validation": (
            ("C", *classes),
            ((C, *row) for C, row in zip(result.search.grid, result.validation, strict=True)),
        ),
        "curves": (
            ("class", "recall", "precision"),
            (
                (name, recall, precision)
                for name, curve in zip(classes, result.curves, strict=True)
                for recall, precision in zip(*curve, strict=True)
            ),
        ),
        "rankings": (
            ("class", "list", "rank", "image", "score", "truth"),
            (
                (classes[c], kind, one.rank, result.names[one.row], one.score, one.truth)
                for kind, lists in result.rankings._asdict().items()
                for c, ranking in enumerate(lists)
                for one in ranking
            ),
        ),
        "scores": (
            ("image", *classes),
            ((name, *row) for name, row in zip(names, result.scores, strict=True)),
        ),
    }


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
