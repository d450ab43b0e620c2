"""Find a data set on this machine, or fetch what its protocol needs: verified, unpacked whole."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from vggfeat._io.assets import offline
from vggfeat._io.atomic import explain_os_errors, make_folder, replacing, temporary_beside
from vggfeat._io.download import Checksums, Progress, download
from vggfeat.data.datasets.card import EVERY, READERS, Archive, DatasetCard, File
from vggfeat.data.sources.tar import DAMAGED
from vggfeat.errors import DataError, DataNotFound, DownloadError, VggfeatError


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
    (``VOCdevkit``), or one that holds either, directly or in a folder of its own. If it holds
    several that make one tree, it counts as that.
    """
    reader, name = READERS[card.reader], Path(card.folder).name
    for folder in (base / card.folder, base / name, base):
        if folder.is_dir() and reader.is_tree(card, folder):
            return folder
    if len(reader.folders(card, base)) > 1:
        return base
    below = (path for pattern in (card.folder, name) for path in sorted(base.glob(f"*/{pattern}")))
    return next((path for path in below if path.is_dir() and reader.is_tree(card, path)), None)


def locate(card: DatasetCard, base: Path, needs: Sequence[str]) -> Path:
    """Return that tree; DataNotFound says what to put where."""
    tree = find_tree(card, base)
    if tree is None:
        raise DataNotFound(*_not_here(card, base, None, needs))
    return tree


def provide(
    card: DatasetCard,
    base: Path,
    needs: Sequence[str],
    *,
    fetch: bool = True,
    allow_partial: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Return the tree of a data set, at or below `base`, with the archives unpacked that it lacks.

    None is fetched for splits that are not in `needs`; the rest is as for
    :func:`~vggfeat.data.datasets.open_dataset`.

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
        if path is None and fetch and not offline() and archive.published.urls:
            path = _fetched(card, archive, base, progress)
        if path is None:
            raise DataNotFound(*_not_here(card, base, tree, needs))
        if broken := _checksums(archive).mismatch(path):
            raise DataError(
                f"{path} is not the {archive.file} of the card: {broken}. Remove it, and fetch it "
                "anew."
            )
        tree = tree or base / card.folder
        unpack(path, card.folder, _folders(card, tree)[0], archive.proof)
    return tree or locate(card, base, needs)


def _lacking(card: DatasetCard, tree: Path | None, needs: Sequence[str]) -> list[Archive]:
    return [
        archive
        for archive in card.archives
        if set(needs) & {*archive.needed_for} or EVERY in archive.needed_for
        if tree is None or not any((path / archive.proof).exists() for path in _folders(card, tree))
    ]


def _folders(card: DatasetCard, tree: Path) -> tuple[Path, ...]:
    return READERS[card.reader].folders(card, tree) or (tree,)


def _lying(archive: Archive, base: Path, tree: Path | None) -> Path | None:
    """Find an archive that someone has put beside the data, taking it out of its wrapper."""
    inside = Path(archive.wrapper.member if archive.wrapper else archive.file).parent
    for folder in (base, *(list(tree.parents)[:2] if tree else []), base / inside):
        if (folder / archive.file).is_file():
            return folder / archive.file
        if (folder / archive.published.file).is_file():
            return _unwrapped(archive, folder / archive.published.file)
    return None


def _unwrapped(archive: Archive, path: Path) -> Path:
    """Take an archive out of the file that it is published in."""
    if archive.wrapper is None:
        return path
    target = path.with_name(archive.file)
    unwrap(path, archive.wrapper.member, target)
    return target


def _checksums(file: File) -> Checksums:
    return Checksums(file.sha256, file.md5, size=file.bytes)


def _fetched(card: DatasetCard, archive: Archive, base: Path, progress: Progress | None) -> Path:
    file = archive.published
    try:
        path = download(file.urls, base / file.file, _checksums(file), progress)
    except DownloadError as error:
        raise DownloadError(*error.lines, *_by_hand(card, [archive], base)) from error
    return _unwrapped(archive, path)


def _not_here(card: DatasetCard, base: Path, tree: Path | None, needs: Sequence[str]) -> list[str]:
    """Say what is not here, and what to put where, line by line."""
    what = card.title or card.name
    lacking = _lacking(card, tree, needs)
    if tree is not None:
        splits = dict.fromkeys(s for archive in lacking for s in archive.needed_for if s in needs)
        said = f"{what} in {tree} lacks {', '.join(splits) or 'a part'}."
        partial = ", or use it as it is with --allow-partial"
    else:
        said, partial = f"{what} is not in {base}{os.sep}.", ""
    fetchable = [archive for archive in lacking if archive.published.urls]
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
        places = archive.published.urls or (card.source,)
        inside = f" ({archive.wrapper.member} in it)" if archive.wrapper else ""
        lines.append(f"  {archive.file} ({size}{digest}) from {' or '.join(places)}{inside}")
    return lines


def unpack(path: Path, folder: str, target: Path, proof: str = "") -> None:
    """Unpack one folder of a verified tar to a place of its own, or into what is already there.

    The members go to a temporary folder first and are renamed into place. `proof`, a path below the
    folder that proves that the archive was unpacked, comes last: an interrupted run unpacks again.

    Raises
    ------
    DataError
        If the archive is damaged, lacks the folder, or has a link or what
        :func:`tarfile.data_filter` refuses: a member that leads out of its folder, or a device.
    StoreError
        If the folder cannot be written.
    """

    def refuse_links(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        # Within its archive a link leads nowhere else, but another may be unpacked through it.
        if member.issym() or member.islnk():
            raise DataError(f"{path} was not unpacked: {member.name} in it is a link.")
        return tarfile.data_filter(member, folder)

    make_folder(target.parent)
    with temporary_beside(target) as temporary:
        try:
            with tarfile.open(path) as archive:
                archive.extractall(temporary, filter=refuse_links)  # noqa: S202 (the data filter, and no links)
        except VggfeatError:
            raise
        except (*DAMAGED, LookupError, RecursionError) as error:  # of links to links, too
            if isinstance(error, OSError) and error.errno:
                with explain_os_errors(target):
                    raise
            raise DataError(f"{path} was not unpacked, it is damaged: {error}") from error
        source = temporary / folder
        if not source.is_dir():
            raise DataError(f"{path} holds no {folder}/. It is not the archive it is named for.")
        _merge(source, target, source / proof)


def unwrap(path: Path, member: str, target: Path) -> None:
    """Take one file out of a zip archive.

    Raises
    ------
    DataError
        If the archive is damaged, or has no such member.
    """
    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(member) as packed,
            replacing(target) as temporary,
            temporary.open("wb") as out,
        ):
            shutil.copyfileobj(packed, out)
    except VggfeatError:
        raise
    except KeyError as error:
        raise DataError(f"{path} holds no {member}.") from error
    except (*DAMAGED, zipfile.BadZipFile, RuntimeError) as error:  # of an encrypted one
        raise DataError(f"{path} is damaged: {error}. Fetch it anew.") from error


def _merge(source: Path, target: Path, last: Path) -> None:
    """Move a file or folder to a place where a part of it may already be."""
    if source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir(), key=lambda path: (last.is_relative_to(path), path)):
            _merge(child, target / child.name, last)
    else:
        source.replace(target)
