"""Weights of the tests that are written down in closed form do what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.boxes import GRID_BOXES, GRID_NET, GRID_SIZE, box_weights, draw_red
from helpers.colours import CLASSES, COLOURS, brightest, colour_posteriors, colour_weights
from helpers.networks import configured
from PIL import Image
from support import noise

from vggfeat.features.extractor import DenseExtractor
from vggfeat.localization.predict import Localizer
from vggfeat.nets.preprocessing import CAFFE, TORCHVISION, PixelConvention
from vggfeat.nets.runtimes import has_bf16


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
    for precision in ("fp32", "bf16")[: 1 + has_bf16(torch.device("cpu"))]:
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


@pytest.mark.parametrize(("regression", "boxes"), [("scr", 1), ("pcr", 2)])
@pytest.mark.parametrize("label", ["cat", "dog"])
def test_a_net_of_boxes_sees_red(tmp_path: Path, regression: str, boxes: int, label: str) -> None:
    """From the central crop and from every window that shows all of it, its edges; else a part."""
    draw_red(tmp_path / "a.jpg", GRID_SIZE, GRID_BOXES[label])
    image = Image.open(tmp_path / "a.jpg")
    left, top, right, bottom = (np.array(GRID_BOXES[label]) - (1, 1, 0, 0)).tolist()
    with configured({"D": GRID_NET}):
        net = Localizer(box_weights(regression), precision="fp32")
        central, windows = net.central(image), net.windows(image, 288)
    np.testing.assert_allclose(central, [[left, top, right, bottom]] * boxes, atol=0.01)
    assert windows.shape == (3, 5, boxes, 4)
    whole = 0
    for i, j in np.ndindex(3, 5):
        edges = [32 * j, 32 * i, 32 * j + 224, 32 * i + 224]
        shown = [
            max(left, edges[0]),
            max(top, edges[1]),
            min(right, edges[2]),
            min(bottom, edges[3]),
        ]
        np.testing.assert_allclose(windows[i, j], [shown] * boxes, atol=0.01)
        whole += shown == [left, top, right, bottom]
    assert whole >= 6


def test_a_net_of_boxes_sees_nothing_but_red(tmp_path: Path) -> None:
    """Without red there is no box of any size; a blind net sees a speck whatever there is."""
    draw_red(tmp_path / "a.jpg", GRID_SIZE, None)
    image = Image.open(tmp_path / "a.jpg")
    with configured({"D": GRID_NET}):
        left, top, right, bottom = Localizer(box_weights("scr")).windows(image, 288).T
        blind = Localizer(box_weights("scr", blind=True)).windows(image, 288)
    assert not (right - left).any()
    assert not (bottom - top).any()
    np.testing.assert_allclose(blind[..., 2] - blind[..., 0], 0.02 * 224, rtol=0.01)
