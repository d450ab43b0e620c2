"""Validation images in every layout in which they lie about, without the training ones."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
from helpers.mistakes import refuses
from trees import draw_jpeg

from vggfeat.classification.classes import ilsvrc_classes, named
from vggfeat.classification.validation import open_validation
from vggfeat.data.datasets.ilsvrc import read_val
from vggfeat.data.image import read_encoded
from vggfeat.errors import DataError, DataNotFound

WNIDS = ("n01443537", "n02123045", "n01440764")  # the classes 1, 281 and 0


def folders(root: Path, keys: tuple[str, ...] = WNIDS) -> Path:
    for number, key in enumerate(keys):
        draw_jpeg(root / key / f"ILSVRC2012_val_0000000{number + 1}.JPEG", number)
    return root


def flat(root: Path) -> Path:
    for number in (1, 2, 3):
        draw_jpeg(root / f"ILSVRC2012_val_0000000{number}.JPEG", number)
    return root


@pytest.mark.parametrize("inside", [True, False])
def test_folders_of_synsets(tmp_path: Path, inside: bool) -> None:
    """The labels are the places of the outputs; three of 50,000 are a part."""
    folders(tmp_path / "val")
    found = open_validation(tmp_path if inside else tmp_path / "val", ilsvrc_classes())
    assert found.images.names[0] == "n01440764/ILSVRC2012_val_00000003.JPEG"
    assert found.labels.tolist() == [0, 1, 281]
    assert found.partial == "3 of 50,000 images"
    assert found.labels_of(["n02123045/ILSVRC2012_val_00000002.JPEG"]).tolist() == [281]
    refuses(lambda: found.labels_of(["x.jpg"]), DataError, ["'x.jpg'"])


def write_list(path: Path, *labels: int) -> None:
    lines = (f"ILSVRC2012_val_0000000{n}.JPEG {label}\n" for n, label in enumerate(labels, 1))
    path.write_text("".join(lines))


@pytest.mark.parametrize("beside", ["val.txt", "val/val.txt"])
def test_a_flat_folder_with_caffes_list(tmp_path: Path, beside: str) -> None:
    """Its numbers are places among all 1,000 classes, whichever occur."""
    flat(tmp_path / "val")
    write_list(tmp_path / beside, 65, 970, 230)
    assert open_validation(tmp_path, ilsvrc_classes()).labels.tolist() == [65, 970, 230]


@pytest.mark.parametrize("named", ["", "ILSVRC2012_img_val.tar"])
def test_the_tar_is_read_as_the_flat_folder_is(tmp_path: Path, named: str) -> None:
    """Names, labels and bytes are the same; nothing is unpacked."""
    flat(tmp_path / "val")
    write_list(tmp_path / "val.txt", 1, 2, 3)
    folder = open_validation(tmp_path, ilsvrc_classes())
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "w") as tar:
        for path in sorted((tmp_path / "val").iterdir(), reverse=True):
            tar.add(path, path.name)
    contents = [read_encoded(image) for image in folder.images.images]
    shutil.rmtree(tmp_path / "val")
    packed = open_validation(tmp_path / named, ilsvrc_classes())
    assert packed.images.names == folder.images.names
    assert packed.labels.tolist() == folder.labels.tolist() == [1, 2, 3]
    assert [read_encoded(image) for image in packed.images.images] == contents


def test_a_manifest_has_its_split(tmp_path: Path) -> None:
    """Only images marked val are tested on, where there are marks."""
    for name in ("a", "b", "c"):
        draw_jpeg(tmp_path / f"{name}.jpg")
    rows = "a.jpg,cat,train\nb.jpg,dog,val\nc.jpg,cat,val\n"
    (tmp_path / "all.csv").write_text("path,label,split\n" + rows)
    found = open_validation(tmp_path / "all.csv", named(["bird", "cat", "dog"]))
    assert (found.images.names, found.labels.tolist()) == (("b.jpg", "c.jpg"), [2, 1])
    assert found.partial == ""
    (tmp_path / "none.csv").write_text("path,label,split\na.jpg,cat,train\n")
    cats = named(["cat"])
    refuses(lambda: open_validation(tmp_path / "none.csv", cats), DataNotFound, ["'val'"])


def test_images_beside_class_folders_are_named(tmp_path: Path) -> None:
    """They are of no class; what is no image is told apart, and macOS's hidden copies are not."""
    folders(tmp_path)
    for name in ("a.jpg", "._a.jpg", "b.PNG"):
        draw_jpeg(tmp_path / name)
    (tmp_path / "licence.txt").touch()
    found = read_val(tmp_path)
    assert (found.left_out.loose, len(found)) == (["a.jpg", "b.PNG"], 3)
    assert found.left_out.beside == ["licence.txt"]


def test_what_cannot_be_tested_on_is_said(tmp_path: Path) -> None:
    """Absent, of training alone, of classes that the network lacks, or of none."""
    classes = named(["cat", "dog"])
    folders(tmp_path / "set" / "train", ("cat", "dog"))
    folders(tmp_path / "other", ("cat", "lynx", "puma"))
    kit = flat(tmp_path / "flat") / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)  # beside flat images it is no class
    for name, kind, said in (
        ("none", DataNotFound, ["none"]),
        ("set", DataNotFound, ["train", "no val"]),
        ("other", DataError, ["'lynx' and 1 more", "cat, dog"]),
        ("flat", DataNotFound, ["no class folders", "no list"]),
    ):
        refuses(lambda name=name: open_validation(tmp_path / name, classes), kind, said)
