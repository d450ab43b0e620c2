"""Finding images: every kind of source, names, order, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.mistakes import refuses

from vggfeat.data.datasets import open_dataset
from vggfeat.data.datasets.folders import read_folders, read_labelled
from vggfeat.data.image import Crop
from vggfeat.data.imageset import VIEWS, ImageSet, boxed_images, find_images, whole_images
from vggfeat.errors import DataError, DataNotFound, ParameterError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "b/2.jpg",
        "b/10.png",
        "a/1.JPEG",
        ".hidden/x.jpg",
        "a/._1.jpg",
        "a/@eaDir/1.jpg/thumb.jpg",
        "a/notes.txt",
    ):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "root"


def test_a_folder_is_searched_in_order_without_hidden_files(folder: Path) -> None:
    """Images are sorted by their paths; hidden and other files are left out."""
    names = find_images([str(folder)]).names
    assert names == ("root/a/1.JPEG", "root/b/10.png", "root/b/2.jpg")


def test_an_image_named_twice_is_there_once(folder: Path) -> None:
    """It is named, not described again."""
    path = str(folder / "b" / "2.jpg")
    found = find_images([path, path])
    assert list(found.names) == found.left_out.repeated


def test_a_manifest_has_labels_and_splits(folder: Path) -> None:
    """Paths are relative to the manifest; label and split stand beside them."""
    manifest = folder / "all.csv"
    manifest.write_text("path,label,split\na/1.JPEG,cat,train\nb/2.jpg,dog,test\n")
    found = find_images([str(manifest)])
    assert found.images == (folder / "a/1.JPEG", folder / "b/2.jpg")
    assert found.labels == ("cat", "dog")
    assert {name: rows.tolist() for name, rows in found.splits.items()} == {
        "train": [0],
        "test": [1],
    }


def test_class_folders_give_labels(folder: Path) -> None:
    """The folder that holds an image is its class; loose files are not of any."""
    (folder / "loose.jpg").write_bytes(b"")
    found = read_folders(folder)
    assert list(zip(found.names, found.labels, strict=True)) == [
        ("a/1.JPEG", "a"),
        ("b/10.png", "b"),
        ("b/2.jpg", "b"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nx.jpg,cat\n", "needs 'path'"),
        ("path,label\n,cat\n", "line 2"),
        ("path,label\nx.jpg,cat\nx.jpg,dog\n", "as 'cat' and as 'dog'"),
        ("path,label,split\nx.jpg,cat,train\nx.jpg,cat,val\n", "as 'train' and as 'val'"),
        ("path\nx.jpg\n", "no column 'label'"),
        ("path,label\nx.jpg,cat\ny.jpg,\n", r"no label to 'y\.jpg'"),
    ],
)
def test_bad_manifests_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """What is wrong in a manifest is named, with its line or image."""
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_labelled(str(tmp_path / "m.csv"))


def test_sources_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    """A missing source and an empty folder say what a source may be."""
    with pytest.raises(DataNotFound, match="Check the spelling"):
        find_images([str(tmp_path / "none")])
    with pytest.raises(DataNotFound, match="There are no images"):
        find_images([str(tmp_path)])
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataNotFound, match=r"The list .*empty\.txt names no image"):
        find_images([f"@{tmp_path / 'empty.txt'}"])
    with pytest.raises(DataNotFound, match="sample"):
        open_dataset("imagnet")


@pytest.mark.parametrize(
    ("braces", "count"),
    [
        ("{9..0}", "0 sources"),
        ("{9..0}-{0..99999999999999999999}", "0 sources"),
        ("{0..1000000}", "1,000,001 sources"),
        ("{a,b}-{1..1000000}", "2,000,000 sources"),
        ("{0..99999999999999999999}", "100,000,000,000,000,000,000 sources"),
    ],
)
def test_braces_that_name_nothing_or_too_much_are_refused(braces: str, count: str) -> None:
    """The error says how many they name."""
    refuses(lambda: find_images([f"t-{braces}.tar"]), DataError, [f"t-{braces}.tar names {count}"])


def test_a_data_set_of_one_class_is_refused(folder: Path) -> None:
    """One class cannot be told from another."""
    (folder / "a" / "1.JPEG").unlink()
    with pytest.raises(DataError, match="one class, 'b'"):
        open_dataset(str(folder))


def test_a_replaced_file_has_another_stamp(folder: Path) -> None:
    """Size and time tell that a file is not the one that was described."""
    found = find_images([str(folder)])
    before = found.stamps()
    (folder / "b" / "2.jpg").write_bytes(b"new")
    assert (found.stamps() == before).all(axis=1).tolist() == [True, True, False]


def test_lists_keep_every_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte-order mark, odd separators and names with newlines do not lose an image."""
    monkeypatch.chdir(tmp_path)
    odd = ["a\u2028b.jpg", "c.jpg"]
    Path("list.txt").write_bytes(b"\xef\xbb\xbf" + "\n".join(odd).encode())
    assert find_images(["@list.txt"]).names == tuple(odd)
    Path("nul.txt").write_bytes(b"d\ne.jpg\0f.jpg\0")
    assert find_images(["@nul.txt"]).names == ("d\ne.jpg", "f.jpg")


def test_one_file_named_in_two_ways_is_one_image(tmp_path: Path) -> None:
    """A manifest cannot give one image two labels by writing its path differently."""
    (tmp_path / "m.csv").write_text("path,label\nx.jpg,cat\n./x.jpg,dog\n")
    with pytest.raises(DataError, match="as 'cat' and as 'dog'"):
        read_labelled(str(tmp_path / "m.csv"))


def test_linked_folders_are_searched_once(folder: Path) -> None:
    """A link to a folder is followed; one that leads round in circles ends."""
    (folder / "a" / "round").symlink_to(folder)
    (folder / "linked").symlink_to(folder / "b")
    names = find_images([str(folder)]).names
    assert names == ("root/a/1.JPEG", "root/b/10.png", "root/b/2.jpg")
    (folder / "b").rename(folder.parent / "elsewhere")
    (folder / "linked").unlink()
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    names = find_images([str(folder)]).names
    assert names == ("root/a/1.JPEG", "root/linked/10.png", "root/linked/2.jpg")


def test_sources_may_be_paths_but_not_one_string(folder: Path) -> None:
    """Paths are taken as strings are; a bare string is not a list of letters."""
    assert find_images([folder]).names == find_images([str(folder)]).names
    with pytest.raises(ParameterError, match="a list of sources"):
        find_images(str(folder))


@pytest.fixture
def persons(tmp_path: Path) -> ImageSet:
    for name in ("x", "y#z"):
        (tmp_path / f"{name}.jpg").write_bytes(name.encode())
    x, y = tmp_path / "x.jpg", tmp_path / "y#z.jpg"
    return ImageSet(
        ("x#1", "y#z#1", "x#12"), (x, y, x), boxes=((1, 1, 5, 9), (2, 2, 3, 3), (4, 1, 8, 9))
    )


def test_whole_images_are_there_once(persons: ImageSet) -> None:
    """Persons of one image share it, under the name that their own begin with."""
    view = whole_images(persons)
    assert view.images.names == ("x", "y#z")
    assert view.images.images == persons.images[:2]
    assert view.names == ("x", "y#z", "x")
    assert not view.images.boxes
    assert set(VIEWS) == {"image", "box"}


def test_images_without_boxes_are_their_own_view() -> None:
    """A # in the name of a file is no person there; boxes that are not there are asked for."""
    plain = ImageSet(("a#1", "a#2"), ("a#1.jpg", "a#2.jpg"))
    assert whole_images(plain) == (plain, plain.names)
    with pytest.raises(DataError, match="Describe whole images"):
        boxed_images(plain)


def test_each_box_is_an_image_of_its_own(persons: ImageSet) -> None:
    """Every row has its crop, and each crop another stamp, which is not the whole image's."""
    view = boxed_images(persons)
    assert view.names == view.images.names == persons.names
    assert view.images.images[2] == Crop(persons.images[2], (4, 1, 8, 9))
    before = view.images.stamps()
    stamps = [*before.tolist(), *whole_images(persons).images.stamps().tolist()]
    assert len(set(map(tuple, stamps))) == 5
    persons.images[0].write_bytes(b"another")
    same = (boxed_images(persons).images.stamps() == before).all(axis=1)
    assert same.tolist() == [False, True, False]


def test_a_manifest_of_absent_images_is_refused(tmp_path: Path) -> None:
    """Where not one path leads to an image, the paths are at fault, and are shown."""
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,label\nnope.jpg,cat\nnope2.jpg,dog\n")
    with pytest.raises(DataNotFound, match=r"2 images.*nope\.jpg.*relative"):
        read_labelled(str(manifest))


def test_a_set_of_many_images_is_shown_in_a_line() -> None:
    """A notebook shows how many, the first and the last, classes and splits; never all names."""
    names = tuple(f"photos/{number}.jpg" for number in range(10_000))
    labels = tuple("cat" if number % 2 else "dog" for number in range(10_000))
    images = ImageSet(names, names, labels, splits={"train": np.arange(9_000)})
    shown = repr(images)
    assert len(shown) < 200
    for part in ("10,000 images", "photos/0.jpg", "photos/9999.jpg", "2 classes", "train 9,000"):
        assert part in shown
    assert repr(ImageSet((), ())) == "ImageSet(0 images)"
    assert "\n" not in repr(ImageSet(("a\nb",), ("c",)))
