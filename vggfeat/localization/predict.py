"""Where the objects of an image are (Appendix A): windows, their boxes, and one for each label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vggfeat.classification.classes import BOXES
from vggfeat.errors import DataError, WeightsError, WeightsNotFound
from vggfeat.features.extractor import DenseExtractor
from vggfeat.localization.boxes import Floats, Size, clip, from_frame, window_boxes
from vggfeat.localization.classifiers import FC8, Classifier, ClassScores, StoredLabels, pixels_of
from vggfeat.localization.merging import merge
from vggfeat.nets import formats
from vggfeat.nets.weights import Weights, load
from vggfeat.recipes.networks import BEST
from vggfeat.settings import Merging
from vggfeat.train.augment import CENTRE, SIDE, crop_of

TOP = 5
"""Labels of an image that count (top-5)."""


class Localizer:
    """A network whose last layer predicts boxes.

    Parameters
    ----------
    weights : Weights
        As ``vggfeat localize train`` writes them; :meth:`open` reads them.
    device, precision : str
        See :class:`~vggfeat.features.extractor.DenseExtractor`.

    Attributes
    ----------
    classes : tuple of str
        What it was trained on.
    regression : {"scr", "pcr"}
        One box for whatever there is, or one for each class.
    S : int
        Training scale, the middle of a range (Section 3.2); the test scale where no other is asked
        for.

    Raises
    ------
    WeightsError
        If the weights are of no localisation net.
    """

    def __init__(self, weights: Weights, *, device: str = "auto", precision: str = "auto") -> None:
        if weights.about.get("kind") != BOXES:
            raise WeightsError(
                f"{weights.origin or weights.source} is of no localisation net. Name what "
                "`vggfeat localize train` wrote: its folder, or best.safetensors in it."
            )
        self.classes = weights.classes
        self.regression = weights.about["regression"]
        S = json.loads(weights.about["S"])
        self.S = S if isinstance(S, int) else sum(S) // 2
        self.extractor = DenseExtractor(
            weights.net, FC8, weights=weights, flip=False, device=device, precision=precision
        )

    @classmethod
    def open(cls, path: str | Path, *, device: str = "auto", precision: str = "auto") -> Localizer:
        """Read a localisation net.

        Parameters
        ----------
        path : path
            The folder of a run, or its ``best.safetensors``.
        device, precision : str
            As of the class.
        """
        path = Path(path).expanduser()
        file = path / BEST if path.is_dir() else path
        if not file.is_file():
            raise WeightsNotFound(
                f"There is no localisation net {path}. Name what `vggfeat localize train` wrote: "
                "its folder, or best.safetensors in it."
            )
        weights = load(file, formats.read(file).net, [FC8])
        return cls(weights, device=device, precision=precision)

    def central(self, image: Image.Image) -> Floats:
        """Predict from the central crop at Q = S: edges (K, 4), of each class or of one.

        Parameters
        ----------
        image : PIL.Image.Image
            Upright, in mode RGB.
        """
        place = crop_of(*image.size, self.S, CENTRE)
        left, top = place.offset
        crop = pixels_of(image, self.S)[:, :, top : top + SIDE, left : left + SIDE]
        framed = self._map(crop).reshape(-1, 4).astype(np.float64)
        return clip(from_frame(framed, image.size, place), image.size)

    def windows(self, image: Image.Image, Q: int) -> Floats:
        """Predict from every window at a scale: edges (h, w, K, 4); see :func:`window_boxes`.

        Raises
        ------
        ParameterError
            If the image would have no window at this scale.
        """
        self.extractor.check_scales([Q])
        dense_map = self._map(pixels_of(image, Q))  # (4 K, h, w)
        boxes = window_boxes(dense_map, image.size, Q)
        return boxes.reshape(*dense_map.shape[1:], *boxes.shape[1:])

    def column(self, label: int) -> int:
        """Tell which of its boxes is that of a class."""
        return label if self.regression == "pcr" else 0

    def _map(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        dense_map: NDArray[np.float32] = self.extractor.maps(pixels)[FC8][0].numpy()
        return dense_map


class Windows(NamedTuple):
    """All windows of an image, over scales and nets.

    Parameters
    ----------
    boxes : list of array, shape (n, K, 4)
        What each net predicts at each scale, edges.
    scores : list of array, shape (n, C)
        Their class scores.
    per_class : list of bool
        Whether each predicts a box for each class.
    """

    boxes: list[Floats]
    scores: list[Floats]
    per_class: list[bool]

    def of(self, label: int) -> tuple[Floats, Floats]:
        """Unite the boxes (N, 4) of a class, and its scores (N,)."""
        boxes = [
            boxes[:, label if per_class else 0]
            for boxes, per_class in zip(self.boxes, self.per_class, strict=True)
        ]
        return np.concatenate(boxes), np.concatenate([scores[:, label] for scores in self.scores])


class Detection(NamedTuple):
    """A label of an image, and where its object is.

    Parameters
    ----------
    label : int
        The class.
    posterior : float
        The image's, of the classification system.
    box : array, shape (4,)
        Edges of the best merged box, within the image.
    score : float
        Sum of the class scores of the windows that went into it.
    windows : int
        How many did.
    boxes_left : int
        Boxes that were left after merging.
    single : array, shape (4,)
        The box of the one window of highest class score: without any merging.
    """

    label: int
    posterior: float
    box: Floats
    score: float
    windows: int
    boxes_left: int
    single: Floats


@dataclass(frozen=True)
class LocalizationSystem:
    """Nets that predict boxes, at which scales, and what says the labels.

    Parameters
    ----------
    nets : sequence of Localizer
        Their boxes are united; the central crop (protocol 1) is looked at by the first.
    scales : sequence of sequence of int
        The test scales Q of each.
    classifier : Classifier, optional
        Of labels and windows; without one there is protocol 1 alone.
    labels : StoredLabels, optional
        Whose labels count instead of the classifier's.
    merging : Merging
        How boxes are merged.

    Raises
    ------
    DataError
        If nets or classifier know different classes.
    ParameterError
        If a net has no window at one of its scales.
    """

    nets: Sequence[Localizer]
    scales: Sequence[Sequence[int]]
    classifier: Classifier | None = None
    labels: StoredLabels | None = None
    merging: Merging = field(default_factory=Merging)

    def __post_init__(self) -> None:
        for net, scales in zip(self.nets, self.scales, strict=True):
            net.extractor.check_scales(scales)
            check_classes(self.classes, net.classes)
        if self.classifier is not None:
            check_classes(self.classes, self.classifier.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """What is localised."""
        return self.nets[0].classes

    def describe(self) -> list[dict[str, Any]]:
        """Describe the nets, as plain JSON types."""
        return [
            {
                "net": net.extractor.extraction.net,
                "regression": net.regression,
                "S": net.S,
                "Q": list(scales),
                "weights": net.extractor.weights.sha256,
                "precision": net.extractor.extraction.precision,
            }
            for net, scales in zip(self.nets, self.scales, strict=True)
        ]

    def predict(self, image: Image.Image, top: int = TOP) -> list[Detection]:
        """Find the boxes of the likeliest labels of an image, as many as have a posterior."""
        scores, windows = self.look(image)
        order = np.argsort(-scores.posteriors, kind="stable")[:top]
        labels = [int(label) for label in order if scores.posteriors[label] > 0]
        return [
            detect(windows, scores.posteriors, image.size, label, self.merging) for label in labels
        ]

    def look(self, image: Image.Image, name: str = "") -> tuple[ClassScores, Windows]:
        """Classify an image, and look at all of its windows.

        Parameters
        ----------
        image : PIL.Image.Image
            Upright, in mode RGB.
        name : str
            By which stored labels are found.

        Raises
        ------
        ImageError
            If the image cannot be classified, or has no stored labels.
        """
        assert self.classifier is not None, "protocol 1 needs no windows"
        every_scale = sorted({Q for scales in self.scales for Q in scales})
        scores = self.classifier.score(image, every_scale)
        if self.labels is not None:
            posteriors, others = self.labels.of(name)
            scores = scores._replace(posteriors=posteriors, others=others)
        windows = Windows([], [], [])
        for net, scales in zip(self.nets, self.scales, strict=True):
            for Q in scales:
                boxes, rated = net.windows(image, Q), scores.windows[Q]
                # Where one rounds its pools up and the other down, they share all but the last.
                h, w = (min(ends) for ends in zip(boxes.shape[:2], rated.shape[1:], strict=True))
                windows.boxes.append(boxes[:h, :w].reshape(h * w, *boxes.shape[2:]))
                windows.scores.append(rated[:, :h, :w].reshape(len(rated), h * w).T)
                windows.per_class.append(net.regression == "pcr")
        return scores, windows


def detect(
    windows: Windows, posteriors: Floats, size: Size, label: int, merging: Merging | None = None
) -> Detection:
    """Find the box of a label: unite, merge, and take the box of highest score.

    Parameters
    ----------
    windows : Windows
        Of the image.
    posteriors : array, shape (C,)
        Of the classification system.
    size : (int, int)
        Width and height of the image.
    label : int
        The class.
    merging : Merging, optional
        How boxes are merged.

    Examples
    --------
    >>> boxes = np.array([[[0.0, 0, 10, 10]], [[2.0, 0, 12, 10]], [[40.0, 40, 60, 60]]])
    >>> scores = np.array([[0.5, 0.1], [0.4, 0.1], [0.6, 0.8]])
    >>> detection = detect(Windows([boxes], [scores], [False]), np.array([0.7, 0.3]), (64, 64), 0)
    >>> detection.box.tolist(), round(detection.score, 3), detection.windows, detection.boxes_left
    ([1.0, 0.0, 11.0, 10.0], 0.9, 2, 2)
    """
    boxes, scores = windows.of(label)
    merged = merge(boxes, scores, merging)
    best_window = boxes[np.lexsort((*boxes.T[::-1], -scores))[0]]
    box, single = clip(np.stack([merged.boxes[0], best_window]), size)
    return Detection(
        label=label,
        posterior=float(posteriors[label]),
        box=box,
        score=float(merged.scores[0]),
        windows=int(merged.counts[0]),
        boxes_left=len(merged.boxes),
        single=single,
    )


def check_classes(classes: Sequence[str], of_net: Sequence[str]) -> None:
    """Refuse a net or a classification system of other classes.

    Raises
    ------
    DataError
        Naming one that it lacks, or has besides.
    """
    if list(classes) != list(of_net):
        others = sorted(set(classes) ^ set(of_net)) or list(of_net)
        raise DataError(
            f"The images have the classes {', '.join(classes[:5])}{' …' * (len(classes) > 5)}, the "
            f"model others, or in another order: see {others[0]!r}. Name the same ones with "
            "--class as when it was trained."
        )
