"""What a source of pictures names: a folder, a file, a glob, a list, a manifest, or tars."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from vggfeat._io.remote import is_address, open_filesystem, redact, suffix
from vggfeat.data import listing
from vggfeat.data.images import EXTENSIONS
from vggfeat.data.manifests import Entry, read_csv, read_list, read_parquet, read_typed
from vggfeat.data.names import name_of, prefix_of, relative_name
from vggfeat.data.remote import Remote
from vggfeat.data.tars import PACKED, samples
from vggfeat.errors import DataError, DataNotFound

MOST_NAMED = 1_000_000  # sources that one pattern may name
AT_ONCE = 16  # addresses that are listed side by side
_BRACES = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def pictures_of(source: str) -> Iterator[Entry]:
    """List the pictures of a source, which must have some that can be read from here.

    Parameters
    ----------
    source : str
        As it is typed.

    Raises
    ------
    DataNotFound, DataError, DownloadError
        As for :func:`entries`, and if there are no pictures.
    MissingExtra
        If what reads addresses is not installed.
    """
    empty, schemes = True, set[str]()
    for entry in entries(source):
        empty = False
        if isinstance(entry.picture, Remote):
            scheme = entry.picture.address.partition(":")[0]
            if scheme not in schemes:  # what is not installed is said before anything is computed
                open_filesystem(entry.picture.address)
                schemes.add(scheme)
        yield entry
    if empty:
        raise DataNotFound(
            f"There are no pictures in {shown(source)!r}. Pictures end in "
            f"{', '.join(sorted(EXTENSIONS))}; name a folder, files, tars, or a list as @paths.txt."
        )


def shown(source: str) -> str:
    """Write a source without credentials."""
    return redact(source) if is_address(source) else source


def leads_beyond(source: str) -> bool:
    """Tell an address, or a pattern with braces, from a path.

    Examples
    --------
    >>> leads_beyond("s3://bucket/all"), leads_beyond("train-{00..09}.tar"), leads_beyond("all.csv")
    (True, True, False)
    """
    return is_address(source) or _BRACES.search(source) is not None


def entries(source: str) -> Iterator[Entry]:
    """List what a source names.

    Raises
    ------
    DataNotFound
        If the source does not exist.
    DataError
        If a manifest or a tar cannot be used.
    """
    path = Path(source)
    if source == "-":
        yield from read_typed()
    elif source.startswith("@") and not path.exists():
        yield from read_list(source[1:])
    elif is_address(source):
        yield from _at_address(source)
    elif path.is_dir():
        prefix = prefix_of(source)
        yield from (Entry(image, prefix + relative_name(image, path)) for image in walk(path))
    elif path.is_file():
        read = _reader(path.suffix.lower(), source)
        yield from read(source) if read else [Entry(path, name_of(source))]
    elif matches := sorted(glob.glob(source, recursive=True)):  # noqa: PTH207  # may be absolute
        for match in matches:
            yield from entries(match)
    elif (several := expand(source)) != [source]:
        for one in several:
            yield from entries(one)
    else:
        raise DataNotFound(f"There is no picture, folder or list {source!r}. Check the spelling.")


def expand(pattern: str) -> list[str]:
    """Write out the braces of a pattern: numbers from and to, or several texts.

    Raises
    ------
    DataError
        If they name more than a million.

    Examples
    --------
    >>> expand("train-{008..010}.tar")
    ['train-008.tar', 'train-009.tar', 'train-010.tar']
    >>> expand("{a,b}-{1..2}.tar")
    ['a-1.tar', 'a-2.tar', 'b-1.tar', 'b-2.tar']
    """
    pieces = _BRACES.split(pattern)  # texts and the insides of braces by turns
    choices: list[list[str]] = [[piece] for piece in pieces]
    total = 1
    for place in range(1, len(pieces), 2):
        inside = pieces[place]
        if found := _RANGE.fullmatch(inside):
            numbers = range(int(found[1]), int(found[2]) + 1)
            total *= len(numbers)
            few = numbers if total <= MOST_NAMED else ()
            choices[place] = [f"{number:0{len(found[1])}d}" for number in few]
        else:
            choices[place] = inside.split(",")
            total *= len(choices[place])
    if not 0 < total <= MOST_NAMED:
        raise DataError(
            f"{redact(pattern)} names {total:,} sources: between 1 and {MOST_NAMED:,} can be. "
            "Write {000..099}, from the lower number to the higher."
        )
    return ["".join(some) for some in product(*choices)]


def walk(folder: Path) -> Iterator[Path]:
    """Go through the pictures below a folder, sorted, without hidden ones.

    Raises
    ------
    DataError
        If a folder cannot be read.
    """
    seen: set[Path] = set()
    for parent, folders, files in os.walk(folder, onerror=_unreadable, followlinks=True):
        # A folder reached in two ways is searched once, so that links cannot lead round in circles.
        if Path(parent).resolve() in seen:
            folders.clear()
            continue
        seen.add(Path(parent).resolve())
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if is_picture(path := Path(parent, name)):
                yield path


def is_picture(path: Path) -> bool:
    """Tell a picture by its name."""
    # Hidden files are nobody's pictures: macOS leaves a ._x.jpg beside every x.jpg.
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"The folder {error.filename} cannot be read: {error.strerror}. Allow it to be read, or "
        "name the folders that may be."
    ) from error


def _at_address(source: str) -> Iterator[Entry]:
    """List what an address names; only folders and globs are asked for what is in them."""
    if source.startswith("file://"):
        yield from entries(source.removeprefix("file://"))
        return
    if (several := expand(source)) != [source]:
        yield from _at_addresses(several)
    elif listing.is_glob(source):
        yield from _at_addresses(listing.matches(source))
    elif read := _reader(suffix(source), source):
        yield from read(source)
    elif suffix(source) in EXTENSIONS:
        yield Entry(Remote(source), name_of(source))
    else:
        yield from listing.below(source)


def _at_addresses(sources: Sequence[str]) -> Iterator[Entry]:
    """List what addresses name, many at a time: tars and manifests are waited for."""
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="vggfeat-list")
    try:
        for some in pool.map(lambda one: list(_at_address(one)), sources):
            yield from some
    finally:
        pool.shutdown(cancel_futures=True)


def _reader(ending: str, source: str) -> Callable[[str], Iterator[Entry]] | None:
    """Find what reads a source that holds many pictures in one file."""
    if source.lower().endswith(PACKED) or ending == ".tar":
        return _read_tar
    return {".csv": read_csv, ".parquet": read_parquet, ".pq": read_parquet}.get(ending)


def _read_tar(source: str) -> Iterator[Entry]:
    tar = name_of(source)
    for name, picture, label in samples(source):
        yield Entry(picture, f"{tar}/{name}", label)
