"""What a classification system says of an image and of its windows (Appendix A).

The labels of an image are those of highest posterior; the box of a label is rated by the class
outputs of the windows that it came from. Windows are those of the localisation net: 224×224 pixels
of the rescaled image, 32 pixels from one to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggfeat.classification.classes import classes_of
from vggfeat.classification.scales import find_test_scales
from vggfeat.data.image import rescale, rescaled_size
from vggfeat.features.extractor import DenseExtractor
from vggfeat.localization.boxes import Floats
from vggfeat.localization.labels import places, split
from vggfeat.nets import formats
from vggfeat.nets.config import STRIDE
from vggfeat.nets.registry import NAMES
from vggfeat.nets.weights import Weights, load
from vggfeat.train.augment import SIDE

FC8 = "fc8"


class Outputs(NamedTuple):
    """What is said of an image.

    Parameters
    ----------
    posteriors : array, shape (C,)
        Of the image: which label is likelier; from 0 on.
    windows : mapping of int to array, shape (C, h, w)
        Class outputs of the windows at each scale Q, from 0 on.
    others : array, shape (K,)
        Posteriors of classes that may be its label and are not localised.

    Examples
    --------
    >>> said = Outputs(np.array([0.2, 0.4]), {}, np.array([0.3, 0.1]))
    >>> said.rank(0), said.rank(1), said.known
    (2, 0, 4)
    """

    posteriors: Floats
    windows: Mapping[int, Floats]
    others: Floats = np.empty(0)

    @property
    def known(self) -> int:
        """How many classes are told apart."""
        return len(self.posteriors) + len(self.others)

    def rank(self, label: int) -> int:
        """How many classes are likelier than one; of equal ones the first counts as likelier."""
        own = self.posteriors[label]
        likelier = (self.posteriors > own).sum() + (self.others > own).sum()
        return int(likelier + (self.posteriors[:label] == own).sum())


class Classifier(Protocol):
    """A classification system."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Of its C outputs."""

    def outputs(self, image: Image.Image, scales: Sequence[int]) -> Outputs:
        """Classify an upright image of mode RGB, and its windows at these scales."""


def pixels_of(image: Image.Image, Q: int) -> Tensor:
    """Rescale an image to smallest side Q: (1, 3, H, W) of uint8."""
    return torch.from_numpy(rescale(image, Q).copy()).permute(2, 0, 1)[None]


class Alike:
    """Stands for a classification system where there is none: every window counts alike.

    Parameters
    ----------
    classes : tuple of str
        Those of the localisation net.
    given : sequence of int
        The classes that images are known to show, all of them for certain.

    Examples
    --------
    >>> said = Alike(("cat", "dog"), [1]).outputs(Image.new("RGB", (256, 224)), [224])
    >>> said.posteriors.tolist(), said.windows[224].shape
    ([0.0, 1.0], (2, 1, 2))
    """

    def __init__(self, classes: tuple[str, ...], given: Sequence[int]) -> None:
        self.classes, self.given = classes, tuple(given)

    def outputs(self, image: Image.Image, scales: Sequence[int]) -> Outputs:
        """Say the classes that are given: see :class:`Classifier`."""
        posteriors = np.zeros(len(self.classes))
        posteriors[list(self.given)] = 1
        windows = {Q: np.ones((len(self.classes), *_windows(image, Q))) for Q in scales}
        return Outputs(posteriors, windows)


class Restricted:
    """A classification system of more classes, asked where objects of some of them are.

    An image's label may be any of its classes: those that are not asked about are the others of
    :class:`Outputs`.

    Parameters
    ----------
    classifier : Classifier
        The whole.
    classes : tuple of str
        Those that are asked about.

    Raises
    ------
    DataError
        If it lacks one of them.
    """

    def __init__(self, classifier: Classifier, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self._whole, self._rows = classifier, places(classes, classifier.classes)

    def outputs(self, image: Image.Image, scales: Sequence[int]) -> Outputs:
        """Classify an image, and its windows as to these classes: see :class:`Classifier`."""
        said = self._whole.outputs(image, scales)
        windows = {Q: outputs[self._rows] for Q, outputs in said.windows.items()}
        own, others = split(said.posteriors, self._rows)
        return Outputs(own, windows, np.concatenate([others, said.others]))


class NetClassifier:
    """A classification net, applied densely (Section 3.2).

    The posteriors are the soft-max of the class scores averaged over locations, averaged over the
    image, its mirror image and the scales; a window's outputs are the soft-max at its location.

    Parameters
    ----------
    extractor : DenseExtractor
        Of the layer fc8.
    classes : tuple of str
        Of its outputs.
    scales : sequence of int
        At which images are classified.
    """

    def __init__(
        self, extractor: DenseExtractor, classes: tuple[str, ...], scales: Sequence[int]
    ) -> None:
        self.extractor, self.scales = extractor, tuple(scales)
        self.classes = classes

    @classmethod
    def open(
        cls,
        weights: str | Weights,
        net: str = "D",
        *,
        scales: Sequence[int] = (),
        device: str = "auto",
        precision: str = "auto",
    ) -> NetClassifier:
        """Open a net with all its layers.

        Parameters
        ----------
        weights : str or Weights
            A file, or the name of a source such as ``"authors"``.
        net : str
            The configuration of a named source; a file says its own.
        scales : sequence of int
            As of the class; by default those that its training scale calls for (Section 3.2), at
            whichever scales windows are looked at.
        device, precision
            As of :class:`~vggfeat.features.extractor.DenseExtractor`.

        Raises
        ------
        WeightsError
            If the weights lack fc8, or nothing says what its outputs are called.
        """
        if not isinstance(weights, Weights):
            of = net if weights in NAMES else formats.read(weights).net
            weights = load(weights, of, [FC8])
        keys = classes_of(weights).keys
        made = DenseExtractor(weights.net, FC8, weights=weights, device=device, precision=precision)
        return cls(made, keys, scales or find_test_scales(weights))

    def outputs(self, image: Image.Image, scales: Sequence[int]) -> Outputs:
        """Classify an image and its windows: see :class:`Classifier`."""
        windows: dict[int, Floats] = {}
        posteriors: list[Floats] = []
        for Q in dict.fromkeys([*scales, *self.scales]):
            pixels = pixels_of(image, Q)
            scores = self._scores(pixels)
            if Q in scales:
                windows[Q] = scores.softmax(0).numpy()
            if Q in self.scales:
                both = (scores, self._scores(pixels.flip(3)))
                posteriors += [one.mean((1, 2)).softmax(0).numpy() for one in both]
        return Outputs(np.mean(posteriors, axis=0), windows)

    def _scores(self, pixels: Tensor) -> Tensor:
        return self.extractor.maps(pixels)[FC8][0].double()


def _windows(image: Image.Image, Q: int) -> tuple[int, int]:
    """Count the windows of an image at a scale, one past its edge where 32 does not divide it."""
    width, height = rescaled_size(*image.size, Q)
    return -(-(height - SIDE) // STRIDE) + 1, -(-(width - SIDE) // STRIDE) + 1
