"""What is trained on: ILSVRC packed and unpacked, class folders, manifests, and what is refused."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from vggfeat.data.datasets.folders import read_folders
from vggfeat.data.datasets.ilsvrc import TRAIN_TAR, VAL_TAR
from vggfeat.data.datasets.ilsvrc_truth import KIT, META, TRUTH, read_synsets
from vggfeat.data.sources.tar import read_tar
from vggfeat.errors import DataError, DataNotFound, ImageError, ParameterError
from vggfeat.train.data import Part, TrainSet, open_trainset

WNIDS = ("n01", "n02", "n03")
# ILSVRC's own numbers, which are not the order of the wnids; 4 is an inner node of the hierarchy.
NUMBERS = {3: "n01", 1: "n02", 2: "n03", 4: "n00"}
TRUTHS = (2, 3, 3, 1)  # for images 1, 2, 3, 4: n03, n01, n01, n02
Files = dict[str, bytes]


def write(root: Path, files: Files) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def classes_of(counts: dict[str, int]) -> Files:
    """Make files that are images by their names; nothing here decodes them."""
    return {
        f"{label}/{label}_{number}.JPEG": f"{label} {number}".encode()
        for label, count in counts.items()
        for number in range(count)
    }


def packed_as_ilsvrc(folder: Path, target: Path) -> None:
    """Pack class folders as ``tar`` would: a tar file for each class, and one of those."""
    with tarfile.open(target, "w") as outer:
        for label in sorted(path.name for path in folder.iterdir()):
            inner = target.with_name(f"{label}.tar")
            with tarfile.open(inner, "w") as archive:
                for image in (folder / label).iterdir():
                    archive.add(image, image.name)
            outer.add(inner, inner.name)
            inner.unlink()


def write_kit(data: Path, truths: tuple[int, ...] = TRUTHS) -> None:
    """Write the kit's two files, with scipy as the witness of Matlab's format."""
    data.mkdir(parents=True, exist_ok=True)
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("children", "O")]
    records = np.zeros((len(NUMBERS), 1), dtype=fields)
    for row, (number, wnid) in enumerate(NUMBERS.items()):
        records[row, 0] = (float(number), wnid, f"words of {wnid}", np.arange(row, dtype=float))
    scipy.io.savemat(data / META, {"synsets": records}, do_compression=True)
    (data / TRUTH).write_text("".join(f"{number}\n" for number in truths))


def flat(count: int = len(TRUTHS)) -> Files:
    return {f"ILSVRC2012_val_{n:08d}.JPEG": f"val {n}".encode() for n in range(1, count + 1)}


def content(part: Part) -> list[tuple[str, int, bytes]]:
    rows = range(len(part))
    return [(part.name(row), int(part.labels[row]), part.read(row)) for row in rows]


def val_classes(found: TrainSet) -> dict[str, str]:
    return {name: found.classes[label] for name, label, _ in content(found.val)}


EXPECTED = {
    "ILSVRC2012_val_00000001.JPEG": "n03",
    "ILSVRC2012_val_00000002.JPEG": "n01",
    "ILSVRC2012_val_00000003.JPEG": "n01",
    "ILSVRC2012_val_00000004.JPEG": "n02",
}


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Path:
    """ILSVRC unpacked, its validation images flat, as its tar file unpacks."""
    root = tmp_path / "ilsvrc"
    write(root / "train", classes_of({"n02": 3, "n01": 2, "n03": 4}))
    write(root / "val", flat())
    return root


def test_tar_of_tars_equals_folders(ilsvrc: Path, tmp_path: Path) -> None:
    """Read from the original archives, the set is that of the folders, image by image."""
    write_kit(ilsvrc / KIT / "data")
    unpacked = open_trainset(ilsvrc)
    archives = tmp_path / "archives"
    archives.mkdir()
    packed_as_ilsvrc(ilsvrc / "train", archives / TRAIN_TAR)
    with tarfile.open(archives / VAL_TAR, "w") as archive:
        for image in (ilsvrc / "val").iterdir():
            archive.add(image, image.name)
    shutil.copytree(ilsvrc / KIT, archives / KIT)
    packed = open_trainset(archives)
    assert len(packed.train) == 9
    assert len(packed.val) == 4
    assert packed.classes == unpacked.classes == WNIDS
    assert content(packed.train) == content(unpacked.train)
    assert content(packed.val) == content(unpacked.val)
    assert packed.digest == unpacked.digest
    assert open_trainset(archives / TRAIN_TAR).digest == packed.digest


@pytest.mark.parametrize("place", [".", "data", f"{KIT}/data", "val"])
def test_ground_truth_goes_through_meta(ilsvrc: Path, place: str) -> None:
    """A number of the ground truth means the synset of meta.mat, not the class of that place."""
    write_kit(ilsvrc / place)
    assert val_classes(open_trainset(ilsvrc)) == EXPECTED


def test_kit_is_read_as_it_is_distributed(ilsvrc: Path) -> None:
    """The development kit need not be unpacked."""
    write_kit(ilsvrc / KIT / "data")
    with tarfile.open(ilsvrc / f"{KIT}.tar.gz", "w:gz") as archive:
        archive.add(ilsvrc / KIT, KIT)
    shutil.rmtree(ilsvrc / KIT)
    assert val_classes(open_trainset(ilsvrc)) == EXPECTED


def test_synsets_agree_with_scipy(tmp_path: Path) -> None:
    """The project's reader finds in meta.mat what scipy finds."""
    write_kit(tmp_path)
    struct = scipy.io.loadmat(tmp_path / META, squeeze_me=True)["synsets"]
    theirs = dict(zip(struct["ILSVRC2012_ID"].astype(int), struct["WNID"], strict=True))
    assert read_synsets((tmp_path / META).read_bytes(), tmp_path / META) == theirs == NUMBERS


@pytest.mark.parametrize("with_synsets", [False, True])
def test_caffe_list_counts_classes_from_0(ilsvrc: Path, with_synsets: bool) -> None:
    """A line of val.txt means a line of synsets.txt, or a class in sorted order, counted from 0."""
    listed = ["n00", *WNIDS] if with_synsets else list(WNIDS)
    if with_synsets:
        (ilsvrc / "synsets.txt").write_text("\n".join(listed))
    lines = [f"{name} {listed.index(label)}\n" for name, label in EXPECTED.items()]
    (ilsvrc / "val.txt").write_text("".join(lines))
    assert val_classes(open_trainset(ilsvrc)) == EXPECTED


def test_lists_that_do_not_fit_are_refused(ilsvrc: Path) -> None:
    """An unknown number, a class past the end and an image of no list each say where."""
    with pytest.raises(DataNotFound, match=rf"{KIT}\.tar\.gz.*val/n01440764"):
        open_trainset(ilsvrc)
    (ilsvrc / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 3\n")
    with pytest.raises(DataError, match=r"line 1.*from 0 to 2.*synsets\.txt"):
        open_trainset(ilsvrc)
    write_kit(ilsvrc, (2, 9, 3, 1))
    with pytest.raises(DataError, match=r"line 2: '9' is no ILSVRC2012_ID"):
        open_trainset(ilsvrc)
    write_kit(ilsvrc, TRUTHS[:3])
    with pytest.raises(DataError, match=r"do not know 'ILSVRC2012_val_00000004\.JPEG'"):
        open_trainset(ilsvrc)
    (ilsvrc / META).write_bytes((ilsvrc / META).read_bytes()[:200])
    with pytest.raises(DataError, match=rf"meta\.mat cannot be used.*{KIT}"):
        open_trainset(ilsvrc)


def test_class_folders_of_both_parts(tmp_path: Path) -> None:
    """With train and val of class folders the label is the place of the class's name."""
    write(tmp_path / "train", classes_of({"cat": 2, "ant": 1}))
    write(tmp_path / "val", classes_of({"ant": 1, "cat": 1}))
    found = open_trainset(tmp_path)
    assert found.classes == ("ant", "cat")
    assert content(found.train) == [
        ("ant/ant_0.JPEG", 0, b"ant 0"),
        ("cat/cat_0.JPEG", 1, b"cat 0"),
        ("cat/cat_1.JPEG", 1, b"cat 1"),
    ]
    assert found.val.labels.tolist() == [0, 1]


def test_thumbnails_of_a_system_are_no_classes_or_images(tmp_path: Path) -> None:
    """A NAS and macOS leave folders beside classes and in them: for train, for svm, in a tar."""
    own = [f"{label}/{k}.jpg" for label in ("bird", "boat") for k in (1, 2)]
    hidden = ["@eaDir/1.jpg/T.jpg", "bird/@eaDir/1.jpg/T.jpg", "__MACOSX/bird/1.jpg"]
    write(tmp_path / "nas", dict.fromkeys((*own, *hidden), b"image"))
    with tarfile.open(tmp_path / "nas.tar", "w") as archive:
        archive.add(tmp_path / "nas", ".")
    found = open_trainset(tmp_path / "nas")
    assert found.classes == ("bird", "boat")
    assert len(found.train) + len(found.val) == 4
    assert sorted(read_folders(tmp_path / "nas").names) == own
    assert sorted(map(os.fsdecode, read_tar(tmp_path / "nas.tar").names.tolist())) == own


def test_val_may_lie_elsewhere(tmp_path: Path) -> None:
    """Validation images that are named are used in place of a draw."""
    write(tmp_path / "mine", classes_of({"cat": 2, "ant": 2}))
    write(tmp_path / "other", classes_of({"ant": 1, "cat": 3}))
    found = open_trainset(tmp_path / "mine", val=tmp_path / "other")
    assert (len(found.train), len(found.val)) == (4, 4)


@pytest.mark.parametrize("root", ["m.csv", "mine"])
def test_a_manifest_validates_by_its_split(tmp_path: Path, root: str) -> None:
    """Of a manifest that is named to validate with, rows to train and to test on are left alone."""
    write(tmp_path / "mine", classes_of({"cat": 3, "ant": 3}))
    rows = [
        f"mine/{label}/{label}_{number}.JPEG,{label},{split}\n"
        for label in ("ant", "cat")
        for number, split in enumerate(("train", "val", "test"))
    ]
    (tmp_path / "m.csv").write_text("path,label,split\n" + "".join(rows))
    found = open_trainset(tmp_path / root, val=tmp_path / "m.csv")
    assert [data for _, _, data in content(found.val)] == [b"ant 1", b"cat 1"]


def test_draw_is_by_class_recorded_and_disjoint(tmp_path: Path) -> None:
    """A tenth of each class validates, at least one of two, the same ones for the same seed."""
    write(tmp_path, classes_of({"ant": 20, "bee": 2, "cat": 1}))
    found = open_trainset(tmp_path)
    assert np.bincount(found.val.labels, minlength=3).tolist() == [2, 1, 0]
    assert np.bincount(found.train.labels).tolist() == [18, 1, 1]
    assert found.unvalidated == ("cat",)
    names = [{name for name, _, _ in content(part)} for part in (found.train, found.val)]
    assert not names[0] & names[1]
    assert names[0] | names[1] == set(classes_of({"ant": 20, "bee": 2, "cat": 1}))
    assert open_trainset(tmp_path).digest == found.digest
    assert open_trainset(tmp_path, seed=1).digest != found.digest
    assert len(open_trainset(tmp_path, val_fraction=0.5).val) == 11


def test_where_images_lie_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is typed otherwise, or moved with its images and their paths, is the same set."""
    write(tmp_path / "old" / "d", classes_of({"ant": 4, "bee": 4}))
    names = [f"d/{label}/{path.name}" for label in ("ant", "bee")
             for path in sorted((tmp_path / "old" / "d" / label).iterdir())]  # fmt: skip

    def listed(folder: Path, prefix: str = "") -> Path:
        rows = [f"{prefix}{name},{name.split('/')[1]}" for name in names]
        (folder / "list.csv").write_text("\n".join(["path,label", *rows, ""]))
        return folder / "list.csv"

    monkeypatch.chdir(tmp_path / "old")
    listed(tmp_path / "old")
    digests = {open_trainset("list.csv").digest}
    digests.add(open_trainset(tmp_path / "old" / "list.csv").digest)
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    digests.add(open_trainset("new/list.csv").digest)
    digests.add(open_trainset(listed(tmp_path, f"{tmp_path}/new/")).digest)
    assert len(digests) == 1
    names[0] = "d/ant/other.jpg"
    (tmp_path / "new" / "d" / "ant" / "other.jpg").write_bytes(b"")
    assert open_trainset(listed(tmp_path, f"{tmp_path}/new/")).digest not in digests


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    """A folder of images named train is a class, since no folders are in it."""
    write(tmp_path, classes_of({"train": 2, "car": 2}))
    assert open_trainset(tmp_path).classes == ("car", "train")


def test_manifest_marks_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of train and val are used, those of test left alone, paths relative to the manifest."""
    write(tmp_path, {f"p/{n}.jpg": str(n).encode() for n in range(5)})
    rows = ["path,label,split", "p/0.jpg,x,train", "p/1.jpg,y,train", "p/2.jpg,y,val"]
    manifest = tmp_path / "list.csv"
    manifest.write_text("\n".join([*rows, "p/3.jpg,x,val", "p/4.jpg,x,test"]))
    monkeypatch.chdir(tmp_path)
    for path in (manifest, Path("list.csv")):
        found = open_trainset(path)
        assert [(label, data) for _, label, data in content(found.train)] == [(0, b"0"), (1, b"1")]
        assert [(label, data) for _, label, data in content(found.val)] == [(1, b"2"), (0, b"3")]
    manifest.write_text("\n".join(rows[:3]))
    with pytest.raises(DataNotFound, match=r"no image of the split 'val'.*val_fraction"):
        open_trainset(manifest)
    manifest.write_text("\n".join([*rows, "p/3.jpg,x,dev"]))
    with pytest.raises(DataError, match=r"'dev'.*train, val, test"):
        open_trainset(manifest)
    manifest.write_text("path,label\np/0.jpg,x\np/1.jpg,y\np/2.jpg,y\n")
    assert (len(open_trainset(manifest).train), len(open_trainset(manifest).val)) == (2, 1)


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ({"a": 1, "b": 1, "c": 1}, {"a": 1, "c": 1}, r"val has no image of 'b'.*val_fraction"),
        ({"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 1}, r"train has no image of 'c'.*not be learnt"),
        ({"a": 2}, {"a": 1}, "has one class, 'a'; at least two"),
    ],
)
def test_classes_that_do_not_fit_are_named(
    tmp_path: Path, train: dict[str, int], val: dict[str, int], said: str
) -> None:
    """A class that only one part has, or a single class, is an error that says what to do."""
    write(tmp_path / "train", classes_of(train))
    write(tmp_path / "val", classes_of(val))
    with pytest.raises(DataError, match=said):
        open_trainset(tmp_path)


def _empty(root: Path) -> Path:
    (root / "cat").mkdir()
    return root


def _loose(root: Path) -> Path:
    return write(root, {"1.jpg": b"", "2.jpg": b""})


def _flat_tar(root: Path) -> Path:
    with tarfile.open(root / "x.tar", "w") as archive:
        archive.add(_loose(root) / "1.jpg", "1.jpg")
    return root / "x.tar"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: root / "absent", "There is no .*absent"),
        (_empty, "no class folders with images"),
        (_loose, "no class folders with images"),
        (_flat_tar, "not a tar file or a folder of them for each class"),
        (lambda root: write(root, classes_of({"a": 1, "b": 1})), "Each class .* one image"),
        (lambda root: write(root, classes_of({"train/a": 2, "train/b": 2})), "val_fraction of 0.1"),
    ],
)
def test_what_cannot_be_trained_on_is_said(
    tmp_path: Path, make: Callable[[Path], Path], said: str
) -> None:
    """Nothing there, no classes, nothing to validate with: each is an error of its own."""
    with pytest.raises(DataError, match=said):
        open_trainset(make(tmp_path))


def test_fractions_that_make_no_sense(tmp_path: Path) -> None:
    """A fraction must leave images on both sides, and excludes validation images."""
    write(tmp_path / "train", classes_of({"a": 2, "b": 2}))
    write(tmp_path / "val", classes_of({"a": 1, "b": 1}))
    with pytest.raises(ParameterError, match=r"float in \(0, 1\)"):
        open_trainset(tmp_path, val_fraction=1.0)
    with pytest.raises(ParameterError, match="left out"):
        open_trainset(tmp_path, val_fraction=0.5)


def test_an_image_that_is_gone_has_a_reason(tmp_path: Path) -> None:
    """A file that vanished, or is a folder by now, is a bad image with its reason."""
    write(tmp_path, classes_of({"a": 2, "b": 2}))
    part = open_trainset(tmp_path).train
    (tmp_path / part.name(0)).unlink()
    with pytest.raises(ImageError, match="no such file"):
        part.read(0)
    (tmp_path / part.name(0)).mkdir()
    with pytest.raises(ImageError, match="not a file"):
        part.read(0)
