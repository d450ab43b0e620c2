"""The pointing game: boxes, difficult objects, borders, images that cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from support import random_weights
from trees import OBJECT, write_xml

from vggfeat.attribution import explain
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError
from vggfeat.features.aggregate import Aggregation
from vggfeat.features.extractor import DenseExtractor
from vggfeat.learn.model import SavedModel
from vggfeat.run.pointing import _inside, pointing_game


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


def test_hits_are_counted_for_each_class(game):
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
    steps = []
    result = pointing_game(model, images, tree, extractors, progress=lambda *s: steps.append(s))
    assert (result.of.tolist(), result.hits.tolist(), result.centre.tolist()) == (
        [3, 1],
        [1, 1],
        [1, 1],
    )
    assert list(result.failed) == ["c"]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    said = "Pointing game: 50.0 % of 4 (the image's centre: 50.0 %; 1 images left out)"
    assert result.line == said
    told = result.to_dict()
    assert told["classes"][0] == {"name": "cat", "of": 3, "hits": 1, "centre": 1}
    assert (told["share"], told["exact"]) == (0.5, True)
    some = pointing_game(model, images, tree, extractors, limit=1)
    assert (some.of.tolist(), some.hits.tolist()) == ([1, 0], [1, 0])


def test_nothing_to_point_at_is_said(game):
    """Without annotations, or with objects of other classes only, an error says why."""
    model, images, tree, extractors = game
    with pytest.raises(DataError, match=r"a\.xml cannot be read: [^.]*\.$"):
        pointing_game(model, images, tree, extractors)
    for name in "abcde":
        write_xml(tree, name, [box("owl", (1, 1, 9, 9))])
    with pytest.raises(DataError, match="no object of a class"):
        pointing_game(model, images, tree, extractors)


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
def test_boxes_count_from_one_and_hold_their_ends(place, inside):
    """Pixels 3 to 5 and 5 to 6 reach from 2 to 5 and from 4 to 6."""
    assert _inside(np.array(place), [(3, 5, 5, 6)]) == inside
