"""Attribution: it adds up to the score, and each location has its share of the formula."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers.mistakes import refuses
from helpers.seams import own_pooling
from PIL import Image
from support import noise, random_weights

from vggfeat.attribution import explain, footprint, grid_shape, not_linear
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError, ImageError, ParameterError
from vggfeat.experiments.predict import predict
from vggfeat.features.aggregate import Aggregation
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pooling import Pooling
from vggfeat.nets.config import layers_of
from vggfeat.store.column import Column, Descriptor
from vggfeat.svm.model import SavedModel

SCALES = (32, 40)
CLASSES = ("cat", "dog", "owl")
DEFAULT = Aggregation()


@pytest.fixture(scope="module")
def nets():
    """Random weights of nets A and B, up to pool4."""
    return {net: random_weights(net, ["pool4"], seed) for seed, net in enumerate("AB")}


class Case(NamedTuple):
    """A model of random weights, and what makes its descriptors."""

    model: SavedModel
    extractors: list[DenseExtractor]

    def explain(self, image, *classes, **more):
        return explain(self.model, image, self.extractors, classes or None, **more)


@pytest.fixture
def case(nets):
    """Make a case of some settings: weights by class, as wide as the rows are."""

    def case(how=DEFAULT, which="A", layers=("pool3", "pool4"), scales=SCALES, **more):
        extractors = [
            DenseExtractor(
                net, layers, weights=nets[net], locations=how.locations, precision="fp32", **more
            )
            for net in which
        ]
        columns = tuple(column for one in extractors for column in one.columns(scales))
        width = sum(column.width for column in columns)
        width //= 1 if how.how == "stack" else len(scales)
        rng = np.random.default_rng(3)
        coef, intercept = rng.normal(size=(3, width)), rng.normal(size=3)
        origins = ("random",) * len(extractors)
        model = SavedModel(coef, intercept, CLASSES, (1.0,), columns, origins, how.to_dict())
        return Case(model, extractors)

    return case


def check_sum(case, found, image):
    """Compare shares and bias with the score, and that with what `predict` says."""
    [predicted] = predict(case.model, ImageSet(("a",), (image,)), case.extractors)
    np.testing.assert_allclose(found.scores, predicted.scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.sums + found.bias, predicted.scores, rtol=1e-4, atol=1e-5)
    totals = sum(one.totals.sum(axis=0) for one in found.shares)
    np.testing.assert_allclose(totals, found.sums, rtol=1e-6, atol=1e-9)
    assert found.adds_up


@pytest.mark.parametrize("normalize", ["descriptor", "locations", "none"])
@pytest.mark.parametrize(
    ("which", "how"),
    [
        ("A", "average"),
        ("A", "stack"),
        pytest.param("AB", "average", marks=pytest.mark.slow),
        pytest.param("AB", "stack", marks=pytest.mark.slow),
    ],
)
def test_locations_and_bias_add_up_to_the_score(case, which, normalize, how):
    """In linear settings the sum over the image plus the bias is what predict says."""
    this = case(Aggregation(how, normalize), which)
    image = Image.fromarray(noise(53, 40, seed=4))
    found = this.explain(image)
    check_sum(this, found, image)
    assert [one.totals.shape for one in found.shares] == [(2, 3)] * (len(which) * 2 * 2)
    assert found.exact
    assert (found.row_norm == 1) == (normalize == "none")


@pytest.mark.parametrize("size", [(53, 40), (34, 75)])
def test_quarters_are_linear_too(case, size):
    """Averages over quarters, the mirror image's turned and middle rows in both, add up."""
    this = case(Aggregation("stack"), pool="cells+average")
    image = Image.fromarray(noise(*size, seed=7))
    found = this.explain(image)
    check_sum(this, found, image)
    assert found.exact


def test_a_quarter_is_where_it_is(case):
    """With weights on the upper right quarter alone nothing else has evidence."""
    this = case(Aggregation("average", "none"), layers=["pool3"], scales=(32,), pool="cells")
    this.model.coef[:, :256], this.model.coef[:, 512:] = 0, 0
    (evidence,) = this.explain(noise(64, 32), "cat").evidence
    assert evidence.shape == (4, 8)
    assert (evidence[:2, 4:] != 0).all()
    assert (evidence[2:] == 0).all()
    assert (evidence[:, :4] == 0).all()


class Regions(Pooling):
    """Maxima of two halves, each L2-normalised over channels, added up: as R-MAC has it."""

    inexact = "regions are normalised"

    def pool(self, dense_map):
        """Pool the left half and the right one."""
        maxima = [half.amax((2, 3)) for half in dense_map.tensor_split(2, 3)]
        return sum(one / one.norm(dim=1, keepdim=True).detach() for one in maxima)


@pytest.mark.parametrize(
    ("how", "pool", "layers", "said"),
    [
        (Aggregation("average", power=0.5), "average", ["pool4"], "power 0.5"),
        (Aggregation("average", power=0.5), "average", ["conv4_2_pre"], "power 0.5"),
        (Aggregation("stack", power=0.3), "average+max", ["conv4_2_pre", "pool4"], "maximum over"),
        (Aggregation("stack"), "gem3+gem1", ["conv4_2_pre", "pool4"], "generalised mean"),
        (Aggregation("average", power=0.5), "gem2.5", ["pool3"], "generalised mean"),
        (Aggregation("max"), "average", ["pool3", "pool4"], "maximum across scales"),
        (Aggregation("max", "none", 0.5), "max", ["conv4_2_pre"], "maximum across scales"),
        (Aggregation("average", "locations"), "average+max", ["pool4"], "maximum over locations"),
        (Aggregation(power=0.5), "regions+average", ["pool4"], "regions are normalised; power 0.5"),
    ],
)
def test_where_nothing_is_linear_shares_still_add_up(case, how, pool, layers, said):
    """Powers, maxima and a pooling of one's own keep the sum, and are not called exact."""
    with own_pooling("regions", Regions):
        this = case(how, layers=layers, pool=pool)
        image = Image.fromarray(noise(52, 70, seed=5))
        found = this.explain(image)
        check_sum(this, found, image)
        assert not found.exact
        assert said in found.why == not_linear(this.model)


def test_power_one_is_linear(case):
    """A power of 1 is exact, and gives the same map as none, before a ReLU too."""
    plain, one = (
        case(Aggregation("stack", power=power), "B", ["conv3_2_pre"]).explain(noise(60, 50))
        for power in (None, 1.0)
    )
    assert plain.exact
    assert one.exact
    np.testing.assert_array_equal(plain.evidence, one.evidence)


def maps_of(this, layer, pixels, Q):
    """Compute the dense map of an image (H, W, 3), and that of its mirror image, turned back."""
    plain, mirror = (
        this.extractors[0].image_maps(side, Q)[layer].numpy().astype(float)
        for side in (pixels, pixels[:, ::-1].copy())
    )
    return plain, mirror[:, :, ::-1]


def test_a_location_has_its_share_of_the_formula(case):
    """One location gives w·m / (2 n ‖d‖ S ‖row‖) to its cell, worked out by hand from the maps."""
    # 48 × 64 at Q = 48 are 3 × 4 cells of 16 pixels, which are 2 × 2 steps of the grid each.
    this = case(layers=["pool4"], scales=(48,))
    w, b = this.model.coef, this.model.intercept
    found = this.explain(pixels := noise(64, 48, seed=6))
    both = sum(maps_of(this, "pool4", pixels, 48))
    d = both.sum(axis=(1, 2)) / (2 * 12)
    expected = np.einsum("ck,kij->cij", w, both) / (2 * 12 * np.linalg.norm(d))
    steps = found.evidence.reshape(3, 3, 2, 4, 2)
    np.testing.assert_allclose(steps.sum(axis=(2, 4)), expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(steps, steps[:, :, :1, :, :1].repeat(2, 2).repeat(2, 4))
    np.testing.assert_allclose(found.shares[0].norm, np.linalg.norm(d), rtol=1e-6)
    np.testing.assert_allclose(found.row_norm, 1, rtol=1e-6)
    np.testing.assert_allclose(found.scores, w @ d / np.linalg.norm(d) + b, rtol=1e-5)
    best = np.argwhere(expected[1] == expected[1].max())[0]
    assert (np.abs(found.strongest[1] - (best[::-1] + 0.5) * 16) < 8).all()


def test_a_power_is_shared_in_proportion(case):
    """Of the signed root d/√|d| a location has m/√|d|, before a ReLU too; the rest is linear."""
    how = Aggregation("average", "none", 0.5)
    this = case(how, layers=["conv3_2_pre"], scales=(32,), flip=False)
    found = this.explain(pixels := noise(32, 32, seed=9))
    m, _ = maps_of(this, "conv3_2_pre", pixels, 32)
    roots = np.sqrt(np.abs(m.mean(axis=(1, 2), keepdims=True)))
    assert (m < 0).any()
    expected = np.einsum("ck,kij->cij", this.model.coef, m / roots) / m[0].size
    steps = expected.reshape(3, 4, 2, 4, 2).sum(axis=(2, 4))  # two locations to a step of 8 pixels
    np.testing.assert_allclose(found.evidence, steps, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("aggregate", ["stack", "max"])
def test_a_maximum_is_given_to_where_it_is(case, aggregate):
    """Each channel's maxima, half of the image and half of its mirror image, have all of it."""
    this = case(Aggregation(aggregate, "none"), layers=["pool3"], scales=(32,), pool="max")
    found = this.explain(pixels := noise(40, 32, seed=2))
    expected = np.zeros((3, 4, 5))
    for side in maps_of(this, "pool3", pixels, 32):
        for k, channel in enumerate(side):
            place = np.unravel_index(channel.argmax(), channel.shape)
            expected[:, *place] += this.model.coef[:, k] * channel.max() / 2
    np.testing.assert_allclose(found.evidence, expected, rtol=1e-5, atol=1e-7)


def test_across_scales_the_highest_has_it_all(case):
    """Of the maximum of two scales each channel is given by the larger of its two means."""
    this = case(Aggregation("max", "none"), layers=["pool3"], flip=False)
    found = this.explain(pixels := noise(40, 40, seed=3))
    small, large = (maps_of(this, "pool3", pixels, Q)[0].mean(axis=(1, 2)) for Q in SCALES)
    (first,), (second,) = (one.totals for one in found.shares)
    w = this.model.coef
    np.testing.assert_allclose(first, w @ np.where(small > large, small, 0), rtol=1e-4)
    np.testing.assert_allclose(second, w @ np.where(small > large, 0, large), rtol=1e-4)


def test_without_any_activation_there_is_no_evidence(nets, case, monkeypatch):
    """A network of zeros has norms and powers of 0: no step is a NaN, and the bias is the score."""
    state = {name: torch.zeros_like(values) for name, values in nets["A"].state.items()}
    monkeypatch.setitem(nets, "A", replace(nets["A"], state=state))
    how = Aggregation("max", power=0.5)
    this = case(how, layers=["conv3_2_pre", "pool4"], pool="average+max+cells")
    found = this.explain(noise(40, 40))
    assert (found.evidence == 0).all()
    np.testing.assert_array_equal(found.scores, this.model.intercept)


def test_classes_are_explained_alike_together_and_alone(case):
    """Where their gradients are too large to be held together, they come one after the other."""
    this = case(layers=["conv1_1", "pool2"], scales=(96,))
    every = this.explain(image := noise(96, 100))
    for c, name in enumerate(CLASSES):
        alone = this.explain(image, name)
        np.testing.assert_allclose(alone.evidence[0], every.evidence[c], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_it_needs_no_gradients_around_it(case, without_gradients):
    """Who switches gradients off, as one does to predict, has the same maps."""
    this = case(layers=["pool3"])
    expected = this.explain(noise(40, 40)).evidence
    with without_gradients():
        np.testing.assert_array_equal(this.explain(noise(40, 40)).evidence, expected)


def test_windows_and_cells_are_where_the_network_looks():
    """fc7 at stride 32 sees 224 pixels, pool3 8, conv1_1 one."""
    D = layers_of("D")
    fc7 = footprint("fc7_pre", D, 2, 256, 8)
    assert fc7[:, 0].tolist() == pytest.approx([1 / 7] * 7 + [0])
    assert fc7[:, 1].tolist() == pytest.approx([0] + [1 / 7] * 7)
    np.testing.assert_array_equal(footprint("pool3", D, 3, 24, 3), np.eye(3))
    np.testing.assert_array_equal(footprint("conv1_1", D, 2, 2, 2), np.eye(2))


def test_spreading_loses_nothing():
    """Cells that cross steps or the border are shared by area: 0…4 and 4…8 of 6 pixels in 4."""
    D = layers_of("D")
    shares = footprint("pool2", D, 2, 6, 4)
    np.testing.assert_allclose(shares, [[3 / 8, 0], [3 / 8, 0], [2 / 8, 1 / 4], [0, 3 / 4]])
    np.testing.assert_allclose(footprint("pool5", D, 8, 251, 37).sum(axis=0), 1)
    assert grid_shape((251, 300), 251) == (38, 32)


CROPS = Column(Descriptor("A", "fc8", "crops5", 256), {}, 1000)


@pytest.mark.parametrize(
    ("change", "image", "classes", "kind", "named"),
    [
        ({}, noise(50, 50), ["yak"], ParameterError, ["'yak'"]),
        ({}, "lost.jpg", [], ImageError, ["no such file"]),
        ({"views": ("image", "box")}, noise(50, 50), [], DataError, ["box"]),
        ({"columns": (CROPS,)}, noise(50, 50), [], DataError, ["'crops5'"]),
        ({"columns": (replace(CROPS, descriptor=Descriptor("A", "pool4", "max", 32)),)},
         noise(50, 50), [], DataError, ["/A/pool4/max/Q32", "/A/pool4/average/Q32"]),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_refused(case, change, image, classes, kind, named):
    this = case(layers=["pool4"])
    other = this._replace(model=replace(this.model, **change))
    refuses(lambda: other.explain(image, *classes), kind, named)


def test_the_best_classes_come_first(case):
    """Of all or of those that are named: scores, maps and shares are theirs, in that order."""
    this, image = case(which="B", layers=["pool3"]), noise(60, 40)
    found, best = this.explain(image), this.explain(image, best=2)
    order = np.argsort(-found.scores)[:2]
    assert best.classes == tuple(CLASSES[c] for c in order)
    np.testing.assert_allclose(best.evidence, found.evidence[order], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(best.shares[0].totals, found.shares[0].totals[:, order])
    first = best.to_dict()["classes"][CLASSES[order[0]]]
    assert first["score"] == pytest.approx(first["sum"] + first["bias"], abs=1e-9)
    worse = [name for name in CLASSES if name != best.classes[0]]
    assert this.explain(image, *worse, best=1).classes == best.classes[1:]


@pytest.mark.parametrize("pool", ["softmax", "posteriors"])
def test_posteriors_are_not_called_sums(pool):
    column = Column(Descriptor("D", "fc8", pool, 256), {}, 2)
    how = DEFAULT.to_dict()
    model = SavedModel(np.eye(2), np.zeros(2), ("cat", "dog"), (1.0,), (column,), (), how)
    assert "no sum over locations" in not_linear(model)


def test_a_turned_photo_is_explained_upright(case, tmp_path):
    """An image with a recorded orientation has the map of its upright copy."""
    this = case(which="B", layers=["pool3"])
    upright = Image.fromarray(noise(60, 40, seed=8))
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    one, other = (this.explain(tmp_path / f"{name}.png") for name in ("upright", "turned"))
    assert one.size == other.size == (60, 40)
    np.testing.assert_array_equal(one.evidence, other.evidence)
