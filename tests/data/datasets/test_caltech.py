"""Caltech's class folders: background kept, stray files skipped and named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from helpers.mistakes import refuses
from trees import draw_jpeg, write_classes

from vggfeat.data.datasets import load_card, open_dataset
from vggfeat.data.datasets.caltech import read_caltech
from vggfeat.errors import DataError


def test_strays_are_skipped_and_named(tmp_path: Path) -> None:
    """RENAME2, the folder in 056.dog and loose files are no images of any class."""
    write_classes(tmp_path, {"056.dog": 2, "198.spider": 1, "257.clutter": 3})
    (tmp_path / "198.spider" / "RENAME2").write_text("mv 1 2")
    draw_jpeg(tmp_path / "056.dog" / "greg" / "056_0001.jpg")
    (tmp_path / "056.dog" / "._image_0001.jpg").touch()
    (tmp_path / "README").touch()
    images = read_caltech(tmp_path, ("056.dog", "198.spider", "257.clutter"))
    assert images.left_out.beside == ["README", "056.dog/greg/", "198.spider/RENAME2"]
    assert images.labels == ("056.dog",) * 2 + ("198.spider",) + ("257.clutter",) * 3
    assert images.names[0] == "056.dog/image_0001.jpg"
    assert images.targets.tolist()[2] == [-1, 1, -1]
    assert images.positives().tolist() == [2, 1, 3]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    """Nothing to read is said with the folder's name."""
    with pytest.raises(DataError, match="has no images in class folders such as cat"):
        read_caltech(tmp_path, ("cat", "dog"))


def test_the_background_is_a_class() -> None:
    """The paper counts 102 and 257 classes, background and clutter among them."""
    assert load_card("caltech101").classes[0] == "BACKGROUND_Google"
    assert load_card("caltech256").classes[-1] == "257.clutter"


def test_the_genuine_part_is_known_to_be_one(real_images: Path) -> None:
    """Some of the 102 classes are there; the others are named, and every count agrees."""
    root = real_images / "caltech101"
    folders = {path.name: path for path in (root / "101_ObjectCategories").iterdir()}
    counts = {label: len(list(path.glob("*.jpg"))) for label, path in folders.items()}
    seen = f"{sum(counts.values()):,} of 9,144 images; BACKGROUND_Google: 80 of 467"
    refuses(lambda: open_dataset("caltech101", root), DataError, [seen])
    card, images = open_dataset("caltech101", root, allow_partial=True)
    assert card.partial
    assert len(card.classes) == 102
    assert len(card.absent) == 102 - len(folders)
    assert set(folders) == set(card.classes) - set(card.absent)
    assert Counter(images.labels) == counts
    published = dict(zip(card.classes, card.positives["all"], strict=True))
    assert counts == {label: min(80, published[label]) for label in folders}  # as its README says
    differing = {difference.split(": ")[0] for difference in card.differences} - {"all"}
    large = {label for label in folders if published[label] > 80}
    assert differing == large | set(card.absent)
