"""How networks begin, layer by layer: what is taken equals its source, what is drawn does not."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vggfeat._io.assets import asset
from vggfeat.errors import ParameterError, WeightsError
from vggfeat.nets.config import DEEPER, layers_of
from vggfeat.nets.preprocessing import CAFFE, TORCHVISION
from vggfeat.nets.weights import Weights, load
from vggfeat.settings import Training
from vggfeat.train.data import Part, open_trainset
from vggfeat.train.init import (
    Start,
    measure_colours,
    rescale_activations,
    start,
    taken_from_a,
)

SETTINGS = Training(net="D", S=224)
FROM_A = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")
DRAWN = {
    "B": "conv1_2 conv2_2 conv4_1 conv4_2 conv5_1 conv5_2",
    "C": "conv1_2 conv2_2 conv3_3 conv4_1 conv4_2 conv4_3 conv5_1 conv5_2 conv5_3",
    "D": "conv1_2 conv2_2 conv3_3 conv4_1 conv4_2 conv4_3 conv5_1 conv5_2 conv5_3",
    "E": "conv1_2 conv2_2 conv3_3 conv3_4 conv4_1 conv4_2 conv4_3 conv4_4 "
    "conv5_1 conv5_2 conv5_3 conv5_4",
}


def constants(net: str, num_classes: int = 1000) -> dict[str, Tensor]:
    """Parameters of a whole net, a different number in each, that take no memory."""
    state: dict[str, Tensor] = {}
    for layer in layers_of(net, num_classes):
        if layer.kind in ("conv", "fc"):
            value = 1.0 + len(state)
            state[f"{layer.name}.weight"] = torch.tensor(value).expand(layer.shape)
            state[f"{layer.name}.bias"] = torch.tensor(-value).expand(layer.outputs)
    return state


def layer_of(begun: Start, name: str) -> nn.Conv2d | nn.Linear:
    module = getattr(begun.net, name)
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return module


@pytest.mark.parametrize("net", DEEPER)
def test_layers_taken_from_a_have_its_shapes(net: str) -> None:
    """Each of the seven layers has in the deeper net the shape that it has in A."""
    shapes = {n: {layer.name: layer.shape for layer in layers_of(n)} for n in ("A", net)}
    assert taken_from_a(net) == FROM_A
    assert [shapes[net][name] for name in FROM_A] == [shapes["A"][name] for name in FROM_A]


@pytest.mark.parametrize("net", DEEPER)
def test_deeper_nets_begin_from_a(net: str) -> None:
    """Seven layers hold A's numbers, and all others zero-mean ones of Glorot's variance."""
    source = constants("A")
    begun = start(net, from_weights=source, of="A", generator=torch.Generator().manual_seed(0))
    assert begun.taken == FROM_A
    assert " ".join(begun.drawn) == DRAWN[net]
    for name in begun.taken:
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
    """All layers are taken but fc8, whose classes are others; the source is not written to."""
    source = constants("A")
    weights = Weights("A", source, TORCHVISION, "a-256", "none")
    begun = start("A", from_weights=weights, num_classes=7)
    assert begun.drawn == ("fc8",)
    assert len(begun.taken) == 10
    for name in begun.taken:
        assert layer_of(begun, name).weight.flatten()[-1] == source[f"{name}.weight"].flatten()[0]
    assert begun.net.fc8.weight.shape == (7, 4096)
    with torch.no_grad():
        layer_of(begun, "conv1_1").weight.zero_()
    assert source["conv1_1.weight"].flatten()[0] == 1


def test_layers_that_were_drawn_before_are_no_trained_ones() -> None:
    """They are copied as they are, and told among those that are drawn."""
    source = constants("A")
    weights = Weights("A", source, TORCHVISION, "a-256", "none", drawn=("fc6", "fc8"))
    begun = start("A", from_weights=weights)
    assert begun.drawn == ("fc6", "fc8")
    assert begun.taken[-2:] == ("conv5_2", "fc7")
    assert layer_of(begun, "fc6").weight[0, 0] == source["fc6.weight"][0, 0]


def test_embedded_convolutions_are_taken() -> None:
    """From the shipped file D takes thirteen convolutions, number by number, and its rounding."""
    weights = load("embedded", layers=("pool5",))
    begun = start("D", from_weights=weights, num_classes=3)
    assert begun.drawn == ("fc6", "fc7", "fc8")
    for name in begun.taken:
        torch.testing.assert_close(
            dict(layer_of(begun, name).named_parameters()),
            {part: weights.state[f"{name}.{part}"] for part in ("weight", "bias")},
            rtol=0,
            atol=0,
        )
    assert begun.net.pool_rounding == "ceil"


def test_random_start_has_the_papers_variance_and_is_repeatable() -> None:
    """The paper's σ is 0.1; a seed gives the same numbers again, another seed others."""
    begun, again, other = (
        start("B-5x5", init="paper", generator=torch.Generator().manual_seed(seed), num_classes=4)
        for seed in (1, 1, 2)
    )
    assert begun.taken == ()
    assert layer_of(begun, "fc6").weight.std().item() == pytest.approx(0.1, rel=1e-3)
    same, different = (layer_of(x, "conv3_1").weight for x in (again, other))
    assert torch.equal(layer_of(begun, "conv3_1").weight, same)
    assert not torch.equal(layer_of(begun, "conv3_1").weight, different)


def test_weights_that_do_not_fit_are_refused() -> None:
    """Another net's, incomplete, wrongly shaped or unnamed weights each have their sentence."""
    with pytest.raises(ParameterError, match=r"Net E can begin .* E or of A, not .* of D\."):
        start("E", from_weights=constants("D"), of="D")
    with pytest.raises(ParameterError, match="'of' parameter of start must be the net"):
        start("D", from_weights=constants("D"))
    with pytest.raises(ParameterError, match="'init' parameter"):
        start("D", init="zeros")
    with pytest.raises(ParameterError, match="'B', 'C', 'D', 'E'"):
        taken_from_a("A-LRN")
    source = constants("A")
    without = {name: v for name, v in source.items() if not name.startswith("conv3_2")}
    with pytest.raises(WeightsError, match="net A lack conv3_2, which net D begins from"):
        start("D", from_weights=without, of="A")
    narrow = source | {"conv2_1.bias": torch.zeros(64)}
    with pytest.raises(WeightsError, match=r"conv2_1.bias of net D .* \(128,\), in .* \(64,\)"):
        start("D", from_weights=narrow, of="A")


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
    rescale_activations(made, two, SETTINGS, embedded.pixels, embedded)
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
    colours, convention = measure_colours({}, two, settings, None, workers=0)
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
        rescale_activations(made, two, SETTINGS, embedded.pixels, given)
        assert torch.equal(made.net.conv5_3.weight, before)
