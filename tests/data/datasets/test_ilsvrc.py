"""ILSVRC's images: what a tar of classes holds, and labels that are none of the data set's."""

from __future__ import annotations

import tarfile
from pathlib import Path

from helpers.mistakes import refuses
from packing import pack

from vggfeat.data.datasets.card import load_card
from vggfeat.data.datasets.ilsvrc import (
    VAL_TAR,
    IlsvrcReader,
    LabelledImages,
    read_class_images,
    read_val,
)
from vggfeat.errors import DataError, DataNotFound

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
