"""Heat maps of a result: which are drawn, and what is said of each."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from support import noise, random_weights

from vggfeat._io.text import shorten, signed
from vggfeat.attribution import explain
from vggfeat.features.aggregate import Aggregation
from vggfeat.features.extractor import DenseExtractor
from vggfeat.report.heat_maps import MOST, draw_heat_maps
from vggfeat.report.images import draw_map, strength
from vggfeat.svm.model import SavedModel
from vggfeat.svm.protocols import Example


def test_maps_are_drawn_of_what_can_be_read(tmp_path):
    """A lost image has no map; the others say what explain finds, below their class."""
    net = random_weights("A", ["pool2"])
    extractor = DenseExtractor("A", "pool2", weights=net, precision="fp32")
    columns = tuple(extractor.columns([32]))
    coef, how = np.random.default_rng(0).normal(size=(2, 128)), Aggregation(power=0.5).to_dict()
    model = SavedModel(coef, np.ones(2), ("cat", "dog"), (1.0,), columns, ("random",), how)
    Image.fromarray(noise(60, 40)).save(tmp_path / "a.png")
    images = {"a": tmp_path / "a.png", "b": tmp_path / "lost.png"}
    examples = [Example("a", "dog"), Example("b", "cat"), Example("a", "cat", "dog")]
    steps = []
    gallery = draw_heat_maps(model, examples, images, [extractor], lambda *done: steps.append(done))
    scale, *strips = gallery.strips
    assert [(strip.title, len(strip.tiles)) for strip in strips] == [("dog", 1), ("cat", 1)]
    assert steps == [(1, 3), (2, 3), (3, 3)]
    explanations = [explain(model, images["a"], [extractor], [c]) for c in ("dog", "cat")]
    strongest = max(strength(explanation, 0) for explanation in explanations)
    assert f"+{shorten(strongest, 2)}" in scale.tiles[0].caption
    for strip, explanation in zip(strips, explanations, strict=True):
        [tile] = strip.tiles
        drawn = Image.open(io.BytesIO(tile.jpeg))
        assert drawn.size == (888, 293)
        plain, image = np.asarray(drawn, float)[:, :440], Image.open(images["a"]).convert("RGB")
        assert np.abs(plain - image.resize((440, 293), Image.Resampling.LANCZOS)).mean() < 10
        mapped = draw_map(image, explanation, 0, 440, strongest)
        assert np.abs(np.asarray(drawn, float)[:, 448:] - np.asarray(mapped)).mean() < 10
    assert signed(float(explanations[1].sums[0])) in tile.caption
    assert (tile.kind, "it shows dog" in tile.caption) == ("wrong", True)
    assert "power 0.5" in gallery.note


def test_no_more_than_some_are_drawn(tmp_path):
    """A data set of many classes has maps of the first examples alone."""
    steps = []
    examples = [Example("lost", "cat")] * (MOST + 5)
    extractor = DenseExtractor("A", "pool1", weights=random_weights("A", ["pool1"]))
    draw_heat_maps(
        None, examples, {"lost": tmp_path / "lost"}, [extractor], lambda *n: steps.append(n)
    )
    assert steps[-1] == (MOST, MOST)
