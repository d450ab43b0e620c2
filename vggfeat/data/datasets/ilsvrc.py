"""ILSVRC-2012's tar files, whose images are read where they lie, without unpacking.

``ILSVRC2012_img_train.tar`` holds a tar file for each class; ``ILSVRC2012_img_val.tar`` holds
images. Neither is compressed, so an image is a run of bytes of the archive: where each begins
is found once, by walking the headers, and remembered in vggfeat's home.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import warnings
import zipfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat._io.assets import home
from vggfeat._io.atomic import file_lock, make_folder, write_atomic
from vggfeat._io.download import Progress
from vggfeat.data.datasets.voc import SUFFIX, Annotation, parse_annotation
from vggfeat.data.identity import is_settled
from vggfeat.data.image import EXTENSIONS
from vggfeat.data.sources import tarring
from vggfeat.errors import DataError, DataNotFound, PictureError, StoreError

Names: TypeAlias = NDArray[np.bytes_]
Ints: TypeAlias = NDArray[np.int64]
Place: TypeAlias = tuple[str, int, int]  # name, offset, size
LARGEST = 1 << 20  # bytes of an annotation; the longest of ILSVRC has 20,000
_FORMAT = 1  # of the remembered index


@dataclass(frozen=True, eq=False)
class TarImages:
    """Images in a tar file, or in tar files inside it, read by their offset.

    Nothing is kept open, so that it may be sent to, or inherited by, any number of processes; and
    its arrays are compact, since each process has them (40 bytes and a name for an image).

    Parameters
    ----------
    archive : Path
    names : ndarray (N,) of bytes
        Such as ``n01440764/n01440764_10026.JPEG``: the inner tar file's name is the folder.
    offsets, sizes : ndarray (N,) of int64
        Where the bytes of each image begin in the archive, and how many they are.
    """

    archive: Path
    names: Names
    offsets: Ints
    sizes: Ints

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """Name of an image inside the archive."""
        return os.fsdecode(bytes(self.names[row]))

    def read(self, row: int) -> bytes:
        """Read the bytes of an image.

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

    def take(self, rows: ArrayLike) -> TarImages:
        """Keep these rows, in this order."""
        kept = np.asarray(rows, dtype=np.int64)
        return replace(
            self, names=self.names[kept], offsets=self.offsets[kept], sizes=self.sizes[kept]
        )


def read_tar(archive: Path, progress: Progress | None = None) -> TarImages:
    """Find the images of an archive: in the index that is remembered, or by its headers.

    For the 138 GB of ILSVRC's training images the first call takes minutes; later ones, while
    the file is the same, a second.

    Parameters
    ----------
    archive : Path
        A tar file of images, or of tar files of images, uncompressed.
    progress : callable, optional
        Called with the bytes walked so far and in all.

    Raises
    ------
    DataNotFound
        If there is no such file, or it holds no images.
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


def _indexed(archive: Path, total: int, progress: Progress | None) -> TarImages:
    names: list[bytes] = []
    places: list[tuple[int, int]] = []
    try:
        with archive.open("rb", buffering=2 * tarfile.BLOCKSIZE) as file:  # headers, not images
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
    return _sorted(TarImages(archive, np.array(names), offsets, sizes))


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


def _sorted(index: TarImages) -> TarImages:
    """Order images by name, as a listed folder is, so that both are the same training set."""
    return index.take(np.argsort(index.names, kind="stable"))


def _remembered(path: Path, archive: Path, identity: str) -> TarImages | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as index:
            if str(index["identity"]) != identity:
                return None
            return TarImages(archive, index["names"], index["offsets"], index["sizes"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or damaged: it is made anew


def _remember(path: Path, index: TarImages, identity: str) -> None:
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


def read_annotations(
    source: Path,
    classes: Collection[str] | None = None,
    pictures: Collection[str] | None = None,
) -> dict[str, Annotation]:
    """Read all XML files of a folder, at any depth, or of a tar file.

    Parameters
    ----------
    source : Path
        For ILSVRC, its folder of boxes (``train/n01440764/n01440764_18.xml``, or flat), or the
        tar file they come in, compressed or not.
    classes : collection of str, optional
        Keep only objects of these; an image without any is left out.
    images : collection of str, optional
        Read only the files of these, named without a suffix; which spares half a million files
        where only ILSVRC's validation is wanted.

    Returns
    -------
    dict
        By the name of the image, without a suffix and without folders; sorted.

    Raises
    ------
    DataNotFound
        If there is no such folder or file, or it holds no annotations.
    DataError
        If an annotation, or the tar file, is damaged or cannot be read.
    """
    found: dict[str, Annotation] = {}
    seen = False
    for name, content in _files(source, pictures):
        seen = True
        if content is None:
            continue
        one = parse_annotation(content, f"{source}: {name}")
        one = one if classes is None else one.named(classes)
        if one.objects:
            found[_stem(name)] = one
    if not seen:
        raise DataNotFound(
            f"{source} holds no annotations. Name a folder or a tar file of {SUFFIX} files, one "
            "for each picture."
        )
    return dict(sorted(found.items()))


def _files(source: Path, pictures: Collection[str] | None) -> Iterator[tuple[str, bytes | None]]:
    """Go through the names of all annotations, with the contents of those of some images."""
    if source.is_dir():
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                if name.endswith(SUFFIX):
                    wanted = _wanted(name, pictures)
                    yield name, _read_file(Path(folder, name)) if wanted else None
        return
    if not source.is_file():
        raise DataNotFound(f"There is no {source}. Name a folder or a tar file of {SUFFIX} files.")
    try:
        with source.open("rb") as file, tarring.opened(file, packed=True) as archive:
            yield from _members(archive, pictures)
    except DataError:
        raise
    except tarring.DAMAGED as error:
        raise DataError(
            f"{source} is no tar file, or is damaged: {error}. Fetch it anew."
        ) from error


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _wanted(name: str, pictures: Collection[str] | None) -> bool:
    return pictures is None or _stem(name) in pictures


def _members(
    archive: tarfile.TarFile, pictures: Collection[str] | None, *, nested: bool = True
) -> Iterator[tuple[str, bytes | None]]:
    """Go through the annotations of a tar file, and of tar files in it, one for each synset."""
    for member in tarring.members(archive):
        file = archive.extractfile(member) if member.isreg() else None
        if file is None:
            continue
        if member.name.endswith(SUFFIX):
            if member.size > LARGEST:
                raise DataError(f"{member.name} has {member.size:,} bytes: it is no annotation.")
            yield member.name, file.read() if _wanted(member.name, pictures) else None
        elif nested and member.name.endswith((".tar", ".tar.gz", ".tgz")):
            with tarring.opened(file, packed=True) as inner:
                yield from _members(inner, pictures, nested=False)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
