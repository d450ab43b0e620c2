"""Files and folders of images, and lists of a million of them that many processes can hold."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat._io.remote import is_address
from vggfeat.data.image import EXTENSIONS, HEAD, ImageRef, is_drawing, is_encoded, read_encoded
from vggfeat.data.left_out import LeftOut
from vggfeat.data.names import is_hidden
from vggfeat.data.sources.remote import RemoteImage
from vggfeat.errors import DataError

Names: TypeAlias = NDArray[np.bytes_]
Ints: TypeAlias = NDArray[np.int64]

# A feature store, as `vggfeat extract` keeps it in a folder: no word is lost on its files.
_STORE, _STORE_FOLDERS = {"manifest.json", "features.h5"}, {"shards", "columns"}
# Files of these suffixes are not opened to see whether they are images: they lie beside images by
# the million, are incomplete or old copies, or raw images that have a small one in them.
_NO_IMAGES = """
    txt xml json jsonl csv tsv md rst pdf html htm log yaml yml toml ini cfg py ipynb js css sh cls
    npy npz pt pth pkl h5 hdf5 mat onnx safetensors caffemodel parquet pq db sqlite bbox
    zip tar gz tgz bz2 xz zst 7z rar lock bak orig old tmp part partial crdownload download swp
    mp4 mov avi mkv webm mp3 wav doc docx xls xlsx ppt pptx svg eps ps ai psd xcf ico
    cr2 cr3 crw nef nrw arw srf sr2 dng orf rw2 pef srw raf raw rwl iiq 3fr fff kdc dcr mrw x3f
    svs ndpi scn vms vsi czi lsm nd2 lif
"""
_OTHERS = frozenset("." + suffix for suffix in _NO_IMAGES.split())


class EncodedImages(ABC):
    """A compact list of encoded images, which are read one by one: files, or members of a tar."""

    names: Names
    """Names (N,), as bytes."""

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """Return the name of an image."""
        return os.fsdecode(bytes(self.names[row]))

    def read(self, row: int) -> bytes:
        """Read the file of an image, whole; ImageError if that cannot be done."""
        content = read_encoded(self.image(row))
        assert content is not None
        return content

    @abstractmethod
    def image(self, row: int) -> Path | ImageRef:
        """Return where an image is."""

    @abstractmethod
    def take(self, rows: ArrayLike) -> Self:
        """Keep these rows, in this order."""


@dataclass(frozen=True, eq=False)
class FileImages(EncodedImages):
    """Images that are files below a folder, or at other `places` if names are not their paths.

    Examples
    --------
    >>> images = FileImages(Path("photos"), np.array([b"a/1.jpg", b"a/2.jpg"]))
    >>> images.name(1), images.image(1), len(images.take([1]))
    ('a/2.jpg', ...Path('photos/a/2.jpg'), 1)
    """

    root: Path
    names: Names
    places: Names | None = None

    def image(self, row: int) -> Path | ImageRef:
        """Return where an image is."""
        places = self.names if self.places is None else self.places
        place = os.fsdecode(bytes(places[row]))
        return RemoteImage(place) if is_address(place) else self.root / place

    def take(self, rows: ArrayLike) -> Self:
        """Keep these rows, in this order."""
        kept = np.asarray(rows, dtype=np.int64)
        places = None if self.places is None else self.places[kept]
        return replace(self, names=self.names[kept], places=places)


def list_files(root: Path, folders: Iterable[Path], left_out: LeftOut | None = None) -> FileImages:
    """List the images below some folders of a root."""
    start = len(root.absolute().as_posix().rstrip("/")) + 1
    paths = (path for at in folders for path in walk(at.absolute(), left_out, root.absolute()))
    names = [os.fsencode(path.as_posix()[start:]) for path in paths]
    return FileImages(root, np.array(names, dtype=np.bytes_))


def walk(folder: Path, left_out: LeftOut | None = None, root: Path | None = None) -> Iterator[Path]:
    """Go through the images below a folder, sorted, without hidden ones.

    What else is there is added to `left_out`, by its path from `root` on if there is one. A file
    is an image by its suffix, or by its first bytes where the suffix says nothing.

    Raises
    ------
    DataError
        If a folder cannot be read.
    """
    left_out = LeftOut() if left_out is None else left_out

    def name_of(path: Path) -> str:
        return (path.relative_to(root) if root else path).as_posix()

    seen: dict[Path, Path] = {}
    for parent, folders, files in os.walk(folder, onerror=_unreadable, followlinks=True):
        # A folder reached in two ways is searched once, so that links cannot lead round in circles.
        here = Path(parent)
        if (first := seen.setdefault(here.resolve(), here)) is not here:
            folders.clear()
            left_out.linked[name_of(here)] = name_of(first)
            continue
        is_store = {*files} >= _STORE
        own = _STORE_FOLDERS if is_store else set()
        folders[:] = sorted(name for name in folders if not is_hidden(name) and name not in own)
        of_drawings = None  # which the first image of a folder tells
        for name in sorted(files):
            path = here / name
            if is_image(path) or _begins_as_image(path):
                if of_drawings is None:
                    of_drawings = is_drawing(_head(path))
                if of_drawings and is_drawing(_head(path)):
                    left_out.drawings.append(name_of(path))
                else:
                    yield path
            elif not (is_store or is_hidden(name)):
                left_out.add_file(name_of(path))


def is_image(path: Path) -> bool:
    """Tell an image by its name."""
    return path.suffix.lower() in EXTENSIONS and not is_hidden(path.name)


def _begins_as_image(path: Path) -> bool:
    """Tell an image by its first bytes, where its name is not that of another kind of file."""
    if is_hidden(path.name) or path.name.endswith("~") or path.suffix.lower() in _OTHERS:
        return False
    return is_encoded(_head(path))


def _head(path: Path) -> bytes:
    """Read the first bytes of a file; none of what is no file, or cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return b""
        with path.open("rb", buffering=0) as file:
            return file.read(HEAD)
    except OSError:
        return b""


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"The folder {error.filename} cannot be read: {error.strerror}. Allow it to be read, or "
        "name the folders that may be."
    ) from error
