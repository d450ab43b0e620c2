"""What stands before the first update: drawn full connections see activations of size 1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vggfeat._io.assets import asset
from vggfeat.nets.preprocessing import CAFFE
from vggfeat.nets.weights import Weights, load
from vggfeat.train.part import Part
from vggfeat.train.prepare import colours_of, level
from vggfeat.train.settings import Training
from vggfeat.train.start import Start, start
from vggfeat.train.trainset import open_trainset

SETTINGS = Training(net="D", S=224)


@pytest.fixture(scope="module")
def embedded() -> Weights:
    return load("embedded", "D", ["pool5"])


@pytest.fixture(scope="module")
def two() -> Part:
    """Return two photographs."""
    return open_trainset(asset("clipart10")).train.take(np.array([0, 200]))


def begun(net: str = "D", weights: Weights | None = None) -> Start:
    """Begin, without drawing the hundred million numbers that are not looked at."""
    made = start(net, from_weights=weights, num_classes=2)
    return made._replace(net=made.net.truncated("pool5"))


def central(part: Part) -> np.ndarray:
    """Central crops of 224 pixels (N, 224, 224, 3), RGB, by Pillow alone."""
    crops = []
    for row in range(len(part)):
        image = Image.open(Path(part.images.root) / part.name(row)).convert("RGB")
        width, height = image.size
        short = min(width, height)
        image = image.resize((width * 224 // short, height * 224 // short), 2)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        crops.append(np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32))
    return np.stack(crops)


def pool5(net: torch.nn.Module, part: Part) -> torch.Tensor:
    """Run central crops, the authors' mean subtracted, through a network."""
    bgr = central(part)[..., ::-1] - np.array(CAFFE.mean, np.float32)
    with torch.no_grad():
        return net(torch.from_numpy(bgr.copy()).permute(0, 3, 1, 2))


def test_pool5_has_size_1_and_keeps_its_direction(embedded: Weights, two: Part) -> None:
    """Drawn full connections get activations of 1; descriptors stay what they were."""
    made = begun(weights=embedded)
    before = pool5(made.net, two)
    level(made, two, SETTINGS, embedded.pixels, embedded)
    after = pool5(made.net, two)
    assert after.square().mean().sqrt() == pytest.approx(1, rel=0.03)
    assert before.square().mean().sqrt() > 3
    cosine = F.cosine_similarity(before.flatten(1), after.flatten(1))
    assert cosine.min() > 0.99999


@pytest.mark.parametrize(("init", "size"), [("glorot", 1.0), ("paper", None)])
def test_pixels_of_a_network_that_is_drawn_have_size_1(
    two: Part, init: str, size: float | None
) -> None:
    """Their mean is 0 and their root mean square 1; in the paper's form only the mean goes."""
    settings = Training(net="A", S=224, init=init)
    colours, convention = colours_of({}, two, settings, None, workers=0)
    crops = central(two).astype(float)
    plain = crops - crops.mean((0, 1, 2))
    std = np.sqrt((plain**2).mean()) if size else 1.0
    assert convention.std == pytest.approx((std,) * 3, rel=1e-3)
    assert convention.mean == pytest.approx(tuple(crops.mean((0, 1, 2))), rel=1e-3)
    assert colours.mean == convention.mean


def test_nothing_is_scaled_that_fits_already(embedded: Weights, two: Part) -> None:
    """A network drawn whole, or whose fc6 was taken, is left as it is."""
    fits = replace(embedded, state={**embedded.state, "fc6.weight": torch.zeros(1)})
    for made, given in ((begun(), None), (begun(weights=embedded), fits)):
        before = made.net.conv5_3.weight.clone()
        level(made, two, SETTINGS, embedded.pixels, given)
        assert torch.equal(made.net.conv5_3.weight, before)
