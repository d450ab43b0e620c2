"""Ids and stamps: what an image is, and what tells that its file did not change."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from packing import jpeg, pack
from PIL import Image
from support import noise

from vggfeat.data import identity
from vggfeat.data.batching import Job, decode_ahead
from vggfeat.data.identity import digest, id_of, stamp_of
from vggfeat.data.image import Crop, ImageLike, decode, load, read_encoded
from vggfeat.data.imageset import ImageSet, boxed_images, find_images
from vggfeat.data.sources.remote import RemoteImage
from vggfeat.data.sources.remote import stamp_of as stamp_of_listing
from vggfeat.errors import ImageError

BILLION = 10**9
OPENED: list[str] = []
"""Files that this process opens, as Python's audit events name them."""
sys.addaudithook(lambda event, given: OPENED.append(str(given[0])) if event == "open" else None)


def first_bytes(content: bytes) -> tuple[int, int]:
    """Take the first 16 bytes of a SHA-256 as two int64."""
    first, second = struct.unpack(">qq", hashlib.sha256(content).digest()[:16])
    return first, second


def at(*scales: int) -> Callable[[int, tuple[int, int]], dict[int, str]]:
    """Want every image at these scales."""
    return lambda row, image_id: dict.fromkeys(scales, "all")


def identify(image: ImageLike) -> tuple[int, int]:
    """Read an image and name it."""
    return id_of(image, read_encoded(image))


def test_an_id_is_of_the_encoded_bytes(tmp_path: Path) -> None:
    """Files, members of tars and copies have the id that hashlib gives; other bytes another."""
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    shutil.copy(tmp_path / "a.jpg", tmp_path / "copy.jpg")
    [member] = find_images([pack(tmp_path / "a.tar", {"m.jpg": jpeg(1)})]).images
    for image in (tmp_path / "a.jpg", str(tmp_path / "copy.jpg"), member):
        assert identify(image) == first_bytes(jpeg(1))
    (tmp_path / "a.jpg").write_bytes(jpeg(2))
    assert identify(tmp_path / "a.jpg") == first_bytes(jpeg(2)) != first_bytes(jpeg(1))


def test_the_id_of_a_box_is_of_its_image_and_its_sides(tmp_path: Path) -> None:
    """The digest of the file and the text of the sides are hashed together."""
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    box = Crop(tmp_path / "a.jpg", (1, 2.5, 3, 4))
    whole = hashlib.sha256(jpeg(1)).digest()
    assert identify(box) == first_bytes(whole + b"1.0,2.5,3.0,4.0")
    assert identify(Crop(tmp_path / "a.jpg", (1, 2.5, 3, 5))) != identify(box)


def test_the_id_of_pixels_is_of_shape_type_and_values() -> None:
    """Bytes alone would not tell a tall image from a wide one, nor uint8 from floats."""
    values = noise(6, 4)
    ids = {
        identify(values),
        identify(values.reshape(6, 4, 3)),
        identify(values.view(np.int8)),
        identify(values + 1),
    }
    assert len(ids) == 4
    assert identify(values[:, ::-1][:, ::-1]) == identify(values.copy())
    assert identify(Image.fromarray(values)) == identify(values)


def test_images_of_other_palettes_have_other_ids() -> None:
    """The array of a PIL image with a palette holds places in it, and says nothing of colours."""
    one, other = Image.new("P", (2, 2)), Image.new("P", (2, 2))
    one.putpalette([10, 20, 30])
    other.putpalette([30, 20, 10])
    assert identify(one) != identify(other)


def test_a_stamp_is_of_a_file_that_nobody_opens(tmp_path: Path) -> None:
    """Size and time of a file; a copy keeps its id and a touch too, while their stamps change."""
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(1))
    os.utime(path, ns=(5, 1_600_000_000_123_456_789))
    OPENED.clear()
    stamp = stamp_of(path)
    assert stamp == (len(jpeg(1)), 1_600_000_000_123_456_789)
    assert not [name for name in OPENED if name.startswith(str(tmp_path))]
    before = identify(path)
    os.utime(path, (7, 7))
    assert (stamp_of(path), identify(path)) == ((len(jpeg(1)), 7 * BILLION), before)


def test_an_older_file_has_another_stamp(tmp_path: Path) -> None:
    """A file that is replaced by one of an earlier date, of the same size, does not pass for it."""
    path = tmp_path / "a.bmp"
    stamps, ids = [], []
    for seed, seconds in ((1, 2000), (2, 1000)):
        path.write_bytes(jpeg(seed, "BMP"))
        os.utime(path, (seconds, seconds))
        stamps.append(stamp_of(path))
        ids.append(identify(path))
    assert stamps[0][0] == stamps[1][0]
    assert stamps[0] != stamps[1]
    assert ids[0] != ids[1]


def test_stamps_of_boxes_members_and_pixels(tmp_path: Path) -> None:
    """Each box and each member has its own; pixels and what is absent have none."""
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    people = ImageSet(("a#1", "a#2"), (tmp_path / "a.jpg",) * 2, boxes=((1, 1, 5, 9), (4, 1, 8, 9)))
    one, other = boxed_images(people).images.stamps().tolist()
    assert one != other
    assert boxed_images(people).images.stamps().tolist() == [one, other]

    tar = Path(pack(tmp_path / "a.tar", {"0.jpg": jpeg(1), "1.jpg": jpeg(1)}))
    os.utime(tar, (9, 9))
    members = find_images([tar])
    found = tar.stat()
    expected = [
        [digest(digest(found.st_size, 9 * BILLION), member.offset), member.size]
        for member in members.images
    ]
    assert members.stamps().tolist() == expected
    assert expected[0] != expected[1]
    os.utime(tar, (8, 8))
    again = find_images([tar]).stamps()
    assert not (again[:, 0] == np.array(expected)[:, 0]).any()

    nothing = [np.zeros((2, 2)), Image.new("RGB", (2, 2)), tmp_path / "none.jpg", "a\0b",
               Crop(tmp_path / "none.jpg", (1, 1, 2, 2))]  # fmt: skip
    stamps = ImageSet(tuple("abcde"), tuple(nothing)).stamps()
    assert stamps.dtype == np.int64
    assert not stamps.any()
    assert ImageSet((), ()).stamps().shape == (0, 2)


def test_an_object_has_the_stamp_of_its_listing() -> None:
    """Its tag, whatever its time; its time where it has no tag; its address alone, without both."""
    base = {"ETag": '"a"', "size": 3, "LastModified": "2026-01-02T03:04:05Z"}
    later = {"LastModified": "2026-01-02T03:04:06Z"}
    stamp = stamp_of_listing(base)
    assert stamp == stamp_of_listing(base | later)
    assert stamp[1] == 3
    others = {stamp_of_listing(base | {"ETag": '"b"'}), stamp_of_listing(base | {"size": 4})}
    assert len({stamp, *others}) == 3
    untagged = base | {"ETag": None}
    assert stamp_of_listing(untagged) != stamp_of_listing(untagged | later)
    assert stamp_of_listing({"size": 3}) is None
    assert stamp_of(RemoteImage("s3://b/a.jpg", stamp, 3)) == stamp
    assert stamp_of(RemoteImage("s3://b/a.jpg?token=1")) == stamp_of(
        RemoteImage("s3://b/a.jpg?token=2")
    )


def test_many_stamps_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads ask for them in blocks, and each row is its own file's."""
    monkeypatch.setattr(identity, "MANY", 7)
    for row in range(300):
        (tmp_path / f"{row:03}.jpg").write_bytes(bytes(row))
    stamps = find_images([tmp_path]).stamps()
    assert stamps[:, 0].tolist() == list(range(300))


def test_few_stamps_start_no_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To start them takes longer than to ask for a batch of a service."""
    monkeypatch.setattr(identity, "ThreadPoolExecutor", lambda *_, **__: pytest.fail("threads"))
    (tmp_path / "a.jpg").write_bytes(b"123")
    assert find_images([tmp_path]).stamps()[:, 0].tolist() == [3]


def bytes_read() -> int:
    """Return how many bytes this process has read, as Linux counts them."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].removeprefix("rchar: "))


def test_an_image_is_opened_once_and_its_bytes_are_read_once(tmp_path: Path) -> None:
    """For its id and its pixels at two scales; a box and a progressive JPEG too."""
    large = Image.fromarray(noise(1000, 700))
    large.save(tmp_path / "a.bmp")
    large.save(tmp_path / "b.jpg", progressive=True, quality=100)
    images = [tmp_path / "a.bmp", tmp_path / "b.jpg", Crop(tmp_path / "a.bmp", (1, 1, 90, 90))]
    jobs = [Job(row, at(32, 48)) for row in range(3)]
    list(decode_ahead(images, jobs, workers=1))
    OPENED.clear()
    before = bytes_read() if sys.platform == "linux" else 0
    decoded = list(decode_ahead(images, jobs, workers=1))
    read = bytes_read() - before if sys.platform == "linux" else 0
    paths = [str(image.path if isinstance(image, Crop) else image) for image in images]
    assert [name for name in OPENED if name in paths] == paths
    sizes = sum(Path(path).stat().st_size for path in paths)
    assert read < 1.1 * sizes
    assert [one.id for one in decoded] == [identify(image) for image in images]
    assert np.array_equal(decoded[2].pixels[32], load(images[2], [32])[32])


def test_what_a_store_has_is_not_decoded(tmp_path: Path) -> None:
    """A thread asks by the id; an image at no scale is read and not decoded, others as told."""
    for name, content in {"a": jpeg(1), "b": jpeg(2), "c": jpeg(1), "d": b"no image"}.items():
        (tmp_path / name).write_bytes(content)
    stored = {first_bytes(jpeg(1)): (24,), first_bytes(b"no image"): (16, 24)}

    def lacking(row: int, image_id: tuple[int, int]) -> dict[int, str]:
        return {Q: "all" for Q in (16, 24) if Q not in stored.get(image_id, ())}

    images = [tmp_path / name for name in "abcd"]
    found = list(decode_ahead(images, [Job(row, lacking) for row in range(4)], workers=2))
    assert [list(one.pixels) for one in found] == [[16], [16, 24], [16], []]
    assert [one.error for one in found] == [None] * 4
    assert found[0].id == found[2].id != found[1].id
    [again] = decode_ahead(images[3:], [Job(0, at(16))], workers=1)
    assert (str(again.error), again.id) == (
        "not an image of a format that is read",
        first_bytes(b"no image"),
    )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (Path.mkdir, "not a file, but a folder, a pipe or a device"),
        (os.mkfifo, "not a file, but a folder, a pipe or a device"),
        (Path.touch, "the file is empty"),
    ],
)
def test_what_cannot_be_read_has_no_id_but_a_reason(
    make: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    """The same one as that of decoding."""
    make(tmp_path / "a.jpg")
    [found] = decode_ahead([tmp_path / "a.jpg"], [Job(0, at(16))], workers=1)
    assert (found.id, str(found.error)) == ((0, 0), reason)
    with pytest.raises(ImageError, match=reason):
        decode(tmp_path / "a.jpg")


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    """A sparse file is refused by its size."""
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate((1 << 29) + 1)
    with pytest.raises(ImageError, match="its 536,870,913 bytes are more than"):
        decode(tmp_path / "a.jpg")


def test_what_asks_may_fail_and_ends_the_run(tmp_path: Path) -> None:
    """An error of the store is no bad image."""

    def fail(row: int, image_id: tuple[int, int]) -> dict[int, str]:
        raise RuntimeError("the store is gone")

    with pytest.raises(RuntimeError, match="the store is gone"):
        list(decode_ahead([noise(4, 4)], [Job(0, fail)], workers=1))
