"""Poolings by name: whole maps, maps in pieces, and names that there are not."""

from __future__ import annotations

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


def in_pieces(pooling: Pooling, dense_map: Tensor, axis: int) -> Tensor:
    state = None
    for piece in dense_map.split([3, 1, dense_map.shape[axis] - 4], axis):
        state = pooling.add(state, piece, axis)
    return pooling.result(state, axis)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("name", EXPECTED)
def test_pieces_pool_as_the_whole_does(name: str, axis: int) -> None:
    """Each pooling equals torch's own functions, at once and in pieces of unequal length."""
    pooling, dense_map = resolve_pooling(name), dense_maps()
    torch.testing.assert_close(pooling.pool(dense_map), EXPECTED[name](dense_map))
    torch.testing.assert_close(in_pieces(pooling, dense_map, axis), EXPECTED[name](dense_map))
    assert pooling.width(5) == EXPECTED[name](dense_map).shape[1]


def test_a_pooling_says_no_more_than_how_it_pools() -> None:
    """Pieces are put together for one that needs the whole map; its width is the map's."""
    for axis in (2, 3):
        found = in_pieces(Median(), dense_maps(), axis)
        torch.testing.assert_close(found, dense_maps().flatten(2).median(2).values)
    assert Median().width(5) == 5
    assert Median().describe(dense_maps, torch.zeros(1), flip=True, budget=1) is None


@pytest.mark.parametrize("name", EXPECTED)
def test_mirror_images_are_turned_back(name: str) -> None:
    """The descriptor of a mirrored map, turned, is that of the map."""
    pooling, dense_map = resolve_pooling(name), dense_maps()
    turned = pooling.unflip(pooling.pool(dense_map.flip(3)))
    torch.testing.assert_close(turned, pooling.pool(dense_map))


@pytest.mark.parametrize("name", ["mean", "", "crops", "crops0", "crops05", "crops100", "averages"])
def test_a_name_that_there_is_not_is_refused(name: str) -> None:
    """An unknown name, and a parameter out of its range, are answered by the names there are."""
    mentions = ("pool", "'average'", "'max'", "'crops5'", repr(name))
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
