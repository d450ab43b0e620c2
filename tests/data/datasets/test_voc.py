"""VOC's lists and annotations: labels, parts, persons, and what is damaged."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from trees import OBJECT, write_actions, write_voc, write_xml

from vggfeat.data.datasets import load_card
from vggfeat.data.datasets.annotations import read_annotation
from vggfeat.data.datasets.voc import classes_in, read_voc, read_voc_boxes
from vggfeat.errors import DataError

CLASSES = ("cat", "dog")
PARTS = {
    "train": {"000002": (1, -1), "000005": (0, 1)},
    "val": {"000001": (-1, -1)},
    "trainval": {"000001": (-1, -1), "000002": (1, -1), "000005": (0, 1)},
    "test": {"000004": (-1, 0), "000003": (1, 1)},
}
ACTIONS = ("jumping", "walking")
PERSONS = {
    "train": {("2010_000001", 1): (1, -1), ("2010_000001", 2): (-1, -1)},
    "val": {("2010_000003", 1): (-1, 1)},
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_voc(tmp_path / "VOC2007", CLASSES, PARTS)
    return tmp_path / "VOC2007"


def test_labels_and_parts_are_those_of_the_lists(tree: Path) -> None:
    """Targets are −1, 0 and 1 as written; an image of train is in trainval too."""
    images = read_voc(tree, CLASSES)
    assert images.names == ("000001", "000002", "000003", "000004", "000005")
    assert images.targets.tolist() == [[-1, -1], [1, -1], [1, 1], [-1, 0], [0, 1]]
    assert images.targets.dtype == np.int8
    assert images.labelled.all()
    assert {part: rows.tolist() for part, rows in images.splits.items()} == {
        "train": [1, 4],
        "val": [0],
        "trainval": [0, 1, 4],
        "test": [2, 3],
    }
    assert images.positives("trainval").tolist() == [1, 1]
    assert images.images[0] == tree / "JPEGImages" / "000001.jpg"


def test_columns_follow_the_classes_asked_for(tree: Path) -> None:
    """Another order of classes permutes the columns."""
    one, other = read_voc(tree, CLASSES), read_voc(tree, CLASSES[::-1])
    assert np.array_equal(one.targets, other.targets[:, ::-1])


def test_taking_rows_keeps_what_belongs_to_them(tree: Path) -> None:
    """Labels and parts stay with their images when an unreadable one is left out."""
    images = read_voc(tree, CLASSES)
    kept = images.take([1, 3, 4])
    assert kept.names == ("000002", "000004", "000005")
    assert kept.targets.tolist() == [[1, -1], [-1, 0], [0, 1]]
    for part, rows in kept.splits.items():
        was = {images.names[row] for row in images.splits[part]} & set(kept.names)
        assert {kept.names[row] for row in rows} == was


def test_a_test_part_without_lists_has_no_labels(tree: Path) -> None:
    """As in 2012: the images are there, the targets 0, and none counts as labelled."""
    write_voc(tree, CLASSES, {"test": {"2012_000009": None}})
    for label in CLASSES:
        (tree / "ImageSets" / "Main" / f"{label}_test.txt").unlink()
    images = read_voc(tree, CLASSES)
    row = images.names.index("2012_000009")
    assert images.splits["test"].tolist() == [row]
    assert not images.labelled[row]
    assert images.targets[row].tolist() == [0, 0]
    assert images.labelled.sum() == 3


def test_images_that_are_not_there_are_named(tree: Path) -> None:
    """A listed image without a file is left out of every part and named."""
    (tree / "JPEGImages" / "000002.jpg").unlink()
    images = read_voc(tree, CLASSES)
    assert images.missing == ("000002",)
    assert images.splits["trainval"].tolist() == [0, 3]
    assert images.targets[3].tolist() == [0, 1]


def test_persons_have_rows_and_boxes_of_their_own(tmp_path: Path) -> None:
    """One row for each person; one who does something else is −1 for all actions."""
    write_actions(tmp_path, ACTIONS, PERSONS)
    images = read_voc(tmp_path, ACTIONS, "action")
    assert images.names == ("2010_000001#1", "2010_000001#2", "2010_000003#1")
    assert images.targets.tolist() == [[1, -1], [-1, -1], [-1, 1]]
    assert images.boxes == ((1, 2, 10, 20), (2, 4, 20, 40), (1, 2, 10, 20))
    assert images.images[0] == images.images[1]
    assert images.splits["train"].tolist() == [0, 1]
    assert images.take([2]).boxes == ((1, 2, 10, 20),)


@pytest.mark.parametrize("lines", ["2011_000007 2\n", "2011_000007\n"])
def test_test_persons_come_from_the_list_or_the_annotation(lines: str, tmp_path: Path) -> None:
    """The test list names persons; where it names images only, all their persons count."""
    write_actions(tmp_path, ACTIONS, PERSONS)
    box = (5, 6, 7.5, 8)
    dog = OBJECT.format(name="dog", difficult=0, box=(1, 1, 2, 2))
    person = OBJECT.format(name="person", difficult=0, box=box)
    write_xml(tmp_path, "2011_000007", [dog, person])
    (tmp_path / "JPEGImages" / "2011_000007.jpg").touch()
    (tmp_path / "ImageSets" / "Action" / "test.txt").write_text(lines)
    images = read_voc(tmp_path, ACTIONS, "action")
    assert [images.names[row] for row in images.splits["test"]] == ["2011_000007#2"]
    assert images.boxes[-1] == box


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("cat_train", "000002 2\n", "label of -1, 0 or 1"),
        ("cat_train", "000002 1 1\n", "should be 'id label'"),
        ("cat_train", "../../x 1\n", "not an image's id"),
        ("cat_train", "000002 -1\n000005 0\n", "another list gives it -1"),
        ("cat_val", "", "gives no label to 000001"),
        ("cat_val", None, "cat_val.txt is missing"),
        ("cat_val", "000001 é\n", "label of -1, 0 or 1"),
    ],
)
def test_damaged_lists_are_refused(name: str, text: str | None, reason: str, tree: Path) -> None:
    """A wrong line, a contradiction or a gap is named with its file."""
    path = tree / "ImageSets" / "Main" / f"{name}.txt"
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=reason):
        read_voc(tree, CLASSES)


def rename(tree: Path, old: str, new: str, suffix: str = ".jpg") -> None:
    """Give an image another id and format, in its lists and annotations too."""
    image = tree / "JPEGImages" / f"{old}.jpg"
    image.rename(image.with_name(new + suffix))
    (tree / "Annotations" / f"{old}.xml").rename(tree / "Annotations" / f"{new}.xml")
    for path in (tree / "ImageSets" / "Main").glob("*.txt"):
        path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg"])
@pytest.mark.parametrize("name", ["my dog 7", "hühnchen", "хлеб", "a.b-1_c"])
def test_images_may_have_any_name_and_format(name: str, suffix: str, tree: Path) -> None:
    """Blanks, accents, other letters and dots, as labelling tools leave them."""
    rename(tree, "000002", name, suffix)
    images, plain = read_voc(tree, CLASSES), read_voc(tree, CLASSES[::-1])
    row = images.names.index(name)
    assert images.images[row] == tree / "JPEGImages" / (name + suffix)
    assert images.targets[row].tolist() == plain.targets[row].tolist()[::-1] == [1, -1]
    assert row in images.splits["train"]
    assert not images.missing
    assert read_voc_boxes(tree, ["cat"], ["train"]).images[name] == images.images[row]


@pytest.mark.parametrize("write", [
    lambda text: unicodedata.normalize("NFD", text).encode(),
    lambda text: text.encode("utf-16"),
    lambda text: text.encode("utf-8-sig").replace(b"\n", b"\r\n"),
    lambda text: text.replace("é", "é.jpg").encode(),
])  # fmt: skip
def test_lists_may_write_names_otherwise(write: Callable[[str], bytes], tree: Path) -> None:
    """With accents of their own, in UTF-16, from Windows, or with suffixes."""
    rename(tree, "000002", "é")
    plain = read_voc(tree, CLASSES)
    for path in (tree / "ImageSets" / "Main").glob("*.txt"):
        path.write_bytes(write(path.read_text("utf-8")))
    images = read_voc(tree, CLASSES)
    assert images == plain
    assert np.array_equal(images.targets, plain.targets)


def test_without_lists_of_classes_annotations_tell(tree: Path) -> None:
    """Labels, classes and boxes are those that the lists gave; a part without any has none."""
    lists, boxes = read_voc(tree, CLASSES), read_voc_boxes(tree)
    for label in CLASSES:
        for path in (tree / "ImageSets" / "Main").glob(f"{label}_*.txt"):
            path.unlink()
    assert classes_in(tree) == list(CLASSES)
    images = read_voc(tree, CLASSES)
    assert images == lists
    assert np.array_equal(images.targets, lists.targets)
    again = read_voc_boxes(tree)
    assert [(one.name, one.label) for one in again.splits["train"]] == [
        (one.name, one.label) for one in boxes.splits["train"]
    ]
    (tree / "Annotations" / "000002.xml").write_text("<annotation>")
    (tree / "Annotations" / "000001.xml").unlink()
    for name in ("000003", "000004"):
        (tree / "Annotations" / f"{name}.xml").unlink()
    images = read_voc(tree, CLASSES)
    assert images.names == ("000001", "000003", "000004", "000005")
    assert images.labelled.tolist() == [True, False, False, True]
    [unannotated, unusable] = images.doubts
    assert "'000001'" in unannotated
    assert "000002.xml" in unusable
    assert "000002" in read_voc_boxes(tree).left_out


BOMB = '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'
FILE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation>", "not an annotation"),
        (BOMB, "not an annotation"),
        (FILE, "not an annotation"),
        ("<annotation><object><name>cat</name></object></annotation>", "has no bndbox/xmin"),
        (f"<annotation>{OBJECT}</annotation>".format(name="", difficult=0, box="1234"), "no name"),
        (f"<a>{OBJECT}</a>".format(name="cat", difficult=0, box="5511"), "is empty"),
        (f"<a>{OBJECT}</a>".format(name="cat", difficult=0, box="x111"), "not an annotation"),
    ],
)
def test_damaged_annotations_are_refused(text: str, reason: str, tree: Path) -> None:
    """Broken XML, entities and impossible boxes end in a DataError that names the file."""
    path = tree / "Annotations" / "000001.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=reason) as refused:
        read_annotation(tree, "000001")
    assert str(path) in str(refused.value)


def test_a_missing_annotation_is_named(tree: Path) -> None:
    """No annotation is said as such."""
    with pytest.raises(DataError, match=r"000099\.xml cannot be read: No such file"):
        read_annotation(tree, "000099")


def test_genuine_images_have_their_published_labels(real_images: Path) -> None:
    """70, 70 and 140 images; a class is 1 exactly where the annotation has such an object."""
    tree = real_images / "VOCdevkit" / "VOC2007"
    classes = load_card("voc2007").classes
    images = read_voc(tree, classes)
    counts = {part: len(rows) for part, rows in images.splits.items()}
    assert counts == {"train": 70, "val": 70, "trainval": 140, "test": 140}
    assert not images.missing
    for name, row in zip(images.names, images.targets, strict=True):
        root = ElementTree.parse(tree / "Annotations" / f"{name}.xml").getroot()
        named = {element.findtext("name") for element in root.iter("object")}
        assert {classes[c] for c in np.flatnonzero(row == 1)} == named
        assert {one.name for one in read_annotation(tree, name).objects} == named
