"""Original archives: verified, unpacked inside their folder only, and whole or not at all."""

from __future__ import annotations

import shutil
import struct
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from vggfeat._io.atomic import make_folder, replacing, temporary_beside
from vggfeat._io.download import Checksums
from vggfeat.data.datasets.card import Archive
from vggfeat.data.sources import tarring
from vggfeat.errors import DataError, VggfeatError

MOST_MEMBERS = 2_000_000
LARGEST_RATIO = 20  # of unpacked to packed bytes; photographs do not compress
SMALLEST_LIMIT = 1 << 20
# An encrypted or unknown zip is a RuntimeError, NotImplementedError included.
_DAMAGED = (*tarring.DAMAGED, zipfile.BadZipFile, RuntimeError, struct.error)


def verify(path: Path, archive: Archive) -> None:
    """Check a file's size and checksums against the card.

    Raises
    ------
    DataError
        With what was expected and what was found.
    """
    checksums = Checksums(archive.sha256, archive.md5, size=archive.bytes)
    if broken := checksums.mismatch(path):
        raise DataError(
            f"{path} is not the {archive.file} of the card: {broken}. Remove it, and fetch it anew."
        )


def unpack(path: Path, folder: str, target: Path, proof: str = "") -> None:
    """Unpack one folder of a tar archive to a place of its own, or into what is already there.

    The members go to a temporary folder first and are renamed into place; the one that proves
    that the archive was unpacked comes last, so an interrupted run unpacks again.

    Parameters
    ----------
    path : Path
        The archive, verified: a cut between two members shows in its checksum alone.
    folder : str
        Path of the wanted folder inside it.
    target : Path
        Where that folder goes.
    proof : str
        Path below it that is renamed last.

    Raises
    ------
    DataError
        If the archive is damaged, lacks the folder, or holds what no data set needs: absolute
        paths, ``..``, links, devices, or far more than its size.
    """
    make_folder(target.parent)
    with temporary_beside(target) as temporary:
        _extract(path, temporary)
        source = temporary / folder
        if not source.is_dir():
            raise DataError(f"{path} holds no {folder}/. It is not the archive it is named for.")
        _merge(source, target, source / proof)


def unwrap(path: Path, member: str, target: Path, size: int | None) -> None:
    """Take one file out of a zip archive.

    Raises
    ------
    DataError
        If the archive is damaged, has no such member, or one that is not of `size` bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive, replacing(target) as temporary:
            found = archive.getinfo(member)
            most = max(LARGEST_RATIO * found.compress_size, SMALLEST_LIMIT)
            if found.file_size > most:
                raise DataError(
                    f"{path}: {member} unpacks to more than {most:,} bytes: it was not unpacked."
                )
            if size is not None and found.file_size != size:
                raise DataError(
                    f"{path}: {member} has {found.file_size:,} bytes, expected {size:,}."
                )
            with archive.open(found) as packed, temporary.open("wb") as out:
                shutil.copyfileobj(packed, out)
    except VggfeatError:
        raise
    except KeyError as error:
        raise DataError(f"{path} holds no {member}.") from error
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged: {error}. Fetch it anew.") from error


def _extract(path: Path, into: Path) -> None:
    limit = max(LARGEST_RATIO * path.stat().st_size, SMALLEST_LIMIT)
    total = 0
    try:
        with path.open("rb") as file, tarring.opened(file, packed=True) as archive:
            for number, member in enumerate(tarring.members(archive), 1):
                total += member.size
                if number > MOST_MEMBERS or total > limit:
                    raise DataError(
                        f"{path} unpacks to more than {limit:,} bytes or {MOST_MEMBERS:,} files: "
                        "it was not unpacked."
                    )
                _write(archive, member, _inside(into, member, path), path)
    except DataError:
        raise
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged: {error}. Fetch it anew.") from error


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, path: Path) -> None:
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    packed: IO[bytes] | None = None
    if member.isreg() and not member.issparse():
        packed = archive.extractfile(member)
    if packed is None:
        raise DataError(
            f"{path}: {member.name!r} is a link, a device or a sparse file, which no data set "
            "needs. It was not unpacked."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        shutil.copyfileobj(packed, out)


def _inside(into: Path, member: tarfile.TarInfo, path: Path) -> Path:
    """Path of a member below the folder; backslashes and drives lead out of it on Windows."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or {"\\", ":", "\0"} & set(member.name):
        raise DataError(f"{path}: {member.name!r} leads out of the folder. It was not unpacked.")
    return into / name


def _merge(source: Path, target: Path, last: Path) -> None:
    """Move a file or folder to a place where a part of it may already be."""
    if source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir(), key=lambda path: (path in _way(last), path)):
            _merge(child, target / child.name, last)
    else:
        source.replace(target)


def _way(path: Path) -> set[Path]:
    return {path, *path.parents}
