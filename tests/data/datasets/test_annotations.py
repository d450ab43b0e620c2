"""Boxes from ILSVRC's XML, in folders and tar files, and from a tree of VOC's."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageOps
from trees import OBJECT, draw_jpeg, tar_of, write_voc, write_xml

from vggfeat.data.datasets.annotations import Annotation, VocObject, examples_of, read_annotations
from vggfeat.data.datasets.voc import read_voc_boxes
from vggfeat.data.image import decoded_size
from vggfeat.errors import DataError, DataNotFound, ImageError, ParameterError

SIZE = "<size><width>500</width><height>375</height><depth>3</depth></size>"
FISH = OBJECT.format(name="n01440764", difficult=0, box=(13, 22, 455, 290))
DOG = OBJECT.format(name="n02099601", difficult=0, box=(5, 6, 7, 8))


def xml(*objects: str) -> bytes:
    return f"<annotation>{SIZE}{''.join(objects)}</annotation>".encode()


FILES = {
    "train/n01440764/n01440764_18.xml": xml(FISH, FISH),
    "train/n02099601/n02099601_7.xml": xml(DOG),
    "val/ILSVRC2012_val_00000001.xml": xml(FISH, DOG),
}


def read(source: Path, images: Collection[str] | None = None) -> dict[str, Annotation]:
    return {one.path: one.annotation for one in read_annotations([source], images)}


def member(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


@pytest.fixture(params=["folder", "tar", "tar.gz", "tar of tars"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Write the same annotations in each way that they come."""
    if request.param == "folder":
        for name, content in FILES.items():
            path = tmp_path / "boxes" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (tmp_path / "boxes" / "README").write_text("none")
        return tmp_path / "boxes"
    path = tmp_path / "boxes.tar.gz"
    inner = tar_of(*(member(name, content) for name, content in FILES.items()))
    if request.param == "tar of tars":
        inner = tar_of(member("n01440764.tar", inner))
    if request.param == "tar.gz":
        with tarfile.open(path, "w:gz") as archive:
            for name, content in FILES.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    else:
        path.write_bytes(inner)
    return path


def test_ilsvrcs_files_are_read_where_they_lie(source: Path) -> None:
    """With the folders that they lie in, sizes, and boxes as they are written."""
    found = read(source)
    inner = "n01440764/" if min(found).startswith("n01440764/train") else ""
    assert sorted(found) == [f"{inner}{name}" for name in FILES]
    fish = found[f"{inner}train/n01440764/n01440764_18.xml"]
    assert fish.size == (500, 375)
    assert [one.box for one in fish.objects] == [(13, 22, 455, 290)] * 2
    assert list(read(source, {"n02099601_7", "else"})) == [sorted(found)[1]]
    assert read(source, {"else"}) == {}


def test_tars_are_looked_into_once(tmp_path: Path) -> None:
    """Whoever nests tars in tars does not lead the reader down without end."""
    content = tar_of(member("n1.xml", xml(FISH)))
    for depth, found in ((1, ["inner/n1.xml"]), (2, ["inner/n2.xml"])):
        content = tar_of(member("inner.tar", content), member("n2.xml", xml(DOG)))
        (tmp_path / f"{depth}.tar").write_bytes(content)
        assert sorted(read(tmp_path / f"{depth}.tar")) == [*found, "n2.xml"]


def test_hidden_files_are_no_annotations(tmp_path: Path) -> None:
    """Those of macOS and of a NAS, in folders and in tars."""
    hidden = {"._1.xml": b"\0\5\26\7", "@eaDir/1.xml/x.xml": b"", "__MACOSX/2.xml": b""}
    for name, content in {**hidden, "1.xml": xml(FISH)}.items():
        path = tmp_path / "boxes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with tarfile.open(tmp_path / "boxes.tar", "w") as archive:
        archive.add(tmp_path / "boxes", ".")
    assert list(read(tmp_path / "boxes")) == list(read(tmp_path / "boxes.tar")) == ["1.xml"]


def test_what_is_no_annotation_is_named(tmp_path: Path) -> None:
    """A damaged file is a fault of its own; a damaged archive and an empty folder are refused."""
    with pytest.raises(DataNotFound, match="There is no"):
        read_annotations([tmp_path / "absent"])
    with pytest.raises(DataNotFound, match="holds no annotations"):
        read_annotations([tmp_path])
    (tmp_path / "n1.xml").write_text("<annotation>")
    (tmp_path / "n2.xml").write_bytes(xml(FISH))
    found = read(tmp_path)
    assert "n1.xml is not an annotation" in found["n1.xml"].fault
    assert not found["n1.xml"].objects
    assert len(found["n2.xml"].objects) == 1
    assert read(tmp_path, {"n3"}) == {}
    (tmp_path / "n1.xml").unlink()
    (tmp_path / "n1.xml").symlink_to(tmp_path / "gone")
    assert "n1.xml cannot be read: No such file" in read(tmp_path)["n1.xml"].fault
    (tmp_path / "boxes.tgz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"boxes\.tgz is no tar file"):
        read_annotations([tmp_path / "boxes.tgz"])


def test_the_largest_object_that_is_not_difficult_is_learnt() -> None:
    """A larger difficult one comes last, and counts as found; a class of difficult ones is none."""
    objects = (
        VocObject("cat", (1, 1, 90, 90), difficult=True),
        VocObject("cat", (1, 1, 10, 10)),
        VocObject("cat", (1, 1, 10, 11)),
        VocObject("dog", (1, 1, 5, 5), difficult=True),
    )
    [found] = examples_of("a", Annotation((100, 100), objects), ["bus", "cat", "dog"])
    assert found.label == "cat"
    assert found.boxes[:, 3].tolist() == [11, 10, 90]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five images of cats and dogs, one of them with both, one with a difficult dog."""
    rows = {"train": {"000001": (1, -1), "000002": (1, 1)}, "val": {"000003": (-1, 0)}}
    write_voc(tmp_path, ("cat", "dog"), {**rows, "test": {"000004": (-1, 1)}})
    return tmp_path


def test_a_tree_of_voc_has_an_example_for_each_class_of_an_image(tree: Path) -> None:
    """By part and by image; images of difficult objects alone are in none."""
    classes, parts, *_ = read_voc_boxes(tree)
    assert classes == ("cat", "dog")
    named = {part: [(one.name, one.label) for one in found] for part, found in parts.items()}
    assert named["train"] == [("000001", "cat"), ("000002", "cat"), ("000002", "dog")]
    assert named["val"] == []
    assert named["test"] == [("000004", "dog")]
    assert parts["test"][0].boxes.tolist() == [[1, 1, 4, 4]]


def test_sizes_are_read_of_the_image_where_the_file_states_none(tree: Path) -> None:
    """8×6 pixels were drawn."""
    [one, *_] = read_voc_boxes(tree).splits["train"]
    assert one.size == (8, 6)


def state(tree: Path, name: str, width: int, height: int, label: str = "cat") -> None:
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    write_xml(tree, name, [size, OBJECT.format(name=label, difficult=0, box=(1, 1, 2, 2))])


def turn(path: Path, orientation: int) -> None:
    """Let a camera have held an image so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.save(path, exif=exif)


def test_images_whose_boxes_lie_elsewhere_are_left_out(tree: Path) -> None:
    """A size that is not the image's, or that of before it was turned upright; named with why."""
    state(tree, "000001", 500, 375)
    state(tree, "000004", 8, 6, "dog")
    turn(tree / "JPEGImages" / "000004.jpg", 6)
    found = read_voc_boxes(tree)
    assert {one.name for some in found.splits.values() for one in some} == {"000002"}
    assert found.left_out == {
        "000001": "it has 8×6 pixels and its annotation states 500×375",
        "000004": "it has 6×8 pixels and its annotation states 8×6",
    }
    state(tree, "000004", 6, 8, "dog")
    assert [one.size for one in read_voc_boxes(tree).splits["test"]] == [(6, 8)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decoded_sizes_are_those_of_the_decoded_image(tmp_path: Path, orientation: int) -> None:
    """Of each orientation, as PIL turns it."""
    draw_jpeg(tmp_path / "a.jpg")
    turn(tmp_path / "a.jpg", orientation)
    with Image.open(tmp_path / "a.jpg") as image:
        assert decoded_size(tmp_path / "a.jpg") == ImageOps.exif_transpose(image).size
    with pytest.raises(ImageError, match="not an image"):
        decoded_size(io.BytesIO(b"none"))


def test_damaged_images_are_left_out(tree: Path) -> None:
    """Whether the annotation states a size or not."""
    state(tree, "000001", 8, 6)
    for name in ("000001", "000002"):
        (tree / "JPEGImages" / f"{name}.jpg").write_bytes(b"damaged")
    found = read_voc_boxes(tree)
    assert found.splits["train"] == []
    assert set(found.left_out) == {"000001", "000002"}


@pytest.mark.parametrize(
    ("label", "box", "reason"),
    [
        ("cat", (0.1, 0.2, 0.8, 0.9), "from 0 to 1"),
        ("cat", (0, 0, 1, 1), "from 0 to 1"),
        ("cat", (9, 1, 12, 4), "outside"),
        ("cat", (1, -8, 4, 0), "outside"),
        ("Cat", (1, 1, 4, 4), "'Cat'"),
        ("sofa", (1, 1, 4, 4), "'sofa'"),
        ("dog", (1, 1, 4, 4), "'cat'"),
    ],
)
def test_boxes_and_classes_that_cannot_be_are_left_out(
    label: str, box: tuple[float, ...], reason: str, tree: Path
) -> None:
    """Shares for pixels, boxes outside of 8×6 pixels, classes that no list has or the wrong one."""
    write_xml(tree, "000001", [OBJECT.format(name=label, difficult=0, box=box)])
    found = read_voc_boxes(tree)
    assert [one.name for one in found.splits["train"]] == ["000002", "000002"]
    assert list(found.left_out) == ["000001"]
    assert reason in found.left_out["000001"]


def test_boxes_at_the_edge_and_objects_of_other_lists_are_kept(tree: Path) -> None:
    """A box that reaches out; an object beside it of which the set has no list."""
    objects = [("cat", (-2, 0, 99, 99)), ("cat", (8, 6, 8, 6)), ("sofa", (1, 1, 4, 4))]
    shown = [OBJECT.format(name=name, difficult=0, box=box) for name, box in objects]
    write_xml(tree, "000001", shown)
    found = read_voc_boxes(tree)
    assert found.left_out == {}
    assert len(found.splits["train"][0].boxes) == 2


@pytest.mark.parametrize("content", [None, "", "<a><object><name>cat</name></object></a>"])
def test_an_annotation_that_cannot_be_read_is_one_image(content: str | None, tree: Path) -> None:
    """Missing, empty, or without numbers; an image that all lists give −1 needs none."""
    write_voc(tree, ("cat", "dog"), {"test": {"000004": (-1, 1), "000005": (-1, -1)}})
    (tree / "Annotations" / "000005.xml").unlink()
    path = tree / "Annotations" / "000001.xml"
    path.unlink() if content is None else path.write_text(content)
    found = read_voc_boxes(tree)
    assert {part: len(some) for part, some in found.splits.items()} == {
        "train": 2,
        "val": 0,
        "test": 1,
    }
    assert list(found.left_out) == ["000001"]
    assert "000001.xml" in found.left_out["000001"]


def test_hidden_files_are_no_lists(tree: Path) -> None:
    """As those that macOS leaves on other systems' disks."""
    (tree / "ImageSets" / "Main" / "._cat_train.txt").write_bytes(b"\0\5\26\7")
    assert read_voc_boxes(tree).classes == ("cat", "dog")


def test_a_tree_of_one_part_is_read(tree: Path) -> None:
    """Classes from its own lists, in the order asked for; nothing else is looked at."""
    for path in [*(tree / "ImageSets/Main").glob("*train.txt"), tree / "Annotations/000001.xml"]:
        path.unlink()
    found = read_voc_boxes(tree, splits=("test",))
    assert found.classes == ("cat", "dog")
    assert {part: len(some) for part, some in found.splits.items()} == {"test": 1}
    assert read_voc_boxes(tree, ["dog", "cat"], ("test",)).classes == ("dog", "cat")
    assert read_voc_boxes(tree, splits=("train",)).splits == {}


def test_only_the_classes_asked_for(tree: Path) -> None:
    """And a class that is not there is refused, with those that are."""
    classes, parts, *_ = read_voc_boxes(tree, ["dog"])
    assert classes == ("dog",)
    assert [one.name for one in parts["train"]] == ["000002"]
    with pytest.raises(ParameterError, match="'cat', 'dog'"):
        read_voc_boxes(tree, ["cow"])
    with pytest.raises(DataNotFound, match="nothing there"):
        read_voc_boxes(tree / "ImageSets")


def test_images_that_are_not_there_are_left_out(tree: Path) -> None:
    """Their annotations alone cannot be learnt from."""
    (tree / "JPEGImages" / "000002.jpg").unlink()
    assert [one.name for one in read_voc_boxes(tree).splits["train"]] == ["000001"]
    draw_jpeg(tree / "JPEGImages" / "000002.jpg")
    assert len(read_voc_boxes(tree).splits["train"]) == 3


def test_genuine_boxes_are_those_of_the_files(real_images: Path) -> None:
    """Counted again with another parser: 73, 69 and 139 examples of four classes."""
    tree = real_images / "VOCdevkit" / "VOC2007"
    wanted = ["bus", "car", "cat", "train"]
    classes, parts, left_out, _ = read_voc_boxes(tree, wanted)
    assert not left_out
    assert classes == tuple(wanted)
    assert {part: len(of) for part, of in parts.items() if part != "trainval"} == {
        "train": 73, "val": 69, "test": 139,
    }  # fmt: skip
    for one in parts["test"]:
        root = ElementTree.parse(tree / "Annotations" / f"{one.name}.xml").getroot()
        boxes = [
            [float(box.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
            for box in root.iter("object")
            if box.findtext("name") == one.label
        ]
        assert sorted(boxes) == sorted(one.boxes.tolist())
        assert one.size == tuple(int(root.findtext(f"size/{s}", "")) for s in ("width", "height"))
        widths = one.boxes[:, 2:] - one.boxes[:, :2] + 1
        assert np.argmax(widths.prod(1)) == 0
