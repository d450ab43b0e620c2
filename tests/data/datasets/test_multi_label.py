"""Manifests whose images have several classes or none: targets as of VOC, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.cli import run
from helpers.mistakes import refuses

from vggfeat.data.datasets import open_dataset
from vggfeat.data.datasets.ilsvrc import read_images
from vggfeat.data.imageset import find_images
from vggfeat.errors import DataError
from vggfeat.svm.protocols import protocol_of

CSV = """path,labels,split
a.jpg,dog|cat,train
b.jpg,,train
c.jpg,"cat | cat||bird",val
d.jpg,bird,test
./a.jpg,cat|dog,train
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    for name in "abcd":
        (tmp_path / f"{name}.jpg").write_bytes(name.encode())
    (tmp_path / "labels.csv").write_text(CSV)
    return tmp_path / "labels.csv"


def test_targets_and_splits_are_as_of_voc(manifest: Path) -> None:
    """Classes are sorted; an image has +1 for each of its own; trainval is train and val."""
    card, images = open_dataset(str(manifest))
    assert card.protocol == {"kind": "multi-label"}
    assert card.classes == ("bird", "cat", "dog")
    assert images.names == ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert images.targets is not None
    assert images.targets.dtype == "int8"
    assert images.targets.tolist() == [[-1, 1, 1], [-1, -1, -1], [1, 1, -1], [1, -1, -1]]
    assert images.labels == ()
    assert images.labelled is None
    assert len(images.left_out.repeated) == 1
    rows = {"train": [0, 1], "val": [2], "trainval": [0, 1, 2], "test": [3]}
    assert {name: of.tolist() for name, of in images.splits.items()} == rows
    assert images.positives("trainval").tolist() == [1, 2, 1]


def test_splits_are_not_needed(manifest: Path) -> None:
    """Without the column there are none; without val, trainval is train."""
    manifest.write_text("path,labels\na.jpg,cat\nb.jpg,\n")
    assert open_dataset(str(manifest))[1].splits == {}
    manifest.write_text("path,labels,split\na.jpg,cat,train\nb.jpg,,test\n")
    assert open_dataset(str(manifest))[1].splits["trainval"].tolist() == [0]


def test_a_card_gives_the_order_of_classes(manifest: Path) -> None:
    """Of a card of kind voc over a manifest, targets are in the order of its classes."""
    card = manifest.with_suffix(".toml")
    card.write_text(
        'name = "mine"\nreader = "manifest"\nroot = "."\nfolder = "labels.csv"\n'
        'classes = ["dog", "cat", "bird"]\n[protocol]\nkind = "voc"\nap = "area"\n'
    )
    images = open_dataset(str(card))[1]
    assert images.targets is not None
    assert images.targets[0].tolist() == [1, 1, -1]
    card.write_text(card.read_text().replace('kind = "voc"\nap = "area"', 'kind = "splits"'))
    opened, images = open_dataset(str(card))
    refuses(lambda: protocol_of(opened).check(opened, images), DataError, ["mine", "multi-label"])


def test_rows_keep_their_classes(manifest: Path) -> None:
    """What is taken of a set keeps its label sets."""
    assert find_images([str(manifest)]).take([2, 1]).label_sets == (("bird", "cat"), ())


def test_parquet_may_hold_lists(tmp_path: Path) -> None:
    """A list of labels is as good as text with bars; null is no label."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a.jpg").write_bytes(b"a")
    paths = ["a.jpg", "b.jpg", "c.jpg"]
    for labels in ([["dog", "cat"], [], None], ["cat|dog", "", None]):
        table = pyarrow.table({"path": paths, "labels": labels})
        parquet.write_table(table, tmp_path / "m.parquet")
        found = find_images([str(tmp_path / "m.parquet")])
        assert found.label_sets == (("cat", "dog"), (), ())


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("path,label,labels\na.jpg,cat,cat|dog\n", ["labels.csv", "'label'", "'labels'"]),
        ("path,labels\na.jpg,\nb.jpg,\n", ["labels.csv", "no image"]),
        ("path,labels\na.jpg,cat\na.jpg,dog\n", ["'a.jpg'", "'cat'", "'dog'", "'|'"]),
        ("path,labels\na.jpg,cat,dog\n", ["labels.csv", "line 2", "'|'"]),
        ("path,labels,split\na.jpg,cat,training\n", ["labels.csv", "'training'", "train, val"]),
        ("path,labels,split\na.jpg,cat,train\nb.jpg,dog,\n", ["labels.csv", "'b.jpg'", "split"]),
    ],
)
def test_what_cannot_be_meant_is_refused(manifest: Path, text: str, mentions: list[str]) -> None:
    """The file is named, and what is wrong in it."""
    manifest.write_text(text)
    refuses(lambda: open_dataset(str(manifest)), DataError, mentions)


def test_networks_are_not_trained_on_it(manifest: Path, tmp_path: Path) -> None:
    """What needs one class for each image says so."""
    refuses(lambda: read_images(manifest), DataError, ["labels.csv", "'labels'", "label"])
    out = tmp_path / "run"
    assert "'labels'" in run("train", "--data", manifest, "--out", out, status=3).err
