"""What lies beside the images is told, and images are known by their bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run
from helpers.mistakes import refuses
from helpers.seams import without_decoder
from packing import jpeg
from PIL import Image

from vggfeat.data.batching import Job, decode_ahead
from vggfeat.data.datasets.folders import read_folders
from vggfeat.data.image import FORMATS, decode
from vggfeat.data.imageset import find_images
from vggfeat.data.left_out import LeftOut
from vggfeat.errors import DataError, DataNotFound, ImageError
from vggfeat.report.images import write_jpeg
from vggfeat.train.data import open_trainset

READERS: tuple[Callable[[Path], object], ...] = (read_folders, open_trainset)
HEIC = b"\0\0\0\x18ftypheic" + bytes(400)


def write(root: Path, *names: str, content: bytes | None = None) -> Path:
    """Write an image of its own under each name, or the same bytes."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(number) if content is None else content)
    return root


def left_out_by(read: Callable[[Path], object], root: Path) -> LeftOut:
    return read(root).left_out  # type: ignore[attr-defined, no-any-return]


def test_other_files_are_counted_by_suffix(tmp_path: Path) -> None:
    """Those of systems, and of a feature store, are not worth a word; few files are named."""
    write(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path, "x/1.txt", "x/2.TXT", "x/3.pdf", "LICENSE", content=b"words")
    write(tmp_path, ".DS_Store", "x/Thumbs.db", "desktop.ini", "x/._1.txt", content=b"")
    write(tmp_path, "features/manifest.json", "features/features.h5", content=b"")
    write(tmp_path, "features/shards/1.h5", "features/columns/1.json", content=b"")
    found = find_images([tmp_path])
    assert found.left_out.suffixes == {".txt": 2, ".pdf": 1, "": 1}
    [line] = found.left_out.notes
    assert line.startswith("4 files")
    assert "2 .txt" in line
    (tmp_path / "only.txt").write_bytes(b"")
    for path in tmp_path.rglob("*.jpg"):
        path.unlink()
    refuses(lambda: find_images([tmp_path]), DataNotFound, [str(tmp_path), "3 .txt"])


@pytest.mark.parametrize("read", READERS)
def test_classes_without_an_image_are_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """By an SVM's set and by training alike; and what lies beside the class folders."""
    write(tmp_path, "bird/1.jpg", "bird/2.jpg", "boat/1.jpg", "boat/2.jpg", "loose.jpg")
    write(tmp_path, "mammal/1.txt", "mammal/2.txt", "table.csv", content=b"words")
    (tmp_path / "empty").mkdir()
    left_out = left_out_by(read, tmp_path)
    assert left_out.empty == ["empty", "mammal"]
    assert (left_out.loose, left_out.beside) == (["loose.jpg"], ["table.csv"])
    assert left_out.suffixes == {".txt": 2}
    assert any("empty" in line and "mammal" in line for line in left_out.warnings)


@pytest.mark.parametrize("read", READERS)
def test_classes_one_level_below_are_warned_of(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    """Where every class folder has the same folders and no image; not where they differ."""
    write(tmp_path, *(f"{a}/{b}/1.jpg" for a in ("2019", "2020") for b in ("bird", "boat")))
    write(tmp_path, *(f"{a}/{b}/2.jpg" for a in ("2019", "2020") for b in ("bird", "boat")))
    assert left_out_by(read, tmp_path).nested == ["bird", "boat"]
    write(tmp_path, "2020/3.jpg")
    assert left_out_by(read, tmp_path).nested == []


def test_a_folder_reached_again_is_named(tmp_path: Path) -> None:
    """Its images are there once, and what its other name is, is told; named itself, it is read."""
    write(tmp_path, "all/1.jpg", "all/2.jpg")
    for name in ("query", "train"):
        (tmp_path / "use").mkdir(exist_ok=True)
        (tmp_path / "use" / name).symlink_to(tmp_path / "all")
    use = tmp_path / "use"
    found = find_images([use])
    assert len(found) == 2
    assert found.left_out.linked == {str(use / "train"): str(use / "query")}
    assert "use/train" in found.left_out.warnings[0]
    assert len(find_images([use / "train", use / "query"])) == 4


def test_images_are_known_by_their_bytes(tmp_path: Path) -> None:
    """Without a suffix or under a strange one; other files, pipes and dead links are none."""
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"):
        write(tmp_path, kind, content=jpeg(3, kind))
    write(tmp_path, "photo.jpg_large", "photo.JPG.1", content=jpeg(4))
    write(tmp_path, "BMW", content=b"BM is a car and no image, whatever stands at its beginning")
    write(tmp_path, "plan", content=b"P5 is where we meet")
    write(tmp_path, "cat.jpg~", "cat.jpg.part", "raw.cr2", content=jpeg(5))
    write(tmp_path, "nothing", content=b"")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dead").symlink_to(tmp_path / "gone")
    found = find_images([tmp_path])
    names = {Path(str(image)).name for image in found.images}
    kinds = {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"}
    assert names == {*kinds, "photo.jpg_large", "photo.JPG.1"}
    assert found.left_out.suffixes.total() == 8
    for image in found.images:
        assert decode(image).size == (24, 20)


def test_drawings_of_vggfeats_own_are_no_images(tmp_path: Path) -> None:
    """In folders of theirs they are told; beside a user's images none is taken for one."""
    drawn = write_jpeg(Image.new("RGB", (9, 9)))
    write(tmp_path, "bird/1.jpg", "bird/2.jpg", "boat/1.jpg", "boat/2.jpg")
    write(tmp_path, "evidence/1.jpg", "evidence/bird/1.png", content=drawn)
    found = find_images([tmp_path])
    assert len(found) == 4
    assert len(found.left_out.drawings) == 2
    for read in READERS:
        left_out = left_out_by(read, tmp_path)
        assert left_out.drawings == ["evidence/1.jpg", "evidence/bird/1.png"]
        assert (left_out.empty, left_out.beside) == ([], [])
    assert len(find_images([write(tmp_path, "bird/3.jpg", content=drawn)])) == 5
    with pytest.raises(ImageError, match="drawing"):
        decode(tmp_path / "bird/3.jpg")


def test_avif_is_decoded_in_threads(tmp_path: Path) -> None:
    """As it is in this one; it is registered before the threads begin."""
    paths = [tmp_path / f"{k}.avif" for k in range(8)]
    for k, path in enumerate(paths):
        path.write_bytes(jpeg(k, "AVIF"))
    jobs = [Job(k, lambda row, own: {16: None}) for k in range(8)]
    for image in decode_ahead(paths, jobs, workers=4):
        assert np.array_equal(image.pixels[16].shape, (16, 19, 3))


def test_heic_is_read_by_an_extra(tmp_path: Path) -> None:
    """Upright and in RGB, whatever it is called."""
    if "HEIF" not in FORMATS:
        pytest.skip("the extra heif is not installed")
    values = np.zeros((24, 32, 3), np.uint8)
    values[:12] = 200, 40, 40
    turned = Image.Exif()
    turned[0x0112] = 6  # as a phone that is held upright writes it
    Image.fromarray(values).save(tmp_path / "a.heic", exif=turned.tobytes())
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "a.heic").read_bytes())
    for name in ("a.heic", "photo.jpg"):
        image = decode(tmp_path / name)
        assert (image.size, image.mode) == ((24, 32), "RGB")
        assert np.abs(np.asarray(image, int) - np.rot90(values, -1)).mean() < 8


@pytest.mark.parametrize(("kind", "suffix"), [("HEIF", "heic"), ("AVIF", "avif")])
def test_what_decodes_an_image_is_named_where_it_lacks(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    """By the image's error, before anything is run, and where a class has no other images."""
    content = HEIC if kind == "HEIF" else HEIC.replace(b"heic", b"avif")
    write(tmp_path, "bird/1.jpg", "bird/2.jpg", "boat/1.jpg", "boat/2.jpg")
    write(tmp_path, f"boat/3.{suffix}", content=content)
    with without_decoder(kind):
        refuses(lambda: decode(tmp_path / f"boat/3.{suffix}"), ImageError, ["pip install"])
        for read in (lambda root: find_images([root]), *READERS):
            [line] = left_out_by(read, tmp_path).warnings
            assert f"boat/3.{suffix}" in line
            assert "pip install" in line
        write(tmp_path, f"mammal/1.{suffix}", content=content)
        for read in READERS:
            refuses(lambda read=read: read(tmp_path), DataError, ["mammal", "pip install"])  # type: ignore[misc]


def test_commands_say_what_they_left_out(tmp_path: Path) -> None:
    """On stderr, but for --quiet, and in JSON."""
    write(tmp_path, "d/a.jpg", "d/b.jpg")
    write(tmp_path, "d/1.txt", content=b"words")
    words = ("extract", "d", "--layer", "pool1", "--Q", "32", "--weights", "embedded", "--json")
    ran = run(*words, cwd=tmp_path)
    assert "d/1.txt" in ran.err
    assert ran.json["left_out"]["files"] == {".txt": 1}
    assert "d/1.txt" not in run(*words, "--quiet", cwd=tmp_path).err
