"""Training net D to localise (Appendix A): its last layer predicts a box instead of classes.

Here are the loss of boxes, and the weights to begin from: those of a classification net with a
new last layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou

from vggfeat.classification.classes import BOXES
from vggfeat.data.image import Pixels
from vggfeat.errors import DataError, ImageError, ParameterError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.localization.boxes import Floats, to_frame, visible_share
from vggfeat.localization.data import BoxDataset, BoxSet
from vggfeat.nets.config import layers_of
from vggfeat.nets.vgg import initialise
from vggfeat.nets.weights import Weights
from vggfeat.settings import Localization, Regression
from vggfeat.train.augment import CENTRE, Draw, Scale, crop, crop_of

FRAME = "centre x, centre y, width, height; the 224x224 crop is the unit square"
REGRESSIONS = get_args(Regression)
VISIBLE = Localization().visible
AVERAGED = 20_000  # boxes that a mean is taken of
CORRECT = 0.5
"""A box is correct if its intersection over union with a true one is more than this."""
HIDDEN = ("fc6", "fc7")
SPREAD = 1e-3
"""Standard deviation of the new layer's weights."""
LEVEL = 0.3
"""Root mean square of the activations of pool5, fc6 and fc7 in a balanced net, to a factor √2."""
MEASURED = 32
"""Training crops that activations are measured on."""


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
    train, val : BoxDataset
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
    >>> held = BoxDataset(part, np.array([[448, 448]]), (np.array([[56.0, 112, 280, 336]]),))
    >>> task = BoxRegression("pcr", classes=2, S=224, train=held, val=held)
    >>> scores = torch.tensor([[9.0, 9, 9, 9, 0.375, 0.5, 0.5, 0.5]])
    >>> label, row = torch.tensor([1]), torch.tensor([0])
    >>> task.outputs, task.losses(scores, label, row, None), task.counts(scores, label, row, None)
    (8, tensor(0.), tensor([1., 1.]))
    """

    regression: str
    classes: int
    S: Scale
    train: BoxDataset
    val: BoxDataset
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
        targets = [self._target(self.train, row, CENTRE) for row in rows]
        boxes = np.array([box for box, _ in targets])
        learnt = np.array([share >= self.visible for _, share in targets])
        labels = self.train.part.labels[rows]
        of_class = [learnt & (labels == c) for c in range(self.classes)]
        groups = [learnt] if self.regression == "scr" else of_class
        return np.array([boxes[k].mean(0) if k.any() else np.full(4, np.nan) for k in groups])

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
        targets, weights = self._targets(rows, draws, scores.device)
        loss = (self._own(scores, labels) - targets).square().sum(dim=1) / 2  # (B,)
        return (loss * weights).sum()

    def counts(
        self, scores: Tensor, labels: Tensor, rows: Tensor, draws: Sequence[Draw] | None
    ) -> Tensor:
        """Sum the two figures over images."""
        targets, _ = self._targets(rows, draws, scores.device)
        boxes = self._own(scores, labels)
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:].clamp(min=0)], dim=1)
        edges = [box_convert(some, "cxcywh", "xyxy") for some in (boxes, targets)]
        shares = box_iou(edges[0], edges[1]).diagonal()
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
        both = [self._target(part, row, own) for row, own in zip(rows.tolist(), drawn, strict=True)]
        targets = np.array([box for box, _ in both], dtype=np.float32).reshape(-1, 4)
        weights = np.array([share >= self.visible for _, share in both], dtype=np.float32)
        return (
            torch.from_numpy(targets).to(device, non_blocking=True),
            torch.from_numpy(weights).to(device, non_blocking=True),
        )

    def _target(self, part: BoxDataset, row: int, draw: Draw) -> tuple[Floats, float]:
        """Write the box of a row in the frame of its crop, and tell how much of it is visible."""
        width, height = part.sizes[row].tolist()
        place = crop_of(width, height, self.S, draw)
        box = part.boxes[row][:1]
        framed = to_frame(box, (width, height), place, flip=draw.flip)
        return framed[0], float(visible_share(box, (width, height), place)[0])


def init_from_classifier(
    weights: Weights,
    task: BoxRegression,
    *,
    balanced: bool = True,
    seed: int = 0,
    device: str = "auto",
) -> Weights:
    """Make the weights that a localisation net begins with.

    Parameters
    ----------
    weights : Weights
        Of a classification net of the same S; or its convolutions alone, as the embedded ones
        are: then fc6 and fc7 are drawn at random, by Glorot's rule.
    task : BoxRegression
        What is trained.
    balanced : bool
        Whether the layers are scaled against each other; see the notes.
    seed : int
        Of what is drawn.
    device : str
        Where activations are measured.

    Returns
    -------
    Weights
        With all layers, fc8 having the outputs of the task.

    Raises
    ------
    DataError
        If none of the images that activations are measured on can be read.

    Notes
    -----
    The last layer is random, as in the paper: its weights from N(0, σ = 0.001), its biases the
    mean box of the training crops, so that what begins to be learnt is how a box differs from it.

    With a Euclidean loss the highest rate that does not diverge is 2(1 + μ)/‖a‖² for inputs a of
    the last layer and momentum μ, and nets differ widely in ‖a‖². The authors' convolutions make
    activations of pool5 whose root mean square is 10; under full connections that Glorot's rule
    draws, ‖a‖² of fc7 is 180,000, and 1e-3, the paper's rate, ends in NaN after ten updates.
    A balanced net computes the same activations but for a factor, with pool5, fc6 and fc7 brought
    to a root mean square near 0.3 (‖a‖² of some 400): ReLU and maximum commute with positive
    factors, so that what one layer is multiplied with the next is divided by. Then 1e-3 suits any
    net. The factors are powers of two, which change no digit, on whatever machine.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {name: value for name, value in weights.state.items() if not name.startswith("fc8.")}
    pooled = _pooled(weights, task.train, task.S, device)
    for layer in layers_of(weights.net)[-4:]:
        if layer.name in HIDDEN and f"{layer.name}.weight" not in state:
            drawn = nn.Linear(layer.shape[1], layer.shape[0])
            initialise(drawn, "glorot", generator)
            state |= {f"{layer.name}.{part}": p.detach() for part, p in drawn.named_parameters()}
    if balanced:
        state = _balanced(state, pooled, HIDDEN if "fc6.weight" in weights.state else ())
    width = state["fc7.weight"].shape[0]
    means = np.nan_to_num(task.mean_boxes(), nan=0.5)
    last = torch.empty(task.outputs, width).normal_(0, SPREAD, generator=generator)
    state |= {"fc8.weight": last, "fc8.bias": torch.from_numpy(means.astype(np.float32).ravel())}
    hidden = [name for name in HIDDEN if f"{name}.weight" not in weights.state]
    return replace(weights, state=state, about={}, drawn=(*hidden, "fc8"))


def _balanced(
    state: Mapping[str, Tensor], pooled: Tensor, given: Sequence[str]
) -> dict[str, Tensor]:
    """Bring the activations of pool5, fc6 and fc7 to one level; those given compute as before."""
    scaled = dict(state)
    last = max(name for name in state if name.startswith("conv")).rpartition(".")[0]
    factor = _factor(pooled)
    for part in ("weight", "bias"):
        scaled[f"{last}.{part}"] = state[f"{last}.{part}"] * factor
    x = pooled * factor
    for name in HIDDEN:
        weight, bias = scaled[f"{name}.weight"], scaled[f"{name}.bias"]
        if name in given:
            weight = weight / factor
        x = F.relu(F.linear(x, weight, bias))
        factor = _factor(x)
        scaled[f"{name}.weight"], scaled[f"{name}.bias"] = weight * factor, bias * factor
        x = x * factor
    return scaled


def _factor(activations: Tensor) -> float:
    """Power of two that brings activations near the level; 1 where there are none."""
    size = float(activations.square().mean().sqrt())
    return 2.0 ** round(math.log2(LEVEL / size)) if size > 0 else 1.0


def _pooled(weights: Weights, part: BoxDataset, S: Scale, device: str) -> Tensor:
    """Compute pool5 of some central training crops: (B, 25088)."""
    extractor = DenseExtractor(
        weights.net, "pool5", weights=weights, flip=False, device=device, precision="fp32"
    )
    rows = np.linspace(0, len(part) - 1, min(MEASURED, len(part))).round().astype(int)
    crops: list[Pixels] = []
    reason = ""
    for row in rows:
        try:
            crops.append(crop(part.part.read(row), S, CENTRE, decoding=part.decoding))
        except ImageError as error:  # training will name it
            reason = f"{part.part.name(row)}: {error}"
    if not crops:
        raise DataError(
            f"None of {len(rows)} training images could be read, as {reason}. See whether they "
            "are whole."
        )
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    starts = range(0, len(pixels), 8)
    maps = [extractor.maps(pixels[start : start + 8])["pool5"] for start in starts]
    return torch.cat(maps).flatten(1)
