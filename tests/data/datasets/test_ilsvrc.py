"""ILSVRC's images: what a tar of classes holds, and labels that are none of the data set's."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from helpers.mistakes import refuses
from packing import pack
from PIL import Image

from vggfeat.classification.classes import ilsvrc_classes
from vggfeat.classification.validation import open_validation
from vggfeat.data.datasets import open_dataset
from vggfeat.data.datasets.card import load_card
from vggfeat.data.datasets.ilsvrc import (
    VAL_TAR,
    IlsvrcReader,
    LabelledImages,
    read_class_images,
    read_val,
)
from vggfeat.errors import DataError, DataNotFound
from vggfeat.localization.data import open_boxset
from vggfeat.train.data import open_trainset

WNIDS = ("n01440764", "n01443537")
NAMES = ("cat/photo.jpg", "cat/photo.1.jpg", "cat/x.jpg", "cat/x.png", "dog/a/1.png", "dog/b/1.png")


def names_of(found: LabelledImages) -> list[str]:
    return [found.images.name(row) for row in range(len(found))]


def test_a_tar_of_class_folders_has_every_image_of_the_folder(tmp_path: Path) -> None:
    """Packed as folders or as a tar for each class; names that share a stem are no samples."""
    root = tmp_path / "root"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    with tarfile.open(tmp_path / "folders.tar", "w") as tar:
        for folder in ("cat", "dog"):
            tar.add(root / folder, folder)
            with tarfile.open(tmp_path / f"{folder}.tar", "w") as inner:
                inner.add(root / folder, ".")
    with tarfile.open(tmp_path / "tars.tar", "w") as tar:
        for member in ("cat.tar", "dog.tar"):
            tar.add(tmp_path / member, member)
    (tmp_path / "cat.txt").write_text("of cats")
    with tarfile.open(tmp_path / "noted.tar", "w") as tar:
        for member in ("cat.tar", "cat.txt", "dog.tar"):
            tar.add(tmp_path / member, member)
    folders = read_class_images(root)
    assert names_of(folders) == sorted(NAMES)
    for archive in ("folders.tar", "tars.tar", "noted.tar"):
        packed = read_class_images(tmp_path / archive)
        assert names_of(packed) == names_of(folders)
        assert packed.labels.tolist() == folders.labels.tolist()
        assert [packed.images.read(row).decode() for row in range(len(packed))] == sorted(NAMES)


def test_folders_in_a_tar_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    """ILSVRC's tar, packed anew with the folder val in it."""
    path = pack(tmp_path / VAL_TAR, {"val/ILSVRC2012_val_00000001.JPEG": b"1"})
    card = load_card("ilsvrc2012")
    refuses(lambda: IlsvrcReader().read(card, tmp_path), DataError, [path, "'val'"])


def test_a_manifest_without_the_split_has_nothing_to_validate_on(tmp_path: Path) -> None:
    """Rows of another split are not taken in their place."""
    (tmp_path / "1.jpg").write_bytes(b"1")
    (tmp_path / "m.csv").write_text("path,label,split\n1.jpg,cat,test\n")
    refuses(lambda: read_val(tmp_path / "m.csv"), DataNotFound, ["m.csv", "val"])


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """Kaggle's archive, unpacked: two classes, a flat val whose classes are in a CSV, boxes."""
    images = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    boxes = tmp_path / "ILSVRC" / "Annotations" / "CLS-LOC"
    jpeg = io.BytesIO()
    Image.new("RGB", (60, 40)).save(jpeg, "JPEG")
    names = [f"train/{wnid}/{wnid}_{k}" for wnid in WNIDS for k in (1, 2)]
    val = {f"val/ILSVRC2012_val_0000000{k}": wnid for k, wnid in enumerate(WNIDS, 1)}
    for name in (*names, *val, "test/ILSVRC2012_test_00000001"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / f"{name}.JPEG").write_bytes(jpeg.getvalue())
        wnid = val.get(name) or name.split("/")[1]
        (boxes / name).parent.mkdir(parents=True, exist_ok=True)
        (boxes / f"{name}.xml").write_text(
            "<annotation><size><width>60</width><height>40</height></size><object>"
            f"<name>{wnid}</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>50</xmax><ymax>30</ymax>"
            "</bndbox></object></annotation>"
        )
    rows = [f"{name[4:]},{wnid} 5 5 50 30 {wnid} 1 1 9 9 " for name, wnid in val.items()]
    lines = "\n".join(["ImageId,PredictionString", *reversed(rows), ""])
    (tmp_path / "LOC_val_solution.csv").write_text(lines)
    (tmp_path / "LOC_synset_mapping.txt").write_text("n01440764 tench\nn01443537 goldfish\n")
    return tmp_path


@pytest.mark.parametrize("level", [".", "ILSVRC", "ILSVRC/Data/CLS-LOC"])
def test_kaggles_archive_is_read_at_any_of_its_levels(kaggle: Path, level: str) -> None:
    """By what trains, what tests, and what needs boxes; test images are left alone."""
    found = open_trainset(kaggle / level)
    assert (found.classes, len(found.train), len(found.val)) == (WNIDS, 4, 2)
    assert found.val.labels.tolist() == [0, 1]
    val = read_val(kaggle / level)
    assert val.labels_among(WNIDS) == list(WNIDS)
    assert names_of(read_val(kaggle / "ILSVRC/Data/CLS-LOC/val")) == names_of(val)
    boxes = open_boxset(kaggle / level)
    assert (len(boxes.train), len(boxes.val), dict(boxes.left_out)) == (4, 2, {})
    assert boxes.train.boxes[0].tolist() == [[4.0, 4.0, 50.0, 30.0]]
    tested = IlsvrcReader().read(load_card("ilsvrc2012"), kaggle / level)
    assert tested.labels == WNIDS


def test_a_line_of_kaggles_list_has_one_class(kaggle: Path) -> None:
    """Two synsets for an image, or a line cut off, are named."""
    solution = kaggle / "LOC_val_solution.csv"
    for line in ("ILSVRC2012_val_00000001,n01440764 1 1 9 9 n01443537 1 1 9 9", "x,n01440764 1 1"):
        solution.write_text(f"ImageId,PredictionString\n{line}\n")
        found = read_val(kaggle)
        refuses(lambda found=found: found.labels_among(WNIDS), DataError, ["line 2"])  # type: ignore[misc]


def test_caffes_list_is_read_as_editors_write_it(tmp_path: Path) -> None:
    """With a byte order mark and backslashes; an image of two classes is named, not overwritten."""
    names = [f"ILSVRC2012_val_0000000{k}.JPEG" for k in (1, 2)]
    (tmp_path / "val").mkdir()
    for name in names:
        (tmp_path / "val" / name).write_bytes(name.encode())
    listed = tmp_path / "val.txt"
    listed.write_bytes(b"\xef\xbb\xbf" + f"val\\{names[0]} 1\r\nval\\{names[1]} 0\r\n".encode())
    assert read_val(tmp_path).labels_among(WNIDS) == [WNIDS[1], WNIDS[0]]
    listed.write_text(f"{names[0]} 1\n{names[1]} 0\nval/{names[0]} 1\n")
    assert read_val(tmp_path).labels_among(WNIDS) == [WNIDS[1], WNIDS[0]]
    listed.write_text(f"{names[0]} 1\n{names[1]} 0\n{names[0]} 0\n")
    refuses(lambda: read_val(tmp_path).labels_among(WNIDS), DataError, ["line 3", names[0]])


@pytest.mark.parametrize("level", [".", VAL_TAR])
def test_the_tar_of_validation_images_is_read_where_it_lies(tmp_path: Path, level: str) -> None:
    """By classify, by run and by a card alike, named as its folder or itself."""
    names = [f"ILSVRC2012_val_0000000{k}.JPEG" for k in (1, 2)]
    pack(tmp_path / VAL_TAR, {name: name.encode() for name in names})
    synsets = ilsvrc_classes().keys
    (tmp_path / "val.txt").write_text(f"{names[0]} 2\n{names[1]} 0\n")
    found = read_val(tmp_path / level)
    assert names_of(found) == names
    assert found.labels_among(synsets) == [synsets[2], synsets[0]]
    assert found.images.read(1) == names[1].encode()
    assert open_validation(tmp_path / level, ilsvrc_classes()).labels.tolist() == [2, 0]
    card, images = open_dataset("ilsvrc2012", tmp_path, allow_partial=True)
    assert (images.labels, card.partial) == ((synsets[2], synsets[0]), True)
    assert {name: rows.tolist() for name, rows in images.splits.items()} == {"val": [0, 1]}
