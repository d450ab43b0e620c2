"""Decoding and rescaling against Pillow's and torchvision's own, and every kind of bad file."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import noise
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from vggfeat.data.image import Box, Crop, decode, load, rescale
from vggfeat.errors import ImageError
from vggfeat.settings import Decoding


def test_rescaling_equals_torchvision() -> None:
    """Size and pixels are those of torchvision's antialiased bilinear Resize of a PIL image."""
    for width, height in ((500, 375), (375, 500), (333, 500), (224, 224), (1000, 30)):
        image = Image.fromarray(noise(width, height))
        for Q in (64, 256, 384):
            expected = tv.resize(image, Q, InterpolationMode.BILINEAR, antialias=True)
            assert np.array_equal(rescale(image, Q), np.asarray(expected))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "gif", "bmp", "tif", "ppm"])
def test_formats_decode_as_pillow_does(suffix: str, draw: Callable[..., Path]) -> None:
    """Each format gives the RGB pixels that Pillow's own conversion gives."""
    path = draw(f"a.{suffix}")
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(decode(path)), np.asarray(image.convert("RGB")))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    """A 16-bit ramp becomes the 8-bit ramp: 65535 is 255 and 32896 is 128."""
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert np.asarray(decode(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    """Half-transparent black is grey, transparent is white; palettes with transparency too."""
    rgba = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    rgba.putpixel((1, 0), (0, 0, 0, 128))
    rgba.putpixel((2, 0), (255, 0, 0, 255))
    rgba.save(tmp_path / "a.png")
    assert np.asarray(decode(tmp_path / "a.png")).tolist() == [
        [[255, 255, 255], [127, 127, 127], [255, 0, 0]]
    ]
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    assert np.asarray(decode(tmp_path / "p.png")).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_cmyk_jpeg_is_read(tmp_path: Path) -> None:
    """A CMYK JPEG of pure cyan is cyan."""
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "cmyk.jpg")
    red, green, blue = decode(tmp_path / "cmyk.jpg").getpixel((8, 8))
    assert red < 10
    assert min(green, blue) > 245


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_png_with_a_long_comment_or_profile_is_read(kind: bytes, tmp_path: Path) -> None:
    """Three megabytes that are no pixels, packed: Pillow alone allows one."""
    between = b"\0\1\0\0\0" if kind == b"iTXt" else b"\0\0"
    extra = b"prompt" + between + zlib.compress(b"x" * (3 << 20))
    chunk = (
        struct.pack(">I", len(extra)) + kind + extra + struct.pack(">I", zlib.crc32(kind + extra))
    )
    Image.new("RGB", (9, 8), "red").save(file := tmp_path / "a.png")
    whole = file.read_bytes()
    file.write_bytes(whole[:33] + chunk + whole[33:])  # behind the head
    assert decode(file).getpixel((8, 7)) == (255, 0, 0)


def test_the_first_frame_of_a_gif_is_taken(tmp_path: Path) -> None:
    """Of an animation, what is shown first counts."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert decode(tmp_path / "moving.gif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_recorded_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    """All eight orientations come out as Pillow's exif_transpose has them, and can be ignored."""
    from PIL import ImageOps

    image = Image.fromarray(noise(6, 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(np.asarray(decode(tmp_path / "turned.png")), expected)
    twice = decode(decode(tmp_path / "turned.png"))
    np.testing.assert_array_equal(np.asarray(twice), expected)
    ignored = decode(tmp_path / "turned.png", Decoding(exif=False))
    assert np.array_equal(np.asarray(ignored), np.asarray(image))


def test_arrays_and_pil_images_are_images() -> None:
    """Grey and colour, uint8 and floats in [0, 1] give the same image."""
    values = noise(9, 7)
    expected = values.tolist()
    assert np.asarray(decode(values)).tolist() == expected
    assert np.asarray(decode(values / 255)).tolist() == expected
    assert np.asarray(decode(Image.fromarray(values))).tolist() == expected
    grey = np.asarray(decode(values[:, :, 0]))
    assert np.array_equal(grey, np.repeat(values[:, :, :1], 3, axis=2))
    assert np.array_equal(np.asarray(decode(values[:, :, :1])), grey)
    clear = np.dstack([values, np.zeros((7, 9, 1), np.uint8)])
    assert np.unique(np.asarray(decode(clear))).tolist() == [255]
    assert np.unique(np.asarray(decode(clear / 255))).tolist() == [255]


def test_the_bytes_of_a_file_are_an_image() -> None:
    """They are what the file is, and refused for the same reasons."""
    assert np.array_equal(np.asarray(decode(jpeg())), np.asarray(Image.open(io.BytesIO(jpeg()))))
    for content, reason in ((b"", "empty"), (b"abc", "not an image")):
        with pytest.raises(ImageError, match=reason):
            decode(content)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 2, 5), np.uint8), r"shape \(2, 2, 5\)"),
        (np.zeros((3, 2, 2), np.uint8), r"shape \(3, 2, 2\).*channels come first"),
        (np.full((2, 2), 200.0), r"in \[0, 1\], not \[200, 200\]"),
        (np.full((2, 2), np.nan), "floats"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.zeros((0, 2), np.uint8), "shape"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array: np.ndarray, reason: str) -> None:
    """Shape, range and type of an array are checked, with what would be right."""
    with pytest.raises(ImageError, match=reason):
        decode(array)


def bomb() -> bytes:
    """Make a PNG whose header promises 30,000 × 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(64, 48)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not an image", "not an image of a format that is read"),
        (jpeg()[:-200], "truncated"),
        (bomb(), "pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a format"),
    ],
)
def test_bad_files_are_refused_with_their_reason(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    """Every kind of bad file ends in an ImageError whose text says what is wrong."""
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        decode(tmp_path / "bad.jpg")


def test_a_missing_file_is_named_so(tmp_path: Path) -> None:
    """A path that leads nowhere has a reason of its own."""
    with pytest.raises(ImageError, match="no such file"):
        decode(tmp_path / "none.jpg")


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """A named pipe that ends in .jpg does not make a run wait for ever."""
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="a pipe"):
        decode(tmp_path / "pipe.jpg")


def test_a_line_that_would_become_enormous_is_refused() -> None:
    """A 1×10,000 line rescaled to Q = 256 would have 655 million pixels."""
    with pytest.raises(ImageError, match="256×2560000"):
        load(Image.new("RGB", (1, 10_000)), [256])


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    """A 1×1 PNG becomes Q×Q of its colour."""
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "dot.png")
    assert (load(tmp_path / "dot.png", [8])[8] == (1, 2, 3)).all()


@pytest.mark.parametrize(
    ("box", "columns", "rows"),
    [
        ((3, 2, 6, 4), slice(2, 6), slice(1, 4)),  # both ends included, from 1 on
        ((1, 1, 9, 7), slice(0, 9), slice(0, 7)),
        ((4, 4, 4, 4), slice(3, 4), slice(3, 4)),
        ((-3, 0, 5, 99), slice(0, 5), slice(0, 7)),  # as far as there is an image
        ((2.5, 1.2, 4.5, 3.1), slice(1, 5), slice(0, 4)),  # every pixel that it touches
    ],
)
def test_a_crop_is_what_lies_in_its_box(
    box: Box, columns: slice, rows: slice, tmp_path: Path
) -> None:
    """VOC's boxes count pixels from 1 on; the same pixels, counted by hand, come out."""
    values = noise(9, 7)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(decode(Crop(tmp_path / "a.png", box))), values[rows, columns])


@pytest.mark.parametrize("box", [(10, 1, 12, 3), (1, 8, 3, 9), (-5, -5, 0, 0)])
def test_a_box_outside_of_its_image_is_refused(box: Box, tmp_path: Path) -> None:
    """Nothing can be cut from where there is nothing; box and image are named."""
    Image.fromarray(noise(9, 7)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="outside of its 9×7 pixels"):
        decode(Crop(tmp_path / "a.png", box))


def test_a_crop_is_cut_from_the_image_as_it_is_seen(tmp_path: Path) -> None:
    """A recorded orientation is applied before, or not at all; the damaged have their reason."""
    values = noise(9, 7)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    crop = Crop(tmp_path / "a.png", (1, 1, 2, 2))
    assert np.array_equal(np.asarray(decode(crop)), values[::-1, ::-1][:2, :2])
    assert np.array_equal(np.asarray(decode(crop, Decoding(exif=False))), values[:2, :2])
    assert load(crop, [6])[6].shape == (6, 6, 3)
    with pytest.raises(ImageError, match="no such file"):
        decode(Crop(tmp_path / "none.png", (1, 1, 2, 2)))
