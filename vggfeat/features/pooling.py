"""A dense map becomes one descriptor, also where it comes piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

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


def upright(descriptors: Tensor, how: str) -> Tensor:
    """Turn descriptors of mirror images so that their cells are the picture's own.

    Examples
    --------
    >>> upright(torch.tensor([[1, 2, 3, 4]]), "cells")
    tensor([[2, 1, 4, 3]])
    """
    if how != "cells":
        return descriptors
    return descriptors.reshape(len(descriptors), CELLS, CELLS, -1).flip(2).flatten(1)
