"""Table 1 is data: a row more is a network more, for everything that reads weights or runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.cli import run
from helpers.mistakes import refuses
from helpers.networks import PIXELS, TINY, formula_state, formula_weights, forward
from support import noise

from vggfeat.errors import ParameterError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.nets.config import TABLE_1, layers_of, resolve_layer, smallest_side
from vggfeat.nets.formats import read
from vggfeat.nets.vgg import VGG
from vggfeat.nets.weights import Weights

KNOWN = tuple(TABLE_1)


def normalised(*seeds: int) -> torch.Tensor:
    """Draw images of 224 pixels as a network takes them."""
    pixels = np.stack([noise(224, 224, seed) for seed in seeds])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXELS.mean, PIXELS.std))
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - mean) / std


def test_a_row_has_all_widths(tiny: str) -> None:
    """Widths of convolutions and of fc6 and fc7 are the row's; 224 pixels are one location."""
    shapes = {layer.name: layer.shape for layer in layers_of(tiny, 10)}
    assert (shapes["conv4_1"], shapes["fc6"]) == ((8, 8, 3, 3), (6, 8 * 49))
    assert [layer.outputs for layer in layers_of(tiny, 10)[-4:]] == [6, 5, 10, 10]
    assert sum(p.numel() for p in VGG(tiny, num_classes=10, init=None).parameters()) == (
        (3 * 9 + 1) * 4 + (4 * 9 + 1) * 4 + (4 * 9 + 1) * 8 + 2 * (8 * 9 + 1) * 8
        + (8 * 49 + 1) * 6 + 7 * 5 + 6 * 10
    )  # fmt: skip
    assert smallest_side(layers_of(tiny)) == 224
    assert resolve_layer(tiny, "features.14") == "pool5"


def test_a_row_that_changes_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a name meant before is not remembered; without its row it is refused by name."""
    monkeypatch.setitem(TABLE_1, "mine", TINY)
    assert layers_of("mine")[-4].outputs == 6
    monkeypatch.setitem(TABLE_1, "mine", TINY.replace("FC 6 5", "FC 7 5"))
    assert layers_of("mine")[-4].outputs == 7
    monkeypatch.delitem(TABLE_1, "mine")
    refuses(lambda: layers_of("mine"), ParameterError, mentions=("net", "mine", *KNOWN))


def test_commands_know_a_row_that_was_added(tiny: str, tiny_weights: Path, tmp_path: Path) -> None:
    """A file of it is told from its shapes alone, and a wrong net is answered with its name too."""
    assert read(tiny_weights).net == tiny
    assert run("weights", "show", tiny_weights, "--json").json["net"] == tiny
    err = run("train", "--net", "F", "--data", tmp_path, "--out", tmp_path / "a", status=2).err
    assert all(net in err for net in (*KNOWN, tiny))


def test_the_extractor_computes_what_torch_does(tiny: str) -> None:
    """fc7 of the tiny net, dense, is torch's own functions with the same numbers."""
    weights = formula_weights(tiny)
    pixels = torch.from_numpy(noise(300, 256, 3).copy()).permute(2, 0, 1)[None]
    made = DenseExtractor(tiny, ("pool5", "fc7"), weights=weights, precision="fp32").maps(pixels)
    expected = forward(weights.state, tiny, (pixels.float() - 120) / 60)
    assert made["fc7"].shape == (1, 5, 2, 3)
    for layer in ("pool5", "fc7"):
        torch.testing.assert_close(made[layer], expected[layer], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("net", ["tiny", "A", "D", "E"])
def test_weights_by_formula_neither_die_nor_explode(net: str, tiny: str, small_nets: None) -> None:
    """On two images every layer is of the size of 1, and tells them apart."""
    check_alive(Weights(net, formula_state(net), PIXELS, "formula", "none"))


@pytest.mark.slow
def test_whole_weights_by_formula_neither_die_nor_explode(whole_net: Weights) -> None:
    """So it is with 4096 columns, where numbers of a poor formula would be all alike."""
    check_alive(whole_net)


def check_alive(weights: Weights) -> None:
    maps = forward(weights.state, weights.net, normalised(0, 1))
    for name, values in maps.items():
        size = values.square().mean().sqrt().item()
        assert 0.2 < size < 6, f"{name}: {size}"
        assert values.std(0).max() > 0.1 * size, name


@pytest.mark.parametrize("net", TABLE_1)
@pytest.mark.parametrize("rounding", ["floor", "ceil"])
def test_geometry_is_that_of_torch(net: str, rounding: str) -> None:
    """The side of each layer's map is that of torch's own convolutions and pools."""
    for side in (224, 225, 255, 300):
        x = torch.empty(1, 1, side, side, device="meta")
        for layer in layers_of(net):
            expected = layer.output_side(x.shape[2], rounding)
            if layer.kind in ("conv", "fc"):
                weight = torch.empty(1, 1, layer.kernel, layer.kernel, device="meta")
                x = F.conv2d(x, weight, padding="same" if layer.kind == "conv" else "valid")
            elif layer.kind == "pool":
                x = F.max_pool2d(x, 2, ceil_mode=rounding == "ceil")
            assert x.shape[2] == expected, layer
