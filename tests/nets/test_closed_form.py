"""Weights of the tests that are written down in closed form do what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.colours import CLASSES, COLOURS, brightest, colour_posteriors, colour_weights
from support import noise

from vggfeat.features.dense import DenseExtractor
from vggfeat.nets.pixels import CAFFE, TORCHVISION, PixelConvention


@pytest.mark.parametrize("pixels", [CAFFE, TORCHVISION])
def test_colours_are_seen_through_any_convention(tiny: str, pixels: PixelConvention) -> None:
    """The first layer undoes mean, deviation, range and order of the channels."""
    weights = colour_weights(tiny, pixels=pixels)
    image = noise(256, 224, 4)
    extractor = DenseExtractor(tiny, "pool5", weights=weights, precision="fp32")
    batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    pool5 = extractor.maps(batch)["pool5"][0, :3].permute(1, 2, 0)
    np.testing.assert_allclose(pool5, brightest(image), atol=1e-3)


@pytest.mark.parametrize("net", ["tiny", "A", "D", "E"])
def test_a_net_of_colours_says_which_is_nearest(net: str, tiny: str, small_nets: None) -> None:
    """Posteriors of an image of any size are those reckoned from distances; pool5 is exact."""
    weights = colour_weights(net, sharpness=0.5)
    pixels = noise(300, 250, 4)
    batch = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    extractor = DenseExtractor(net, "fc8", weights=weights, pool="softmax", precision="fp32")
    found = extractor.describe(batch)["fc8", "softmax"][0]
    np.testing.assert_allclose(found, colour_posteriors(pixels, 0.5), rtol=1e-4, atol=1e-6)
    assert 0.2 < found.max() < 0.95
    for precision in ("fp32", "bf16"):
        made = DenseExtractor(net, "pool5", weights=weights, precision=precision)
        pool5 = made.maps(batch)["pool5"][0, :3].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(pool5, brightest(pixels))


def test_plain_colours_are_their_classes(tiny: str) -> None:
    """Of many classes the others have a posterior of 0."""
    keys = [*CLASSES, *(f"other {k}" for k in range(20))]
    extractor = DenseExtractor(
        tiny, "fc8", weights=colour_weights(tiny, keys), pool="softmax", precision="fp32"
    )
    for label, colour in COLOURS.items():
        plain = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 224, 224)
        found = extractor.describe(plain)["fc8", "softmax"][0]
        assert keys[found.argmax()] == label
        assert not found[len(CLASSES) :].any()
