"""Cards: what the shipped ones say, what a card of one's own may say, and partial data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.mistakes import refuses
from pydantic import ValidationError
from trees import draw_jpeg, write_actions, write_classes, write_voc

from vggfeat.data.datasets import card_names, check_dataset, load_card, open_dataset
from vggfeat.data.datasets.card import READERS, DatasetCard, Reader
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError, DataNotFound
from vggfeat.svm.protocols import protocol_of

VOC = {"kind": "voc", "ap": "ap11"}
OWN = """
name = "mine"
reader = "voc"
folder = "VOC2007"
root = "images"
classes = ["cat", "dog"]
[counts]
train = 1
val = 1
trainval = 2
test = 1
[positives]
train = [1, 0]
trainval = [1, 1]
[protocol]
kind = "voc"
ap = "ap11"
"""
PARTS = {
    "train": {"000001": (1, -1)},
    "val": {"000002": (-1, 1)},
    "trainval": {"000001": (1, -1), "000002": (-1, 1)},
    "test": {"000003": (1, 1)},
}


@pytest.fixture
def own(tmp_path: Path) -> str:
    write_voc(tmp_path / "images" / "VOC2007", ("cat", "dog"), PARTS)
    (tmp_path / "mine.toml").write_text(OWN)
    return str(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("voc2007", ["D: 89.3 %", "E: 89.3 %", "D & E: 89.7 %"]),
        ("voc2012", ["D: 89 %", "E: 89 %", "D & E: 89.3 %"]),
        ("voc2012-action", ["D & E (whole image): 79.2 %", "D & E (whole image and box): 84 %"]),
        ("caltech101", ["D: 91.8 ± 1 %", "E: 92.3 ± 0.5 %", "D & E: 92.7 ± 0.5 %"]),
        ("caltech256", ["D: 85 ± 0.2 %", "E: 85.1 ± 0.3 %", "D & E: 86.2 ± 0.3 %"]),
    ],
)
def test_cards_hold_the_papers_figures(name: str, figures: list[str]) -> None:
    """Tables 11 and 12, row by row, as they are printed."""
    assert [str(row) for row in load_card(name).paper if row.nets] == figures


@pytest.mark.parametrize(
    ("name", "classes", "total"),
    [
        ("voc2007", 20, 2501 + 2510 + 4952),
        ("voc2012", 20, 5717 + 5823 + 10991),
        ("caltech101", 102, 9144),
        ("caltech256", 257, 30607),
        ("ilsvrc2012", 1000, 50000),
        ("sample-voc", 10, 240),
    ],
)
def test_counts_agree_with_each_other(name: str, classes: int, total: int) -> None:
    """Trainval is train and val, class by class; a whole is the sum of its classes."""
    card = load_card(name)
    assert len(card.classes) == classes
    counts = card.counts or {"all": card.images}
    assert sum(count for part, count in counts.items() if part != "trainval") == total
    if "trainval" in card.positives:
        both = np.add(card.positives["train"], card.positives["val"])
        assert both.tolist() == list(card.positives["trainval"])
        assert counts["train"] + counts["val"] == counts["trainval"]
    if "all" in card.positives:
        assert sum(card.positives["all"]) == total


def test_protocols_are_the_papers() -> None:
    """Appendix B: the splits of Caltech, the scales of each, the AP of each year."""
    protocols = {name: protocol_of(load_card(name)) for name in card_names()}
    caltech101, caltech256 = protocols["caltech101"], protocols["caltech256"]
    assert (caltech101.train_per_class, caltech101.max_test_per_class) == (30, 50)
    assert (caltech256.train_per_class, caltech256.max_test_per_class) == (60, None)
    assert caltech101.train_fraction is None
    assert caltech101.validation_fraction == caltech256.validation_fraction == 0.2
    assert load_card("caltech101").defaults.Q == (256, 384, 512)
    assert load_card("caltech101").defaults.aggregate == "stack"
    assert load_card("voc2007").defaults.Q == (256, 384, 512, 640, 768)
    assert [protocols[name].ap for name in ("voc2007", "voc2012")] == ["ap11", "area"]
    assert load_card("voc2007").required == ("train", "val", "trainval", "test")
    assert load_card("voc2012").required == ("train", "val", "trainval")


def test_a_card_of_before_still_means_splits() -> None:
    """Without a kind the protocol is that of random splits, as sample.toml has it."""
    protocol = protocol_of(load_card("sample"))
    assert (protocol.kind, protocol.train_fraction, protocol.splits) == ("splits", 0.5, 3)


def test_every_archive_can_be_verified() -> None:
    """No archive is taken unseen; what has no address is said to be fetched by hand."""
    for name in card_names():
        for archive in load_card(name).archives:
            assert archive.sha256 or archive.md5
            assert archive.urls or archive.wrapper


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes": ("cat", "cat")}, "named twice"),
        ({"positives": {"train": (1,)}}, "1 numbers for 2 classes"),
        ({"reader": "polders"}, "folders"),
        ({"folder": ""}, "needs classes and folder"),
        ({"colour": "red"}, "colour"),
        ({"archives": [{"file": "a.tar", "needed_for": ["all"]}]}, "needs a sha256 or an md5"),
        ({"archives": [{"file": "../a.tar", "needed_for": [], "md5": "0" * 32}]}, "pattern"),
    ],
)
def test_bad_cards_are_refused(change: dict[str, Any], reason: str) -> None:
    """What a card may not say is named."""
    good = {
        "name": "mine",
        "reader": "voc",
        "folder": "VOC2007",
        "classes": ("cat", "dog"),
        "protocol": VOC,
    }
    assert DatasetCard(**good).protocol == VOC
    with pytest.raises(ValidationError, match=reason):
        DatasetCard(**(good | change))


def test_a_card_of_ones_own_is_opened(own: str) -> None:
    """Its root counts from the card's own folder, wherever the command is run."""
    card, images = open_dataset(own)
    assert (card.name, card.partial, card.differences, card.absent) == ("mine", False, (), ())
    assert images.names == ("000001", "000002", "000003")
    assert Path(card.root) == Path(own).resolve().parent / "images" / "VOC2007"


def test_data_that_differ_are_refused_unless_allowed(own: str) -> None:
    """The first differences are named; allowed, the card says what it lacks."""
    tree = Path(own).parent / "images" / "VOC2007"
    (tree / "JPEGImages" / "000001.jpg").unlink()
    (tree / "ImageSets" / "Main" / "test.txt").unlink()
    with pytest.raises(DataError, match=r"train: 0 of 1 images; .* more .*--allow-partial"):
        open_dataset(own)
    card, images = open_dataset(own, allow_partial=True)
    assert card.partial
    assert "test: 0 of 1 images" in card.differences
    assert card.absent == ("cat",)
    assert card.classes == ("cat", "dog")
    assert images.missing == ("000001",)
    assert check_dataset(own).missing == ("000001",)


def test_only_parts_that_are_needed_must_be_there(own: str) -> None:
    """Without its test part a data set is whole to who asks for training alone."""
    (Path(own).parent / "images" / "VOC2007" / "ImageSets" / "Main" / "test.txt").unlink()
    card, _ = open_dataset(own, splits=["train", "val", "trainval"])
    assert not card.partial


def test_parts_of_a_manifest_are_those_of_its_split_column(tmp_path: Path) -> None:
    """A card that counts nothing has the parts that its CSV has, and is asked for no other."""
    write_classes(tmp_path, {"cat": 2, "dog": 2})
    paths = sorted(path.relative_to(tmp_path) for path in tmp_path.glob("*/*"))
    rows = [
        f"{path},{path.parent},{split}"
        for path, split in zip(paths, ["train", "test"] * 2, strict=True)
    ]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    own = tmp_path / "mine.toml"
    own.write_text('name = "mine"\nreader = "manifest"\nfolder = "list.csv"\nroot = "."\n')
    card, images = open_dataset(str(own), splits=["train"])
    assert (card.partial, images.splits["train"].tolist()) == (False, [0, 2])
    assert check_dataset(str(own), splits=["train", "test"]).complete
    for action in (open_dataset, check_dataset):
        refuses(
            lambda: action(str(own), splits=["val"]),  # noqa: B023
            DataError,
            ["mine has no split 'val'; it has all, test, train."],
        )


def test_a_class_folder_too_many_is_a_difference(tmp_path: Path) -> None:
    """A folder that the card does not know is neither read nor passed over."""
    write_classes(tmp_path / "101_ObjectCategories", {"camera": 50, "zebra": 4})
    differences = map(str, check_dataset("caltech101", tmp_path).differences)
    found = [one for one in differences if one.startswith(("camera", "zebra"))]
    assert found == ["zebra: 4 images, none promised"]


def test_actions_are_opened_by_their_card(tmp_path: Path) -> None:
    """The action card reads persons and knows how many there should be."""
    tree = tmp_path / "VOCdevkit" / "VOC2012"
    classes = load_card("voc2012-action").classes
    labels = [1] + [-1] * 9
    write_actions(tree, classes, {p: {("a", 1): labels} for p in ("train", "val", "trainval")})
    card, images = open_dataset("voc2012-action", tmp_path, allow_partial=True)
    assert images.names == ("a#1",)
    assert len(images.boxes) == 1
    assert card.differences[0] == "train: 1 of 3,134 images"
    assert card.absent == classes[1:]


def test_ilsvrc_is_read_from_class_folders(tmp_path: Path) -> None:
    """The validation images in folders of their synsets are the part val."""
    write_classes(tmp_path / "val", {"n01440764": 2, "n15075141": 1})
    card, images = open_dataset("ilsvrc2012", tmp_path, allow_partial=True)
    assert images.splits["val"].tolist() == [0, 1, 2]
    assert images.targets.argmax(axis=1).tolist() == [0, 0, 999]
    assert card.differences == ("val: 3 of 50,000 images",)


def test_folders_and_files_have_targets_too(tmp_path: Path) -> None:
    """Without a card the classes are the folders, sorted, and the targets follow them."""
    write_classes(tmp_path / "zoo", {"dog": 1, "cat": 2})
    card, images = open_dataset(str(tmp_path / "zoo"))
    assert card.classes == ("cat", "dog")
    assert images.targets.tolist() == [[1, -1], [1, -1], [-1, 1]]


def test_the_data_folder_is_root_then_environment_then_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--root comes first, then VGGFEAT_DATA, then ./data."""
    for number, place in enumerate(("here/data", "there", "given"), 1):
        write_classes(tmp_path / place / "101_ObjectCategories", {"camera": number, "crab": 1})
    monkeypatch.chdir(tmp_path / "here")
    counted = []
    for root in (None, None, tmp_path / "given"):
        _, images = open_dataset("caltech101", root, allow_partial=True)
        counted.append(images.labels.count("camera"))
        monkeypatch.setenv("VGGFEAT_DATA", str(tmp_path / "there"))
    assert counted == [1, 2, 3]


def test_a_file_that_is_no_card_is_refused(tmp_path: Path) -> None:
    """Bad TOML and a missing file each have their own answer."""
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(DataError, match="is not a data set card"):
        load_card(str(tmp_path / "bad.toml"))
    with pytest.raises(DataNotFound, match="There is no data set"):
        load_card(str(tmp_path / "none.toml"))


def test_a_layout_of_its_own_is_a_reader_and_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registered reader is found by its name: its trees, images and splits are the data set's."""

    class Stems(Reader):
        """Images that are called class-number.jpg."""

        def is_tree(self, card: DatasetCard, folder: Path) -> bool:
            return (folder / "stems.txt").is_file()

        def read(self, card: DatasetCard, tree: Path) -> ImageSet:
            paths = sorted(tree.glob("*.jpg"))
            labels = tuple(path.stem.split("-")[0] for path in paths)
            names = tuple(path.name for path in paths)
            return ImageSet(names, tuple(paths), labels, splits={"train": np.array([0, 2])})

    monkeypatch.setitem(READERS, "stems", Stems())
    tree = tmp_path / "somewhere" / "tree"
    for name in ("cat-1", "cat-2", "dog-1"):
        draw_jpeg(tree / f"{name}.jpg")
    (tree / "stems.txt").touch()
    own = tmp_path / "mine.toml"
    own.write_text('name = "mine"\nreader = "stems"\nfolder = "tree"\ncounts = { train = 2 }\n')
    card, images = open_dataset(str(own), tmp_path)
    assert (card.classes, card.partial) == (("cat", "dog"), False)
    assert images.targets.argmax(axis=1).tolist() == [0, 0, 1]
    assert card.root == str(tree.resolve())
    own.write_text('name = "mine"\nreader = "steams"\nfolder = "tree"\n')
    refuses(lambda: load_card(str(own)), DataError, ["reader", "stems", "caltech"])
