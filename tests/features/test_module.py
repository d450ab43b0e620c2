"""An extractor as a torch module: the numbers of `describe`, and gradients."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.mistakes import refuses
from helpers.networks import formula_weights
from safetensors.torch import save_file
from support import noise, random_weights
from torch import Tensor

from vggfeat import DenseExtractor
from vggfeat.errors import ParameterError
from vggfeat.nets.preprocessing import TORCHVISION
from vggfeat.nets.weights import describe

OF_RGB = replace(random_weights("D", ["pool2"]), pixels=TORCHVISION)
SMALL = {"weights": "embedded", "precision": "fp32", "device": "cpu"}


def batch(width: int = 60, height: int = 45) -> Tensor:
    """Draw two images (2, 3, H, W) of uint8."""
    images = np.stack([noise(width, height, seed) for seed in (1, 2)])
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"layers": "pool3"},
        {"layers": "pool3", "flip": False},
        {"layers": ("pool3", "conv2_1_pre"), "pool": "average+cells+gem3+max"},
        {"layers": "pool3", "locations": "l2"},
        {"layers": "pool3", "deterministic": True},
        {"layers": "pool2", "weights": OF_RGB},
    ],
    ids=str,
)
def test_a_module_returns_what_is_described(settings: dict[str, Any]) -> None:
    """Mirror image, poolings, layers and pixel convention are those of the extractor, stacked."""
    extractor = DenseExtractor("D", **{**SMALL, **settings})
    pixels = batch()
    described = torch.cat(list(extractor.describe(pixels).values()), 1)
    for images in (pixels / 255, (pixels / 255).double()):
        with torch.no_grad():
            torch.testing.assert_close(
                extractor.as_module()(images).float(), described, rtol=1e-4, atol=1e-3
            )


def test_crops_are_run_on_their_own(tiny: str) -> None:
    """A pooling that runs the network itself does so in the module, beside one of the map."""
    weights = formula_weights(tiny)
    extractor = DenseExtractor(
        tiny, "fc8", weights=weights, pool="softmax+crops2", precision="fp32", device="cpu"
    )
    pixels = batch(260, 230)
    described = torch.cat(list(extractor.describe(pixels).values()), 1)
    torch.testing.assert_close(extractor.as_module()(pixels / 255), described, rtol=1e-4, atol=1e-5)


def test_a_module_returns_dense_maps() -> None:
    """Of one layer a tensor, of several a dict, as `maps` has them."""
    extractor = DenseExtractor("D", ("pool2", "pool3"), **SMALL)
    expected = extractor.maps(batch())
    maps = extractor.as_module(maps=True)(batch() / 255)
    assert list(maps) == ["pool2", "pool3"]
    for layer, dense_map in maps.items():
        torch.testing.assert_close(dense_map, expected[layer], rtol=1e-3, atol=1e-2)
    alone = DenseExtractor("D", "pool2", **SMALL).as_module(maps=True)(batch() / 255)
    torch.testing.assert_close(alone, expected["pool2"], rtol=1e-3, atol=1e-2)


def test_gradients_are_those_of_small_differences() -> None:
    """The derivative by a pixel is what moving that pixel does, mirror image included."""
    extractor = DenseExtractor("D", "pool1", pool="cells", **SMALL)
    module = extractor.as_module().double()
    images = (batch(6, 4)[:1] / 255).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module(x)[:, ::16], images)


@torch.inference_mode()
def test_a_module_made_without_gradients_has_them() -> None:
    """It can be made wherever images are described."""
    module = DenseExtractor("D", "pool1", **SMALL).as_module()
    with torch.inference_mode(False):
        images = torch.rand(1, 3, 8, 8, requires_grad=True)
        module(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_parameters_are_its_own_and_are_trained_if_asked() -> None:
    """A step of an optimiser changes the module, not the extractor or the weights."""
    weights = random_weights("A", ["pool2"])
    extractor = DenseExtractor("A", "pool2", weights=weights, precision="fp32", device="cpu")
    before = extractor.describe(batch())[("pool2", "average")]
    module = extractor.as_module()
    assert not any(parameter.requires_grad for parameter in module.parameters())
    optimiser = torch.optim.SGD(module.requires_grad_().parameters(), lr=1e-3)
    module(batch() / 255).square().mean().backward()
    optimiser.step()
    assert not torch.allclose(module(batch() / 255), before, rtol=1e-2)
    assert torch.equal(extractor.describe(batch())[("pool2", "average")], before)
    torch.testing.assert_close(extractor.as_module()(batch() / 255), before, rtol=1e-4, atol=1e-3)


def test_a_parent_in_training_turns_no_dropout_on(tiny: str) -> None:
    """Of fc7, whose dropout would halve it; the rest of the parent trains."""
    extractor = DenseExtractor(
        tiny, "fc7", weights=formula_weights(tiny), precision="fp32", device="cpu"
    )
    module, images = extractor.as_module(), batch(224, 224) / 255
    expected = module(images)
    parent = torch.nn.Sequential(module, torch.nn.Dropout()).train()
    assert parent[1].training
    assert torch.equal(module(images), expected)
    assert torch.equal(module.train()(images), expected)


def test_a_module_moves_and_is_copied_as_others_are() -> None:
    """`.to()` of a type, and a state that is written and read, change numbers by rounding alone."""
    extractor = DenseExtractor("D", "pool2", **SMALL)
    module, images = extractor.as_module(), batch() / 255
    expected = module(images)
    coarse = extractor.as_module().to(torch.bfloat16)(images)
    assert coarse.dtype == torch.float32
    assert (coarse - expected).norm() < 0.05 * expected.norm()
    other = DenseExtractor("D", "pool2", flip=True, **SMALL).as_module()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(images), expected)


def test_a_module_is_exported() -> None:
    """Its graph runs on images of the same shape, without this package."""
    module, images = DenseExtractor("D", "pool1", **SMALL).as_module(), batch() / 255
    graph = torch.export.export(module, (images,)).module()
    assert torch.equal(graph(images), module(images))


@pytest.mark.parametrize(
    ("images", "mentions"),
    [
        (batch(), ["uint8", "range"]),
        (batch().float(), ["[0, 1]", "255"]),
        (torch.tensor([[[[-2.1, 2.6]]]]).expand(1, 3, 40, 2), ["mean", "-2.1", "2.6"]),
        (torch.full((1, 3, 40, 40), float("nan")), ["nan"]),
        (torch.zeros(3, 40, 40), ["(N, 3, H, W)", "(3, 40, 40)"]),
        (torch.zeros(1, 40, 40, 3), ["(N, 3, H, W)"]),
        (np.zeros((1, 3, 40, 40), np.float32), ["torch.Tensor"]),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images: Any, mentions: list[str]) -> None:
    """Pixels up to 255, and those whose mean was subtracted, would give garbage."""
    module = DenseExtractor("D", "pool1", **SMALL).as_module()
    refuses(partial(module, images), ParameterError, ["images", *mentions])


@pytest.mark.parametrize("weights", ["embedded", OF_RGB], ids=["caffe", "torchvision"])
@pytest.mark.parametrize("saved", ["pth", "safetensors", "part", "half"])
def test_weights_that_left_come_back(weights: Any, saved: str, tmp_path: Path) -> None:
    """With their pixels: nothing is assumed, and the numbers are the module's."""
    module = DenseExtractor("D", "pool2", **{**SMALL, "weights": weights}).as_module()
    module.net.conv1_1.bias += 1
    expected = module(batch() / 255)
    file = str(tmp_path / f"fine.{'safetensors' if saved == 'safetensors' else 'pth'}")
    if saved == "safetensors":
        save_file({name: v.contiguous() for name, v in module.state_dict().items()}, file)
    elif saved == "part":
        whole = torch.nn.Sequential(module, torch.nn.Linear(128, 2))
        torch.save({"model": whole.state_dict(), "epoch": 1}, file)
    else:
        torch.save((module.half() if saved == "half" else module).state_dict(), file)
    again = DenseExtractor("D", "pool2", **{**SMALL, "weights": file})
    assert not again.weights.assumed
    assert describe(file, "D").ignored == (("1.weight", "1.bias") if saved == "part" else ())
    described = again.describe(batch())["pool2", "average"]
    close = {"rtol": 1e-2, "atol": 1e-1} if saved == "half" else {"rtol": 1e-4, "atol": 1e-3}
    torch.testing.assert_close(described, expected, **close)


def test_a_state_dict_brings_its_pixels() -> None:
    """A module of other pixels that loads it computes what the first does."""
    first = DenseExtractor("D", "pool2", **{**SMALL, "weights": OF_RGB}).as_module()
    other = DenseExtractor("D", "pool2", **SMALL).as_module()
    other.load_state_dict(first.state_dict())
    images = batch(61, 45) / 255
    torch.testing.assert_close(other(images), first(images))
