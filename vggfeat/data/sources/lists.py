"""Lists of images: a path a line, or CSV and Parquet manifests with path, label(s) and split.

They are read as other programs write them: in UTF-8 or UTF-16, with commas, semicolons or tabs,
with blanks and quotes around what they name, and paths with backslashes.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from vggfeat._io.remote import (
    BLOCK,
    is_address,
    join,
    open_file,
    parent,
    redact,
    suffix,
)
from vggfeat._io.text import printable
from vggfeat.data.image import ImageRef
from vggfeat.data.names import name_of
from vggfeat.data.sources.remote import RemoteImage, explain_unreadable
from vggfeat.errors import DataError, DataNotFound, MissingExtra, VggfeatError

LABEL, LABELS, SPLIT = "label", "labels", "split"  # columns
CSV = (".csv", ".tsv")
MANIFESTS = (*CSV, ".parquet", ".pq")
SEPARATOR = "|"
"""What stands between the classes of an image in the column ``labels``."""
DELIMITERS = (",", ";", "\t")
"""What may stand between columns."""
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LINES_AT_ONCE = 8192
LONGEST = 1 << 20  # bytes of a line
_OF_WINDOWS = re.compile(r'\s*"?(?:[A-Za-z]:[\\/]|\\\\)')


class Columns(NamedTuple):
    """What the columns of a manifest are called that have the paths and the labels.

    Without a name of its own that of labels is ``label``, or ``labels`` where an image may have
    several or none.
    """

    path: str = "path"
    label: str = ""


COLUMNS = Columns()


@dataclass(frozen=True, slots=True)
class Entry:
    """An image as a source names it, and the folder that was named, if it is from one.

    Without a column ``labels`` its label set is None.
    """

    image: Path | ImageRef
    name: str
    label: str = ""
    split: str = ""
    label_set: tuple[str, ...] | None = None
    root: Path | None = None


def resolve_entry(text: str, folder: Path | str) -> tuple[Path | ImageRef, str]:
    """Find the image that a list names by a path or an address, and its name: that, as written.

    Raises
    ------
    DataError
        If a list at an address names what is not beside or below it, or an address is a chain; if
        no file has a path that is not UTF-8, or absolute on Windows, where this is another system.

    Examples
    --------
    >>> resolve_entry("./a.jpg", Path("list"))
    (...Path('list/a.jpg'), 'a.jpg')
    >>> resolve_entry("a.jpg", "s3://bucket/list")
    (RemoteImage('s3://bucket/list/a.jpg'), 'a.jpg')
    >>> resolve_entry("https://host/a.jpg?sig=ab", Path("list"))
    (RemoteImage('https://host/a.jpg'), 'host/a.jpg')
    """
    if "\0" in text:
        raise DataError(f"{printable(text)[:200]!r} is no path: there is a zero byte in it.")
    if is_address(text):
        if "::" in text or text.startswith("file:"):
            raise DataError(f"A list of images may name paths and addresses, not {redact(text)}.")
        return RemoteImage(text), name_of(text)
    if isinstance(folder, Path):
        text = _as_it_lies(text, folder)
        if (foreign := _foreign(text)) and not os.path.lexists(folder / text):
            raise DataError(foreign)
        return folder / text, name_of(text)
    if foreign := _foreign(text):
        raise DataError(foreign)
    text = text.strip()
    return RemoteImage(join(folder, text)), name_of(text)


def _as_it_lies(text: str, folder: Path) -> str:
    """Return a path in the form in which there is a file, else as it is written.

    Programs put blanks and quotes around paths, write backslashes, and compose accents or not; a
    list is in UTF-8, whatever a system takes the names of its files for.
    """
    plain = text.strip()
    if plain == text and text.isascii() and not set('"\\') & set(text):
        return text
    if plain[:1] == plain[-1:] == '"':
        plain = plain[1:-1]
    forms = [text, plain, plain.replace("\\", "/")]
    forms += [unicodedata.normalize(form, each) for each in forms[1:] for form in ("NFC", "NFD")]
    forms += [os.fsdecode(each.encode("utf-8", "surrogateescape")) for each in forms]
    # Not Path.exists, which raises an error for a line that is too long to be a name.
    return next((form for form in forms if os.path.exists(folder / form)), text)  # noqa: PTH110


def _foreign(text: str) -> str:
    """Say why a path is none of this machine, unless there is such a file; empty if it may be."""
    if wrong := _not_utf_8(text):
        return wrong
    if os.name != "nt" and _OF_WINDOWS.match(text):
        return (
            f"{text[:200]} is a path of a Windows machine, and not on this one. Edit the list to "
            "have paths from here, relative or not; or name its column of relative ones by "
            "--path-column (path_column in Python)."
        )
    return ""


def _not_utf_8(text: str) -> str:
    """Say that bytes of a text had to be kept as they were; empty if none had to."""
    if text.isascii():
        return ""
    encoded = text.encode("utf-8", "surrogateescape")
    try:
        encoded.decode()
    except UnicodeDecodeError:
        shown = printable(encoded.decode("utf-8", "replace"))[:200]
        return (
            f"{shown!r} is not UTF-8. Save the list as UTF-8; in Excel, as the file type "
            "'CSV UTF-8'."
        )
    return ""


def read_list(source: str) -> Iterator[Entry]:
    """Read a list with one path a line; relative to the current folder, or to the list's address.

    It may have a NUL after each path instead, as `find -print0` writes them, or be typed: ``-``.

    Raises
    ------
    DataNotFound, DataError
        If the list cannot be read, or has a line so long that it is no list.
    """
    if source == "-":
        typed = sys.stdin.buffer if sys.stdin else io.BytesIO()
        yield from _lines(typed, Path(), "Standard input")
        return
    with _open(source, "list") as file:
        folder = parent(source) if is_address(source) else Path()
        yield from _lines(file, folder, redact(source))


def read_csv(source: str, columns: Columns = COLUMNS) -> Iterator[Entry]:
    """Read a CSV manifest line by line, but for blank ones; its paths are relative to it.

    Raises
    ------
    DataError
        If it has no column of paths, or not the one of labels that is named, or a line without a
        path or with more fields than the header.
    """
    with _open_csv(source) as rows:
        names = rows.fieldnames or ()
        yield from _entries(rows, _assign(names, columns, source), source, "line", 2)


def read_parquet(source: str, columns: Columns = COLUMNS) -> Iterator[Entry]:
    """Read a Parquet manifest, some thousand rows at a time; its paths are relative to it.

    A column of lists holds several labels of each image.

    Raises
    ------
    DataError, MissingExtra
        As for :func:`read_csv`, and if it is damaged; if pyarrow is not installed.
    """
    with _open_parquet(source) as table:
        schema = table.schema_arrow
        lists = [field.name for field in schema if "list" in str(field.type).partition("<")[0]]
        known = _assign(schema.names, columns, source, lists)
        wanted = [name for name in (*known, SPLIT) if name in schema.names]
        some = table.iter_batches(LINES_AT_ONCE, columns=wanted)
        rows = (row for batch in some for row in batch.to_pylist())
        yield from _entries(rows, known, source, "row", 1)


def is_manifest(source: str) -> bool:
    """Tell a CSV or Parquet manifest, by its ending.

    Examples
    --------
    >>> is_manifest("s3://bucket/all.parquet"), is_manifest("photos")
    (True, False)
    """
    return _ending(source) in MANIFESTS


def list_columns(source: str) -> list[str]:
    """List what the columns of a manifest are called.

    Raises
    ------
    DataNotFound, DataError, MissingExtra
        If it cannot be read.
    """
    if _ending(source) in CSV:
        with _open_csv(source) as rows:
            return list(rows.fieldnames)
    with _open_parquet(source) as table:
        return list(table.schema_arrow.names)


def _ending(source: str) -> str:
    return suffix(source) if is_address(source) else Path(source).suffix.lower()


@contextmanager
def _open_csv(source: str) -> Iterator[Any]:
    with _open(source, "manifest") as file:
        text = as_text(file)
        header = text.readline()
        delimiter = next((mark for mark in DELIMITERS if mark in header), ",")
        lines = chain([header] if header else [], text)
        blanks = f"{delimiter} " in header  # else one may be the first of a name
        rows = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=blanks)
        try:
            rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
            yield rows
        except csv.Error as error:
            raise DataError(f"{redact(source)}, line {rows.line_num}: {error}.") from error


@contextmanager
def _open_parquet(source: str) -> Iterator[Any]:
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra.of("A Parquet manifest", "pyarrow", "parquet") from error
    with _open(source, "manifest") as file:
        try:
            yield pyarrow.parquet.ParquetFile(file)
        except VggfeatError:
            raise
        except (pyarrow.lib.ArrowException, ValueError, OSError) as error:
            raise DataError(f"{redact(source)} cannot be read as Parquet: {error}") from error


@contextmanager
def _open(source: str, what: str) -> Iterator[BinaryIO]:
    with explain_unreadable(source, what):
        at_address = is_address(source)
        with open_file(source, whole=True) if at_address else Path(source).open("rb") as file:
            yield file


def as_text(file: BinaryIO) -> io.TextIOWrapper:
    """Decode UTF-16 where a byte order mark says so, else UTF-8 and bytes that are none."""
    buffered = file
    if not isinstance(buffered, io.BufferedReader):
        buffered = io.BufferedReader(file)  # type: ignore[type-var]  # BytesIO reads as a raw file does
    if buffered.peek(2)[:2] in UTF_16:
        return io.TextIOWrapper(buffered, "utf-16", "replace", newline="")
    return io.TextIOWrapper(buffered, "utf-8-sig", "surrogateescape", newline="")


def _lines(file: BinaryIO, folder: Path | str, where: str) -> Iterator[Entry]:
    for number, line in enumerate(_pieces(file, where), 1):
        text = os.fsdecode(line.rstrip(b"\r\n"))
        if text.strip():
            try:
                image, name = resolve_entry(text, folder)
            except DataError as error:
                raise DataError(f"{where}, line {number}: {error}") from error
            yield Entry(image, name)


def _pieces(file: BinaryIO, where: str) -> Iterator[bytes]:
    """Read what stands between the ends of lines; what they are shows in the first of the file."""
    kept = file.read(LINES_AT_ONCE).removeprefix(codecs.BOM_UTF8)
    if kept[:2] in UTF_16:  # read whole: an end of a line is two bytes there
        text = (kept + file.read()).decode("utf-16", "replace")
        kept, file = text.encode(), io.BytesIO()
    end = b"\0" if b"\0" in kept else b"\n"
    while some := file.read(BLOCK):
        *whole, kept = (kept + some).split(end)
        yield from whole
        if len(kept) > LONGEST:  # it would be copied with every block
            raise DataError(
                f"{where} has a line of more than {LONGEST:,} bytes: it is no list. Name a file "
                "with one path a line."
            )
    yield from kept.split(end)


class _Known(NamedTuple):
    """The columns of a manifest that are read; empty where there is none."""

    path: str
    label: str
    labels: str


def _assign(
    names: Sequence[str], columns: Columns, source: str, lists: Sequence[str] = ()
) -> _Known:
    """Find the columns that are named among those that there are, of which some hold lists."""
    where, right = redact(source), "'path', and may have 'label' or 'labels', and 'split'"
    if not names:
        raise DataError(f"{where} is empty. Its first line names its columns: it needs {right}.")
    if "\0" in "".join(names):
        raise DataError(f"{where} has zero bytes in its first line. Save it as text in UTF-8.")
    lacking = {columns.path, columns.label or columns.path} - {*names}
    if lacking and (wrong := _not_utf_8(", ".join(names))):
        raise DataError(f"{where}, line 1: {wrong}")
    there = f"{where} has the columns {', '.join(names)}"
    if columns.path not in names:
        needs = f"; a manifest needs {right}" * (columns == COLUMNS)
        raise DataError(
            f"{there}{needs or f', and no {columns.path!r}'}. Say which one has the paths by "
            "--path-column (path_column in Python)."
        )
    if columns.label and columns.label not in names:
        raise DataError(
            f"{there}, and no {columns.label!r}. Say which one has the labels by --label-column "
            "(label_column in Python)."
        )
    if columns.label:
        several = columns.label in lists or columns.label == LABELS
        return _Known(columns.path, *(("", columns.label) if several else (columns.label, "")))
    if LABEL in lists and LABELS not in names:
        return _Known(columns.path, "", LABEL)
    return _Known(columns.path, *(name if name in names else "" for name in (LABEL, LABELS)))


def _entries(rows: Any, known: _Known, source: str, what: str, first: int) -> Iterator[Entry]:
    folder = parent(source) if is_address(source) else Path(source).parent
    empty = True
    for number, row in enumerate(rows, first):
        if what == "line" and _is_blank(row):
            continue
        empty = False
        path = row[known.path]
        if path is None or (isinstance(path, str) and not path.strip()):
            raise DataError(f"{redact(source)}, {what} {number}, names no path.")
        if any(row.get(None) or ()):
            raise DataError(
                f"{redact(source)}, {what} {number}, has more fields than the header. Put what "
                f'has a comma in it in "quotes", and {SEPARATOR!r} between labels.'
            )
        try:
            if not isinstance(path, str):
                raise DataError(f"{path!r:.50} is no path, and should be text")
            image, name = resolve_entry(path, folder)
            label = _text(row[known.label]) if known.label else ""
            split = _text(row.get(SPLIT))
            label_set = _label_set(row[known.labels]) if known.labels else None
        except DataError as error:
            raise DataError(f"{redact(source)}, {what} {number}: {error}") from error
        yield Entry(image, name, label, split, label_set)
    if empty:
        raise DataNotFound(
            f"{redact(source)} has columns and no rows. Write the path of an image in each line "
            "below the first."
        )


def _is_blank(row: dict[Any, Any]) -> bool:
    """Tell a row without any text, as Excel writes below a table."""
    return not any("".join(value).strip() for value in row.values() if value)


def _label_set(value: object) -> tuple[str, ...]:
    """Read ``a|b``, or a list of labels, as Parquet may hold; sorted, without blanks."""
    labels = value if isinstance(value, list) else _text(value).split(SEPARATOR)
    return tuple(sorted({_text(label) for label in labels} - {""}))


def _text(value: object) -> str:
    """Make a label one object for all its rows: there may be a million of them."""
    if isinstance(value, list | dict):
        raise DataError(f"a {type(value).__name__} is no label; write texts or numbers")
    if isinstance(value, float) and math.isnan(value):
        raise DataError("NaN is no label; leave out the row, or write what the image shows")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    text = "" if value is None else str(value).strip()
    if wrong := _not_utf_8(text):
        raise DataError(wrong)
    return sys.intern(text)
