"""Training net D to localise (Appendix A): its last layer predicts a box instead of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from vggfeat.classification.classes import BOXES
from vggfeat.errors import ParameterError
from vggfeat.localization.boxed import Boxed
from vggfeat.localization.boxes import Floats, shown, to_frame
from vggfeat.localization.data import BoxSet
from vggfeat.settings import Localization, Regression
from vggfeat.train.augment import CENTRE, Draw, Scale, crop_of

FRAME = "centre x, centre y, width, height; the 224x224 crop is the unit square"
REGRESSIONS = get_args(Regression)
VISIBLE = Localization().visible
AVERAGED = 20_000  # boxes that a mean is taken of
CORRECT = 0.5
"""A box is correct if its intersection over union with a true one is more than this."""


@dataclass(frozen=True, eq=False)
class BoxRegression:
    """The task of :func:`vggfeat.train.loop.train` that fits a box to every crop.

    Parameters
    ----------
    regression : {"scr", "pcr"}
        Single-class regression, one box for whatever the crop shows, or per-class regression, a
        box for each class, of which only the true class's has a loss.
    classes : int
        How many there are.
    S : int or tuple of two int
        Training scale, as the settings have it; they are kept with the weights.
    train, val : Boxed
        The boxes of the rows.
    digest : str
        Of the boxes: another set's run is not gone on with.
    visible : float
        Crops that show less than this share of the box have no loss. The paper does not say what
        it does with them; OverFeat leaves out those that show less than half.

    Notes
    -----
    The loss is Euclidean: half the squared distance of the four numbers, in the frame of the crop
    (:mod:`vggfeat.localization.boxes`). Its figures are ``iou``, the mean intersection over union,
    and ``iou50``, the share of crops where it is more than 0.5; they count all crops. The mean
    decides which weights are the best: on some dozens of boxes the share jumps by several per cent.

    Examples
    --------
    >>> from pathlib import Path
    >>> from vggfeat.data.sources.files import FileImages
    >>> from vggfeat.train.data import Part
    >>> part = Part(FileImages(Path(), np.array([b"a.jpg"])), np.array([1]))
    >>> held = Boxed(part, np.array([[448, 448]]), (np.array([[56.0, 112, 280, 336]]),))
    >>> task = BoxRegression("pcr", classes=2, S=224, train=held, val=held)
    >>> scores = torch.tensor([[9.0, 9, 9, 9, 0.375, 0.5, 0.5, 0.5]])
    >>> label, row = torch.tensor([1]), torch.tensor([0])
    >>> task.outputs, task.losses(scores, label, row, None), task.counts(scores, label, row, None)
    (8, tensor(0.), tensor([1., 1.]))
    """

    regression: str
    classes: int
    S: Scale
    train: Boxed
    val: Boxed
    digest: str = ""
    visible: float = VISIBLE
    figures: tuple[str, str] = field(default=("iou", "iou50"), init=False)

    @classmethod
    def on(cls, data: BoxSet, regression: str, S: Scale, visible: float = VISIBLE) -> BoxRegression:
        """Make the task of a set.

        Raises
        ------
        ParameterError
            If the regression is none of its choices, or the share not from 0 to 1.
        """
        if regression not in REGRESSIONS:
            raise ParameterError.not_one_of("regression", "localize", REGRESSIONS, regression)
        if not 0 <= visible <= 1:
            raise ParameterError.of("visible", "localize", "a float from 0 to 1", visible)
        return cls(regression, len(data.classes), S, data.train, data.val, data.digest, visible)

    @property
    def outputs(self) -> int:
        """Numbers of the last layer."""
        return 4 * (self.classes if self.regression == "pcr" else 1)

    def mean_boxes(self) -> Floats:
        """Average what is learnt over central training crops: (1 or C, 4); NaN where none is."""
        count = len(self.train)
        rows = np.linspace(0, count - 1, min(AVERAGED, count)).round().astype(int)
        made = [self._target(self.train, row, CENTRE) for row in rows]
        kept = np.array([seen >= self.visible for _, seen in made])
        boxes, labels = np.array([one for one, _ in made]), self.train.part.labels[rows]
        groups = [kept & (labels == c) for c in range(self.classes)]
        some = [kept] if self.regression == "scr" else groups
        return np.array([boxes[k].mean(0) if k.any() else np.full(4, np.nan) for k in some])

    @property
    def about(self) -> Mapping[str, str]:
        """What is kept with the weights."""
        return {
            "kind": BOXES,
            "regression": self.regression,
            "frame": FRAME,
            "visible": str(self.visible),
            "boxes": self.digest,
        }

    def losses(
        self, scores: Tensor, labels: Tensor, rows: Tensor, draws: Sequence[Draw] | None
    ) -> Tensor:
        """Sum the loss over images: see :class:`vggfeat.train.task.Task`."""
        wanted, weights = self._targets(rows, draws, scores.device)
        apart = (self._own(scores, labels) - wanted).square().sum(dim=1) / 2
        return (apart * weights).sum()

    def counts(
        self, scores: Tensor, labels: Tensor, rows: Tensor, draws: Sequence[Draw] | None
    ) -> Tensor:
        """Sum the two figures over images."""
        wanted, _ = self._targets(rows, draws, scores.device)
        shares = _iou(self._own(scores, labels), wanted)
        return torch.stack([shares.sum(), (shares > CORRECT).to(shares.dtype).sum()])

    def _own(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Take the box of each image's own class: (B, 4)."""
        if self.regression == "scr":
            return scores
        boxes = scores.reshape(len(scores), self.classes, 4)
        return boxes[torch.arange(len(boxes), device=boxes.device), labels]

    def _targets(
        self, rows: Tensor, draws: Sequence[Draw] | None, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Write the true boxes in the frames of the crops (B, 4), and tell which count (B,)."""
        part = self.val if draws is None else self.train
        drawn = [CENTRE] * len(rows) if draws is None else draws
        made = [self._target(part, row, one) for row, one in zip(rows.tolist(), drawn, strict=True)]
        targets = np.array([one for one, _ in made], dtype=np.float32).reshape(-1, 4)
        weights = np.array([seen >= self.visible for _, seen in made], dtype=np.float32)
        return (
            torch.from_numpy(targets).to(device, non_blocking=True),
            torch.from_numpy(weights).to(device, non_blocking=True),
        )

    def _target(self, part: Boxed, row: int, draw: Draw) -> tuple[Floats, float]:
        width, height = part.sizes[row].tolist()
        place = crop_of(width, height, self.S, draw)
        box = part.boxes[row][:1]
        framed = to_frame(box, (width, height), place, flip=draw.flip)
        return framed[0], float(shown(box, (width, height), place)[0])


def _iou(found: Tensor, wanted: Tensor) -> Tensor:
    """Intersection over union (B,) of boxes (B, 4) given by centre and sides."""
    sides = found[:, 2:].clamp(min=0)
    low = torch.maximum(found[:, :2] - sides / 2, wanted[:, :2] - wanted[:, 2:] / 2)
    high = torch.minimum(found[:, :2] + sides / 2, wanted[:, :2] + wanted[:, 2:] / 2)
    common = (high - low).clamp(min=0).prod(dim=1)
    union = sides.prod(dim=1) + wanted[:, 2:].prod(dim=1) - common
    return common / union
