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
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from vggfeat._io.remote import (
    BLOCK,
    is_address,
    join,
    open_file,
    parent,
    redact,
)
from vggfeat._io.text import printable
from vggfeat.data.image import ImageRef
from vggfeat.data.names import name_of
from vggfeat.data.sources.remote import RemoteImage, explain_unreadable
from vggfeat.errors import DataError, DataNotFound, MissingExtra, VggfeatError

COLUMNS = ("path", "label", "labels", "split")
SEPARATOR = "|"
"""What stands between the classes of an image in the column ``labels``."""
DELIMITERS = (",", ";", "\t")
"""What may stand between columns."""
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LINES_AT_ONCE = 8192
LONGEST = 1 << 20  # bytes of a line


@dataclass(frozen=True, slots=True)
class Entry:
    """An image as a source names it; without a column ``labels`` its label set is None."""

    image: Path | ImageRef
    name: str
    label: str = ""
    split: str = ""
    label_set: tuple[str, ...] | None = None


def resolve_entry(text: str, folder: Path | str) -> tuple[Path | ImageRef, str]:
    """Find the image that a list names by a path or an address, and its name: that, as written.

    Raises
    ------
    DataError
        If a list at an address names what is not beside or below it, or an address is a chain.

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
        return folder / text, name_of(text)
    text = text.strip()
    return RemoteImage(join(folder, text)), name_of(text)


def _as_it_lies(text: str, folder: Path) -> str:
    """Return a path in the form in which there is a file, else as it is written.

    Programs put blanks and quotes around paths, write backslashes, and compose accents or not.
    """
    plain = text.strip()
    if plain == text and text.isascii() and not set('"\\') & set(text):
        return text
    if plain[:1] == plain[-1:] == '"':
        plain = plain[1:-1]
    forms = [text, plain, plain.replace("\\", "/")]
    forms += [unicodedata.normalize(form, each) for each in forms[1:] for form in ("NFC", "NFD")]
    # Not Path.exists, which raises an error for a line that is too long to be a name.
    return next((form for form in forms if os.path.exists(folder / form)), text)  # noqa: PTH110


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


def read_csv(source: str) -> Iterator[Entry]:
    """Read a CSV manifest line by line; its paths are relative to it.

    Raises
    ------
    DataError
        If it has no column ``path``, or a line without one or with more fields than the header.
    """
    with _open(source, "manifest") as file:
        text = _as_text(file)
        header = text.readline()
        delimiter = next((mark for mark in DELIMITERS if mark in header), ",")
        lines = chain([header] if header else [], text)
        blanks = f"{delimiter} " in header  # else one may be the first of a name
        rows = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=blanks)
        try:
            rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
            _need_path(rows.fieldnames, source)
            yield from _entries(rows, source, "line", 2)
        except csv.Error as error:
            raise DataError(f"{redact(source)}, line {rows.line_num}: {error}.") from error


def read_parquet(source: str) -> Iterator[Entry]:
    """Read a Parquet manifest, some thousand rows at a time; its paths are relative to it.

    Raises
    ------
    DataError, MissingExtra
        As for :func:`read_csv`, and if it is damaged; if pyarrow is not installed.
    """
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra.of("A Parquet manifest", "pyarrow", "parquet") from error
    with _open(source, "manifest") as file:
        try:
            table = pyarrow.parquet.ParquetFile(file)
            columns = table.schema_arrow.names
            _need_path(columns, source)
            some = table.iter_batches(
                LINES_AT_ONCE, columns=[name for name in COLUMNS if name in columns]
            )
            rows = (row for batch in some for row in batch.to_pylist())
            yield from _entries(rows, source, "row", 1)
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


def _as_text(file: BinaryIO) -> io.TextIOWrapper:
    """Decode UTF-16 where a byte order mark says so, else UTF-8 and bytes that are none."""
    buffered = file
    if not isinstance(buffered, io.BufferedReader):
        buffered = io.BufferedReader(file)  # type: ignore[type-var]  # BytesIO reads as a raw file does
    if buffered.peek(2)[:2] in UTF_16:
        return io.TextIOWrapper(buffered, "utf-16", "replace", newline="")
    return io.TextIOWrapper(buffered, "utf-8-sig", "surrogateescape", newline="")


def _lines(file: BinaryIO, folder: Path | str, where: str) -> Iterator[Entry]:
    for line in _pieces(file, where):
        text = os.fsdecode(line.rstrip(b"\r\n"))
        if text.strip():
            yield Entry(*resolve_entry(text, folder))


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


def _need_path(columns: Sequence[str], source: str) -> None:
    """Refuse a manifest without the column ``path``, and say why it seems to have none."""
    where, right = redact(source), "'path', and may have 'label' or 'labels', and 'split'"
    if not columns:
        raise DataError(f"{where} is empty. Its first line names its columns: it needs {right}.")
    if "\0" in "".join(columns):
        raise DataError(f"{where} has zero bytes in its first line. Save it as text in UTF-8.")
    if "path" not in columns:
        raise DataError(f"{where} has the columns {', '.join(columns)}; a manifest needs {right}.")


def _entries(rows: Any, source: str, what: str, first: int) -> Iterator[Entry]:
    folder = parent(source) if is_address(source) else Path(source).parent
    number = first - 1
    for number, row in enumerate(rows, first):
        if not row["path"]:
            raise DataError(f"{redact(source)}, {what} {number}, names no path.")
        if any(row.get(None) or ()):
            raise DataError(
                f"{redact(source)}, {what} {number}, has more fields than the header. Put what "
                f'has a comma in it in "quotes", and {SEPARATOR!r} between labels.'
            )
        try:
            image, name = resolve_entry(str(row["path"]), folder)
            label, split = _text(row.get("label")), _text(row.get("split"))
        except DataError as error:
            raise DataError(f"{redact(source)}, {what} {number}: {error}") from error
        label_set = _label_set(row["labels"]) if "labels" in row else None
        yield Entry(image, name, label, split, label_set)
    if number < first:
        raise DataNotFound(
            f"{redact(source)} has columns and no rows. Write the path of an image in each line "
            "below the first."
        )


def _label_set(value: object) -> tuple[str, ...]:
    """Read ``a|b``, or a list of labels, as Parquet may hold; sorted, without blanks."""
    labels = value if isinstance(value, list) else str(value or "").split(SEPARATOR)
    return tuple(sorted({sys.intern(str(label).strip()) for label in labels} - {""}))


def _text(value: object) -> str:
    """Make a label one object for all its rows: there may be a million of them."""
    if isinstance(value, list):
        raise DataError("a list is no label; name the column 'labels' if images have several")
    if isinstance(value, float) and math.isnan(value):
        raise DataError("NaN is no label; leave out the row, or write what the image shows")
    return "" if value is None else sys.intern(str(value).strip())
