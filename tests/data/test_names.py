"""Names of images: they follow from their own source, and no two images have one name."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import fsspec
import pytest
from helpers.cli import run
from packing import jpeg, pack

from vggfeat.data.imageset import find_images
from vggfeat.errors import DataError

TYPED = {
    "x/photos": ["photos/1.jpg", "photos/sub/2.jpg"],
    "./x/photos/": ["photos/1.jpg", "photos/sub/2.jpg"],
    "../here/x/photos": ["photos/1.jpg", "photos/sub/2.jpg"],
    "x/photos/.": ["photos/1.jpg", "photos/sub/2.jpg"],
    ".": ["a/1.jpg", "b/1.jpg", "x/photos/1.jpg", "x/photos/sub/2.jpg"],
    "x/..": ["a/1.jpg", "b/1.jpg", "x/photos/1.jpg", "x/photos/sub/2.jpg"],
    "..": ["here/a/1.jpg", "here/b/1.jpg", "here/x/photos/1.jpg", "here/x/photos/sub/2.jpg"],
    "a/1.jpg": ["a/1.jpg"],
    "./b/../a/1.jpg": ["a/1.jpg"],
    "../here/a/1.jpg": ["here/a/1.jpg"],
    "*/1.jpg": ["a/1.jpg", "b/1.jpg"],
    "x/ph*": ["photos/1.jpg", "photos/sub/2.jpg"],
    "{b,a}/1.jpg": ["b/1.jpg", "a/1.jpg"],
    "a/000.tar": ["a/000.tar/m.jpg"],
    "{a,b}/000.tar": ["a/000.tar/m.jpg", "b/000.tar/m.jpg"],
    "../here/*/000.tar": ["here/a/000.tar/m.jpg", "here/b/000.tar/m.jpg"],
    "@x/list.txt": ["a/1.jpg", "here/b/1.jpg"],
    "-": ["a/1.jpg", "here/b/1.jpg"],
    "x/all.csv": ["a/1.jpg", "photos/1.jpg"],
    "memory://bucket/set": ["set/1.jpg"],
    "memory://bucket/": ["bucket/set/1.jpg"],
    "memory://bucket/set/1.jpg": ["bucket/set/1.jpg"],
    "memory://bucket/*/1.jpg": ["bucket/set/1.jpg"],
    "memory://bucket/0.tar": ["bucket/0.tar/m.jpg"],
}
"""What is typed in a folder called here, and the names of what is found."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder, with a bucket beside it, and stand in it."""
    root = tmp_path / "here"
    images = ("a/1.jpg", "b/1.jpg", "x/photos/1.jpg", "x/photos/sub/2.jpg")
    for number, name in enumerate(images):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(number))
    for folder in "ab":
        pack(root / folder / "000.tar", {"m.jpg": jpeg(9)})
    (root / "x/all.csv").write_text("path\n../a/1.jpg\nphotos/1.jpg\n")
    (root / "x/list.txt").write_text("./a/1.jpg\n../here/b/1.jpg\n")
    lines = io.BytesIO(b"./a/1.jpg\n../here/b/1.jpg\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(lines))
    memory = fsspec.filesystem("memory")
    tar = Path(root / "a/000.tar").read_bytes()
    memory.pipe({"/bucket/set/1.jpg": jpeg(4), "/bucket/0.tar": tar})
    monkeypatch.chdir(root)
    yield root
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("source", TYPED)
def test_a_name_follows_from_its_own_source(source: str, here: Path) -> None:
    """Each kind of source gives the names of the table, with another source beside it or alone."""
    pack(here / "other.tar", {"o.jpg": jpeg(8)})
    found = find_images([source, "other.tar"]).names
    assert found == (*TYPED[source], "other.tar/o.jpg")
    if source != "-":
        assert find_images([source]).names == found[:-1]


def test_a_file_by_its_whole_path_is_named_without_the_root(here: Path) -> None:
    """A leading slash is no part of a name; a name climbs out of no folder."""
    assert find_images([here / "a/1.jpg"]).names == (f"{str(here)[1:]}/a/1.jpg",)


def test_two_images_of_one_name_are_refused(here: Path) -> None:
    """Both are named, and the option that tells them apart does; one file twice is one image."""
    (here / "x/here/a").mkdir(parents=True)
    (here / "x/here/a/1.jpg").write_bytes(jpeg(7))
    sources = ["../here/a/1.jpg", "x/here"]
    with pytest.raises(DataError) as refused:
        find_images(sources)
    for said in ("../here/a/1.jpg", "x/here/a/1.jpg", "relative_to=DIR"):
        assert said in str(refused.value)
    assert find_images(sources, ".").names == ("a/1.jpg", "x/here/a/1.jpg")
    twice = find_images(["x/here", "x/here/../here/"])
    assert list(twice.names) == twice.left_out.repeated == ["here/a/1.jpg"]


def test_names_may_be_relative_to_a_folder(here: Path) -> None:
    """Folders, files, lists and tars alike; what does not lie in it is refused by name."""
    sources = ["x/photos", "a/1.jpg", "@x/list.txt", "a/000.tar"]
    found = find_images(sources, here.parent)
    assert found.names == (
        "here/x/photos/1.jpg",
        "here/x/photos/sub/2.jpg",
        "here/a/1.jpg",
        "here/b/1.jpg",
        "here/a/000.tar/m.jpg",
    )
    for source in ("a/1.jpg", "a/000.tar", "memory://bucket/set"):
        with pytest.raises(DataError, match=f"{source}.*relative_to|relative_to.*{source}"):
            find_images([source], "x")


def test_one_store_takes_tars_of_one_base_name(here: Path) -> None:
    """`a/000.tar` and then `b/000.tar` with it: only the second is computed, whatever was typed."""
    words = ["--layer", "pool1", "--Q", "32", "--weights", "embedded", "--out", "f", "--json", "-q"]
    assert run("extract", "a/000.tar", *words).json["computed"] == 1
    done = run("extract", "a/000.tar", "b/000.tar", *words).json
    assert (done["present"], done["computed"]) == (1, 1)
    assert run("extract", "{a,b}/000.tar", "x/photos", *words).json["present"] == 2
