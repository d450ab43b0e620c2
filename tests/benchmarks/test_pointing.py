"""The pointing game: boxes, difficult objects, borders, images that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers.networks import write_weights
from PIL import Image
from support import random_weights
from trees import OBJECT, draw_bands, one_class_each, write_voc, write_xml

from vggfeat.attribution import explain
from vggfeat.data.datasets import load_card
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError
from vggfeat.features.aggregate import Aggregation
from vggfeat.features.extractor import DenseExtractor
from vggfeat.svm.model import SavedModel, save


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Load the script, which is no part of the package."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return import_module("pointing")


def box(name, corners, difficult=0):
    return OBJECT.format(name=name, difficult=difficult, box=corners)


@pytest.fixture
def game(tmp_path):
    """Draw a bright square on the right; the cat's weights answer to it, the dog's to the dark."""
    net = random_weights("A", ["pool1"])
    extractor = DenseExtractor("A", "pool1", weights=net, precision="fp32", flip=False)
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[12:28, 52:68] = 255
    (tmp_path / "JPEGImages").mkdir()
    paths = []
    for name in "abcde":
        paths.append(tmp_path / "JPEGImages" / f"{name}.png")
        Image.fromarray(pixels).save(paths[-1])
    paths[2].write_bytes(b"not an image")
    images = ImageSet(tuple("abcde"), tuple(paths), splits={"test": np.arange(5)})
    bright = extractor.image_maps(paths[0], 40)["pool1"][:, 8:12, 28:32].mean(dim=(1, 2))
    dark = extractor.image_maps(paths[0], 40)["pool1"][:, 8:12, 8:12].mean(dim=(1, 2))
    weights = np.asarray(bright - dark)
    model = SavedModel(
        np.stack([weights, -weights]),
        np.zeros(2),
        ("cat", "dog"),
        (1.0,),
        tuple(extractor.columns([40])),
        ("random",),
        Aggregation().to_dict(),
    )
    return model, images, tmp_path, [extractor]


def test_hits_are_counted_for_each_class(script, game):
    """Of three images with a cat one box holds the square; difficult boxes and others do not."""
    model, images, tree, extractors = game
    (place,) = explain(model, images.images[0], extractors, ["cat"]).strongest
    assert 50 <= place[0] <= 70
    assert 10 <= place[1] <= 30
    write_xml(tree, "a", [box("cat", (49, 9, 71, 31)), box("owl", (1, 1, 9, 9))])
    write_xml(tree, "b", [box("cat", (30, 1, 45, 40)), box("cat", (49, 9, 71, 31), 1)])
    write_xml(tree, "c", [box("cat", (1, 1, 80, 40))])
    write_xml(tree, "d", [box("owl", (1, 1, 80, 40)), box("dog", (1, 1, 80, 40), 1)])
    write_xml(tree, "e", [box("cat", (1, 1, 20, 40)), box("dog", (1, 1, 80, 40))])
    hits, failed = script.play(model, images, tree, extractors)
    assert hits == {"cat": (3, 1, 1), "dog": (1, 1, 1)}
    assert list(failed) == ["c"]
    assert script.total(hits) == (4, 2, 2)
    assert script.describe(script.total(hits)) == " 50.0 % of 4 (the centre:  50.0 %)"
    some, _ = script.play(model, images, tree, extractors, limit=1)
    assert some == {"cat": (1, 1, 0), "dog": (0, 0, 0)}


def test_nothing_to_point_at_is_said(script, game):
    """Without annotations, or with objects of other classes only, an error says why."""
    model, images, tree, extractors = game
    with pytest.raises(DataError, match=r"a\.xml cannot be read: [^.]*\.$"):
        script.play(model, images, tree, extractors)
    for name in "abcde":
        write_xml(tree, name, [box("owl", (1, 1, 9, 9))])
    with pytest.raises(DataError, match="no object of a class"):
        script.play(model, images, tree, extractors)


def test_a_saved_model_plays_on_a_tree_of_voc(script, tmp_path, capsys):
    """From the command line: what is printed is what is written and returned."""
    classes = load_card("voc2007").classes
    parts = one_class_each(classes, {"train": 1, "val": 1, "test": 1})
    write_voc(tmp_path / "VOCdevkit" / "VOC2007", classes, parts, draw_bands)
    path = write_weights(tmp_path / "a.safetensors", random_weights("A", ["pool1"]))
    extractor = DenseExtractor("A", "pool1", weights=str(path), precision="fp32")
    coef, columns = np.random.default_rng(0).normal(size=(2, 64)), tuple(extractor.columns([32]))
    model = SavedModel(
        coef, np.zeros(2), classes[:2], (1.0,), columns, (str(path),), Aggregation().to_dict()
    )
    written = tmp_path / "pointing.json"
    where = ["--root", str(tmp_path), "--allow-partial", "--device", "cpu", "--json", str(written)]
    result = script.main([str(save(tmp_path / "model", model)), *where])
    assert json.loads(written.read_text()) == result
    assert result["all"]["images"] == 2
    assert set(result["classes"]) == set(classes[:2])
    assert f"{classes[0]:20}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "inside"),
    [
        ((2.0, 4.0), True),
        ((5.0, 6.0), True),
        ((1.9, 5), False),
        ((5.1, 5), False),
        ((3, 6.1), False),
    ],
)
def test_boxes_count_from_one_and_hold_their_ends(script, place, inside):
    """Pixels 3 to 5 and 5 to 6 reach from 2 to 5 and from 4 to 6."""
    assert script.is_inside(np.array(place), [(3, 5, 5, 6)]) == inside
