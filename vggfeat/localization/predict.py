"""Where the objects of an image are (Appendix A): windows, their boxes, and one for each label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from vggfeat.classification.classes import BOXES
from vggfeat.errors import DataError, ParameterError, WeightsError, WeightsNotFound
from vggfeat.features.extractor import DenseExtractor
from vggfeat.localization.boxes import Floats, Size, clipped, from_frame, window_boxes
from vggfeat.localization.merging import AVERAGES, MATCHES, Merged, check_threshold, merge
from vggfeat.localization.outputs import FC8, Outputs, pixels_of
from vggfeat.nets import formats
from vggfeat.nets.weights import Weights, load
from vggfeat.recipes import BEST
from vggfeat.train.augment import CENTRE, SIDE, crop_of

TOP = 5
"""Labels of an image that count (top-5)."""


@dataclass(frozen=True)
class Merging:
    """How the boxes of windows become one: see :func:`~vggfeat.localization.merging.merge`.

    Examples
    --------
    >>> Merging(threshold=0.3)
    Merging(match='iou', threshold=0.3, average='count')
    """

    match: str = "iou"
    threshold: float | None = None
    average: str = "count"

    def __post_init__(self) -> None:
        if self.match not in MATCHES:
            raise ParameterError.not_one_of("match", "Merging", MATCHES, self.match)
        if self.average not in AVERAGES:
            raise ParameterError.not_one_of("average", "Merging", AVERAGES, self.average)
        if self.threshold is not None:
            check_threshold(self.match, self.threshold)

    def __call__(self, boxes: Floats, scores: Floats) -> Merged:
        """Merge boxes (N, 4) of windows with class outputs (N,)."""
        return merge(
            boxes, scores, match=self.match, threshold=self.threshold, average=self.average
        )


class Localiser:
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
    def open(cls, path: str | Path, *, device: str = "auto", precision: str = "auto") -> Localiser:
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
        framed = self._maps(crop).reshape(-1, 4).astype(np.float64)
        return clipped(from_frame(framed, image.size, place), image.size)

    def windows(self, image: Image.Image, Q: int) -> Floats:
        """Predict from every window at a scale: edges (h, w, K, 4); see :func:`window_boxes`.

        Raises
        ------
        ParameterError
            If the image would have no window at this scale.
        """
        self.extractor.check_scales([Q])
        dense_map = self._maps(pixels_of(image, Q))
        boxes = window_boxes(dense_map, image.size, Q)
        return boxes.reshape(*dense_map.shape[1:], *boxes.shape[1:])

    def column(self, label: int) -> int:
        """Tell which of its boxes is that of a class."""
        return label if self.regression == "pcr" else 0

    def _maps(self, pixels: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        found: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
        found = self.extractor.maps(pixels)[FC8][0].numpy()
        return found


class Windows(NamedTuple):
    """All windows of an image, over scales and nets.

    Parameters
    ----------
    boxes : list of array, shape (n, K, 4)
        What each net predicts at each scale, edges.
    outputs : list of array, shape (n, C)
        Their class outputs.
    columns : list of bool
        Whether each predicts a box for each class.
    """

    boxes: list[Floats]
    outputs: list[Floats]
    columns: list[bool]

    def of(self, label: int) -> tuple[Floats, Floats]:
        """Unite the boxes (N, 4) of a class, and its outputs (N,)."""
        boxes = [
            some[:, label if each else 0]
            for some, each in zip(self.boxes, self.columns, strict=True)
        ]
        return np.concatenate(boxes), np.concatenate([some[:, label] for some in self.outputs])


class Located(NamedTuple):
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
        Sum of the class outputs of the windows that went into it.
    windows : int
        How many did.
    pieces : int
        How many boxes were left after merging.
    single : array, shape (4,)
        The box of the one window of highest class output: without any merging.
    """

    label: int
    posterior: float
    box: Floats
    score: float
    windows: int
    pieces: int
    single: Floats


def windows_of(
    image: Image.Image,
    localisers: Sequence[Localiser],
    scales: Sequence[Sequence[int]],
    outputs: Outputs,
) -> Windows:
    """Look at all windows of an image.

    Parameters
    ----------
    image : PIL.Image.Image
        Upright, in mode RGB.
    localisers : sequence of Localiser
        Nets whose boxes are united.
    scales : sequence of sequence of int
        The test scales Q of each.
    outputs : Outputs
        Of the image at all these scales.

    Raises
    ------
    DataError
        If the nets do not tell the same classes apart as the classification system.
    """
    boxes, rated, each = [], [], []
    for net, own in zip(localisers, scales, strict=True):
        for Q in own:
            found, seen = net.windows(image, Q), outputs.windows[Q]
            if len(net.classes) != len(seen):
                raise DataError(
                    f"The localisation net has {len(net.classes)} classes, the classification "
                    f"system {len(seen)}. Name one that has the same."
                )
            # Where one of them rounds its pools up and the other down, they share all but the last.
            h, w = (min(sides) for sides in zip(found.shape[:2], seen.shape[1:], strict=True))
            boxes.append(found[:h, :w].reshape(h * w, *found.shape[2:]))
            rated.append(seen[:, :h, :w].reshape(len(seen), h * w).T)
            each.append(net.regression == "pcr")
    return Windows(boxes, rated, each)


def locate(
    windows: Windows,
    posteriors: Floats,
    size: Size,
    *,
    labels: Sequence[int] | None = None,
    top: int = TOP,
    merging: Merging | None = None,
) -> list[Located]:
    """Find the box of each label: unite, merge, and take the box of highest score.

    Parameters
    ----------
    windows : Windows
        Of the image.
    posteriors : array, shape (C,)
        Of the classification system.
    size : (int, int)
        Width and height of the image.
    labels : sequence of int, optional
        Those that are wanted; by default the best ones.
    top : int
        So many of them.
    merging : Merging, optional
        How boxes are merged.

    Returns
    -------
    list of Located
        In the order of the labels; the best ones from the likeliest on.

    Examples
    --------
    >>> boxes = np.array([[[0.0, 0, 10, 10]], [[2.0, 0, 12, 10]], [[40.0, 40, 60, 60]]])
    >>> outputs = np.array([[0.5, 0.1], [0.4, 0.1], [0.6, 0.8]])
    >>> found = locate(Windows([boxes], [outputs], [False]), np.array([0.7, 0.3]), (64, 64))
    >>> [(one.label, one.box.tolist(), round(one.score, 3), one.windows) for one in found]
    [(0, [1.0, 0.0, 11.0, 10.0], 0.9, 2), (1, [40.0, 40.0, 60.0, 60.0], 0.8, 1)]
    """
    how = merging or Merging()
    wanted = np.argsort(-posteriors, kind="stable")[:top] if labels is None else labels
    found = []
    for label in map(int, wanted):
        boxes, outputs = windows.of(label)
        merged = how(boxes, outputs)
        single = boxes[np.lexsort((*boxes.T[::-1], -outputs))[0]]
        best, alone = clipped(np.stack([merged.boxes[0], single]), size)
        found.append(
            Located(
                label,
                float(posteriors[label]),
                best,
                float(merged.scores[0]),
                int(merged.counts[0]),
                len(merged.boxes),
                alone,
            )
        )
    return found
