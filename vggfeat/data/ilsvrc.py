"""ILSVRC-2012's tar files, whose pictures are read where they lie, without unpacking.

``ILSVRC2012_img_train.tar`` holds a tar file for each class; ``ILSVRC2012_img_val.tar`` holds
pictures. Neither is compressed, so a picture is a run of bytes of the archive: where each begins
is found once, by walking the headers, and remembered in vggfeat's home.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat._io.assets import home
from vggfeat._io.atomic import file_lock, make_folder, write_atomic
from vggfeat._io.download import Progress
from vggfeat.data import tarring
from vggfeat.data.images import EXTENSIONS
from vggfeat.data.stored import is_settled
from vggfeat.errors import DataError, DataNotFound, PictureError, StoreError

Names: TypeAlias = NDArray[np.bytes_]
Ints: TypeAlias = NDArray[np.int64]
Place: TypeAlias = tuple[str, int, int]  # name, offset, size
_FORMAT = 1  # of the remembered index


@dataclass(frozen=True, eq=False)
class TarPictures:
    """Pictures in a tar file, or in tar files inside it, read by their offset.

    Nothing is kept open, so that it may be sent to, or inherited by, any number of processes; and
    its arrays are compact, since each process has them (40 bytes and a name for a picture).

    Parameters
    ----------
    archive : Path
    names : ndarray (N,) of bytes
        Such as ``n01440764/n01440764_10026.JPEG``: the inner tar file's name is the folder.
    offsets, sizes : ndarray (N,) of int64
        Where the bytes of each picture begin in the archive, and how many they are.
    """

    archive: Path
    names: Names
    offsets: Ints
    sizes: Ints

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """Name of a picture inside the archive."""
        return os.fsdecode(bytes(self.names[row]))

    def read(self, row: int) -> bytes:
        """Read the bytes of a picture.

        Raises
        ------
        PictureError
            If the archive cannot be read there.
        """
        size = int(self.sizes[row])
        try:
            with self.archive.open("rb", buffering=0) as file:
                file.seek(int(self.offsets[row]))
                content = _exactly(file, size)
        except OSError as error:
            raise PictureError(f"{self.archive.name}: {error.strerror or error}") from error
        if len(content) < size:
            raise PictureError(f"{self.archive.name} ends within it")
        return content

    def take(self, rows: ArrayLike) -> TarPictures:
        """Keep these rows, in this order."""
        kept = np.asarray(rows, dtype=np.int64)
        return replace(
            self, names=self.names[kept], offsets=self.offsets[kept], sizes=self.sizes[kept]
        )


def read_tar(archive: Path, progress: Progress | None = None) -> TarPictures:
    """Find the pictures of an archive: in the index that is remembered, or by its headers.

    For the 138 GB of ILSVRC's training pictures the first call takes minutes; later ones, while
    the file is the same, a second.

    Parameters
    ----------
    archive : Path
        A tar file of pictures, or of tar files of pictures, uncompressed.
    progress : callable, optional
        Called with the bytes walked so far and in all.

    Raises
    ------
    DataNotFound
        If there is no such file, or it holds no pictures.
    DataError
        If it is no uncompressed tar file, or is damaged or cut off.
    """
    if not archive.is_file():
        raise DataNotFound(f"There is no file {archive}. Name the original, uncompressed tar file.")
    found = archive.stat()
    # A program can set the time of change as it likes, but not that of the file's own record.
    times = found.st_mtime_ns, found.st_ctime_ns
    identity = " ".join(map(str, (_FORMAT, found.st_size, found.st_ino, *times)))
    digest = hashlib.sha256(os.fsencode(archive.resolve())).hexdigest()[:16]
    remembered = home() / "indices" / f"{archive.stem}-{digest}.npz"
    index = _remembered(remembered, archive, identity)
    if index is not None:
        return index
    with ExitStack() as lock:
        with suppress(OSError):  # of a folder that may not be written, _remember tells
            remembered.parent.mkdir(parents=True, exist_ok=True)
            lock.enter_context(file_lock(remembered))
        index = _remembered(remembered, archive, identity)  # by another process meanwhile
        if index is None:
            settled = is_settled(*times)
            index = _indexed(archive, found.st_size, progress)
            if settled:
                _remember(remembered, index, identity)
    return index


def _exactly(file: io.RawIOBase | io.FileIO, size: int) -> bytes:
    """Read that many bytes, or all until the end: a raw file may give fewer than it was asked."""
    pieces: list[bytes] = []
    while size and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _indexed(archive: Path, total: int, progress: Progress | None) -> TarPictures:
    names: list[bytes] = []
    places: list[tuple[int, int]] = []
    try:
        with archive.open("rb", buffering=2 * tarfile.BLOCKSIZE) as file:  # headers, not pictures
            for name, offset, size in _walk(file, 0, total):
                names.append(os.fsencode(name))
                places.append((offset, size))
                if progress and len(names) % 1000 == 0:
                    progress(offset + size, total)
    except tarring.DAMAGED as error:
        raise DataError(
            f"{archive} cannot be read as an uncompressed tar file: {error}. If it is compressed, "
            "unpack it once (gunzip, unxz); else fetch it anew and compare its checksum."
        ) from error
    if not names:
        raise DataNotFound(f"{archive} holds no pictures, nor tar files with pictures.")
    if progress:
        progress(total, total)
    offsets, sizes = np.array(places, dtype=np.int64).T
    return _sorted(TarPictures(archive, np.array(names), offsets, sizes))


def _walk(file: IO[bytes], start: int, end: int, folder: str = "") -> Iterator[Place]:
    """Go through a tar file that lies in these bytes, and through those that lie in it."""
    file.seek(start)
    with tarring.opened(file) as archive:  # its offsets are those of the file
        for member in tarring.members(archive):
            first, last = member.offset_data, member.offset_data + member.size
            if last > end:
                raise tarfile.ReadError(f"it ends within {member.name}")
            path = PurePosixPath(member.name)
            if not member.isreg() or member.issparse():
                continue
            if path.suffix == ".tar" and not folder:
                yield from _walk(file, first, last, path.stem)
            elif path.suffix.lower() in EXTENSIONS and not path.name.startswith("."):
                yield (f"{folder}/{path.name}" if folder else str(path)), first, member.size
        _check_end(file, archive.offset)


def _check_end(file: IO[bytes], at: int) -> None:
    """Check that the headers end with zeros: tarfile takes a damaged one for the end as well."""
    file.seek(at)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it is cut off or damaged at byte {at:,}")


def _sorted(index: TarPictures) -> TarPictures:
    """Order pictures by name, as a listed folder is, so that both are the same training set."""
    return index.take(np.argsort(index.names, kind="stable"))


def _remembered(path: Path, archive: Path, identity: str) -> TarPictures | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as index:
            if str(index["identity"]) != identity:
                return None
            return TarPictures(archive, index["names"], index["offsets"], index["sizes"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or damaged: it is made anew


def _remember(path: Path, index: TarPictures, identity: str) -> None:
    content = io.BytesIO()
    np.savez(
        content, identity=identity, names=index.names, offsets=index.offsets, sizes=index.sizes
    )
    try:
        make_folder(path.parent)
        write_atomic(path, content.getvalue())
    except StoreError as error:
        warnings.warn(
            f"Where the pictures lie in {index.archive} could not be remembered in {path.parent} "
            f"({error.__cause__}), and will be looked for at every start. Set VGGFEAT_HOME to a "
            "folder that may be written.",
            stacklevel=3,
        )
