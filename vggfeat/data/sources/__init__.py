"""A source of images as it is typed: a folder, a file, a glob, a list, a manifest, or tars."""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

from vggfeat._io.remote import is_address, open_filesystem, redact, suffix
from vggfeat.data.image import EXTENSIONS
from vggfeat.data.left_out import LeftOut
from vggfeat.data.names import name_of, prefix_of, relative_name
from vggfeat.data.sources.files import walk
from vggfeat.data.sources.lists import (
    COLUMNS,
    CSV,
    MANIFESTS,
    Columns,
    Entry,
    read_csv,
    read_list,
    read_parquet,
)
from vggfeat.data.sources.remote import RemoteImage, expand_glob, is_glob, list_below
from vggfeat.data.sources.tar import PACKED, read_tar
from vggfeat.errors import DataError, DataNotFound

MOST_NAMED = 1_000_000  # sources that one pattern may name
AT_ONCE = 16  # addresses that are listed side by side
_BRACES = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def list_images(source: str, left_out: LeftOut, columns: Columns = COLUMNS) -> Iterator[Entry]:
    """List the images of a source, which must have some that can be read from here.

    What a folder has beside them is added to `left_out`; `columns` are those of manifests.

    Raises
    ------
    DataNotFound, DataError, DownloadError, MissingExtra
        If there are none; see :func:`~vggfeat.data.imageset.find_images`.
    """
    empty, schemes = True, set[str]()
    own = LeftOut()
    for entry in list_entries(source, own, columns):
        empty = False
        if isinstance(entry.image, RemoteImage):
            scheme = entry.image.address.partition(":")[0]
            if scheme not in schemes:  # what is not installed is said before anything is computed
                open_filesystem(entry.image.address)
                schemes.add(scheme)
        yield entry
    left_out.add(own)
    if empty and (source == "-" or source.startswith("@")):
        what = "Standard input" if source == "-" else f"The list {redact(source[1:])}"
        raise DataNotFound(f"{what} names no image. Write a path or an address in each line.")
    if empty:
        raise DataNotFound(
            f"There are no images in {redact(source)!r}. Images end in "
            f"{', '.join(sorted(EXTENSIONS))}, or begin as such files do; name a folder, files, "
            "tars, or a list as @paths.txt.",
            *own.warnings,
            *own.notes,
        )


def is_beyond_path(source: str) -> bool:
    """Tell an address, or a pattern with braces, from a path.

    Examples
    --------
    >>> [is_beyond_path(text) for text in ("s3://bucket/all", "train-{00..09}.tar", "all.csv")]
    [True, True, False]
    """
    return is_address(source) or _BRACES.search(source) is not None


def list_entries(source: str, left_out: LeftOut, columns: Columns = COLUMNS) -> Iterator[Entry]:
    """List what a source names, be it nothing, and add what lies beside it to `left_out`."""
    path = Path(source)
    if source == "-" or (source.startswith("@") and not path.exists()):
        yield from read_list(source.removeprefix("@"))
    elif is_address(source):
        yield from _at_address(source, left_out, columns)
    elif path.is_dir():
        prefix = prefix_of(source)
        for image in walk(path, left_out):
            yield Entry(image, prefix + relative_name(image, path), root=path)
    elif path.is_file():
        read = _reader(path.suffix.lower(), source, left_out, columns)
        yield from read(source) if read else [Entry(path, name_of(source))]
    elif matches := sorted(glob.glob(source, recursive=True)):  # noqa: PTH207  # may be absolute
        for match in matches:
            yield from list_entries(match, left_out, columns)
    elif (several := expand_braces(source)) != [source]:
        for each in several:
            yield from list_entries(each, left_out, columns)
    else:
        raise DataNotFound(f"There is no image, folder or list {source!r}. Check the spelling.")


def expand_braces(pattern: str) -> list[str]:
    """Write out the braces of a pattern: numbers from and to, or several texts.

    Raises
    ------
    DataError
        If they name nothing, or more than a million.

    Examples
    --------
    >>> expand_braces("train-{008..010}.tar")
    ['train-008.tar', 'train-009.tar', 'train-010.tar']
    >>> expand_braces("{a,b}-{1..2}.tar")
    ['a-1.tar', 'a-2.tar', 'b-1.tar', 'b-2.tar']
    """
    pieces = _BRACES.split(pattern)  # texts and the insides of braces by turns
    choices: list[Sequence[str]] = [[piece] for piece in pieces]
    total = 1
    for place in range(1, len(pieces), 2):
        if limits := _RANGE.fullmatch(pieces[place]):
            first, last = int(limits[1]), int(limits[2])
            total *= max(0, last - first + 1)
            numbers = range(first, last + 1) if 0 < total <= MOST_NAMED else ()
            choices[place] = [f"{number:0{len(limits[1])}d}" for number in numbers]
        else:
            choices[place] = pieces[place].split(",")
            total *= len(choices[place])
    if not 0 < total <= MOST_NAMED:
        raise DataError(
            f"{redact(pattern)} names {total:,} sources: between 1 and {MOST_NAMED:,} can be. "
            "Write {000..099}, from the lower number to the higher."
        )
    return ["".join(some) for some in product(*choices)]


def _at_address(source: str, left_out: LeftOut, columns: Columns) -> Iterator[Entry]:
    """List what an address names; only folders and globs are asked for what is in them."""
    if source.startswith("file://"):
        yield from list_entries(source.removeprefix("file://"), left_out, columns)
        return
    if (several := expand_braces(source)) != [source]:
        yield from _at_addresses(several, left_out, columns)
    elif is_glob(source):
        yield from _at_addresses(expand_glob(source), left_out, columns)
    elif read := _reader(suffix(source), source, left_out, columns):
        yield from read(source)
    elif suffix(source) in EXTENSIONS:
        yield Entry(RemoteImage(source), name_of(source))
    else:
        yield from (Entry(image, name) for image, name in list_below(source, left_out))


def _at_addresses(sources: Sequence[str], left_out: LeftOut, columns: Columns) -> Iterator[Entry]:
    """List what addresses name, many at a time: tars and manifests are waited for."""

    def read(source: str) -> tuple[list[Entry], LeftOut]:
        beside = LeftOut()  # of this thread alone
        return list(_at_address(source, beside, columns)), beside

    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="vggfeat-list")
    try:
        for some, beside in pool.map(read, sources):
            left_out.add(beside)
            yield from some
    finally:
        pool.shutdown(cancel_futures=True)


def _reader(
    ending: str, source: str, left_out: LeftOut, columns: Columns
) -> Callable[[str], Iterator[Entry]] | None:
    """Find what reads a source that holds many images in one file."""
    if source.lower().endswith(PACKED) or ending == ".tar":
        return partial(_read_tar, left_out=left_out)
    if ending in MANIFESTS:
        return partial(read_csv if ending in CSV else read_parquet, columns=columns)
    return read_list if ending == ".txt" else None


def _read_tar(source: str, left_out: LeftOut) -> Iterator[Entry]:
    tar, index = name_of(source), read_tar(source)
    left_out.add(index.left_out.below(tar))
    for row in range(len(index)):
        label = sys.intern(index.label(row))  # one object for a million rows
        yield Entry(index.image(row), f"{tar}/{index.name(row)}", label)
