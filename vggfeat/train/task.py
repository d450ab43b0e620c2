"""What a network is trained to say of a crop, and how wrong it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.train.augment import Draw

TITLES = {"top1": "top-1", "top5": "top-5", "iou50": "IoU > 0.5", "iou": "mean IoU"}
"""Figures as people read them, where that is not their name."""
TOP = 5


def figures_in(row: Mapping[str, Any]) -> list[str]:
    """Name the figures that a row of a history has, beside the loss.

    Examples
    --------
    >>> figures_in({"epoch": 1, "loss": 2.0, "top1": 0.1, "val_loss": 2.1, "val_top1": 0.1})
    ['top1']
    """
    judged = [name.removeprefix("val_") for name in row if name.startswith("val_")]
    return [name for name in judged if name != "loss"]


def informative(names: Sequence[str], classes: int) -> list[str]:
    """Leave out the top-5 figure where no class is ever outside of the five best.

    Examples
    --------
    >>> informative(["top1", "top5"], 5), informative(["top1", "top5"], 1000)
    (['top1'], ['top1', 'top5'])
    """
    return [name for name in names if name != "top5" or classes > TOP]


class Task(Protocol):
    """What the last layer is for.

    Two figures are counted beside the loss and named as ``metrics.csv`` has them: means over
    images, from 0 to 1, the higher the better. The first decides which weights are the best, and
    when the learning rate drops. What is kept with the weights, so that they can be used, tells
    tasks apart, too: a checkpoint of another is refused.
    """

    @property
    def outputs(self) -> int:
        """Numbers of the last layer."""

    @property
    def figures(self) -> tuple[str, str]:
        """Names of the two figures."""

    @property
    def about(self) -> Mapping[str, str]:
        """What is kept with the weights."""

    def losses(
        self, scores: Tensor, labels: Tensor, rows: Tensor, draws: Sequence[Draw] | None
    ) -> Tensor:
        """Sum the loss over images.

        Parameters
        ----------
        scores : Tensor (B, outputs) of float32
        labels : Tensor (B,) of int64
            Classes, on the device of the scores.
        rows : Tensor (B,) of int64
            Rows of the images in their part, on the CPU.
        draws : sequence of B Draw, or None
            Their random numbers; None of central crops, in validation.

        Returns
        -------
        Tensor, 0-d
        """

    def counts(
        self, scores: Tensor, labels: Tensor, rows: Tensor, draws: Sequence[Draw] | None
    ) -> Tensor:
        """Sum the two figures over images, shape (2,); parameters as of :meth:`losses`."""


@dataclass(frozen=True)
class Classification:
    """The multinomial logistic loss over classes (Section 3.1), and top-1 and top-5 accuracy.

    Parameters
    ----------
    outputs : int
        Number of classes.
    label_smoothing : float
        Share of a target that is spread over all classes, in training; 0 in the paper.

    Examples
    --------
    >>> task = Classification(3)
    >>> scores, labels = torch.zeros(2, 3), torch.tensor([0, 2])
    >>> task.losses(scores, labels, labels, None), task.counts(scores, labels, labels, None)
    (tensor(2.1972), tensor([1., 2.], dtype=torch.float64))
    """

    outputs: int
    label_smoothing: float = 0.0
    figures: tuple[str, str] = ("top1", "top5")
    about: Mapping[str, str] = field(default_factory=dict)

    def losses(
        self, scores: Tensor, labels: Tensor, rows: Tensor, draws: Sequence[Draw] | None
    ) -> Tensor:
        """Sum the loss over images: see :class:`Task`."""
        smoothing = self.label_smoothing if draws is not None else 0.0
        return F.cross_entropy(scores, labels, reduction="sum", label_smoothing=smoothing)

    def counts(
        self, scores: Tensor, labels: Tensor, rows: Tensor, draws: Sequence[Draw] | None
    ) -> Tensor:
        """Count the images whose class is the best, or among the five best."""
        best = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
        return torch.stack([best[:, 0].sum(), best.any(1).sum()]).double()
