"""Convolutions with a quarter of the multiplications equal torch's, computed in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vggfeat.nets.runtimes import winograd
from vggfeat.nets.runtimes.winograd import WinogradVGG, _blocks, _Tiled
from vggfeat.nets.vgg import VGG


def convolution(inputs: int, outputs: int, seed: int = 0) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(inputs, outputs, 3, padding=1).requires_grad_(False)


def maps(*shape: int, last: bool = True) -> torch.Tensor:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 100
    return x.contiguous(memory_format=torch.channels_last) if last else x


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    sides=st.tuples(st.integers(1, 21), st.integers(1, 21)),
    many=st.integers(1, 40),
    last=st.booleans(),
    rectify=st.booleans(),
)
def test_any_shape_equals_torch(
    batch: int,
    channels: tuple[int, int],
    sides: tuple[int, int],
    many: int,
    last: bool,
    rectify: bool,
) -> None:
    """Whatever the batch, the channels, the sides, the blocks and the layout in memory."""
    module = convolution(*channels)
    x = maps(batch, channels[0], *sides, last=last)
    expected = module.double()(x.double())
    expected = expected.relu() if rectify else expected
    before, winograd.MANY = winograd.MANY, many
    try:
        found = _Tiled(module.float())(x, rectify=rectify)
    finally:
        winograd.MANY = before
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-3)


def test_its_error_is_a_few_times_that_of_torch() -> None:
    """Of 256 channels at 96×128 locations, relative to the largest output."""
    module, x = convolution(256, 256), maps(1, 256, 48, 64)
    plain = module(x)
    found = _Tiled(module)(x, rectify=False)
    exact = module.double()(x.double())
    error, usual = ((one - exact).abs().max() / exact.abs().max() for one in (found, plain))
    assert error < 1e-5
    assert error < 20 * usual


def test_a_cropped_map_is_read_as_well() -> None:
    """A map that is a part of a larger one, and a mirrored one, have other strides."""
    module = convolution(3, 5)
    x = maps(2, 3, 13, 17)
    for some in (x[:, :, 2:11, 1:14], x.flip(3), x[1:], x.transpose(2, 3)):
        found = _Tiled(module)(some, rectify=False)
        torch.testing.assert_close(found, module(some.contiguous()), rtol=1e-4, atol=1e-3)


def test_nan_is_not_lost() -> None:
    """A number that is none reaches its neighbours through the ReLU, as with torch."""
    module, x = convolution(2, 3), maps(1, 2, 16, 16)
    x[0, 1, 5, 6] = float("nan")
    found = _Tiled(module)(x, rectify=True)
    plain = module(x).relu()
    assert found.isnan()[plain.isnan()].all()


@pytest.mark.parametrize(("batch", "tall", "wide"), [(1, 1, 1), (5, 2, 3), (2, 40, 9), (3, 2, 300)])
def test_blocks_cover_every_tile_once(batch: int, tall: int, wide: int) -> None:
    """Every row of tiles of every image, and about as many at once as asked for."""
    seen = torch.zeros(batch, tall, dtype=torch.int64)
    for some, rows in _blocks(batch, tall, wide):
        seen[some, rows] += 1
        size = (some.stop - some.start) * (rows.stop - rows.start) * wide
        assert size <= max(winograd.MANY, wide)
    assert (seen == 1).all()


def test_who_computes_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions of many channels by tiles, where there are enough; all else as before."""
    net = VGG("C", layers="pool3", dense=True).eval().requires_grad_(False)
    made = WinogradVGG(net)
    assert sorted(made._tiled) == ["conv2_1", "conv2_2", "conv3_1", "conv3_2"]  # conv3_3 is 1×1
    calls = []
    original = _Tiled.__call__

    def counted(self: _Tiled, x: torch.Tensor, rectify: bool) -> torch.Tensor:
        calls.append(tuple(x.shape[2:]))
        return original(self, x, rectify)

    monkeypatch.setattr(_Tiled, "__call__", counted)
    for side, batch, expected in [
        (32, 1, [(16, 16)] * 2),  # at conv3 8×8 locations are four tiles
        (32, 4, [(16, 16)] * 2 + [(8, 8)] * 2),
        (24, 1, []),
    ]:
        calls.clear()
        x = maps(batch, 3, side, side) / 100
        with torch.inference_mode():
            torch.testing.assert_close(made(x), net(x), rtol=1e-4, atol=1e-5)
        assert calls == expected


def test_blocks_side_by_side_are_those_one_by_one() -> None:
    """On one thread or three, in inference mode or not: the same bits; threads stay as many."""
    module, x = convolution(8, 130), maps(2, 8, 60, 70)
    tiled = _Tiled(module)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for inference in (False, True):
                with torch.inference_mode(inference):
                    found.append(tiled(x, rectify=True).clone())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found[1:])


def test_without_onednn_torch_computes_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch has no fused convolutions, as on a Mac."""
    monkeypatch.setattr(winograd, "can_pack", lambda: False)
    net = VGG("A", layers=("conv2_1_pre", "pool2"), dense=True).eval().requires_grad_(False)
    made, x = WinogradVGG(net), maps(1, 3, 48, 40) / 100
    with torch.inference_mode():
        for name, found in made.maps(x).items():
            torch.testing.assert_close(found, net.maps(x)[name], rtol=1e-4, atol=1e-5)


def test_the_transforms_are_those_of_a_convolution() -> None:
    """Over the integers, for one tile: A^T [(G g G^T) ⊙ (B^T d B)] A is d correlated with g."""
    there, forth, back = (
        torch.tensor(m, dtype=torch.float64) for m in (winograd._G, winograd._B, winograd._A)
    )
    generator = torch.Generator().manual_seed(2)
    d = torch.randint(-9, 9, (6, 6), generator=generator).double()
    g = torch.randint(-9, 9, (3, 3), generator=generator).double()
    found = back @ ((there @ g @ there.T) * (forth @ d @ forth.T)) @ back.T
    torch.testing.assert_close(found, F.conv2d(d[None, None], g[None, None])[0, 0])
