"""Find a data set on this machine, or fetch what its protocol needs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vggfeat._io.assets import offline
from vggfeat._io.download import Checksums, Progress, download
from vggfeat.data.datasets.archives import unpack, unwrap, verify
from vggfeat.data.datasets.card import EVERY, Archive, DatasetCard
from vggfeat.data.datasets.voc import LISTS
from vggfeat.errors import DataNotFound, DownloadError

_YEAR = re.compile(r"VOC\d{4}")


def data_folder(root: str | Path | None = None) -> Path:
    """Folder of the data: the one that is named, else ``VGGFEAT_DATA``, else ``./data``.

    Examples
    --------
    >>> data_folder("elsewhere").name
    'elsewhere'
    """
    return Path(root or os.environ.get("VGGFEAT_DATA") or "data").expanduser()


def find_tree(card: DatasetCard, base: Path) -> Path | None:
    """Find the tree of a data set at or below a folder.

    The folder may be the tree itself (``VOC2007``, ``101_ObjectCategories``), the one above it
    (``VOCdevkit``), or one that holds either, directly or in a folder of its own.
    """
    return next((path for path in _candidates(card, base) if _fits(card, path)), None)


def provide(
    card: DatasetCard,
    base: Path,
    needs: Sequence[str],
    *,
    fetch: bool = True,
    allow_partial: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Return the tree of a data set, with the archives unpacked that it lacks.

    Parameters
    ----------
    card : DatasetCard
        The data set.
    base : Path
        Where to look, and where to put what is fetched.
    needs : sequence of str
        Parts that are wanted; no archive is fetched for any other.
    fetch : bool
        Whether an archive that is not here may be downloaded.
    allow_partial : bool
        Whether a tree will do as it is.
    progress : callable, optional
        Called with the bytes so far and in all of each download.

    Raises
    ------
    DataNotFound
        If something is not here and may not, or cannot, be downloaded: with what to put where.
    DownloadError
        If a download fails.
    DataError
        If an archive is not what the card says.
    """
    tree = find_tree(card, base)
    for archive in _lacking(card, tree, needs):
        path = _lying(archive, base, tree)
        if path is None and tree is not None and allow_partial:
            continue
        if path is None and fetch and not offline() and _addresses(archive):
            path = _fetched(card, archive, base, progress)
        if path is None:
            raise DataNotFound(*not_here(card, base, tree, needs))
        verify(path, archive)
        tree = tree or base / card.folder
        unpack(path, card.folder, tree, archive.proof)
    if tree is None:
        raise DataNotFound(*not_here(card, base, tree, needs))
    return tree


def _candidates(card: DatasetCard, base: Path) -> Iterator[Path]:
    name = Path(card.folder).name
    yield from (base / card.folder, base / name, base)
    for pattern in (f"*/{card.folder}", f"*/{name}"):
        yield from sorted(base.glob(pattern))


def _fits(card: DatasetCard, tree: Path) -> bool:
    if not tree.is_dir():
        return False
    if card.protocol.kind == "voc":
        # The tree of another year has the same folders, but not the same images.
        named = tree.resolve().name
        other = _YEAR.fullmatch(named) is not None and named != Path(card.folder).name
        return not other and (tree / "ImageSets" / LISTS[card.protocol.task]).is_dir()
    if card.reader == "ilsvrc":
        return (tree / "val").is_dir()
    return any((tree / name).is_dir() for name in card.classes)


def _lacking(card: DatasetCard, tree: Path | None, needs: Sequence[str]) -> list[Archive]:
    return [
        archive
        for archive in card.archives
        if set(needs) & {*archive.needed_for} or EVERY in archive.needed_for
        if tree is None or not (tree / archive.proof).exists()
    ]


def _lying(archive: Archive, base: Path, tree: Path | None) -> Path | None:
    """Find an archive that someone has put beside the data, taking it out of its wrapper."""
    folders = [base, *(list(tree.parents)[:2] if tree else [])]
    for folder in folders:
        if (folder / archive.file).is_file():
            return folder / archive.file
        if archive.wrapper and (folder / archive.wrapper.file).is_file():
            return _unwrapped(archive, folder / archive.wrapper.file)
    return None


def _unwrapped(archive: Archive, path: Path) -> Path:
    assert archive.wrapper is not None
    target = path.with_name(archive.file)
    unwrap(path, archive.wrapper.member, target, archive.bytes)
    return target


def _addresses(archive: Archive) -> tuple[str, ...]:
    return archive.wrapper.urls if archive.wrapper else archive.urls


def _fetched(card: DatasetCard, archive: Archive, base: Path, progress: Progress | None) -> Path:
    try:
        if archive.wrapper is None:
            checksums = Checksums(archive.sha256, archive.md5, size=archive.bytes)
            return download(archive.urls, base / archive.file, checksums, progress)
        wrapper = archive.wrapper
        checksums = Checksums(size=wrapper.bytes)
        path = download(wrapper.urls, base / wrapper.file, checksums, progress)
    except DownloadError as error:
        raise DownloadError(*error.lines, *_by_hand(card, [archive], base)) from error
    return _unwrapped(archive, path)


def not_here(card: DatasetCard, base: Path, tree: Path | None, needs: Sequence[str]) -> list[str]:
    """Say what is not here, and what to put where, line by line."""
    what = card.title or card.name
    lacking = _lacking(card, tree, needs)
    if tree is not None:
        parts = dict.fromkeys(part for one in lacking for part in one.needed_for if part in needs)
        said = f"{what} in {tree} lacks {', '.join(parts) or 'a part'}."
        partial = ", or use it as it is with --allow-partial"
    else:
        said, partial = f"{what} is not in {base}{os.sep}.", ""
    fetchable = [archive for archive in lacking if _addresses(archive)]
    do = f"Run `vggfeat datasets fetch {card.name}`, or point" if fetchable else "Point"
    if fetchable and offline():
        do = "VGGFEAT_OFFLINE forbids the network. Unset it and " + do[0].lower() + do[1:]
    message = f"{said} {do} --root at an existing {Path(card.folder).parts[0]}{partial}."
    return [message, *_by_hand(card, lacking, base)] if lacking else [message]


def _by_hand(card: DatasetCard, archives: Sequence[Archive], base: Path) -> list[str]:
    """Say which files to put where, without a network or where an account is asked for."""
    lines = [f"By hand, put into {base}{os.sep}, as it is (it is verified and unpacked there):"]
    for archive in archives:
        size = f"{archive.bytes:,} bytes, " if archive.bytes else ""
        digest = f"sha256 {archive.sha256}" if archive.sha256 else f"md5 {archive.md5}"
        places = _addresses(archive) or (card.source,)
        inside = f" ({archive.wrapper.member} in it)" if archive.wrapper else ""
        lines.append(f"  {archive.file} ({size}{digest}) from {' or '.join(places)}{inside}")
    return lines
