"""Folders that are parts of a data set are no classes, for an SVM and for a network alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.cli import run
from helpers.mistakes import refuses
from packing import pack

from vggfeat.data.datasets.folders import read_folders, read_labelled
from vggfeat.data.datasets.parts import find_parts
from vggfeat.errors import DataError
from vggfeat.train.data import open_trainset

LABELS = ("bird", "boat")


def write(root: Path, *folders: str, count: int = 2) -> Path:
    """Write so many images into each folder; their bytes are their names."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            (root / folder / f"{k}.jpg").write_bytes(f"{folder}/{k}".encode())
    return root


def both(root: Path, *parts: str) -> Path:
    return write(root, *(f"{part}/{label}" for part in parts for label in LABELS))


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train", "val"),
        ("Train", "Val"),
        ("training", "validation"),
        ("train", "valid"),
        ("trainset", "ValidationData"),
        ("seg_train/seg_train", "seg_val/seg_val"),
    ],
)
def test_parts_are_splits_and_not_classes(tmp_path: Path, train: str, val: str) -> None:
    """However they are called, an SVM's set has them as splits, and training validates on val."""
    both(tmp_path, train, val)
    (tmp_path / "LICENSE").write_bytes(b"free")
    images = read_folders(tmp_path)
    assert images.classes == list(LABELS)
    assert {name: len(rows) for name, rows in images.splits.items()} == {"train": 4, "val": 4}
    assert images.names[images.splits["val"][0]] == f"{val}/bird/0.jpg"
    assert images.left_out.beside == ["LICENSE"]
    found = open_trainset(tmp_path)
    assert (found.classes, len(found.train), len(found.val)) == (LABELS, 4, 4)
    assert b"val" in found.val.read(0).lower()
    assert b"train" in found.train.read(0).lower()


def test_a_test_part_is_left_alone_by_training(tmp_path: Path) -> None:
    """An SVM is tested on it; a network is not validated on it unless it is named."""
    both(tmp_path, "seg_train", "seg_test")
    assert sorted(read_folders(tmp_path).splits) == ["test", "train"]
    refuses(lambda: open_trainset(tmp_path), DataError, ["val"])
    assert len(open_trainset(tmp_path, val=tmp_path / "seg_test").val) == 4
    assert len(open_trainset(tmp_path, val_fraction=0.5).train) == 2


def test_classes_may_be_called_as_parts(tmp_path: Path) -> None:
    """Where others lie beside a folder of that name, and it has no class folders."""
    write(tmp_path / "one", "train", "bus")
    write(tmp_path / "two", "test_cats", "test_dogs")
    for root, classes in (("one", ["bus", "train"]), ("two", ["test_cats", "test_dogs"])):
        assert find_parts(tmp_path / root) == {}
        assert read_folders(tmp_path / root).classes == classes
        assert list(open_trainset(tmp_path / root).classes) == classes


@pytest.mark.parametrize(
    ("folders", "mentions"),
    [
        (("train", "test"), ["train", "class folders"]),
        (("val/bird", "val/boat"), ["val", "train"]),
        (("train_a/bird", "train_b/bird"), ["train_a", "train_b"]),
    ],
)
def test_parts_that_cannot_be_used_are_named(
    tmp_path: Path, folders: tuple[str, ...], mentions: list[str]
) -> None:
    """Parts without classes, without train, or two that are train, are no classes either."""
    write(tmp_path, *folders)
    for read in (read_folders, open_trainset):
        refuses(lambda read=read: read(tmp_path), DataError, mentions)  # type: ignore[misc]


@pytest.mark.parametrize("part", ["", "train/"])
def test_tars_of_classes_are_not_passed_over(tmp_path: Path, part: str) -> None:
    """A class that is not unpacked would vanish: it is named, until its folder is there."""
    both(tmp_path, part or ".")
    tar = tmp_path / part / "n01440764.tar"
    pack(tar, {"1.JPEG": b"1"})
    for read in (read_folders, open_trainset):
        refuses(lambda read=read: read(tmp_path), DataError, ["n01440764.tar"])  # type: ignore[misc]
    write(tar.parent, "n01440764")
    assert len(read_folders(tmp_path).classes) == 3


def test_a_part_of_tars_is_no_class(tmp_path: Path) -> None:
    """Tars in train and folders in val: the tars are named, rather than val taken for a class."""
    write(tmp_path, "val/n01440764", "val/n01443537")
    (tmp_path / "train").mkdir()
    pack(tmp_path / "train" / "n01440764.tar", {"1.JPEG": b"1"})
    for read in (read_folders, open_trainset):
        refuses(lambda read=read: read(tmp_path), DataError, ["n01440764.tar"])  # type: ignore[misc]


def test_a_tree_of_voc_has_no_class_folders(tmp_path: Path) -> None:
    """Its folders are not taken for classes; what reads it is named."""
    tree = tmp_path / "VOCtrainval" / "VOCdevkit" / "VOC2007"
    write(tree, "JPEGImages", "SegmentationClass", "ImageSets/Main")
    for root in (tree, *list(tree.parents)[:3]):
        for read in (read_folders, open_trainset):
            error = refuses(lambda read=read, root=root: read(root), DataError, ["VOC2007"])  # type: ignore[misc]
            assert "vggfeat localize train" in str(error)


def test_parts_in_a_tar_are_no_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tar is not searched for parts: it is to be unpacked."""
    monkeypatch.chdir(tmp_path)
    pack(tmp_path / "all.tar", {f"{part}/cat/1.jpg": b"1" for part in ("Train", "Val")})
    for read in (read_labelled, open_trainset):
        refuses(lambda read=read: read("all.tar"), DataError, ["all.tar", "Train", "Val"])  # type: ignore[misc]


def test_an_svm_says_what_lies_beside_the_classes(tmp_path: Path) -> None:
    """Files beside class folders, and images beside those in a tar, are named."""
    write(tmp_path / "zoo", *LABELS, count=4)
    (tmp_path / "zoo" / "table.csv").write_text("a,b")
    files = {f"{label}/{k}.jpg": b"1" for label in LABELS for k in range(4)}
    pack(tmp_path / "zoo.tar", {**files, "loose.jpg": b"1"})
    words = ("--net", "A", "--weights", "embedded", "--layer", "pool1")
    for source, stray in (("zoo", "table.csv"), ("zoo.tar", "loose.jpg")):
        done = run("svm", "--dataset", f"./{source}", *words, cwd=tmp_path, status=4)
        assert stray in done.err
