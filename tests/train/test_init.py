"""How networks begin, layer by layer: what is taken equals its source, what is drawn does not."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.mistakes import refuses
from PIL import Image
from torch import Tensor, nn

from vggfeat._io.assets import asset
from vggfeat.errors import ParameterError, WeightsError
from vggfeat.nets.config import layers_of
from vggfeat.nets.preprocessing import CAFFE, TORCHVISION
from vggfeat.nets.weights import Weights, load
from vggfeat.settings import Training
from vggfeat.train.data import Part, open_trainset
from vggfeat.train.init import Start, measure_colours, rescale_activations, start, taken_from_a

FROM_A = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")
DRAWN = {
    "B": "conv1_2 conv2_2 conv4_1 conv4_2 conv5_1 conv5_2",
    "C": "conv1_2 conv2_2 conv3_3 conv4_1 conv4_2 conv4_3 conv5_1 conv5_2 conv5_3",
    "D": "conv1_2 conv2_2 conv3_3 conv4_1 conv4_2 conv4_3 conv5_1 conv5_2 conv5_3",
    "E": "conv1_2 conv2_2 conv3_3 conv3_4 conv4_1 conv4_2 conv4_3 conv4_4 "
    "conv5_1 conv5_2 conv5_3 conv5_4",
}


def constants(net: str) -> dict[str, Tensor]:
    """Parameters of a whole net, a different number in each, that take no memory."""
    state: dict[str, Tensor] = {}
    for layer in layers_of(net, 1000):
        if layer.kind in ("conv", "fc"):
            value = 1.0 + len(state)
            state[f"{layer.name}.weight"] = torch.tensor(value).expand(layer.shape)
            state[f"{layer.name}.bias"] = torch.tensor(-value).expand(layer.outputs)
    return state


def layer_of(begun: Start, name: str) -> nn.Conv2d | nn.Linear:
    module = getattr(begun.net, name)
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return module


@pytest.mark.parametrize("net", DRAWN)
def test_deeper_nets_begin_from_a(net: str) -> None:
    """Seven layers hold A's numbers, and all others zero-mean ones of Glorot's variance."""
    source = constants("A")
    begun = start(net, from_weights=source, of="A", generator=torch.Generator().manual_seed(0))
    assert begun.taken == taken_from_a(net) == FROM_A
    assert " ".join(begun.drawn) == DRAWN[net]
    for name in FROM_A:
        for part, parameter in layer_of(begun, name).named_parameters():
            value = source[f"{name}.{part}"].flatten()[0]
            assert parameter.amin() == parameter.amax() == value, (name, part)
    for name in begun.drawn:
        module = layer_of(begun, name)
        fans = (module.weight.shape[0] + module.weight.shape[1]) * module.weight[0, 0].numel()
        assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fans), rel=0.02)
        assert abs(module.weight.mean().item()) < 0.002
        assert not module.bias.any()
    assert begun.net.training


def test_a_net_begins_from_itself_at_another_scale() -> None:
    """All layers are copied, but for an fc8 of other classes; what was drawn before is told."""
    source = constants("A")
    weights = Weights("A", source, TORCHVISION, "a-256", "none", drawn=("fc6",))
    begun = start("A", from_weights=weights, num_classes=7)
    assert begun.drawn == ("fc6", "fc8")
    assert len(begun.taken) == 9
    for name in (*begun.taken, "fc6"):
        assert layer_of(begun, name).weight.flatten()[-1] == source[f"{name}.weight"].flatten()[0]
    assert begun.net.fc8.weight.shape == (7, 4096)
    with torch.no_grad():
        layer_of(begun, "conv1_1").weight.zero_()
    assert source["conv1_1.weight"].flatten()[0] == 1


def test_random_start_has_the_papers_variance_and_is_repeatable() -> None:
    """The paper's σ is 0.1; a seed gives the same numbers again, another seed others."""
    begun, again, other = (
        start("B-5x5", init="paper", generator=torch.Generator().manual_seed(seed), num_classes=4)
        for seed in (1, 1, 2)
    )
    assert begun.taken == ()
    assert layer_of(begun, "fc6").weight.std().item() == pytest.approx(0.1, rel=1e-3)
    first, same, different = (layer_of(x, "conv3_1").weight for x in (begun, again, other))
    assert torch.equal(first, same)
    assert not torch.equal(first, different)


def test_weights_that_do_not_fit_are_refused() -> None:
    """Another net's, incomplete, wrongly shaped or unnamed weights, each by name."""
    A, D = constants("A"), constants("D")
    from_a = partial(start, "D", of="A")
    without = {name: value for name, value in A.items() if not name.startswith("conv3_2")}
    narrow = A | {"conv2_1.bias": torch.zeros(64)}
    refuses(lambda: start("E", from_weights=D, of="D"), ParameterError, ["Net E", "of A", "of D"])
    refuses(lambda: start("D", from_weights=D), ParameterError, ["'of'"])
    refuses(lambda: start("D", init="zeros"), ParameterError, ["'init'"])
    refuses(lambda: taken_from_a("A-LRN"), ParameterError, ["'B', 'C', 'D', 'E'"])
    refuses(lambda: from_a(from_weights=without), WeightsError, ["net A", "conv3_2", "net D"])
    shapes = ["conv2_1.bias", "(128,)", "(64,)"]
    refuses(lambda: from_a(from_weights=narrow), WeightsError, shapes)


@pytest.fixture(scope="module")
def embedded() -> Weights:
    return load("embedded", "D", ["pool5"])


@pytest.fixture(scope="module")
def two() -> Part:
    """Return two photographs."""
    return open_trainset(asset("clipart10")).train.take(np.array([0, 200]))


def begun_of(weights: Weights | None) -> Start:
    """Begin a net D, without keeping the hundred million numbers that are not looked at."""
    begun = start("D", from_weights=weights, num_classes=2)
    return begun._replace(net=begun.net.truncated("pool5"))


def test_embedded_convolutions_are_taken(embedded: Weights) -> None:
    """From the shipped file D takes thirteen convolutions, number by number, and its rounding."""
    begun = begun_of(embedded)
    assert begun.drawn == ("fc6", "fc7", "fc8")
    state = begun.net.state_dict()
    assert state.keys() == {f"{name}.{of}" for name in begun.taken for of in ("weight", "bias")}
    assert all(torch.equal(value, embedded.state[name]) for name, value in state.items())
    assert begun.net.pool_rounding == "ceil"


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


@torch.no_grad()
def test_pool5_has_size_1_and_keeps_its_direction(embedded: Weights, two: Part) -> None:
    """Drawn full connections get activations of 1; descriptors stay what they were.

    A network drawn whole, or whose fc6 was taken, is left as it is.
    """
    settings = Training(net="D", S=224)
    bgr = central(two)[..., ::-1] - np.array(CAFFE.mean, np.float32)
    x = torch.from_numpy(bgr.copy()).permute(0, 3, 1, 2)
    begun = begun_of(embedded)
    before = begun.net(x)
    fits = replace(embedded, state={**embedded.state, "fc6.weight": torch.zeros(1)})
    for weights in (None, fits):
        rescale_activations(begun, two, settings, embedded.pixels, weights)
        assert torch.equal(begun.net(x), before)
    rescale_activations(begun, two, settings, embedded.pixels, embedded)
    after = begun.net(x)
    assert after.square().mean().sqrt() == pytest.approx(1, rel=0.03)
    assert before.square().mean().sqrt() > 3
    assert F.cosine_similarity(before.flatten(1), after.flatten(1)).min() > 0.99999


@pytest.mark.parametrize(("init", "divided"), [("glorot", True), ("paper", False)])
def test_pixels_of_a_network_that_is_drawn_have_size_1(two: Part, init: str, divided: bool) -> None:
    """Their mean is 0 and their root mean square 1; in the paper's form only the mean goes."""
    settings = Training(net="A", S=224, init=init)
    colours, convention = measure_colours({}, two, settings, None, workers=0)
    crops = central(two).astype(float)
    mean = crops.mean((0, 1, 2))
    std = np.sqrt(((crops - mean) ** 2).mean()) if divided else 1.0
    assert convention.std == pytest.approx((std,) * 3, rel=1e-3)
    assert convention.mean == pytest.approx(tuple(mean), rel=1e-3)
    assert colours.mean == convention.mean
