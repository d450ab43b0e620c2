"""Attribution: it adds up to the score, and each location has its share of the formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
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


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Keep small networks from waiting for threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def nets():
    """Random weights of nets A and B, up to pool4."""
    return {net: random_weights(net, ["pool4"], seed) for seed, net in enumerate("AB")}


def opened(nets, which, how, layers=("pool3", "pool4"), **more):
    return [
        DenseExtractor(
            net, layers, weights=nets[net], locations=how.locations, precision="fp32", **more
        )
        for net in which
    ]


def model_of(extractors, how, scales=SCALES):
    """Make a model of random weights, as wide as the rows are."""
    columns = [column for one in extractors for column in one.columns(scales)]
    width = sum(column.width for column in columns)
    if how.how != "stack":
        width //= len(scales)
    rng = np.random.default_rng(3)
    return SavedModel(
        rng.normal(size=(3, width)),
        rng.normal(size=3),
        CLASSES,
        (1.0,),
        tuple(columns),
        ("random",) * len(extractors),
        how.to_dict(),
    )


def predicted(model, image, extractors):
    return next(predict(model, ImageSet(("a",), (image,)), extractors)).scores


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
def test_locations_and_bias_add_up_to_the_score(nets, which, normalize, how):
    """In linear settings the sum over the image plus the bias is what predict says."""
    how = Aggregation(how, normalize)
    extractors = opened(nets, which, how)
    model = model_of(extractors, how)
    image = Image.fromarray(noise(53, 40, seed=4))
    found = explain(model, image, extractors)
    expected = predicted(model, image, extractors)
    np.testing.assert_allclose(found.sums + found.bias, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-5)
    totals = sum(one.totals.sum(axis=0) for one in found.shares)
    np.testing.assert_allclose(totals, found.sums, rtol=1e-9)
    assert len(found.shares) == len(which) * 2 * 2
    assert all(one.totals.shape == (2, 3) for one in found.shares)
    assert found.exact
    assert (found.row_norm == 1) == (normalize == "none")


@pytest.mark.parametrize("size", [(53, 40), (34, 75)])
def test_quarters_are_linear_too(nets, size):
    """Averages over quarters, the mirror image's turned and middle rows in both, add up."""
    how = Aggregation("stack")
    extractors = opened(nets, "A", how, pool="cells+average")
    model = model_of(extractors, how)
    image = Image.fromarray(noise(*size, seed=7))
    found = explain(model, image, extractors)
    expected = predicted(model, image, extractors)
    np.testing.assert_allclose(found.sums + found.bias, expected, rtol=1e-4, atol=1e-5)
    assert found.exact


def test_a_quarter_is_where_it_is(nets):
    """With weights on the upper right quarter alone nothing else has evidence."""
    how = Aggregation("average", "none")
    extractors = opened(nets, "A", how, ["pool3"], pool="cells")
    model = model_of(extractors, how, (32,))
    model.coef[:, :256], model.coef[:, 512:] = 0, 0
    (evidence,) = explain(model, noise(64, 32), extractors, ["cat"]).evidence
    assert evidence.shape == (4, 8)
    assert (evidence[:2, 4:] != 0).all()
    assert (evidence[2:] == 0).all()
    assert (evidence[:, :4] == 0).all()


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
    ],
)
def test_where_nothing_is_linear_shares_still_add_up(nets, how, pool, layers, said):
    """Powers and maxima keep the sum, negative activations included, and are not called exact."""
    extractors = opened(nets, "A", how, layers, pool=pool)
    model = model_of(extractors, how)
    image = Image.fromarray(noise(52, 70, seed=5))
    found = explain(model, image, extractors)
    expected = predicted(model, image, extractors)
    np.testing.assert_allclose(found.sums + found.bias, expected, rtol=1e-4, atol=1e-5)
    assert not found.exact
    assert said in found.why == not_linear(model)


def test_power_one_is_linear(nets):
    """A power of 1 is exact, and gives the same map as none, before a ReLU too."""
    plain, one = Aggregation("stack"), Aggregation("stack", power=1.0)
    extractors = opened(nets, "B", plain, ["conv3_2_pre"])
    image = noise(60, 50)
    maps = [explain(model_of(extractors, how), image, extractors) for how in (plain, one)]
    assert maps[0].exact
    assert maps[1].exact
    np.testing.assert_array_equal(maps[0].evidence, maps[1].evidence)


def test_a_location_has_its_share_of_the_formula(nets):
    """One location gives w·m / (2 n ‖d‖ S ‖row‖) to its cell, worked out by hand from the maps."""
    how = Aggregation("average")
    (extractor,) = extractors = opened(nets, "A", how, ["pool4"])
    # 48 × 64 at Q = 48 are 3 × 4 cells of 16 pixels, which are 2 × 2 steps of the grid each.
    model = model_of(extractors, how, (48,))
    pixels = noise(64, 48, seed=6)
    found = explain(model, pixels, extractors)
    (w, b) = model.coef, model.intercept
    plain = extractor.image_maps(pixels, 48)["pool4"].numpy().astype(float)
    mirror = extractor.image_maps(pixels[:, ::-1].copy(), 48)["pool4"].numpy().astype(float)
    both = plain + mirror[:, :, ::-1]
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


def test_the_gradient_without_norms_is_the_map(nets):
    """With nothing normalised, the map is the gradient of the score times the activation."""
    how = Aggregation("stack", "none")
    (extractor,) = extractors = opened(nets, "B", how, ["pool4"], flip=False)
    model = model_of(extractors, how, (48,))
    pixels = noise(48, 48)
    m = extractor.image_maps(pixels, 48)["pool4"].double().requires_grad_()
    score = torch.from_numpy(model.coef[2]) @ m.mean(dim=(1, 2))
    score.backward()
    expected = (m.grad * m).sum(0).detach().numpy()
    found = explain(model, pixels, extractors, ["owl"])
    np.testing.assert_allclose(
        found.evidence.reshape(3, 2, 3, 2).sum(axis=(1, 3)), expected, rtol=1e-4, atol=1e-7
    )


def test_a_power_is_shared_in_proportion(nets):
    """Of the signed root d/√|d| a location has m/√|d|, before a ReLU too; the rest is linear."""
    how = Aggregation("average", "none", 0.5)
    (extractor,) = extractors = opened(nets, "A", how, ["conv3_2_pre"], flip=False)
    model = model_of(extractors, how, (32,))
    pixels = noise(32, 32, seed=9)
    m = extractor.image_maps(pixels, 32)["conv3_2_pre"].numpy().astype(float)
    roots = np.sqrt(np.abs(m.mean(axis=(1, 2), keepdims=True)))
    assert (m < 0).any()
    expected = np.einsum("ck,kij->cij", model.coef, m / roots) / m[0].size
    found = explain(model, pixels, extractors)
    steps = expected.reshape(3, 4, 2, 4, 2).sum(axis=(2, 4))  # two locations to a step of 8 pixels
    np.testing.assert_allclose(found.evidence, steps, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("aggregate", ["stack", "max"])
def test_a_maximum_is_given_to_where_it_is(nets, aggregate):
    """Each channel's maxima, half of the image and half of its mirror image, have all of it."""
    how = Aggregation(aggregate, "none")
    (extractor,) = extractors = opened(nets, "A", how, ["pool3"], pool="max")
    model = model_of(extractors, how, (32,))
    pixels = noise(40, 32, seed=2)
    expected = np.zeros((3, 4, 5))
    for side in (pixels, pixels[:, ::-1].copy()):
        given = np.zeros((3, 4, 5))
        for k, channel in enumerate(extractor.image_maps(side, 32)["pool3"].numpy()):
            place = np.unravel_index(channel.argmax(), channel.shape)
            given[:, *place] += model.coef[:, k] * channel.max() / 2
        expected += given if side is pixels else given[:, :, ::-1]
    found = explain(model, pixels, extractors)
    np.testing.assert_allclose(found.evidence, expected, rtol=1e-5, atol=1e-7)


def test_across_scales_the_highest_has_it_all(nets):
    """Of the maximum of two scales each channel is given by the larger of its two means."""
    how = Aggregation("max", "none")
    (extractor,) = extractors = opened(nets, "A", how, ["pool3"], flip=False)
    model = model_of(extractors, how)
    pixels = noise(40, 40, seed=3)
    small, large = (
        extractor.image_maps(pixels, Q)["pool3"].numpy().mean(axis=(1, 2)) for Q in SCALES
    )
    found = explain(model, pixels, extractors)
    (first,), (second,) = (one.totals for one in found.shares)
    np.testing.assert_allclose(first, model.coef @ np.where(small > large, small, 0), rtol=1e-4)
    np.testing.assert_allclose(second, model.coef @ np.where(small > large, 0, large), rtol=1e-4)


def test_without_any_activation_there_is_no_evidence(nets):
    """A network of zeros has norms and powers of 0: no step is a NaN, and the bias is the score."""
    state = {name: torch.zeros_like(values) for name, values in nets["A"].state.items()}
    zeros = {"A": replace(nets["A"], state=state)}
    how = Aggregation("max", power=0.5)
    extractors = opened(zeros, "A", how, ["conv3_2_pre", "pool4"], pool="average+max+cells")
    model = model_of(extractors, how)
    found = explain(model, noise(40, 40), extractors)
    assert (found.evidence == 0).all()
    np.testing.assert_array_equal(found.scores, model.intercept)


class Regions(Pooling):
    """Maxima of two halves, each L2-normalised over channels, added up: as R-MAC has it."""

    inexact = "regions are normalised"

    def pool(self, dense_map):
        """Pool the left half and the right one."""
        maxima = [half.amax((2, 3)) for half in dense_map.tensor_split(2, 3)]
        return sum(one / one.norm(dim=1, keepdim=True).detach() for one in maxima)


def test_a_pooling_of_ones_own_has_its_map(nets):
    """Registered under a name, it is scored and drawn; the sentence of it is told."""
    with own_pooling("regions", Regions):
        how = Aggregation("average", power=0.5)
        extractors = opened(nets, "A", how, pool="regions+average")
        model = model_of(extractors, how)
        image = Image.fromarray(noise(64, 40, seed=1))
        found = explain(model, image, extractors)
        expected = predicted(model, image, extractors)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.sums + found.bias, found.scores, rtol=1e-9)
    assert found.adds_up
    assert found.why.startswith("regions are normalised; power 0.5")


def test_classes_are_explained_alike_together_and_alone(nets):
    """Where their gradients are too large to be held together, they come one after the other."""
    how = Aggregation()
    extractors = opened(nets, "A", how, ["conv1_1", "pool2"])
    model = model_of(extractors, how, (96,))
    image = noise(96, 100)
    every = explain(model, image, extractors)
    for c, name in enumerate(CLASSES):
        alone = explain(model, image, extractors, [name])
        np.testing.assert_allclose(alone.evidence[0], every.evidence[c], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_it_needs_no_gradients_around_it(nets, without_gradients):
    """Who switches gradients off, as one does to predict, has the same maps."""
    how = Aggregation()
    extractors = opened(nets, "A", how, ["pool3"])
    model = model_of(extractors, how)
    image = noise(40, 40)
    expected = explain(model, image, extractors).evidence
    with without_gradients():
        np.testing.assert_array_equal(explain(model, image, extractors).evidence, expected)


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


def test_what_is_wrong_is_said(nets, tmp_path):
    """Unknown classes, lost images, given boxes and other nets are refused in words."""
    how = Aggregation()
    extractors = opened(nets, "A", how)
    model = model_of(extractors, how)
    with pytest.raises(ParameterError, match="'yak'"):
        explain(model, noise(50, 50), extractors, ["yak"])
    with pytest.raises(ImageError, match="no such file"):
        explain(model, tmp_path / "lost.jpg", extractors)
    with pytest.raises(DataError, match="given box"):
        explain(SavedModel(**{**vars(model), "views": ("image", "box")}), noise(50, 50), extractors)
    crops = (Column(Descriptor("A", "fc8", "crops5", 256), {}, 1000),)
    with pytest.raises(DataError, match="'crops5', from crops"):
        explain(replace(model, columns=crops), noise(50, 50), extractors)
    with pytest.raises(DataError, match=r"/A/pool3/average/Q32, .* the nets given make /A/pool4"):
        explain(model, noise(50, 50), opened(nets, "A", how, ["pool4"]))


def test_the_best_classes_come_first(nets):
    """Of all or of those that are named: scores, maps and shares are theirs, in that order."""
    how = Aggregation()
    extractors = opened(nets, "B", how, ["pool3"])
    model = model_of(extractors, how)
    image = noise(60, 40)
    found = explain(model, image, extractors)
    best = explain(model, image, extractors, best=2)
    order = np.argsort(-found.scores)[:2]
    assert best.classes == tuple(CLASSES[c] for c in order)
    np.testing.assert_allclose(best.evidence, found.evidence[order], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(best.shares[0].totals, found.shares[0].totals[:, order])
    told = best.to_dict()["classes"][CLASSES[order[0]]]
    assert told["score"] == pytest.approx(told["sum"] + told["bias"], abs=1e-9)
    worse = [name for name in CLASSES if name != best.classes[0]]
    assert explain(model, image, extractors, worse, best=1).classes == best.classes[1:]


def test_posteriors_are_not_called_sums():
    """Of the mean of posteriors and of the posteriors of means it is said that they are not."""
    for pool in ("softmax", "posteriors"):
        column = Column(Descriptor("D", "fc8", pool, 256), {}, 2)
        how = Aggregation().to_dict()
        model = SavedModel(np.eye(2), np.zeros(2), ("cat", "dog"), (1.0,), (column,), (), how)
        assert "no sum over locations" in not_linear(model)


def test_a_turned_photo_is_explained_upright(nets, tmp_path):
    """An image with a recorded orientation has the map of its upright copy."""
    how = Aggregation()
    extractors = opened(nets, "B", how, ["pool3"])
    model = model_of(extractors, how)
    upright = Image.fromarray(noise(60, 40, seed=8))
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    one, other = (
        explain(model, tmp_path / f"{name}.png", extractors) for name in ("upright", "turned")
    )
    assert one.size == other.size == (60, 40)
    np.testing.assert_array_equal(one.evidence, other.evidence)
