"""Class scores by Section 3.2: dense, over crops, and in pieces, against windows run one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.networks import TINY, configured, formula_state
from support import noise
from torch import Tensor

from vggfeat.classification.modes import score
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DeviceError, ParameterError
from vggfeat.features import extractor as module
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.nets.preprocessing import PixelConvention
from vggfeat.nets.vgg import VGG
from vggfeat.nets.weights import Weights
from vggfeat.store.store import FeatureStore

CLASSES = 3
SEED = 1
MEAN = (123.0, 117.0, 104.0)


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    with configured({"tiny": TINY}):
        yield


@pytest.fixture(scope="module")
def weights(_tiny: None) -> Weights:
    """Make the tiny net with three classes whose scores differ enough to be told apart."""
    state = formula_state("tiny", num_classes=CLASSES, seed=SEED)
    pixels = PixelConvention("RGB", 255.0, MEAN, (60.0, 60.0, 60.0))
    return Weights("tiny", state, pixels, "formula", "none")


def opened(weights: Weights, pool: str) -> DenseExtractor:
    return DenseExtractor("tiny", "fc8", weights=weights, pool=pool, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def dense(weights: Weights) -> DenseExtractor:
    return opened(weights, "softmax+posteriors")


@pytest.fixture(scope="module")
def crops(weights: Weights) -> DenseExtractor:
    return opened(weights, "crops2")


def classifier(weights: Weights) -> VGG:
    """Make the network of full connections that was trained, which takes 224×224 pixels alone."""
    return VGG("tiny", num_classes=CLASSES, init=None).load(weights.state).eval()


def image(width: int, height: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(noise(width, height, seed).copy()).permute(2, 0, 1)[None]


def normal(pixels: Tensor) -> Tensor:
    return (pixels.float() - torch.tensor(MEAN).view(1, 3, 1, 1)) / 60


def test_the_dense_map_is_a_sliding_window(weights: Weights) -> None:
    """On 256×288 pixels six windows of 224, 32 apart, each run alone, are the map's six places.

    Windows see zeros at their borders where the dense network sees the image (Section 3.2), so
    that they are equal for kernels that look at their middle alone; the fc layers are whole.
    """
    state = dict(weights.state)
    for name, value in state.items():
        if name.startswith("conv") and name.endswith("weight"):
            state[name] = torch.zeros_like(value)
            state[name][:, :, 1, 1] = value[:, :, 1, 1] * 3
    pointwise = Weights("tiny", state, weights.pixels, "formula", "none")
    found = opened(pointwise, "softmax")
    pixels = image(288, 256)
    scores = found.maps(pixels)["fc8"]
    assert scores.shape == (1, CLASSES, 2, 3)
    net = classifier(pointwise)
    with torch.inference_mode():
        for y, x in product(range(2), range(3)):
            window = pixels[:, :, 32 * y : 32 * y + 224, 32 * x : 32 * x + 224]
            torch.testing.assert_close(
                scores[:, :, y, x], net(normal(window)), rtol=1e-3, atol=1e-4
            )


def test_the_dense_map_is_the_classifier_on_every_window_of_pool5(
    weights: Weights, dense: DenseExtractor
) -> None:
    """With whole kernels, matrix products on the 7×7 windows of pool5 give the same scores."""
    pixels = image(288, 256)
    scores = dense.maps(pixels)["fc8"]
    convolutions = VGG("tiny", layers="pool5", dense=True, init=None).load(weights.state)
    with torch.inference_mode():
        pool5 = convolutions(normal(pixels))
    for y, x in product(range(2), range(3)):
        hidden = pool5[0, :, y : y + 7, x : x + 7].flatten()
        for layer in ("fc6", "fc7"):
            hidden = weights.state[f"{layer}.weight"] @ hidden + weights.state[f"{layer}.bias"]
            hidden = hidden.clamp(min=0)
        expected = weights.state["fc8.weight"] @ hidden + weights.state["fc8.bias"]
        torch.testing.assert_close(scores[0, :, y, x], expected, rtol=1e-3, atol=1e-4)


def test_scores_are_averaged_then_soft_maxed_then_mirrored(dense: DenseExtractor) -> None:
    """The paper's order and its alternative, by hand from the maps of image and mirror image."""
    pixels = image(320, 256)
    found = dense.describe(pixels)
    maps = [dense.maps(one)["fc8"][0].flatten(1).double() for one in (pixels, pixels.flip(3))]

    def softmax(scores: Tensor) -> Tensor:
        return scores.exp() / scores.exp().sum(0)

    paper = sum(softmax(scores.mean(1)) for scores in maps) / 2
    other = sum(softmax(scores).mean(1) for scores in maps) / 2
    torch.testing.assert_close(found["fc8", "softmax"][0].double(), paper, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["fc8", "posteriors"][0].double(), other, rtol=1e-4, atol=1e-6)
    assert (paper - other).abs().max() > 1e-3
    for posteriors in found.values():
        torch.testing.assert_close(posteriors.sum(1), torch.ones(1))


def single_passes(weights: Weights, pixels: Tensor, grid: int) -> Tensor:
    """Run every crop and its mirror image alone; the grid's ends touch the borders."""
    net, height, width = classifier(weights), *pixels.shape[2:]
    ys = np.linspace(0, height - 224, grid) if grid > 1 else [(height - 224) / 2]
    xs = np.linspace(0, width - 224, grid) if grid > 1 else [(width - 224) / 2]
    found = []
    with torch.inference_mode():
        for y, x in product(ys, xs):
            top, left = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
            crop = normal(pixels[:, :, top : top + 224, left : left + 224])
            found += [net(crop).softmax(1), net(crop.flip(3)).softmax(1)]
    return torch.cat(found).mean(0, keepdim=True)


def test_crops_are_single_forward_passes(
    weights: Weights, crops: DenseExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four crops and four mirror images, in batches or alone, give the mean of eight passes."""
    pixels = image(301, 256)
    expected = single_passes(weights, pixels, 2)
    found = crops.describe(pixels)["fc8", "crops2"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    monkeypatch.setattr(crops, "pixel_budget", 1)
    alone = crops.describe(pixels)["fc8", "crops2"]
    torch.testing.assert_close(alone, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_five_by_five_crops_at_three_scales_are_150_forward_passes(weights: Weights) -> None:
    """Section 3.2's multi-crop evaluation, one pass at a time."""
    extractor = opened(weights, "crops5")
    for Q in (256, 384, 512):
        pixels = image(Q * 4 // 3, Q)
        found = extractor.describe(pixels)["fc8", "crops5"]
        expected = single_passes(weights, pixels, 5)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_images_of_one_batch_keep_their_own_crops(crops: DenseExtractor) -> None:
    """Two images described together are those described alone, in their order."""
    one, other = image(224, 240, 1), image(224, 240, 2)
    together = crops.describe(torch.cat([one, other]))["fc8", "crops2"]
    alone = torch.cat([crops.describe(each)["fc8", "crops2"] for each in (one, other)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-4


def test_a_panorama_in_pieces_has_the_same_posteriors(
    dense: DenseExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The soft-max comes after all pieces, not within each."""
    pixels = image(1000, 224)
    whole = dense.describe(pixels)
    monkeypatch.setattr(module, "TILE_PIXELS", 1)
    monkeypatch.setattr(dense, "pixel_budget", 1)
    for key, found in dense.describe(pixels).items():
        torch.testing.assert_close(found, whole[key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("pool", ["softmax", "posteriors", "crops5", "average+crops3"])
def test_posteriors_are_of_class_scores_alone(weights: Weights, pool: str) -> None:
    """On another layer, or with normalised locations, they are refused before weights are read."""
    assert opened(weights, pool).extraction.pools == tuple(pool.split("+"))
    for layers, more, said in (
        ("fc7", {}, r"class scores, which fc8 has alone, not fc7"),
        (("fc7", "fc8"), {}, "not fc7, fc8"),
        ("fc8", {"locations": "l2"}, "normalize='locations'"),
    ):
        with pytest.raises(ParameterError, match=said):
            DenseExtractor("tiny", layers, weights="absent.pth", pool=pool, **more)


@pytest.mark.parametrize(
    "pool", ["crops", "crops0", "crops100", "crops-1", "soft", "crops5+crops5"]
)
def test_a_pool_that_is_none_is_refused(pool: str) -> None:
    """A grid has a side from 1 to 99, and nothing is kept twice."""
    with pytest.raises(ParameterError, match="crops5"):
        DenseExtractor("tiny", "fc8", weights="absent.pth", pool=pool)


def test_crops_need_224_pixels(weights: Weights) -> None:
    """Caffe's weights see 193 pixels as a location, but no crop fits into them."""
    pixels = PixelConvention("RGB", 255.0, MEAN, pool_rounding="ceil")
    caffe = Weights("tiny", weights.state, pixels, "formula", "none")
    dense = DenseExtractor("tiny", "fc8", weights=caffe, pool="softmax", device="cpu")
    dense.check_scales([193])
    crops = DenseExtractor("tiny", "fc8", weights=caffe, pool="crops5", device="cpu")
    with pytest.raises(ParameterError, match="at least 224"):
        crops.check_scales([223])


def test_one_run_stores_all_and_the_next_computes_nothing(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense and multi-crop posteriors are columns of one store; once done, nothing is run again."""
    extractor = opened(weights, "softmax+crops1")
    images = ImageSet(("a", "b"), tuple(noise(40, 40, seed) for seed in (1, 2)))
    store = FeatureStore(tmp_path / "s", "a")
    outputs = ("x", "y", "z")
    assert extract(images, extractor, [224, 240], store, outputs=outputs).computed == 2
    assert {name.path: (one.width, one.outputs) for name, one in store.columns.items()} == {
        f"/tiny/fc8/{pool}/Q{Q}": (CLASSES, outputs)
        for pool in ("softmax", "crops1")
        for Q in (224, 240)
    }
    monkeypatch.setattr(extractor, "describe_finite", None)
    summary = extract(images, extractor, [224, 240], FeatureStore(tmp_path / "s", "a"))
    assert (summary.computed, summary.present) == (0, 2)


def test_posteriors_of_a_net_that_overflows_are_refused(weights: Weights, tmp_path: Path) -> None:
    """Classification leaves nothing behind where class scores are not finite."""
    vastly = {f"{name}.weight": weights.state[f"{name}.weight"] * 1e30 for name in ("fc7", "fc8")}
    about = {"classes": json.dumps(["x", "y", "z"])}
    vast = replace(weights, state=weights.state | vastly, about=about)
    images = ImageSet(("a",), (noise(224, 224),))
    for pool in ("softmax", "posteriors", "crops1"):
        with pytest.raises(DeviceError, match="no finite descriptor"):
            score(images, opened(vast, pool), [224], tmp_path / pool)
        assert FeatureStore(tmp_path / pool).names == []
