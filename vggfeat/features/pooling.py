"""A dense map becomes one descriptor, also where it comes piece by piece."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.errors import ParameterError

SCORES = "fc8"  # the layer whose map is of class scores
_CROPS = re.compile(r"crops([1-9][0-9]?)")
CELLS = 2  # quarters: two rows of two cells
CELL_NAMES = ("_top_left", "_top_right", "_bottom_left", "_bottom_right")


class Pool(Protocol):
    """Pools maps (B, D, h, w), pieces of one along an axis, into descriptors (B, D')."""

    def add(self, dense_map: Tensor) -> None:
        """Take the next piece."""

    def result(self) -> Tensor:
        """Return the descriptors of all pieces."""


class Average:
    """The mean over all locations (Appendix B)."""

    def __init__(self, axis: int) -> None:
        self.total: Tensor | None = None
        self.locations = 0

    def add(self, dense_map: Tensor) -> None:
        """Take the next piece."""
        flat = dense_map.flatten(2)
        self.locations += flat.shape[2]
        self.total = flat.sum(2) if self.total is None else self.total + flat.sum(2)

    def result(self) -> Tensor:
        """Return descriptors (B, D)."""
        assert self.total is not None
        return self.total / self.locations


class Softmax(Average):
    """The posteriors of the mean class scores, in the paper's order (Section 3.2)."""

    def result(self) -> Tensor:
        """Return posteriors (B, C)."""
        return super().result().softmax(1)


class Posteriors(Average):
    """The mean of the posteriors of all locations.

    Examples
    --------
    >>> scores = torch.tensor([[[[0.0, 20.0]], [[0.0, 0.0]]]])  # two classes, two locations
    >>> softmax, posteriors = Softmax(axis=3), Posteriors(axis=3)
    >>> softmax.add(scores), posteriors.add(scores)
    (None, None)
    >>> softmax.result()[0, 0].item() > 0.999, round(posteriors.result()[0, 0].item(), 3)
    (True, 0.75)
    """

    def add(self, dense_map: Tensor) -> None:
        """Take the next piece."""
        super().add(dense_map.softmax(1))


class Maximum:
    """The largest value of each channel."""

    def __init__(self, axis: int) -> None:
        self.value: Tensor | None = None

    def add(self, dense_map: Tensor) -> None:
        """Take the next piece."""
        new = dense_map.flatten(2).amax(2)
        self.value = new if self.value is None else self.value.maximum(new)

    def result(self) -> Tensor:
        """Return descriptors (B, D)."""
        assert self.value is not None
        return self.value


class Cells:
    """The mean over each quarter of the map.

    Where a side has an odd number of locations, the middle one counts in both halves, as
    torch's adaptive average pooling has it.

    Examples
    --------
    >>> pool = Cells(axis=3)
    >>> pool.add(torch.tensor([[[[1.0, 2.0]], [[5.0, 7.0]]]]))
    >>> pool.result()
    tensor([[1., 5., 2., 7., 1., 5., 2., 7.]])
    """

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.pieces: list[Tensor] = []

    def add(self, dense_map: Tensor) -> None:
        """Take the next piece; only two numbers are kept for each place along the cut."""
        across = (CELLS, None) if self.axis == 3 else (None, CELLS)
        self.pieces.append(F.adaptive_avg_pool2d(dense_map, across))

    def result(self) -> Tensor:
        """Return descriptors (B, 4 D): cell by cell, row by row."""
        quarters = F.adaptive_avg_pool2d(torch.cat(self.pieces, self.axis), CELLS)
        return quarters.permute(0, 2, 3, 1).flatten(1)


POOLINGS: Mapping[str, Callable[[int], Pool]] = {
    "average": Average,
    "max": Maximum,
    "cells": Cells,
    "softmax": Softmax,
    "posteriors": Posteriors,
}
"""Each takes the axis (2 or 3) along which a map is cut into pieces."""
POOLS = tuple(POOLINGS)


def check_pools(pools: Sequence[str], layers: Sequence[str], locations: str) -> None:
    """Refuse poolings that are none, that come twice, or that do not fit the layers.

    Raises
    ------
    ParameterError
        Of an image's posteriors too (Section 3.2), which fc8 has alone.

    Examples
    --------
    >>> check_pools(("softmax", "crops5"), ("fc8",), "raw")
    >>> check_pools(("softmax",), ("fc7",), "raw")
    Traceback (most recent call last):
    vggfeat.errors.ParameterError: The pool 'softmax' makes posteriors of class scores, ...
    """
    pool = "+".join(pools)
    if len(set(pools)) < len(pools) or not all(how in POOLS or crops_in(how) for how in pools):
        expected = f"one of {', '.join(map(repr, POOLS))}, 'crops5', or several joined by +"
        raise ParameterError.of("pool", "Extraction", expected, pool)
    if not any(map(gives_posteriors, pools)):
        return
    if tuple(layers) != (SCORES,):
        raise ParameterError(
            f"The pool {pool!r} makes posteriors of class scores, which {SCORES} has alone, not "
            f"{', '.join(layers)}. Use the layer {SCORES}, or the pool 'average'."
        )
    if locations != "raw":
        raise ParameterError(
            f"The pool {pool!r} makes posteriors of class scores as they are: with normalised "
            "locations there are none. Leave --normalize locations out."
        )


def crops_in(pool: str) -> int:
    """Side of the grid of crops that a pooling looks at; 0 where it pools a dense map.

    Examples
    --------
    >>> crops_in("crops5"), crops_in("average")
    (5, 0)
    """
    found = _CROPS.fullmatch(pool)
    return int(found[1]) if found else 0


def gives_posteriors(pool: str) -> bool:
    """Tell whether a pooling makes an image's posteriors, which add up to 1.

    Examples
    --------
    >>> gives_posteriors("softmax"), gives_posteriors("average")
    (True, False)
    """
    return pool in ("softmax", "posteriors") or crops_in(pool) > 0


def width_of(pool: str, channels: int) -> int:
    """Count the numbers of a descriptor.

    Examples
    --------
    >>> width_of("average", 512), width_of("cells", 512), width_of("crops5", 1000)
    (512, 2048, 1000)
    """
    return channels * CELLS**2 if pool == "cells" else channels


def upright(descriptors: Tensor, how: str) -> Tensor:
    """Turn descriptors of mirror images so that their cells are the image's own.

    Examples
    --------
    >>> upright(torch.tensor([[1, 2, 3, 4]]), "cells")
    tensor([[2, 1, 4, 3]])
    """
    if how != "cells":
        return descriptors
    return descriptors.reshape(len(descriptors), CELLS, CELLS, -1).flip(2).flatten(1)
