"""Dense extraction against formulas worked by hand and the network run plainly."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.mistakes import refuses
from helpers.networks import formula_weights
from support import noise

from vggfeat.data.image import load
from vggfeat.errors import DeviceError, ParameterError
from vggfeat.features import extractor as module
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.tiling import iter_tiles
from vggfeat.nets.config import layers_until, margins, torchvision_names
from vggfeat.nets.preprocessing import CAFFE
from vggfeat.nets.runtimes import has_bf16, resolve_device, resolve_precision
from vggfeat.nets.vgg import VGG
from vggfeat.nets.weights import Weights
from vggfeat.nets.weights import load as load_weights

CPU = torch.device("cpu")


def images(*shapes: tuple[int, int]) -> list[torch.Tensor]:
    return [torch.from_numpy(noise(w, h, seed=i).copy()) for i, (h, w) in enumerate(shapes)]


def batch(*images: torch.Tensor) -> torch.Tensor:
    return torch.stack(images).permute(0, 3, 1, 2)


def by_hand(image: torch.Tensor, layer: str) -> torch.Tensor:
    """Appendix B spelled out with the embedded weights: BGR, means, map, average, mirror."""
    weights = load_weights("embedded", "D", [layer])
    net = VGG("D", layers=layer, dense=True, pool_rounding="ceil", init=None).load(weights.state)
    means = torch.tensor([103.939, 116.779, 123.68])
    bgr = image.flip(2).float() - means
    x = bgr.permute(2, 0, 1)[None]
    with torch.inference_mode():
        return (net(x).mean((2, 3)) + net(x.flip(3)).mean((2, 3))) / 2


def test_a_descriptor_is_appendix_b_by_hand() -> None:
    """Pixel convention, average over locations and mirror image give the paper's descriptor."""
    [image] = images((70, 101))
    extractor = DenseExtractor("D", "pool5", weights="embedded", precision="fp32", device="cpu")
    found = extractor.describe(batch(image))[("pool5", "average")]
    torch.testing.assert_close(found, by_hand(image, "pool5"), rtol=1e-4, atol=1e-4)


def test_without_the_mirror_image_the_image_counts_alone() -> None:
    """With flip off an image and its mirror image have different descriptors; with it, one."""
    [image] = images((40, 60))
    both = batch(image, image.flip(1))
    for flip, alike in ((True, True), (False, False)):
        extractor = DenseExtractor(
            "D", "pool3", weights="embedded", precision="fp32", flip=flip, device="cpu"
        )
        one, other = extractor.describe(both)[("pool3", "average")]
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-4) == alike


def test_neighbours_in_a_batch_change_nothing() -> None:
    """A descriptor is the same alone and in a batch, to 1e-5 of its norm."""
    several = images((64, 80), (64, 80), (64, 80))
    extractor = DenseExtractor("D", "pool5", weights="embedded", precision="fp32", device="cpu")
    together = extractor.describe(batch(*several))[("pool5", "average")]
    for row, image in zip(together, several, strict=True):
        alone = extractor.describe(batch(image))[("pool5", "average")][0]
        assert (row - alone).norm() <= 1e-5 * alone.norm()


def test_maximum_and_both_pool_as_they_say() -> None:
    """Maximum over locations is taken for image and mirror image, then averaged."""
    [image] = images((48, 64))
    extractor = DenseExtractor(
        "D", "pool4", weights="embedded", precision="fp32", pool="average+max", device="cpu"
    )
    found = extractor.describe(batch(image))
    maps = [extractor.maps(batch(p))["pool4"] for p in (image, image.flip(1))]
    highest = (maps[0].amax((2, 3)) + maps[1].amax((2, 3))) / 2
    torch.testing.assert_close(found[("pool4", "max")], highest)
    means = (maps[0].mean((2, 3)) + maps[1].mean((2, 3))) / 2
    torch.testing.assert_close(found[("pool4", "average")], means)


@pytest.mark.parametrize("shape", [(64, 96), (48, 80)])
def test_cells_are_the_means_of_the_quarters(shape: tuple[int, int]) -> None:
    """Each quarter is a mean of slices, the middle of an odd side in both, mirror image turned."""
    [image] = images(shape)
    extractor = DenseExtractor(
        "D", "pool4", weights="embedded", precision="fp32", pool="cells", device="cpu"
    )
    upright, mirrored = (extractor.maps(batch(p))["pool4"][0] for p in (image, image.flip(1)))
    mean = (upright + mirrored.flip(2)) / 2
    height, width = mean.shape[1:]
    quarters = [
        mean[:, rows, columns].mean((1, 2))
        for rows in (slice(0, -(-height // 2)), slice(height // 2, None))
        for columns in (slice(0, -(-width // 2)), slice(width // 2, None))
    ]
    found = extractor.describe(batch(image))[("pool4", "cells")]
    torch.testing.assert_close(found[0], torch.cat(quarters))


def test_locations_are_normalised_before_pooling() -> None:
    """With locations="l2" every location has the same say, whatever its contrast."""
    [image] = images((48, 64))
    settings = {"weights": "embedded", "precision": "fp32", "flip": False, "device": "cpu"}
    raw = DenseExtractor("D", "pool4", **settings).maps(batch(image))["pool4"]
    found = DenseExtractor("D", "pool4", locations="l2", **settings).describe(batch(image))
    expected = F.normalize(raw, dim=1).mean((2, 3))
    torch.testing.assert_close(found[("pool4", "average")], expected)


@pytest.mark.parametrize(
    ("net", "layers", "shape"),
    [
        pytest.param("D", ("pool3", "pool5"), (40, 1333), marks=pytest.mark.slow),
        pytest.param("D", ("conv5_3_pre",), (1111, 37), marks=pytest.mark.slow),
        ("tiny", ("fc6",), (224, 1300)),
    ],
)
def test_pieces_of_a_panorama_equal_the_whole(
    net: str,
    layers: tuple[str, ...],
    shape: tuple[int, int],
    tiny: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image cut to bound memory has the maps and descriptors of one that was not."""
    weights = "embedded" if net == "D" else formula_weights(net)
    extractor = DenseExtractor(
        net, layers, weights=weights, precision="fp32", pool="average+max+gem3+cells", device="cpu"
    )
    [image] = images(shape)
    whole = extractor.maps(batch(image))
    described = extractor.describe(batch(image))
    monkeypatch.setattr(module, "TILE_PIXELS", 1)
    monkeypatch.setattr(extractor, "pixel_budget", 1)
    smallest = extractor.net.smallest_side
    assert len(list(iter_tiles(batch(image), extractor.net.layers, smallest, 1))) >= 3
    for name, expected in whole.items():
        found = extractor.maps(batch(image))[name]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    for key, expected in described.items():
        found = extractor.describe(batch(image))[key]
        assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_a_full_batch_is_no_panorama() -> None:
    """A batch that fills its budget runs whole; one enormous image is cut to the limit."""
    layers, limit = layers_until("D", ["pool5"]), 4_000_000
    full = torch.zeros(20, 3, 384, 512, dtype=torch.uint8)
    [tile] = iter_tiles(full, layers, 32, limit)
    assert (tile.pixels.shape[0], tile.length) == (20, None)
    wide = torch.zeros(1, 3, 384, 40_000, dtype=torch.uint8)
    assert max(tile.pixels.numel() for tile in iter_tiles(wide, layers, 32, limit)) <= 3 * limit


@pytest.mark.slow  # its maps are in tests/nets, and what becomes of maps above
def test_dense_fc7_descriptors_equal_timms(whole_net: Weights) -> None:
    """The whole of describe (BGR, means, fc7, average, mirror) against timm's dense pre-logits."""
    timm = pytest.importorskip("timm")
    weights = replace(whole_net, pixels=CAFFE).restricted(["fc7"])
    with torch.device("meta"):
        theirs = timm.create_model("vgg11", num_classes=0, global_pool="")
    dense_names = {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2"}
    modules = {
        ours.removesuffix("_pre"): name
        for name, ours in torchvision_names("A").items()
        if ours.endswith("_pre")
    }
    kernels = {"pre_logits.fc1": 7, "pre_logits.fc2": 1}
    state = {}
    for name, value in weights.state.items():
        layer, kind = name.split(".")
        module_name = dense_names.get(layer, modules[layer])
        side = kernels.get(module_name)
        if side and kind == "weight":
            value = value.reshape(4096, -1, side, side)
        state[f"{module_name}.{kind}"] = value
    theirs.load_state_dict(state, assign=True)
    theirs.eval()
    [image] = images((224, 288))
    bgr = image.flip(2).float() - torch.tensor([103.939, 116.779, 123.68])
    x = bgr.permute(2, 0, 1)[None]
    with torch.inference_mode():
        maps = [
            theirs.forward_head(theirs.forward_features(side), pre_logits=True)
            for side in (x, x.flip(3))
        ]
    expected = sum(m.reshape(1, 4096, -1).mean(2) for m in maps) / 2
    extractor = DenseExtractor("A", "fc7", weights=weights, precision="fp32", device="cpu")
    found = extractor.describe(batch(image))[("fc7", "average")]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_margins_cover_what_a_location_sees() -> None:
    """Half of pool5's receptive field, worked by hand for E: 2 + 4 + 16 + 32 + 64 = 118."""
    assert margins(layers_until("E", ["pool5"])) == (128, 128)
    assert margins(layers_until("D", ["conv2_2"])) == (32, 32)
    assert margins(layers_until("E", ["fc7"])) == (128, 128 + 6 * 32)


@pytest.mark.skipif(not has_bf16(CPU), reason="this CPU does not compute in bf16")
def test_bf16_agrees_with_fp32_on_real_images(real_images: Path) -> None:
    """On genuine photographs the descriptors of both precisions have a cosine ≥ 0.9999."""
    paths = sorted(real_images.glob("VOCdevkit/VOC2007/JPEGImages/*.jpg"))[:4]
    rows = {}
    for precision in ("fp32", "bf16"):
        extractor = DenseExtractor(
            "D", "pool5", weights="embedded", precision=precision, device="cpu"
        )
        described = [
            extractor.describe(batch(torch.from_numpy(load(path, [128])[128].copy())))
            for path in paths
        ]
        rows[precision] = torch.cat([d[("pool5", "average")] for d in described])
    assert F.cosine_similarity(rows["fp32"], rows["bf16"]).min() >= 0.9999


def test_a_scale_too_small_is_refused_with_the_one_that_would_do(tiny: str) -> None:
    """fc6 of Caffe's convention needs 193 pixels; 192 is refused before anything runs."""
    weights = replace(formula_weights(tiny), pixels=CAFFE)
    extractor = DenseExtractor(tiny, "fc6", weights=weights, device="cpu")
    with pytest.raises(ParameterError, match="at least 193 for fc6 of net tiny"):
        extractor.check_scales([256, 192])
    extractor.check_scales([193])
    with pytest.raises(ParameterError, match="an int of at most 13377"):
        extractor.check_scales([256, 13378])  # whose square Pillow calls a bomb
    for wrong in ([], [256, 256], [256.0], [True]):
        with pytest.raises(ParameterError, match="Q"):
            extractor.check_scales(wrong)


def test_numbers_that_overflow_never_leave() -> None:
    """Weights that make infinities end in an error, not in a descriptor."""
    weights = load_weights("embedded", "D", ["conv1_2"])
    weights.state["conv1_2.weight"] = weights.state["conv1_2.weight"] * 1e36
    extractor = DenseExtractor("D", "conv1_2", weights=weights, precision="fp32", device="cpu")
    with pytest.raises(DeviceError, match="overflow"):
        extractor.describe(batch(*images((32, 32))))


def test_a_device_that_is_missing_is_an_error() -> None:
    """A device or precision asked for by name is never replaced silently."""
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no device 'cuda'"):
            resolve_device("cuda")
    with pytest.raises(ParameterError, match="'auto', 'cpu', 'cuda', 'mps'"):
        resolve_device("gpu")
    with pytest.raises(DeviceError, match="fp16"):
        resolve_precision("fp16", CPU)


def test_bf16_is_refused_where_the_hardware_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the instructions, auto is fp32 and bf16 an error."""
    for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False, raising=False)
    assert resolve_precision("auto", CPU) == "fp32"
    with pytest.raises(DeviceError, match="bf16"):
        resolve_precision("bf16", CPU)


def test_memory_that_runs_out_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a batch does not fit, its halves do, and the rows are the same."""
    several = batch(*images((32, 48), (32, 48), (32, 48)))
    extractor = DenseExtractor("D", "pool2", weights="embedded", precision="fp32", device="cpu")
    expected = extractor.describe(several)[("pool2", "average")]
    describe = extractor._describe

    def small_memory(
        pixels: torch.Tensor, keys: list[tuple[str, str]]
    ) -> dict[tuple[str, str], torch.Tensor]:
        if len(pixels) > 1:
            raise torch.OutOfMemoryError
        return describe(pixels, keys)

    monkeypatch.setattr(extractor, "_describe", small_memory)
    torch.testing.assert_close(extractor.describe(several)[("pool2", "average")], expected)


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(3, 40, 40, dtype=torch.uint8),
        torch.zeros(1, 1, 40, 40, dtype=torch.uint8),
        torch.zeros(1, 3, 40, 40, dtype=torch.int64),
        torch.full((1, 3, 40, 40), 255.0),
        torch.full((1, 3, 40, 40), -0.1),
        torch.full((1, 3, 40, 40), float("nan")),
        np.zeros((1, 3, 40, 40), np.uint8),
        np.zeros((1, 3, 40, 40)),
    ],
)
def test_pixels_of_another_shape_type_or_range_are_refused(pixels: Any) -> None:
    """Floats up to 255, or less a mean, would give garbage; a grey channel is none of three."""
    extractor = DenseExtractor("D", "pool1", weights="embedded", device="cpu")
    for describe in (extractor.describe, extractor.maps):
        refuses(partial(describe, pixels), ParameterError, ["pixels", "uint8", "(B, 3, H, W)"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_floats_from_0_to_1_are_pixels(dtype: torch.dtype) -> None:
    """They give the bits that their 8 bits give, as those of an array do."""
    extractor = DenseExtractor("D", "pool2", weights="embedded", precision="fp32", device="cpu")
    pixels = batch(*images((40, 60)))
    expected = extractor.describe(pixels)[("pool2", "average")]
    floats = (pixels.to(dtype) / 255).requires_grad_()
    assert torch.equal(extractor.describe(floats)[("pool2", "average")], expected)
    assert torch.equal(extractor.maps(floats)["pool2"], extractor.maps(pixels)["pool2"])


@pytest.mark.parametrize(
    "again", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy], ids=["pickle", "deepcopy"]
)
@pytest.mark.parametrize(
    "settings",
    [
        {"layers": ("pool2", "pool3"), "pool": "average+max", "flip": False},
        {"layers": "pool2", "deterministic": True, "runtime": "torch"},
        {"layers": "pool2", "precision": "fp32", "locations": "l2"},
    ],
    ids=str,
)
def test_a_copy_describes_equally(
    again: Callable[[DenseExtractor], DenseExtractor], settings: dict[str, Any]
) -> None:
    extractor = DenseExtractor("D", weights="embedded", device="cpu", **settings)
    pixels = batch(*images((48, 64)))
    described = extractor.describe(pixels)
    copied = again(extractor)
    assert (copied.extraction, copied.hardware) == (extractor.extraction, extractor.hardware)
    assert copied.columns([48]) == extractor.columns([48])
    for key, values in copied.describe(pixels).items():
        torch.testing.assert_close(values, described[key], rtol=1e-6, atol=0)


def test_an_extractor_shows_what_it_computes_in_a_line() -> None:
    """A notebook shows net, layers, pooling, weights, precision and device."""
    shown = repr(DenseExtractor("D", ("pool1", "pool2"), weights="embedded", precision="fp32"))
    assert "\n" not in shown
    for name in ("'D'", "pool1, pool2", "average", "embedded", "fp32"):
        assert name in shown
