"""The networks against torchvision, timm and hand-built modules with the same numbers."""

from __future__ import annotations

import pytest
import torch
import torchvision
from helpers.mistakes import refuses
from helpers.networks import formula_state
from support import random_state
from torch import Tensor, nn

from vggfeat.errors import ImageTooSmall, ParameterError, WeightsError
from vggfeat.nets.config import (
    TABLE_1,
    layers_of,
    layers_until,
    map_side,
    resolve_layer,
    smallest_side,
    torchvision_names,
)
from vggfeat.nets.vgg import VGG
from vggfeat.nets.weights import Weights

PARAMETERS = {
    "A": 132_863_336,
    "A-LRN": 132_863_336,
    "B": 133_047_848,
    "C": 133_638_952,
    "D": 138_357_544,
    "E": 143_667_240,
}


def as_torchvision(net: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    modules = {
        ours.removesuffix("_pre"): module
        for module, ours in torchvision_names(net).items()
        if ours.endswith("_pre") or ours == "fc8"
    }
    return {
        f"{modules[name.split('.')[0]]}.{name.split('.')[1]}": value
        for name, value in state.items()
    }


@pytest.mark.parametrize("net", sorted(PARAMETERS))
def test_parameter_counts_are_the_papers(net: str) -> None:
    """Every configuration has exactly the parameters that Table 2 rounds."""
    model = VGG(net, init=None)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[net]


def test_ablation_replaces_each_pair_by_one_five_by_five() -> None:
    """B-5x5 has one 5×5 convolution for each pair of B, of the pair's output width."""
    convolutions = [layer for layer in layers_of("B-5x5") if layer.kind == "conv"]
    assert [(c.outputs, c.kernel) for c in convolutions] == [
        (64, 5),
        (128, 5),
        (256, 5),
        (512, 5),
        (512, 5),
    ]
    assert VGG("B-5x5", layers="pool5", dense=True)(torch.zeros(1, 3, 64, 64)).shape[2:] == (2, 2)


def with_connections(net: str, whole: Weights, last: str = "fc8") -> dict[str, Tensor]:
    """Make a net's convolutions, and take the connections, 0.5 GB, of net A, which fit any net."""
    names = [f"fc{k}" for k in range(6, int(last[2:]) + 1)]
    connections = {k: v for k, v in whole.state.items() if k.partition(".")[0] in names}
    return formula_state(net, ["pool5"]) | connections


@pytest.mark.parametrize(
    ("net", "peer"), [("D", "vgg16"), pytest.param("E", "vgg19", marks=pytest.mark.slow)]
)
def test_logits_equal_torchvision(net: str, peer: str, whole_net: Weights) -> None:
    """With the same numbers, logits and probabilities of a 224×224 crop are torchvision's."""
    state = with_connections(net, whole_net)
    with torch.device("meta"):
        theirs = getattr(torchvision.models, peer)(weights=None, num_classes=10)
    theirs.load_state_dict(as_torchvision(net, state), assign=True)
    ours = VGG(net, layers=("fc8", "prob"), num_classes=10, init=None).load(state).eval()
    crop = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs.eval()(crop)
        found = ours.maps(crop)
    torch.testing.assert_close(found["fc8"], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["prob"], expected.softmax(1), rtol=1e-4, atol=1e-6)


def test_dense_fc7_equals_timm(whole_net: Weights) -> None:
    """fc7 of E over 256×288 pixels is that of timm's convolutional pre-logits, pooled or not."""
    timm = pytest.importorskip("timm")
    state = with_connections("E", whole_net, "fc7")
    with torch.device("meta"):
        theirs = timm.create_model("vgg19", num_classes=0, global_pool="")
    theirs.load_state_dict(
        {
            (
                name.replace("classifier.0", "pre_logits.fc1").replace(
                    "classifier.3", "pre_logits.fc2"
                )
            ): value.reshape(4096, -1, 7, 7)
            if name == "classifier.0.weight"
            else value[:, :, None, None]
            if name == "classifier.3.weight"
            else value
            for name, value in as_torchvision("E", state).items()
        },
        assign=True,
    )
    ours = VGG("E", layers="fc7", dense=True, init=None).load(state).eval()
    image = torch.randn(1, 3, 256, 288, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = theirs.eval().forward_head(theirs.forward_features(image), pre_logits=True)
        found = ours(image)
    assert found.shape == (1, 4096, 2, 3)
    expected = expected.reshape(found.shape)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.mean((2, 3)), expected.mean((2, 3)), rtol=1e-4, atol=1e-4)


def test_dense_form_equals_the_fully_connected_form(tiny: str) -> None:
    """On one 224×224 crop fc6 as a 7×7 convolution computes what it does as a connection."""
    connected = VGG(tiny, layers=("fc6", "fc8"), num_classes=10, init=None)
    connected = connected.load(formula_state(tiny)).eval()
    dense = connected.fully_convolutional()
    crop = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for name, expected in connected.maps(crop).items():
            torch.testing.assert_close(
                dense.maps(crop)[name][:, :, 0, 0], expected, rtol=1e-4, atol=1e-5
            )
    assert dense.fc6.weight.data_ptr() == connected.fc6.weight.data_ptr()


def krizhevsky_lrn(x: Tensor) -> Tensor:
    """Krizhevsky's formula, channel by channel: α is not divided by n."""
    out = torch.empty_like(x)
    for i in range(x.shape[1]):
        near = x[:, max(0, i - 2) : i + 3]
        out[:, i] = x[:, i] / (2 + 1e-4 * (near**2).sum(1)) ** 0.75
    return out


def hand_built(net: str, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Stages of A-LRN, B and C spelled out, up to pool5."""
    stages = {
        "A-LRN": [["1_1", "LRN"], ["2_1"], ["3_1", "3_2"], ["4_1", "4_2"], ["5_1", "5_2"]],
        "B": [[f"{s}_1", f"{s}_2"] for s in range(1, 6)],
        "C": [["1_1", "1_2"], ["2_1", "2_2"]]
        + [[f"{s}_{i}" for i in (1, 2, 3)] for s in (3, 4, 5)],
    }[net]
    for stage in stages:
        for entry in stage:
            if entry == "LRN":
                x = krizhevsky_lrn(x)
                continue
            weight, bias = state[f"conv{entry}.weight"], state[f"conv{entry}.bias"]
            one_by_one = net == "C" and entry in ("3_3", "4_3", "5_3")
            assert weight.shape[2] == (1 if one_by_one else 3)
            padded = x if one_by_one else nn.functional.pad(x, (1, 1, 1, 1))
            x = nn.functional.conv2d(padded, weight, bias).clamp(min=0)
        x = nn.functional.max_pool2d(x, 2)
    return x


@pytest.mark.parametrize("net", ["A-LRN", "B", "C"])
def test_configurations_without_a_peer_equal_hand_built_ones(net: str) -> None:
    """A-LRN, B and C compute what their column of Table 1 says."""
    state = random_state(net, ["pool5"])
    image = torch.randn(1, 3, 64, 96) * 50
    with torch.inference_mode():
        found = VGG(net, layers="pool5", dense=True, init=None).load(state).eval()(image)
        torch.testing.assert_close(found, hand_built(net, state, image), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rounding", ["floor", "ceil"])
@pytest.mark.parametrize("layer", ["pool3", "pool5", "fc6"])
def test_map_sizes_are_predicted(layer: str, rounding: str) -> None:
    """The size of a map is what the arithmetic says, also of sides that 32 does not divide."""
    net = VGG("A", layers=layer, dense=True, pool_rounding=rounding, init=None).to("meta")
    for height, width in ((224, 224), (231, 500), (301, 257)):
        shape = net(torch.empty(1, 3, height, width, device="meta")).shape
        expected = [map_side(side, net.layers, rounding) for side in (height, width)]
        assert list(shape[2:]) == expected


def test_ceil_keeps_the_border_that_floor_drops() -> None:
    """Rounding up gives Caffe's map size: 15 → 8, where rounding down gives 7."""
    layers = layers_until("A", ["pool1"])
    assert (map_side(15, layers, "ceil"), map_side(15, layers, "floor")) == (8, 7)


def test_too_small_an_image_is_refused_with_the_side_that_would_do() -> None:
    """The error names the layer and the smallest side, and that side indeed works."""
    net = VGG("A", layers="fc7", dense=True, init=None).to("meta")
    refuses(
        lambda: net(torch.empty(1, 3, 223, 300, device="meta")),
        ImageTooSmall,
        ["223×300", "fc7", "224"],
    )
    assert net(torch.empty(1, 3, 224, 224, device="meta")).shape[2:] == (1, 1)
    assert smallest_side(layers_until("E", ["pool5"]), "ceil") == 1


def test_several_layers_come_from_one_pass() -> None:
    """Maps asked for together equal those asked for alone, before and after the ReLU."""
    state = random_state("A", ["conv3_2"])
    names = ("conv2_1_pre", "conv2_1", "pool2", "conv3_2_pre")
    image = torch.randn(1, 3, 48, 32)
    with torch.inference_mode():
        together = VGG("A", layers=names, dense=True, init=None).load(state).eval().maps(image)
        for name in names:
            alone = VGG("A", layers=name, dense=True, init=None).load(state).eval()(image)
            assert torch.equal(together[name], alone)
    assert together["conv2_1_pre"].min() < 0
    assert torch.equal(together["conv2_1_pre"].relu(), together["conv2_1"])


def test_truncated_networks_hold_nothing_unused() -> None:
    """Cut at pool5, net D keeps its 14,714,688 convolutional parameters alone."""
    full = VGG("D", layers="conv4_1", dense=True)
    cut = full.truncated("conv3_1")
    assert sum(p.numel() for p in VGG("D", layers="pool5", init=None).parameters()) == 14_714_688
    assert [name for name, _ in cut.named_children()][-1] == "conv3_1"
    assert cut.conv1_1.weight.data_ptr() == full.conv1_1.weight.data_ptr()


@pytest.mark.parametrize("net", ["A", "B", "D", "E"])
def test_torchvision_names_resolve_to_layers_of_their_kind(net: str) -> None:
    """Every module of torchvision's network has an alias: a ReLU names what its layer gives out."""
    peer = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}[net]
    with torch.device("meta"):
        theirs = getattr(torchvision.models, peer)(weights=None)
    names = [n for n, m in theirs.named_modules() if "." in n and not isinstance(m, nn.Dropout)]
    assert names == [n for n in torchvision_names(net) if n in names]
    for name in names:
        module = theirs.get_submodule(name)
        resolved = resolve_layer(net, name)
        kind = {nn.Conv2d: "conv", nn.Linear: "fc", nn.MaxPool2d: "pool"}.get(type(module))
        if kind is None:
            assert not resolved.endswith("_pre")
        else:
            assert resolved.startswith(kind)


def test_unknown_names_are_refused_with_the_choices() -> None:
    """A wrong net or layer is answered with the names that exist."""
    refuses(lambda: VGG("F"), ParameterError, ["'F'", "A-LRN"])
    refuses(lambda: VGG("D", layers="conv9_9"), ParameterError, ["conv9_9", "conv1_2"])
    refuses(lambda: resolve_layer("D", "pool3_pre"), ParameterError, ["pool3_pre", "conv3_3"])


def test_weights_of_another_network_are_refused() -> None:
    """Missing parameters and other shapes are named."""
    refuses(
        lambda: VGG("D", layers="conv3_3", init=None).load(random_state("B", ["conv3_2"])),
        WeightsError,
        ["conv3_3.bias", "conv3_3.weight"],
    )
    refuses(
        lambda: VGG("B-5x5", layers="conv1_1", init=None).load(random_state("B", ["conv1_1"])),
        WeightsError,
        ["conv1_1.weight", "B-5x5"],
    )


@pytest.mark.parametrize(
    ("init", "std"), [("paper", 0.1), ("kaiming", (2 / (128 * 9)) ** 0.5), ("glorot", None)]
)
def test_random_initialisations_have_their_spread(init: str, std: float | None) -> None:
    """Weights have the standard deviation of their formula, and biases are 0 (Section 3.1)."""
    torch.manual_seed(0)
    conv = VGG("B", layers="conv2_2", init=init).conv2_2
    expected = std or (2 / (2 * 128 * 9)) ** 0.5
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert not conv.bias.any()


def test_every_configuration_ends_alike() -> None:
    """All seven end in fc6, fc7, fc8 and prob."""
    assert {tuple(layer.name for layer in layers_of(n)[-4:]) for n in TABLE_1} == {
        ("fc6", "fc7", "fc8", "prob")
    }
