"""sample-voc: the same bytes each time, no drawing in two parts, labels as the boxes say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCDetection

from vggfeat.data.datasets import load_card, open_dataset
from vggfeat.data.datasets import sample_voc as module
from vggfeat.data.datasets.annotations import read_annotation
from vggfeat.data.datasets.sample_voc import compose, write_scenes
from vggfeat.errors import DataError, ParameterError


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCENES", {"train": 8, "val": 8, "test": 8})


def contents(tree: Path) -> dict[str, bytes]:
    return {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


@pytest.mark.usefixtures("few")
def test_the_same_scenes_come_out_each_time(tmp_path: Path) -> None:
    """Two compositions have the same files, byte for byte."""
    write_scenes(tmp_path / "one")
    write_scenes(tmp_path / "other")
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "other")
    assert len(one) == 24 + 24 + 4 * 11


@pytest.mark.usefixtures("few")
def test_no_drawing_is_in_two_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests was never seen in training or validation."""
    used: list[Path] = []
    drawing = module._drawing
    saved: list[int] = []
    write = module._write
    monkeypatch.setattr(module, "_drawing", lambda p, n: used.append(p) or drawing(p, n))
    monkeypatch.setattr(module, "_write", lambda t, s: saved.append(len(used)) or write(t, s))
    write_scenes(tmp_path / "tree")
    first, second = saved[7], saved[15]
    train, val, test = set(used[:first]), set(used[first:second]), set(used[second:])
    assert train
    assert val
    assert test
    assert train.isdisjoint(val | test)
    assert val.isdisjoint(test)


def test_the_whole_of_it_is_as_its_card_says() -> None:
    """240 scenes; torchvision reads the same images, objects and boxes; labels follow them."""
    card, images = open_dataset("sample-voc")
    assert not card.partial
    assert (len(images), card.absent) == (240, ())
    tree = Path(card.root)
    assert (images.targets == 0).any()
    for part in ("train", "val", "test"):
        assert (images.positives(part) > 0).all()
    for part in ("trainval", "test"):
        other = VOCDetection(str(tree.parents[1]), year="2007", image_set=part)
        assert [Path(path).stem for path in other.images] == [
            images.names[row] for row in images.splits[part]
        ]
        for at, row in enumerate(images.splits[part]):
            told: dict[str, Any] = other.parse_voc_xml(other_root(other.annotations[at]))
            found = told["annotation"]["object"]
            expected = [
                (one["name"], tuple(float(side) for side in one["bndbox"].values()))
                for one in found
            ]
            objects = read_annotation(tree, images.names[row]).objects
            assert [(one.name, one.box) for one in objects] == expected
            labels = dict.fromkeys(card.classes, -1)
            for one in sorted(objects, key=lambda one: not one.difficult):
                labels[one.name] = 0 if one.difficult else 1
            assert images.targets[row].tolist() == list(labels.values())


def other_root(path: str) -> Any:
    from xml.etree import ElementTree

    return ElementTree.parse(path).getroot()


@pytest.mark.usefixtures("few")
def test_boxes_hold_all_of_the_drawing(tmp_path: Path) -> None:
    """Outside the boxes each row of pixels has one colour; inside there is something else."""
    write_scenes(tmp_path / "tree")
    for image in sorted((tmp_path / "tree" / "JPEGImages").iterdir())[:12]:
        pixels = np.asarray(Image.open(image).convert("RGB")).astype(float)
        outside = np.ones(pixels.shape[:2], bool)
        objects = read_annotation(tmp_path / "tree", image.stem).objects
        for one in objects:
            xmin, ymin, xmax, ymax = map(int, one.box)
            # JPEG's blocks of 16 pixels smear what lies in them.
            outside[max(0, ymin - 17) : ymax + 16, max(0, xmin - 17) : xmax + 16] = False
        sheet = np.nanmedian(np.where(outside[..., None], pixels, np.nan), axis=1, keepdims=True)
        ink = np.abs(pixels - sheet).max(axis=2) > 30
        assert not (ink & outside).any()
        for one in objects:
            xmin, ymin, xmax, ymax = map(int, one.box)
            assert ink[ymin - 1 : ymax, xmin - 1 : xmax].any()


def test_a_damaged_composition_is_found_out() -> None:
    """A scene removed from the cache is missed, and the error says how to mend it."""
    tree = compose() / load_card("sample-voc").folder
    (tree / "JPEGImages" / "000007.jpg").unlink()
    with pytest.raises(DataError, match="Remove that folder, and it is made anew"):
        open_dataset("sample-voc")


def test_another_version_is_refused() -> None:
    """A card of a later vggfeat is not answered with other scenes."""
    with pytest.raises(ParameterError, match="must be one of 1"):
        compose(2)
