"""An image's class scores as sums over its locations: what was found, and how it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from vggfeat.errors import ParameterError
from vggfeat.learn.solvers import Floats
from vggfeat.store.column import Descriptor


class Share(NamedTuple):
    """What one descriptor gives to the scores.

    Parameters
    ----------
    descriptor : Descriptor
        Net, layer, pooling and scale.
    norm : float
        The L2 norm by which the descriptor was divided; 1 if it was not.
    totals : array, shape (V, C)
        What it gives to each score: from the image, and from its mirror image if it counts.
    """

    descriptor: Descriptor
    norm: float
    totals: Floats


@dataclass(frozen=True)
class Explanation:
    """Class scores of an image as sums over its locations.

    Parameters
    ----------
    classes : tuple of str
        The C classes.
    scores : array, shape (C,)
        As :func:`~vggfeat.run.predict.predict` gives them.
    bias : array, shape (C,)
        The part of each score that comes from no location.
    evidence : array, shape (C, H, W)
        What each step of an even grid over the upright image gives: H × W is the image's size
        at the largest Q, divided by 8. The sum over the grid plus the bias is the score.
    shares : tuple of Share
        The same by net, layer, pooling, scale and mirror image.
    row_norm : float
        The L2 norm by which the whole row was divided; 1 if it was not. This and the norms of
        the shares scale the map; they depend on the whole image, not on any location.
    why : str
        Why the map is not exact; empty if it is.
    size : tuple of int
        Width and height of the upright image, in pixels.
    """

    classes: tuple[str, ...]
    scores: Floats
    bias: Floats
    evidence: Floats
    shares: tuple[Share, ...]
    row_norm: float
    why: str
    size: tuple[int, int]

    @property
    def exact(self) -> bool:
        """Whether score and locations are linearly related, so that no convention is needed."""
        return not self.why

    @property
    def sums(self) -> Floats:
        """Sum of all locations, shape (C,)."""
        total: Floats = self.evidence.sum(axis=(1, 2))
        return total

    @property
    def strongest(self) -> Floats:
        """Where each class has most evidence for it: x and y in pixels, shape (C, 2).

        From the left and upper edges of the upright image on, so that its centre is half its
        size. Of a cell of a coarse map, which is larger than a step, it is the middle.
        """
        return np.array([_middle_of_highest(one) for one in self.evidence]) * self.size

    def take(self, classes: Sequence[str]) -> Explanation:
        """Keep these classes, in this order."""
        rows = rows_of(classes, self.classes)
        return replace(
            self,
            classes=tuple(classes),
            scores=self.scores[rows],
            bias=self.bias[rows],
            evidence=self.evidence[rows],
            shares=tuple(one._replace(totals=one.totals[:, rows]) for one in self.shares),
        )

    def best(self, n: int) -> Explanation:
        """Keep the n classes of highest score, the highest first."""
        order = np.argsort(-self.scores, kind="stable")[:n]
        return self.take([self.classes[c] for c in order])

    def to_dict(self) -> dict[str, Any]:
        """Return all but the maps as plain JSON types."""
        return {
            "classes": {
                name: {
                    "score": float(self.scores[c]),
                    "bias": float(self.bias[c]),
                    "sum": float(self.sums[c]),
                    "strongest": [round(float(value), 1) for value in self.strongest[c]],
                }
                for c, name in enumerate(self.classes)
            },
            "exact": self.exact,
            "why": self.why,
            "row_norm": self.row_norm,
            "shares": [
                {**one.descriptor._asdict(), "norm": one.norm, "totals": one.totals.tolist()}
                for one in self.shares
            ],
        }


def rows_of(classes: Sequence[str] | None, known: Sequence[str]) -> list[int]:
    """Find classes by name; all without names.

    Raises
    ------
    ParameterError
        For one that is not known.
    """
    names = list(known)
    if unknown := [name for name in classes or () if name not in names]:
        raise ParameterError.not_one_of("class", "the model", names, unknown[0])
    return [names.index(name) for name in (names if classes is None else classes)]


def _middle_of_highest(evidence: Floats) -> Floats:
    """Place the highest step as shares (x, y) of the image; of equals, the one in the middle."""
    slack = 1e-9 * float(np.abs(evidence).max())
    highest = np.argwhere(evidence >= evidence.max() - slack)
    away = ((highest - highest.mean(axis=0)) ** 2).sum(axis=1)
    row, column = highest[away.argmin()] + 0.5
    return np.array([column / evidence.shape[1], row / evidence.shape[0]])
