"""Images that have the names of others in a store replace them, and are counted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers.cli import run
from helpers.extraction import content, extract_sums
from helpers.networks import FakeExtractor, pixel_sums
from PIL import Image
from support import noise

from vggfeat.data.imageset import find_images
from vggfeat.features.pipeline import extract
from vggfeat.store.store import FeatureStore


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(12, 10, seed)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Draw a folder of twelve images that a store has, and its neighbour with other ones."""
    for n in range(12):
        draw(tmp_path / "x" / "photos" / f"{n:02}.png", n)
        draw(tmp_path / "y" / "photos" / f"{n:02}.png", 100 + n)
    extract_sums(tmp_path / "x" / "photos", tmp_path / "f")
    return tmp_path / "x" / "photos"


def test_a_folder_of_other_images_is_counted(photos: Path, tmp_path: Path) -> None:
    """Its images replace those of their names; the earlier ones come back without computing."""
    other, before = tmp_path / "y" / "photos", content(tmp_path / "f")
    done = extract_sums(other, tmp_path / "f")
    assert (done.computed, done.replaced) == (12, 12)
    done = extract_sums(photos, tmp_path / "f")
    assert (done.computed, done.replaced) == (0, 12)
    assert content(tmp_path / "f") == before


def test_under_more_of_their_path_both_are_kept(photos: Path, tmp_path: Path) -> None:
    """Names relative to the folder above both are different ones."""
    store = FeatureStore(tmp_path / "f", "a")
    images = find_images([str(tmp_path / "y" / "photos")], relative_to=tmp_path)
    done = extract(images, FakeExtractor(pixel_sums), (8, 10), store)
    assert (done.computed, done.replaced, len(store.names)) == (12, 0, 24)


def test_edited_images_are_counted(photos: Path, tmp_path: Path) -> None:
    """Those that were edited in place replace their older versions, once, and are said to."""
    for n in range(5):
        draw(photos / f"{n:02}.png", 50 + n)
    done = extract_sums(photos, tmp_path / "f")
    assert (done.computed, done.present, done.replaced) == (5, 7, 5)
    extract_sums(photos, tmp_path / "g")
    assert content(tmp_path / "f") == content(tmp_path / "g")
    done = extract_sums(photos, tmp_path / "f")
    assert (done.computed, done.replaced) == (0, 0)


def test_what_came_back_has_replaced_another(photos: Path, tmp_path: Path) -> None:
    """It is copied, not computed, and counted all the same."""
    own, stat = photos / "03.png", (photos / "03.png").stat()
    old = own.read_bytes()
    draw(own, 77)
    assert extract_sums(photos, tmp_path / "f").replaced == 1
    own.write_bytes(old)
    os.utime(own, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = extract_sums(photos, tmp_path / "f")
    assert (done.computed, done.replaced) == (0, 1)


def test_equal_copies_are_the_same_images(photos: Path, tmp_path: Path) -> None:
    """Files with other stamps are read to be known; nothing is computed."""
    shutil.copytree(photos, tmp_path / "z" / "photos", copy_function=shutil.copyfile)
    for path in (tmp_path / "z" / "photos").iterdir():
        os.utime(path, (1, 1))
    done = extract_sums(tmp_path / "z" / "photos", tmp_path / "f")
    assert (done.computed, done.present, done.replaced) == (0, 12, 0)


def test_the_command_says_what_was_replaced(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its summary, and in its JSON."""
    monkeypatch.chdir(tmp_path)
    words = ("--layer", "pool1", "--Q", "16", "--weights", "embedded", "--out", "g")
    assert run("extract", "x/photos", *words, "--json").json["replaced"] == 0
    done = run("extract", "y/photos", *words)
    assert "12 images replaced" in done.out
    assert "--relative-to" in done.out
    assert run("extract", "x/photos", *words, "--json").json["replaced"] == 12
    draw(photos / "00.png", 999)
    assert run("extract", "x/photos", *words, "--json").json["replaced"] == 1
    draw(photos / "00.png", 998)
    assert "replaced" in run("extract", "x/photos", *words).out
