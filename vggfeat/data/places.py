"""Where images are, from whatever folder a program runs, and whether they are still the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vggfeat._io.remote import is_address
from vggfeat.data.identity import NOWHERE, digest, stamp_of
from vggfeat.data.image import Crop, ImageLike, ImageRef, Stamp, read_encoded
from vggfeat.data.sources.tar import TarMember


@dataclass(frozen=True)
class TrackedImage(ImageRef):
    """An image that is told from any other that has been at its place.

    To the stamp of an image it adds the number of its file and when that was changed, which no
    program sets: an image that took the place of one of its size and time is another. Stores do
    without, as copies of a folder on several machines differ in both.
    """

    image: Path | ImageRef
    file: Path  # itself, or the tar that holds it

    def read(self) -> bytes:
        """Read the file of the image, whole."""
        content = read_encoded(self.image)
        assert content is not None
        return content

    def stamp(self) -> Stamp:
        """Tell it from what else has, or had, its name, without reading it."""
        try:
            status = self.file.stat()
        except (OSError, ValueError):
            return NOWHERE  # reading will say what is wrong with it
        known = stamp_of(self.image)
        times = status.st_mtime_ns, status.st_ctime_ns
        return digest(*known, status.st_size, status.st_ino), digest(*times)

    def __str__(self) -> str:
        return str(self.image)


def absolute(image: ImageLike) -> ImageLike:
    """Name an image's file from the root, as it is read from other folders too.

    Examples
    --------
    >>> str(absolute("/data/a.jpg"))
    '/data/a.jpg'
    """
    if isinstance(image, Crop) and isinstance(image.path, Path):
        return replace(image, path=image.path.absolute())
    if isinstance(image, TarMember) and not is_address(image.archive):
        return replace(image, archive=str(Path(image.archive).absolute()))
    return Path(image).absolute() if isinstance(image, str | Path) else image


def tracked(image: ImageLike) -> ImageLike:
    """Return an image that is named from the root, and tracked if it is a file or in a local tar.

    Examples
    --------
    >>> str(tracked("/data/a.jpg")), type(tracked("/data/a.jpg")).__name__
    ('/data/a.jpg', 'TrackedImage')
    """
    image = absolute(image)
    if isinstance(image, Path):
        return TrackedImage(image, image)
    if isinstance(image, Crop) and isinstance(image.path, Path):
        return replace(image, path=TrackedImage(image.path, image.path))
    if isinstance(image, TarMember) and not is_address(image.archive):
        return TrackedImage(image, Path(image.archive))
    return image
