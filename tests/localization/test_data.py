"""Sets of images with boxes: of ILSVRC and VOC, whole or to test on alone, with bad images."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from helpers.boxes import red_tree
from helpers.mistakes import refuses
from helpers.networks import formula_weights
from PIL import Image
from trees import OBJECT, withhold

from vggfeat.errors import DataError, ImageError, ParameterError
from vggfeat.localization.boxes import as_annotated
from vggfeat.localization.data import open_boxset
from vggfeat.localization.training import BoxRegression, init_from_classifier
from vggfeat.settings import Decoding
from vggfeat.train.loader import Loader

PARTS = {
    "train": {"000001": (1, -1), "000002": (-1, 1), "000009": (1, -1)},
    "val": {"000003": (1, -1), "000004": (-1, 1)},
    "test": {"000005": (1, -1), "000006": (-1, 1), "000007": (-1, 1)},
}
WNIDS = ("n01443537", "n02123045")  # the classes 1 and 281
SIZE = (300, 260)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return red_tree(tmp_path / "VOC2007", PARTS)


def annotate(
    folder: Path,
    name: str,
    label: str,
    size: tuple[int, int] | None = SIZE,
    box: tuple[float, ...] = (21, 31, 120, 150),
) -> None:
    """Write the XML file of an image."""
    stated = "" if size is None else f"<width>{size[0]}</width><height>{size[1]}</height>"
    shown = OBJECT.format(name=label, difficult=0, box=box)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.xml").write_text(f"<a><size>{stated}</size>{shown}</a>")


def draw(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 50)).save(path)


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """ILSVRC's layout in small: training images in folders, validation flat, Caffe's list."""
    root, places = tmp_path / "ilsvrc", (1, 281)
    for wnid in WNIDS:
        for number in (1, 2, 3):
            draw(root / "train" / wnid / f"{wnid}_{number}.JPEG")
            annotate(root / "bbox_train" / wnid, f"{wnid}_{number}", wnid)
    lines = []
    for number, at in enumerate((0, 1, 0), 1):
        name = f"ILSVRC2012_val_0000000{number}"
        draw(root / "val" / f"{name}.JPEG")
        annotate(root / "bbox_val", name, WNIDS[at])
        lines.append(f"{name}.JPEG {places[at]}\n")
    (root / "val.txt").write_text("".join(lines))
    synsets = dict(zip(places, WNIDS, strict=True))
    (root / "synsets.txt").write_text("".join(f"{synsets.get(k, k)}\n" for k in range(1000)))
    return root


def names(part: object) -> list[str]:
    return [part.part.name(row) for row in range(len(part))]  # type: ignore[attr-defined, arg-type]


@pytest.mark.parametrize("packed", [False, True])
def test_ilsvrcs_test_needs_nothing_of_training(imagenet: Path, packed: bool) -> None:
    """Validation, flat or in its tar file, with its boxes; damaged ones of training are unread."""
    whole = open_boxset(imagenet)
    shutil.rmtree(imagenet / "train")
    (imagenet / "bbox_train" / WNIDS[0] / f"{WNIDS[0]}_1.xml").write_text("damaged")
    if packed:
        with tarfile.open(imagenet / "ILSVRC2012_img_val.tar", "w") as archive:
            for path in (imagenet / "val").iterdir():
                archive.add(path, path.name)
        shutil.rmtree(imagenet / "val")
    found = open_boxset(imagenet, classes=WNIDS[::-1], parts=("test",))
    assert found.classes == WNIDS[::-1]
    assert found.tested == whole.tested
    assert found.tested.startswith("val, ")
    assert (len(found.train), len(found.val), len(found.test)) == (0, 0, 3)
    assert names(found.test) == names(whole.test)
    assert found.test.part.labels.tolist() == (1 - whole.test.part.labels).tolist()
    np.testing.assert_array_equal(found.test.chosen, whole.test.chosen)
    assert found.test.open(1).size == SIZE
    one = open_boxset(imagenet, classes=WNIDS[1:], parts=("test",))
    assert names(one.test) == ["ILSVRC2012_val_00000002.JPEG"]
    refuses(lambda: open_boxset(imagenet, classes=["cat"], parts=("test",)), DataError, ["cat"])


def test_class_folders_manifests_and_sets_without_parts_are_tested(imagenet: Path) -> None:
    """Folders tell classes, a manifest has its split; of others, what training would draw."""
    train, boxes = imagenet / "train", [imagenet / "bbox_train"]
    whole, alone = (
        open_boxset(train, boxes=boxes, parts=parts)
        for parts in (("train", "val", "test"), ("test",))
    )
    assert names(alone.test) == names(whole.test)
    assert len(alone.test) == 2
    lines = [f"train/{wnid}/{wnid}_2.JPEG,{wnid},val\n" for wnid in WNIDS]
    (imagenet / "all.csv").write_text("path,label,split\n" + "".join(lines))
    listed = open_boxset(imagenet / "all.csv", parts=("test",), boxes=boxes)
    assert listed.classes == WNIDS
    assert listed.test.open(1).size == SIZE
    for number, wnid in enumerate((*WNIDS, WNIDS[0]), 1):
        old = imagenet / "val" / f"ILSVRC2012_val_0000000{number}.JPEG"
        (imagenet / "val" / wnid).mkdir(exist_ok=True)
        old.rename(imagenet / "val" / wnid / old.name)
    found = open_boxset(imagenet, parts=("test",))
    assert found.classes == WNIDS
    assert found.test.part.labels.tolist() == [0, 0, 1]


def test_images_without_boxes_are_left_out(imagenet: Path) -> None:
    """The others are paired by name; without a stated size it is the image's own."""
    folder = imagenet / "bbox_train" / WNIDS[0]
    (folder / f"{WNIDS[0]}_1.xml").unlink()
    annotate(folder, f"{WNIDS[0]}_2", WNIDS[0], size=None)
    found = open_boxset(imagenet)
    assert names(found.train)[:2] == [f"{WNIDS[0]}/{WNIDS[0]}_{k}.JPEG" for k in (2, 3)]
    assert found.train.sizes.tolist() == [list(SIZE)] * 5
    assert found.train.chosen.tolist() == [[20, 30, 120, 150]] * 5
    assert found.test is found.val
    only = open_boxset(imagenet, classes=WNIDS[1:])
    assert only.train.part.labels.tolist() == [0, 0, 0]
    assert only.digest != found.digest


def test_boxes_that_contradict_each_other_are_refused(imagenet: Path) -> None:
    """Two sources that state other boxes of an image of one name; the same ones may be twice."""
    shutil.copytree(imagenet / "bbox_val", imagenet / "Annotations")
    assert len(open_boxset(imagenet).test) == 3
    annotate(imagenet / "Annotations", "ILSVRC2012_val_00000001", WNIDS[0], (400, 300))
    refuses(lambda: open_boxset(imagenet), DataError, ["bbox_val", "ILSVRC2012_val_00000001"])


def test_images_of_one_name_have_their_own_boxes(tmp_path: Path) -> None:
    """In train and val, and in two classes, each in the folder of its annotation."""
    boxes = {}
    for at, (part, label) in enumerate(product(("train", "val"), "ab")):
        for number in range(3):
            draw(tmp_path / part / label / f"{number}.png", (50, 40))
            boxes[part, label, number] = box = (1 + at, 1 + number, 30, 20)
            annotate(tmp_path / "Annotations" / part / label, str(number), label, None, box)
    found = open_boxset(tmp_path)
    for part, held in (("train", found.train), ("val", found.val), ("val", found.test)):
        expected = [box for (of, _, _), box in boxes.items() if of == part]
        assert [as_annotated(box) for box in held.chosen] == expected
    assert found.left_out == {}


def test_bad_annotations_of_ilsvrc_are_left_out(imagenet: Path) -> None:
    """Damaged, of another class, or with boxes that are no pixels; the others are kept."""
    folder = imagenet / "bbox_train" / WNIDS[0]
    (folder / f"{WNIDS[0]}_1.xml").write_text("")
    annotate(folder, f"{WNIDS[0]}_2", WNIDS[0].upper())
    annotate(folder, f"{WNIDS[0]}_3", WNIDS[0], None, (0.1, 0.1, 0.9, 0.9))
    (folder / f"._{WNIDS[0]}_3.xml").write_bytes(b"hidden")
    found = open_boxset(imagenet)
    assert names(found.train) == [f"{WNIDS[1]}/{WNIDS[1]}_{k}.JPEG" for k in (1, 2, 3)]
    said = [found.left_out[f"{WNIDS[0]}/{WNIDS[0]}_{k}.JPEG"] for k in (1, 2, 3)]
    for reason, named in zip(said, (f"{WNIDS[0]}_1.xml", WNIDS[0].upper(), "0 to 1"), strict=True):
        assert named in reason


def test_bad_images_of_ilsvrc_are_left_out(imagenet: Path) -> None:
    """Without a stated size at once and named; with one, when they are read, as by the loader."""
    bad, wrong = (f"{WNIDS[0]}/{WNIDS[0]}_{k}.JPEG" for k in (1, 3))
    annotate(imagenet / "bbox_train" / WNIDS[0], f"{WNIDS[0]}_1", WNIDS[0], size=None)
    (imagenet / "train" / bad).write_bytes(b"damaged")
    draw(imagenet / "train" / wrong, SIZE[::-1])
    found = open_boxset(imagenet)
    assert found.left_out.keys() == {bad}
    assert names(found.train)[1] == wrong
    refuses(lambda: found.train.part.read(1), ImageError, ["260×300", "300×260"])
    with Loader(found.train.part, batch_size=4, S=224, seed=0) as loader:
        [batch] = loader.batches(0)
        assert 1 not in batch.rows.tolist()
        assert list(loader.failed) == [wrong]


def test_a_damaged_image_does_not_stop_training(tree: Path, small_nets: None) -> None:
    """Neither the mean box nor the activations; what was left out is named; if all are, it ends."""
    path = tree / "JPEGImages" / "000001.jpg"
    path.write_bytes(path.read_bytes()[:900])  # its head is whole
    (tree / "JPEGImages" / "000009.jpg").write_bytes(b"damaged")
    found = open_boxset(tree)
    assert names(found.train) == ["JPEGImages/000001.jpg", "JPEGImages/000002.jpg"]
    assert set(found.left_out) == {"000009"}
    task = BoxRegression.on(found, "scr", 256)
    assert np.isfinite(task.mean_boxes()).all()
    weights = formula_weights("D")
    assert init_from_classifier(weights, task).state["fc8.weight"].shape == (4, 5)
    alone = replace(found, train=found.train.take([0]))
    task = BoxRegression.on(alone, "scr", 256)
    refuses(lambda: init_from_classifier(weights, task), DataError, ["JPEGImages/000001.jpg"])
    for name in ("000001", "000002"):
        (tree / "JPEGImages" / f"{name}.jpg").write_bytes(b"damaged")
    refuses(lambda: open_boxset(tree), DataError, ["3 were left out", "000001"])


def test_a_tree_of_test_images_alone(tree: Path) -> None:
    """As the archive of VOC's test part has it: no list of another part, no other image."""
    whole = open_boxset(tree)
    assert whole.classes == open_boxset(tree, classes=["dog", "cat"]).classes == ("cat", "dog")
    lists = tree / "ImageSets" / "Main"
    for path in [*lists.glob("*train.txt"), *lists.glob("*val.txt")]:
        path.unlink()
    for name in ("000001", "000003"):
        (tree / "JPEGImages" / f"{name}.jpg").unlink()
    found = open_boxset(tree, parts=("test",))
    assert names(found.test) == names(whole.test)
    assert (len(found.train), len(found.val)) == (0, 0)
    assert open_boxset(tree, classes=["dog", "cat"], parts=("test",)).classes == ("dog", "cat")
    refuses(lambda: open_boxset(tree, parts=("train", "val")), DataError, ["train.txt"])


def test_validation_stands_for_a_test_part_without_labels(tree: Path) -> None:
    """As that of VOC 2012 is, whose annotations are not there either."""
    assert open_boxset(tree, parts=("test",)).tested == "test"
    withhold(tree / "ImageSets" / "Main")
    (tree / "Annotations" / "000005.xml").unlink()
    found = open_boxset(tree, parts=("test",))
    assert names(found.test) == ["JPEGImages/000003.jpg", "JPEGImages/000004.jpg"]
    assert len(found.val) == 0
    assert found.tested.startswith("val, ")
    assert names(open_boxset(tree).test) == names(found.test)


def test_parts_and_classes_that_there_are_not_are_refused(tree: Path, imagenet: Path) -> None:
    """With those that there are; to train with, classes have names."""
    of_parts = ["'train', 'val', 'test'"]
    refuses(lambda: open_boxset(tree, parts=("trainval",)), ParameterError, of_parts)
    for root, known in ((tree, ("cat", "dog")), (imagenet / "train", WNIDS)):
        opening = partial(open_boxset, root, classes=["bus"], parts=("test",))
        refuses(opening, DataError, ["'bus' of the net", *known])
    assert open_boxset(imagenet, classes=["tabby"]).classes == WNIDS[1:]


@pytest.mark.parametrize("kind", ["voc", "ilsvrc"])
def test_boxes_may_be_in_images_as_they_are_stored(tree: Path, imagenet: Path, kind: str) -> None:
    """Of an image on its side; turned upright it is not of the size that its annotation states."""
    root = tree if kind == "voc" else imagenet
    shown = open_boxset(root).train
    path = Path(str(shown.part.images.image(0)))
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        stored = image.convert("RGB")
    stored.save(path, exif=exif)
    ignored = open_boxset(root, decoding=Decoding(exif=False)).train
    assert len(ignored) == len(shown)
    assert ignored.open(0).size == stored.size
    assert ignored.take([0]).part.read(0) == path.read_bytes()
    upright = open_boxset(root).train
    if kind == "voc":
        assert len(upright) < len(shown)
    else:
        refuses(lambda: upright.part.read(0), ImageError, [])
