"""What stands before the first update: drawn full connections see activations of size 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vggfeat.nets.pixels import CAFFE
from vggfeat.nets.weights import Weights, load
from vggfeat.resources import asset
from vggfeat.train.pictures import Part
from vggfeat.train.prepare import level
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


def pool5(net: torch.nn.Module, part: Part) -> torch.Tensor:
    """Central crops of 224 pixels by Pillow alone, the authors' mean subtracted."""
    crops = []
    for row in range(len(part)):
        picture = Image.open(Path(part.pictures.root) / part.name(row)).convert("RGB")
        width, height = picture.size
        short = min(width, height)
        picture = picture.resize((width * 224 // short, height * 224 // short), 2)
        left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
        pixels = np.asarray(picture.crop((left, top, left + 224, top + 224)), np.float32)
        crops.append(pixels[:, :, ::-1] - np.array(CAFFE.mean, np.float32))
    with torch.no_grad():
        return net(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))


def test_pool5_has_size_1_and_keeps_its_direction(embedded: Weights, two: Part) -> None:
    """Drawn full connections get activations of 1; descriptors stay what they were."""
    made = begun(weights=embedded)
    before = pool5(made.net, two)
    level(made, two, SETTINGS, embedded.pixels)
    after = pool5(made.net, two)
    assert after.square().mean().sqrt() == pytest.approx(1, rel=0.03)
    assert before.square().mean().sqrt() > 3
    cosine = F.cosine_similarity(before.flatten(1), after.flatten(1))
    assert cosine.min() > 0.99999


def test_nothing_is_scaled_that_fits_already(embedded: Weights, two: Part) -> None:
    """A network drawn whole, or whose fc6 was taken, is left as it is."""
    whole = begun()
    taken = begun(weights=embedded)._replace(drawn=("fc8",))
    for made in (whole, taken):
        before = made.net.conv5_3.weight.clone()
        level(made, two, SETTINGS, embedded.pixels)
        assert torch.equal(made.net.conv5_3.weight, before)
