"""What is trained on: ILSVRC packed and unpacked, class folders, manifests, and what is refused."""

from __future__ import annotations

import os
import shutil
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from helpers.mistakes import refuses

from vggfeat.data.datasets.folders import read_folders
from vggfeat.data.datasets.ilsvrc import TRAIN_TAR, VAL_TAR
from vggfeat.data.datasets.ilsvrc_truth import KIT, META, TRUTH
from vggfeat.data.sources.tar import read_tar
from vggfeat.errors import DataError, DataNotFound, ImageError, ParameterError
from vggfeat.train.data import Part, open_trainset

WNIDS = ("n01", "n02", "n03")
# ILSVRC's own numbers, which are not the order of the wnids; 4 is an inner node of the hierarchy.
NUMBERS = {3: "n01", 1: "n02", 2: "n03", 4: "n00"}
TRUTHS = (2, 3, 3, 1)  # of the images in VAL: n03, n01, n01, n02
VAL = {f"ILSVRC2012_val_{n:08d}.JPEG": label for n, label in enumerate((2, 0, 0, 1), 1)}


def write(root: Path, *names: str) -> Path:
    """Write files that are images by their names; nothing here decodes them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def write_classes(root: Path, **counts: int) -> Path:
    return write(root, *(f"{c}/{c}_{n}.JPEG" for c, count in counts.items() for n in range(count)))


def pack(folder: Path, target: Path) -> None:
    with tarfile.open(target, "w") as archive:
        for path in folder.iterdir():
            archive.add(path, path.name)


def write_kit(data: Path, truths: tuple[int, ...] = TRUTHS) -> None:
    """Write the kit's two files, with scipy as the witness of Matlab's format."""
    data.mkdir(parents=True, exist_ok=True)
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("children", "O")]
    records = np.zeros((len(NUMBERS), 1), dtype=fields)
    for row, (number, wnid) in enumerate(NUMBERS.items()):
        records[row, 0] = (float(number), wnid, f"words of {wnid}", np.arange(row, dtype=float))
    scipy.io.savemat(data / META, {"synsets": records}, do_compression=True)
    (data / TRUTH).write_text("".join(f"{number}\n" for number in truths))


def labels(part: Part) -> dict[str, int]:
    """Map the base name of each image to its label; its bytes are its name."""
    assert all(part.name(row).endswith(part.read(row).decode()) for row in range(len(part)))
    return {Path(part.name(row)).name: int(part.labels[row]) for row in range(len(part))}


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Path:
    """ILSVRC unpacked, its validation images flat, as its tar file unpacks."""
    write_classes(tmp_path / "ilsvrc" / "train", n02=3, n01=2, n03=4)
    write(tmp_path / "ilsvrc" / "val", *VAL)
    return tmp_path / "ilsvrc"


def test_tar_of_tars_equals_folders(ilsvrc: Path, tmp_path: Path) -> None:
    """Read from the original archives, the set is that of the folders, image by image."""
    write_kit(ilsvrc / KIT / "data")
    unpacked = open_trainset(ilsvrc)
    archives, inner = tmp_path / "archives", tmp_path / "inner"
    shutil.copytree(ilsvrc / KIT, archives / KIT)
    inner.mkdir()
    for folder in (ilsvrc / "train").iterdir():
        pack(folder, inner / f"{folder.name}.tar")
    pack(inner, archives / TRAIN_TAR)
    pack(ilsvrc / "val", archives / VAL_TAR)
    packed = open_trainset(archives)
    assert packed.classes == unpacked.classes == WNIDS
    for mine, theirs, count in ((packed.train, unpacked.train, 9), (packed.val, unpacked.val, 4)):
        assert len(mine) == len(theirs) == count
        assert mine.labels.tolist() == theirs.labels.tolist()
        for row in range(count):
            assert (mine.name(row), mine.read(row)) == (theirs.name(row), theirs.read(row))
    assert packed.digest == unpacked.digest == open_trainset(archives / TRAIN_TAR).digest


@pytest.mark.parametrize("place", [".", "data", f"{KIT}/data", "val", f"{KIT}.tar.gz"])
def test_ground_truth_goes_through_meta(ilsvrc: Path, tmp_path: Path, place: str) -> None:
    """A number means the synset of meta.mat, not the class of that place; the kit may be packed."""
    if place.endswith(".gz"):
        write_kit(tmp_path / KIT / "data")
        with tarfile.open(ilsvrc / place, "w:gz") as archive:
            archive.add(tmp_path / KIT, KIT)
    else:
        write_kit(ilsvrc / place)
    assert labels(open_trainset(ilsvrc).val) == VAL


@pytest.mark.parametrize("synsets", [[], ["n00"]])
def test_caffe_list_counts_classes_from_0(ilsvrc: Path, synsets: list[str]) -> None:
    """A line of val.txt means a line of synsets.txt, or a class in sorted order, counted from 0."""
    if synsets:
        (ilsvrc / "synsets.txt").write_text("\n".join([*synsets, *WNIDS]))
    lines = (f"{name} {label + len(synsets)}\n" for name, label in VAL.items())
    (ilsvrc / "val.txt").write_text("".join(lines))
    assert labels(open_trainset(ilsvrc).val) == VAL


def test_lists_that_do_not_fit_are_refused(ilsvrc: Path) -> None:
    """An unknown number, a class past the end and an image of no list each say where."""
    opening = partial(open_trainset, ilsvrc)
    refuses(opening, DataNotFound, [f"{KIT}.tar.gz", "val/n01440764"])
    (ilsvrc / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 3\n")
    refuses(opening, DataError, ["line 1", "from 0 to 2", "synsets.txt"])
    write_kit(ilsvrc, (2, 9, 3, 1))
    refuses(opening, DataError, ["line 2", "'9'", "ILSVRC2012_ID"])
    write_kit(ilsvrc, TRUTHS[:3])
    refuses(opening, DataError, ["'ILSVRC2012_val_00000004.JPEG'"])
    (ilsvrc / META).write_bytes((ilsvrc / META).read_bytes()[:200])
    refuses(opening, DataError, [META, KIT])


def test_class_folders(tmp_path: Path) -> None:
    """The label is the place of the class's name; validation images may lie elsewhere."""
    write_classes(tmp_path / "train", cat=2, ant=1)
    write_classes(tmp_path / "val", ant=1, cat=1)
    found = open_trainset(tmp_path)
    assert found.classes == ("ant", "cat")
    assert labels(found.train) == {"ant_0.JPEG": 0, "cat_0.JPEG": 1, "cat_1.JPEG": 1}
    assert labels(found.val) == {"ant_0.JPEG": 0, "cat_0.JPEG": 1}
    elsewhere = open_trainset(tmp_path / "train", val=write_classes(tmp_path / "v", ant=1, cat=3))
    assert (len(elsewhere.train), len(elsewhere.val)) == (3, 4)
    own = write_classes(tmp_path / "own", train=2, car=2)  # no folders are in "train"
    assert open_trainset(own).classes == ("car", "train")


def test_thumbnails_of_a_system_are_no_classes_or_images(tmp_path: Path) -> None:
    """A NAS and macOS leave folders beside classes and in them: for train, for svm, in a tar."""
    images = [f"{label}/{k}.jpg" for label in ("bird", "boat") for k in (1, 2)]
    hidden = ["@eaDir/1.jpg/T.jpg", "bird/@eaDir/1.jpg/T.jpg", "__MACOSX/bird/1.jpg"]
    pack(write(tmp_path / "nas", *images, *hidden), tmp_path / "nas.tar")
    found = open_trainset(tmp_path / "nas")
    assert found.classes == ("bird", "boat")
    assert len(found.train) + len(found.val) == 4
    assert sorted(read_folders(tmp_path / "nas").names) == images
    assert sorted(map(os.fsdecode, read_tar(tmp_path / "nas.tar").names.tolist())) == images


def test_a_manifest_marks_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of train and val are used, those of test left alone, paths relative to the manifest."""
    write_classes(tmp_path, cat=3, ant=3)
    manifest, head = tmp_path / "m.csv", "path,label,split\n"
    marks = ("train", "val", "test")
    rows = [f"{c}/{c}_{n}.JPEG,{c},{marks[n]}\n" for c in ("cat", "ant") for n in range(3)]
    manifest.write_text(head + "".join(rows))
    monkeypatch.chdir(tmp_path)
    validated = {"ant_1.JPEG": 0, "cat_1.JPEG": 1}
    for path in (manifest, Path("m.csv")):
        found = open_trainset(path)
        assert labels(found.train) == {"ant_0.JPEG": 0, "cat_0.JPEG": 1}
        assert labels(found.val) == validated
        folders = write_classes(tmp_path / "other", cat=1, ant=1)
        assert labels(open_trainset(folders, val=path).val) == validated  # its test rows are not
    opening = partial(open_trainset, manifest)
    manifest.write_text(head + rows[0] + rows[3])
    refuses(opening, DataNotFound, ["'val'", "val_fraction"])
    manifest.write_text(head + rows[0] + rows[3].replace("train", "dev"))
    refuses(opening, DataError, ["'dev'", "train, val, test"])
    manifest.write_text("path,label\n" + "".join(f"{row.rpartition(',')[0]}\n" for row in rows))
    assert (len(opening().train), len(opening().val)) == (4, 2)
    text = manifest.read_text().replace("path,label", "file,kind").replace(",", "\t")
    Path("m.tsv").write_text(text)
    named = open_trainset("m.tsv", path_column="file", label_column="kind")
    assert labels(named.train) == labels(opening().train)


def test_draw_is_by_class_recorded_and_disjoint(tmp_path: Path) -> None:
    """A tenth of each class validates, at least one of two, the same ones for the same seed."""
    write_classes(tmp_path, ant=20, bee=2, cat=1)
    found = open_trainset(tmp_path)
    assert np.bincount(found.val.labels, minlength=3).tolist() == [2, 1, 0]
    assert np.bincount(found.train.labels).tolist() == [18, 1, 1]
    assert found.unvalidated == ("cat",)
    assert len({*labels(found.train), *labels(found.val)}) == 23
    assert open_trainset(tmp_path).digest == found.digest
    assert open_trainset(tmp_path, seed=1).digest != found.digest
    assert len(open_trainset(tmp_path, val_fraction=0.5).val) == 11


def test_where_images_lie_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is typed otherwise, or moved with its images and their paths, is the same set."""
    old, new = tmp_path / "old", tmp_path / "new"
    write_classes(old / "d", ant=4, bee=4)
    names = sorted(str(path.relative_to(old)) for path in old.rglob("*.JPEG"))

    def listed(folder: Path, prefix: str = "") -> Path:
        rows = [f"{prefix}{name},{name.split('/')[1]}" for name in names]
        (folder / "list.csv").write_text("\n".join(["path,label", *rows, ""]))
        return folder / "list.csv"

    digests = {open_trainset(listed(old)).digest}
    monkeypatch.chdir(old)
    digests.add(open_trainset("list.csv").digest)
    old.rename(new)
    monkeypatch.chdir(tmp_path)
    digests.add(open_trainset("new/list.csv").digest)
    digests.add(open_trainset(listed(tmp_path, f"{new}/")).digest)
    assert len(digests) == 1
    names[0] = "d/ant/other.jpg"
    write(new, names[0])
    assert open_trainset(listed(tmp_path, f"{new}/")).digest not in digests


@pytest.mark.parametrize(
    ("train", "val", "mentions"),
    [
        ({"a": 1, "b": 1, "c": 1}, {"a": 1, "c": 1}, ["val has no image of 'b'", "val_fraction"]),
        ({"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 1}, ["train has no image of 'c'"]),
        ({"a": 2}, {"a": 1}, ["'a'", "two"]),
        ({"a": 2, "b": 2}, {}, ["val_fraction"]),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, train: dict[str, int], val: dict[str, int], mentions: list[str]
) -> None:
    """A class that only one part has, a single class, no validation: each says what to do."""
    write_classes(tmp_path / "train", **train)
    write_classes(tmp_path / "val", **val)
    refuses(lambda: open_trainset(tmp_path), DataError, mentions)


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    """No classes, a tar file without them, nothing to draw from; fractions without sense."""
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    pack(write(tmp_path / "loose", "1.jpg"), tmp_path / "x.tar")
    write_classes(tmp_path / "single", a=1, b=1)
    for name, said in {"empty": "class folders", "loose": "class folders", "x.tar": "tar file",
                       "single": "one image", "absent": "absent"}.items():  # fmt: skip
        refuses(lambda name=name: open_trainset(tmp_path / name), DataError, [said])
    for part in ("train", "val"):
        write_classes(tmp_path / part, a=2, b=2)
    for fraction, right in ((1.0, "(0, 1)"), (0.5, "left out")):
        opening = partial(open_trainset, tmp_path, val_fraction=fraction)
        refuses(opening, ParameterError, ["val_fraction", right])


def test_an_image_that_is_gone_has_a_reason(tmp_path: Path) -> None:
    """A file that vanished, or is a folder by now, is a bad image with its reason."""
    part = open_trainset(write_classes(tmp_path, a=2, b=2)).train
    (tmp_path / part.name(0)).unlink()
    refuses(lambda: part.read(0), ImageError, ["no such file"])
    (tmp_path / part.name(0)).mkdir()
    refuses(lambda: part.read(0), ImageError, ["not a file"])
