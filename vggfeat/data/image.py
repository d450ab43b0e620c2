"""An image: a reference to its bytes; decoded as RGB; rescaled isotropically to smallest side Q."""

from __future__ import annotations

import errno
import io
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from vggfeat._io.text import printable
from vggfeat.errors import ImageError, ParameterError
from vggfeat.settings import UPRIGHT, Decoding

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax in pixels from 1 on, both ends included, as VOC has them."""
Stamp = tuple[int, int]


class ImageRef(ABC):
    """Where the encoded bytes of an image are, and nothing of them: small, and picklable.

    A million of these wait in a list while a few are decoded, in a thread of this process or in
    a worker on another machine. Their texts, ``str`` and ``repr``, hold no credentials.
    """

    __slots__ = ()

    @abstractmethod
    def read(self) -> bytes:
        """Read the file of the image, whole.

        Raises
        ------
        ImageError
            With the reason, if it cannot be read; whoever tries later may have more luck.
        """

    @abstractmethod
    def stamp(self) -> Stamp:
        """Tell it from what else has, or had, its name, without reading it: two int64."""


@dataclass(frozen=True)
class Crop:
    """A box of an image, cut out when it is decoded."""

    path: Path | ImageRef
    box: Box


ImageLike = str | Path | bytes | Image.Image | npt.NDArray[Any] | Crop | ImageRef
"""A path, the bytes of a file, or pixels; see :func:`decode`."""

# What the machine lacks is no fault of an image: a run that went on would call all of them bad.
LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
LARGEST = 1 << 29  # bytes of an image's file; more is a mistake
# Largest image that rescaling makes. Net D takes 12 s of two cores for a million pixels; this
# still admits images 64 times as long as wide at Q = 512, and squares at Q = 4096.
MOST_RESCALED = 1 << 24
DECODER = "pillow"
RESAMPLING = "pillow-bilinear-antialias"
# What a folder of images may hold; Pillow's other readers are left out, since some of them
# start programs (EPS) and all of them widen what a hostile file can reach.
KNOWN = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")
with suppress(ImportError):  # an extra; registered here, before any thread decodes
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False)
Image.preinit()  # half of them; `init` would import forty more
for _reader in ("Avif", "Tiff", "WebP"):
    with suppress(ImportError):  # of AVIF, Pillow 11.2 has the first
        import_module(f"PIL.{_reader}ImagePlugin")
FORMATS = tuple(name for name in KNOWN if name in Image.OPEN)
_KINDS = {".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF"}
_SUFFIXES = "jpg jpeg jpe jfif mpo png apng webp gif bmp dib tif tiff ppm pgm pnm"
EXTENSIONS = frozenset("." + suffix for suffix in _SUFFIXES.split()) | {*_KINDS}
# What vggfeat draws of images has this in its first bytes, where PNG and JPEG keep a comment.
DRAWN = b"drawn by vggfeat"
HEAD = 512  # bytes by which an image is known, whatever it is called, and a drawing
_AVIF_BRANDS, _HEIF_BRANDS = b"avi[fs]", b"he[iv][cxms]|m[is]f1"
_HEADS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF.{4}WEBP|GIF8[79]a|II[*+]\0|MM\0[*+]|P[1-6]\s+[\d#]|"
    rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0|.{4}ftyp(?:%b|%b)"
    % (_AVIF_BRANDS, _HEIF_BRANDS),
    re.DOTALL,
)
_BRANDS = {"AVIF": re.compile(_AVIF_BRANDS), "HEIF": re.compile(_HEIF_BRANDS)}
_LACKING = {
    "AVIF": "an AVIF image, which this Pillow cannot decode; pip install -U pillow",
    "HEIF": 'a HEIC image, which takes an extra: pip install "vggfeat[heif]"',
}
_SIXTEEN_BIT = 65535
LONGEST_REASON = 300  # characters of a decoder's complaint that are kept
_ORIENTATION_TAG = 0x0112
# What makes an image upright, for each orientation that EXIF knows besides 1.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = range(5, 9)  # of these, width and height are exchanged


# Pillow refuses a PNG whose comments or colour profile, which nobody needs here, unpack to more
# than a megabyte: programs that draw images write whole workflows there.
TEXT_BYTES = 64 << 20
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, TEXT_BYTES)
PngImagePlugin.MAX_TEXT_MEMORY = max(PngImagePlugin.MAX_TEXT_MEMORY, TEXT_BYTES)


def is_encoded(head: bytes) -> bool:
    """Tell the first bytes of an image, of a format that is read, from those of other files.

    Examples
    --------
    >>> [is_encoded(head) for head in (b"GIF89a", b"P6 640 480", b"%PDF-1.7", b"")]
    [True, True, False, False]
    """
    return _HEADS.match(head) is not None


def is_drawing(head: bytes) -> bool:
    """Tell the first bytes of what vggfeat drew itself from those of a user's own images."""
    return DRAWN in head[:HEAD]


def lacking_decoder(name: str) -> str:
    """Say what decodes an image of this name, if this machine lacks it; else nothing."""
    kind = _KINDS.get(os.path.splitext(name)[1].lower())  # noqa: PTH122  # a million of them
    return _LACKING[kind] if kind and kind not in FORMATS else ""


def max_pixels() -> int:
    """Return the pixels of the largest image that is decoded: Pillow's limit for its error."""
    return 2 * (Image.MAX_IMAGE_PIXELS or 2**31)


@contextmanager
def open_encoded(file: bytes | BinaryIO | Path) -> Iterator[Image.Image]:
    """Open an encoded image, of which only the head is read at first.

    Raises
    ------
    ImageError
        With the reason in one line, whatever a decoder raises here or in the block.
    """
    if file == b"":
        raise ImageError("the file is empty")
    try:
        source = io.BytesIO(file) if isinstance(file, bytes) else file
        with Image.open(source, formats=FORMATS) as image:
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(_describe_unknown(file)) from error
    # Decoders of damaged files raise errors of a dozen classes; all mean the same here.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in LACKING:
            raise
        raise ImageError(_reason(error)) from error


def decoded_size(file: bytes | BinaryIO | Path, decoding: Decoding = UPRIGHT) -> tuple[int, int]:
    """Read the width and height that an encoded image has once it is decoded, from its head."""
    with open_encoded(file) as image:
        width, height = image.size
        on_its_side = decoding.exif and orientation_of(image) in _ON_ITS_SIDE
        return (height, width) if on_its_side else (width, height)


def read_encoded(image: ImageLike) -> bytes | None:
    """Read the file of an image, whole and once; None for what is no file.

    Raises
    ------
    ImageError
        With the reason, if it cannot be read.
    """
    if isinstance(image, Crop):
        return read_encoded(image.path)
    if isinstance(image, ImageRef):
        content = image.read()
    elif isinstance(image, str | Path):
        content = _read_file(Path(image))
    elif isinstance(image, bytes):
        content = image
    else:
        return None
    if not content:
        raise ImageError("the file is empty")
    if is_drawing(content):
        raise ImageError("a drawing that vggfeat made; name the image that it was made of")
    return content


def decode(
    image: ImageLike, decoding: Decoding = UPRIGHT, *, encoded: bytes | None = None
) -> Image.Image:
    """Open an image as RGB.

    JPEG (CMYK included), PNG (palettes and 16 bits included), WebP, AVIF, BMP, TIFF, PPM, the first
    frame of a GIF and, with the extra ``heif``, HEIC are read; what is transparent becomes white.

    Parameters
    ----------
    image : path, bytes, PIL image, Crop, ImageRef, or array
        Bytes are those of a file. Arrays are grey, (H, W) or (H, W, 1), RGB, (H, W, 3), or RGBA,
        (H, W, 4), and hold uint8, or floats in [0, 1].
    decoding : Decoding
        Whether the orientation that the camera recorded is applied.
    encoded : bytes, optional
        Its file, where that was read already by :func:`read_encoded`.

    Returns
    -------
    PIL.Image.Image
        In mode RGB.

    Raises
    ------
    ImageError
        With the reason, if it cannot be read: no such file, not an image, truncated, or larger
        than :func:`max_pixels`.

    Examples
    --------
    >>> import numpy as np
    >>> decode(np.zeros((2, 3))).getpixel((0, 0))
    (0, 0, 0)
    >>> decode(Image.new("LA", (3, 2), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return _as_rgb(image, decoding.exif)
    if isinstance(image, Crop):
        return _cut(decode(image.path, decoding, encoded=encoded), image.box)
    if not isinstance(image, str | Path | bytes | ImageRef):
        raise ParameterError.of("image", "decode", "a path, bytes, a PIL image or an array", image)
    content = read_encoded(image) if encoded is None else encoded
    assert content is not None
    with open_encoded(content) as opened:
        return _as_rgb(opened, decoding.exif)


def rescaled_size(width: int, height: int, Q: int) -> tuple[int, int]:
    """Width and height of an image whose smallest side has become Q (Section 3.2).

    The longer side is rounded down, as torchvision does.

    Examples
    --------
    >>> rescaled_size(500, 375, 384)
    (512, 384)
    """
    if width <= height:
        return Q, Q * height // width
    return Q * width // height, Q


def rescale(image: Image.Image, Q: int) -> Pixels:
    """Rescale an RGB image isotropically to smallest side Q: bilinear, antialiased.

    Returns
    -------
    ndarray (H, W, 3) of uint8
        Rounded.

    Raises
    ------
    ImageError
        If it would have more than :data:`MOST_RESCALED` pixels, as that of a line does.

    Examples
    --------
    >>> rescale(Image.new("RGB", (500, 375)), 384).shape
    (384, 512, 3)
    """
    size = rescaled_size(*image.size, Q)
    if size[0] * size[1] > MOST_RESCALED:
        raise ImageError(
            f"{image.width}×{image.height} pixels become {size[0]}×{size[1]} at Q = {Q}, "
            f"more than the {MOST_RESCALED:,} that are allowed"
        )
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image)


def load(
    image: ImageLike,
    scales: Iterable[int],
    decoding: Decoding = UPRIGHT,
    *,
    encoded: bytes | None = None,
) -> dict[int, Pixels]:
    """Decode an image once by :func:`decode`, and :func:`rescale` it to each Q."""
    decoded = decode(image, decoding, encoded=encoded)
    return {Q: rescale(decoded, Q) for Q in scales}


def _read_file(path: Path) -> bytes:
    try:
        # Opening a pipe would wait for ever.
        if path.exists() and not path.is_file():
            raise ImageError("not a file, but a folder, a pipe or a device")
        if (size := path.stat().st_size) > LARGEST:
            raise ImageError(f"its {size:,} bytes are more than the {LARGEST:,} allowed")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # a name that no file can have, also
        if isinstance(error, OSError) and error.errno in LACKING:
            raise
        raise ImageError(_reason(error)) from error


def _cut(image: Image.Image, box: Box) -> Image.Image:
    """Cut a box out, as far as it lies within the image; every pixel that it touches is kept."""
    left, upper = (max(0, math.floor(start) - 1) for start in box[:2])
    right, lower = min(image.width, math.ceil(box[2])), min(image.height, math.ceil(box[3]))
    if left >= right or upper >= lower:
        corners = ", ".join(f"{value:g}" for value in box)
        raise ImageError(
            f"its box {corners} lies outside of its {image.width}×{image.height} pixels"
        )
    return image.crop((left, upper, right, lower))


def _as_rgb(image: Image.Image, exif: bool) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels():
        raise ImageError(f"{width}×{height} pixels are more than the {max_pixels():,} allowed")
    if width * height == 0:
        raise ImageError(f"it has no pixels: {width}×{height}")
    image.load()
    rgb = _to_rgb(image)
    turn = _TURNS.get(orientation_of(image)) if exif else None
    if turn is None:
        return rgb
    turned = rgb.transpose(turn)
    turned.info = {}  # or whoever decodes it again would turn it again
    return turned


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        return _from_array(np.asarray(image))
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip it at 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > _SIXTEEN_BIT:
            raise ImageError(f"its values lie outside 0…{_SIXTEEN_BIT}: not an image of 16 bits")
        eight = np.rint(values.astype(np.float32) * (255 / _SIXTEEN_BIT)).astype(np.uint8)
        return Image.fromarray(eight).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def orientation_of(image: Image.Image) -> int:
    """Return the orientation that a camera recorded, from 1 to 8; 1 where there is none."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    # Damaged metadata does not make the pixels unreadable: the image stays as it was stored.
    except Exception:
        return 1


def _from_array(values: npt.NDArray[Any]) -> Image.Image:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim not in (2, 3) or values.shape[2:] not in ((), (3,), (4,)) or not values.size:
        first = values.ndim == 3 and values.shape[0] in (1, 3, 4)
        raise ImageError(
            f"an array of shape {values.shape} is not an image: (H, W), (H, W, 3) or (H, W, 4) is"
            + "; its channels come first, so transpose it to (1, 2, 0)" * first
        )
    if np.issubdtype(values.dtype, np.floating):
        if not (values.min() >= 0 and values.max() <= 1):
            raise ImageError(
                f"an array of floats holds an image in [0, 1], not "
                f"[{values.min():g}, {values.max():g}]; divide it by its range, or pass uint8"
            )
        values = np.rint(values * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise ImageError(f"an array of {values.dtype} is not an image: uint8 or floats are")
    return _to_rgb(Image.fromarray(np.ascontiguousarray(values)))


def _describe_unknown(file: bytes | BinaryIO | Path) -> str:
    """Say what a file is that no decoder knows, by its first bytes."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            head = opened.read(HEAD)
    elif isinstance(file, bytes):
        head = file[:HEAD]
    else:
        file.seek(0)
        head = file.read(HEAD)
    for kind, brands in _BRANDS.items():
        if head[4:8] == b"ftyp" and brands.match(head[8:]) and kind not in FORMATS:
            return _LACKING[kind]
    return "not an image of a format that is read"


def _reason(error: Exception) -> str:
    """Say in one line, without the path, why a file could not be read."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than the {max_pixels():,} pixels allowed: {error}"
    said = (isinstance(error, OSError) and error.strerror) or error
    return printable(" ".join(f"{type(error).__name__}: {said}".split()))[:LONGEST_REASON]
