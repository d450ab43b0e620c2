"""Poolings by name: whole maps, maps in tiles, and names that there are not."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from helpers.mistakes import refuses
from torch import Tensor

from vggfeat.errors import ParameterError
from vggfeat.features.pooling import Pooling, check_pools, resolve_pooling

EXPECTED = {
    "average": lambda m: F.adaptive_avg_pool2d(m, 1).flatten(1),
    "max": lambda m: F.adaptive_max_pool2d(m, 1).flatten(1),
    # lp_pool has the sum in the place of the mean.
    "gem3": lambda m: F.lp_pool2d(m, 3, m.shape[2:]).flatten(1) / m[0, 0].numel() ** (1 / 3),
    "gem2.5": lambda m: (m.double() ** 2.5).mean((2, 3)).float() ** 0.4,
    "cells": lambda m: F.adaptive_avg_pool2d(m, 2).permute(0, 2, 3, 1).flatten(1),
    "softmax": lambda m: F.adaptive_avg_pool2d(m, 1).flatten(1).softmax(1),
    "posteriors": lambda m: F.adaptive_avg_pool2d(m.softmax(1), 1).flatten(1),
}


class Median(Pooling):
    """A pooling that needs all locations at once."""

    def pool(self, dense_map: Tensor) -> Tensor:
        return dense_map.flatten(2).median(2).values


def dense_maps(h: int = 7, w: int = 9) -> Tensor:
    return torch.randn(2, 5, h, w, generator=torch.Generator().manual_seed(0)).relu()


def in_tiles(pooling: Pooling, dense_map: Tensor, axis: int) -> Tensor:
    state = None
    for tile in dense_map.split([3, 1, dense_map.shape[axis] - 4], axis):
        state = pooling.add(state, tile, axis)
    return pooling.result(state, axis)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("name", EXPECTED)
def test_tiles_pool_as_the_whole_does(name: str, axis: int) -> None:
    """Each pooling equals torch's own functions, at once and in tiles of unequal length."""
    pooling, dense_map = resolve_pooling(name), dense_maps()
    torch.testing.assert_close(pooling.pool(dense_map), EXPECTED[name](dense_map))
    torch.testing.assert_close(in_tiles(pooling, dense_map, axis), EXPECTED[name](dense_map))
    assert pooling.width(5) == EXPECTED[name](dense_map).shape[1]


def test_a_pooling_says_no_more_than_how_it_pools() -> None:
    """Tiles are put together for one that needs the whole map; its width is the map's."""
    for axis in (2, 3):
        found = in_tiles(Median(), dense_maps(), axis)
        torch.testing.assert_close(found, dense_maps().flatten(2).median(2).values)
    assert Median().width(5) == 5
    assert Median().describe(dense_maps, torch.zeros(1), flip=True, budget=1) is None


def test_a_generalised_mean_is_between_average_and_maximum() -> None:
    """It is the average at p = 1, nearly the maximum at p = 1e4, and grows with p in between."""
    dense_map = 100 * dense_maps()
    powers = ("0.1", "0.5", "1", "2", "3", "10", "100", "10000")
    means = {p: resolve_pooling(f"gem{p}").pool(dense_map) for p in powers}
    torch.testing.assert_close(means["1"], EXPECTED["average"](dense_map))
    torch.testing.assert_close(means["10000"], EXPECTED["max"](dense_map), rtol=1e-3, atol=0)
    assert all((means[p] < means[q]).all() for p, q in pairwise(powers))


def test_a_generalised_mean_has_a_gradient_everywhere() -> None:
    """Gradient times activation adds up to it, and is a number where nothing was active."""
    dense_map = dense_maps().double().index_fill(1, torch.tensor([0]), 0).requires_grad_()
    pooled = resolve_pooling("gem3").pool(dense_map)
    assert pooled[:, 0].tolist() == pytest.approx([1e-6] * 2)
    (gradient,) = torch.autograd.grad(pooled.sum(), dense_map)
    given = (gradient * dense_map).sum((2, 3))
    torch.testing.assert_close(given[:, 1:], pooled[:, 1:])
    assert (given[:, 0] == 0).all()


@pytest.mark.parametrize("name", EXPECTED)
def test_mirror_images_are_turned_back(name: str) -> None:
    """The descriptor of a mirrored map, turned, is that of the map."""
    pooling, dense_map = resolve_pooling(name), dense_maps()
    turned = pooling.unflip(pooling.pool(dense_map.flip(3)))
    torch.testing.assert_close(turned, pooling.pool(dense_map))


@pytest.mark.parametrize(
    "name",
    [
        "mean",
        "averages",
        "crops",
        "crops0",
        "crops05",
        "crops100",
        "gem",
        "gem0",
        "gem-1",
        "gem3.0",
    ],
)
def test_a_name_that_there_is_not_is_refused(name: str) -> None:
    """An unknown name, and a parameter out of its range, are answered by the names there are."""
    mentions = ("pool", "'average'", "'max'", "'gem3'", "'crops5'", repr(name))
    refuses(lambda: resolve_pooling(name), ParameterError, mentions)


def test_poolings_that_do_not_fit_are_refused() -> None:
    """Two of one name, and posteriors of other layers or of normalised locations."""
    wrong = [
        (("max", "max"), ("pool5",), "raw", "max+max"),
        (("softmax",), ("fc7",), "raw", "fc7"),
        (("crops5",), ("fc8", "fc7"), "raw", "fc8"),
        (("posteriors",), ("fc8",), "l2", "locations"),
    ]
    for pools, layers, locations, mention in wrong:
        refuses(
            lambda p=pools, y=layers, n=locations: check_pools(p, y, n), ParameterError, [mention]
        )
