"""Heat maps as images: what is red, what is blue, and what is said."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vggfeat.attribution import Explanation, Share
from vggfeat.report import images as drawing
from vggfeat.report.images import (
    BOX_COLOURS,
    describe_exactness,
    describe_sum,
    draw_boxes,
    draw_explanation,
    draw_map,
    strength,
    tile_address,
    write_jpeg,
)
from vggfeat.result import BoxMark, GalleryImage
from vggfeat.store.column import Descriptor

ARRAYS = ("scores", "bias", "evidence")
IMAGE = Image.new("RGB", (40, 30), (128, 128, 128))


@pytest.fixture
def explanation():
    """Make an explanation of two classes on a grid of 3 × 4, of an image of 40 × 30."""
    shares = np.zeros((2, 3, 4))
    shares[0, 0, 3], shares[0, 2, 0], shares[1] = 2.0, -1.0, 0.5
    bias = np.array([-0.25, 0.125])
    totals = shares.sum(axis=(1, 2))
    share = Share(Descriptor("D", "pool5", "average", 32), 1.5, totals[None])
    return Explanation(("cat", "dog"), totals + bias, bias, shares, (share,), 1.0, "", (40, 30))


def one_class(explanation: Explanation, c: int) -> Explanation:
    kept = {name: getattr(explanation, name)[c : c + 1] for name in ARRAYS}
    return replace(explanation, classes=(explanation.classes[c],), **kept)


def test_colours_are_where_the_evidence_is(explanation):
    """The upper right corner speaks for the cat and is red, the lower left against it and blue."""
    drawn = np.asarray(draw_map(IMAGE, explanation, 0, 400), int)
    assert drawn.shape == (300, 400, 3)
    red, green, blue = drawn[2, 397]
    assert red > 150 > max(green, blue)
    red, green, blue = drawn[297, 2]
    assert blue > red + 40
    # Nothing speaks far from both: grey as the image.
    whiter = drawn[150, 200] - drawn[150, 200].mean()
    assert np.abs(whiter).max() < np.abs(drawn[2, 397] - drawn[2, 397].mean()).max() / 4


def test_the_ring_is_where_the_strongest_is(explanation):
    """Its white and dark circle stands around the middle of the strongest step, x 350 and y 50."""
    drawn = np.asarray(draw_map(IMAGE, explanation, 0, 400), int)
    np.testing.assert_allclose(explanation.strongest[0], (35, 5))
    around = drawn[39:62, 339:362].reshape(-1, 3)
    assert (around == (27, 29, 34)).all(axis=1).sum() > 50
    assert (around == 255).all(axis=1).sum() > 20
    assert not (drawn[80:] == (27, 29, 34)).all(axis=2).any()


def test_smoothing_keeps_the_sum(explanation):
    """What is drawn adds up to the evidence: for each 1 % of 12 steps, 12/100 of it."""
    smooth = drawing._smooth(explanation, 0)
    assert smooth.sum() == pytest.approx(explanation.sums[0] * 12 / 100)
    assert np.abs(smooth).max() == strength(explanation, 0) < 2 * 12 / 100


def test_a_class_without_any_evidence_is_drawn_grey(explanation):
    nothing = one_class(explanation, 1)
    nothing.evidence[:] = 0
    assert strength(nothing, 0) == 1
    drawn = np.asarray(draw_map(IMAGE, nothing, 0, 60), int)
    assert (np.ptp(drawn[:4], axis=2) == 0).all()


def test_the_figure_is_a_png_of_all_classes(explanation):
    """Two classes stand side by side."""
    figure = Image.open(io.BytesIO(draw_explanation(IMAGE, explanation)))
    one = Image.open(io.BytesIO(draw_explanation(IMAGE, one_class(explanation, 1))))
    assert figure.format == "PNG"
    assert figure.width > 1.9 * one.width


def test_sums_and_exactness_are_told_in_words(explanation):
    assert describe_sum(explanation, 0) == "Sum of all locations +1.000, bias −0.250: score +0.750"
    assert describe_exactness(explanation).startswith("Exact")
    curved = replace(explanation, why="power 0.5")
    assert describe_exactness(curved) == "Not exact, though it adds up: power 0.5."
    off = replace(curved, scores=explanation.scores + 0.1)
    assert "does not add up" in describe_exactness(off)


def test_strange_class_names_are_drawn(explanation):
    """Formulas, markup, line ends and other scripts in names are drawn as they stand."""
    names = ("$\\frac{1}", "\u202eπ\n<b>" * 30)
    strange = type(explanation)(**{**vars(explanation), "classes": names})
    assert Image.open(io.BytesIO(draw_explanation(IMAGE, strange))).height > 300


def opened(name: str) -> Image.Image:
    if name == "lost":
        raise KeyError(name)
    return Image.new("RGB", (400, 300), (255, 255, 255))


def drawn(address: str | None) -> Image.Image:
    assert address is not None
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_a_tile_is_its_image_made_small_or_its_own_drawing():
    assert drawn(tile_address(GalleryImage("a"), opened, 176)).size == (176, 132)
    assert drawn(tile_address(GalleryImage("a"), opened, 1000)).size == (400, 300)
    jpeg = write_jpeg(IMAGE)
    assert drawn(tile_address(GalleryImage("lost", jpeg=jpeg), None, 176)).size == IMAGE.size
    assert tile_address(GalleryImage("lost"), opened, 176) is None
    assert tile_address(GalleryImage("a"), None, 176) is None


def test_boxes_are_where_they_should_be():
    """The predicted one is a red line, the true one a green line with gaps; inside is the image."""
    box = (40.0, 30.0, 200.0, 150.0)
    sheet = opened("a")
    edges = {
        kind: np.asarray(draw_boxes(sheet, [BoxMark(box, kind)], 800))[60, 80:400]
        for kind in ("predicted", "true")
    }
    assert (edges["predicted"] == BOX_COLOURS["predicted"]).all()
    green = (edges["true"] == BOX_COLOURS["true"]).all(axis=1)
    assert 0.4 < green.mean() < 0.6
    inside = np.asarray(draw_boxes(sheet, [BoxMark(box, "predicted")], 800))[70:290, 90:390]
    assert (inside == 255).all()
    assert np.asarray(sheet).min() == 255


def test_boxes_of_several_labels_have_colours_and_names_of_their_own():
    marks = [BoxMark((20.0 + 100 * k, 50, 90 + 100 * k, 90), "predicted", "cat") for k in range(3)]
    pixels = np.asarray(draw_boxes(opened("a"), marks))
    lines = {tuple(pixels[88, 20 + 100 * k]) for k in range(3)}
    assert len(lines) == 3
    assert tuple(pixels[88, 220]) == BOX_COLOURS["predicted"]  # the last one is the likeliest
    assert (pixels[52:62, 22:40] != 255).any()
