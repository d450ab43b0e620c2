"""Classification systems of localisation: the labels of an image, and scores of its windows.

The labels of an image are those of highest posterior; the box of a label is rated by the class
scores of the windows that it came from (Appendix A). Windows are those of the localisation net:
224×224 pixels of the rescaled image, 32 pixels from one to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggfeat.classification.classes import classes_of
from vggfeat.classification.modes import find_test_scales
from vggfeat.classification.scores import (
    Scores,
    open_scores,
    posteriors,
    same_classes,
    same_images,
)
from vggfeat.data.image import rescale, rescaled_size
from vggfeat.errors import DataError, ImageError
from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pooling import resolve_pooling
from vggfeat.localization.boxes import Floats
from vggfeat.nets import formats
from vggfeat.nets.config import STRIDE, stride_of, window_of
from vggfeat.nets.registry import NAMES
from vggfeat.nets.weights import Weights, load
from vggfeat.store.column import Descriptor
from vggfeat.svm.model import SavedModel, refuse_boxes
from vggfeat.train.augment import SIDE

FC8 = "fc8"


class ClassScores(NamedTuple):
    """The class scores of an image and of its windows.

    Parameters
    ----------
    posteriors : array, shape (C,)
        Of the image: which label is likelier; from 0 on.
    windows : mapping of int to array, shape (C, h, w)
        Scores of the windows at each scale Q, from 0 on.
    others : array, shape (K,)
        Posteriors of classes that may be its label and are not localised.

    Examples
    --------
    >>> scores = ClassScores(np.array([0.2, 0.4]), {}, np.array([0.3, 0.1]))
    >>> scores.rank(0), scores.rank(1), scores.n_classes
    (2, 0, 4)
    """

    posteriors: Floats
    windows: Mapping[int, Floats]
    others: Floats = np.empty(0)

    @property
    def n_classes(self) -> int:
        """Number of classes that are told apart."""
        return len(self.posteriors) + len(self.others)

    def rank(self, label: int) -> int:
        """Count the classes likelier than one; of equal ones the first counts as likelier."""
        own = self.posteriors[label]
        likelier = (self.posteriors > own).sum() + (self.others > own).sum()
        return int(likelier + (self.posteriors[:label] == own).sum())


class Classifier(Protocol):
    """A classification system."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Of its C scores."""

    def score(self, image: Image.Image, scales: Sequence[int]) -> ClassScores:
        """Classify an upright image of mode RGB, and its windows at these scales."""


class ConstantClassifier:
    """Stands for a classification system where there is none: every window counts alike.

    Parameters
    ----------
    classes : tuple of str
        Those of the localisation net.
    labels : sequence of int
        The classes that images are known to show, all of them for certain.

    Examples
    --------
    >>> image = Image.new("RGB", (256, 224))
    >>> scores = ConstantClassifier(("cat", "dog"), [1]).score(image, [224])
    >>> scores.posteriors.tolist(), scores.windows[224].shape
    ([0.0, 1.0], (2, 1, 2))
    """

    def __init__(self, classes: tuple[str, ...], labels: Sequence[int]) -> None:
        self.classes, self.labels = classes, tuple(labels)

    def score(self, image: Image.Image, scales: Sequence[int]) -> ClassScores:
        """Name the classes that are given: see :class:`Classifier`."""
        posteriors = np.zeros(len(self.classes))
        posteriors[list(self.labels)] = 1
        windows = {Q: np.ones((len(self.classes), *_count_windows(image, Q))) for Q in scales}
        return ClassScores(posteriors, windows)


class ClassSubset:
    """A classification system of more classes, of which some are localised.

    An image's label may be any of its classes: the rest are the others of :class:`ClassScores`.

    Parameters
    ----------
    classifier : Classifier
        The whole.
    classes : tuple of str
        Those that are localised.

    Raises
    ------
    DataError
        If it lacks one of them.
    """

    def __init__(self, classifier: Classifier, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self._whole, self._rows = classifier, _find_classes(classes, classifier.classes)

    def score(self, image: Image.Image, scales: Sequence[int]) -> ClassScores:
        """Classify an image, and its windows as to these classes: see :class:`Classifier`."""
        scores = self._whole.score(image, scales)
        windows = {Q: whole[self._rows] for Q, whole in scores.windows.items()}
        posteriors, others = _split(scores.posteriors, self._rows)
        return ClassScores(posteriors, windows, np.concatenate([others, scores.others]))


class NetClassifier:
    """A classification net, applied densely (Section 3.2).

    The posteriors are the soft-max of the class scores averaged over locations, averaged over the
    image, its mirror image and the scales; a window's scores are the soft-max at its location.

    Parameters
    ----------
    extractor : DenseExtractor
        Of the layer fc8.
    classes : tuple of str
        Of its outputs.
    scales : sequence of int
        At which images are classified; without any, windows alone are, and posteriors are 0.
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
        windows_only: bool = False,
        device: str = "auto",
        precision: str = "auto",
    ) -> NetClassifier:
        """Open a net with all its layers, to classify at the scales that its S calls for.

        Parameters
        ----------
        weights : str or Weights
            A file, or the name of a source such as ``"authors"``.
        net : str
            The configuration of a named source; a file says its own.
        windows_only : bool
            Whether images are not classified, since their labels are from elsewhere.
        device, precision
            As of :class:`~vggfeat.features.extractor.DenseExtractor`.

        Raises
        ------
        WeightsError
            If the weights lack fc8, or nothing says what its outputs are called.
        """
        if not isinstance(weights, Weights):
            net = net if weights in NAMES else formats.read(weights).net
            weights = load(weights, net, [FC8])
        classes = classes_of(weights).keys
        extractor = DenseExtractor(
            weights.net, FC8, weights=weights, device=device, precision=precision
        )
        return cls(extractor, classes, () if windows_only else find_test_scales(weights))

    def score(self, image: Image.Image, scales: Sequence[int]) -> ClassScores:
        """Classify an image and its windows: see :class:`Classifier`."""
        windows: dict[int, Floats] = {}
        posteriors: list[Floats] = []
        for Q in dict.fromkeys([*scales, *self.scales]):
            pixels = pixels_of(image, Q)
            scores = self._map(pixels)  # (C, h, w)
            if Q in scales:
                windows[Q] = scores.softmax(0).numpy()
            if Q in self.scales:
                both = (scores, self._map(pixels.flip(3)))
                posteriors += [dense.mean((1, 2)).softmax(0).numpy() for dense in both]
        none = np.zeros(len(self.classes))
        return ClassScores(np.mean(posteriors, axis=0) if posteriors else none, windows)

    def _map(self, pixels: Tensor) -> Tensor:
        return self.extractor.maps(pixels)[FC8][0].double()


class SVMClassifier:
    """A linear SVM on VGG features, asked about images and about windows of them.

    People without a classification net of their classes have one: ``vggfeat svm --save``.

    Parameters
    ----------
    model : SavedModel
        As loaded; on whole images, pooled over all of their locations alike.
    extractors : sequence of DenseExtractor
        As from :func:`~vggfeat.experiments.predict.model_extractors`.

    Raises
    ------
    DataError
        If the model looks at given boxes, or pools over parts of an image.

    Notes
    -----
    An image is described as ``vggfeat predict`` does. A window is described by the locations in
    it, pooled and normalised as the model's whole images are, at the one scale at hand (in the
    place of each of the model's) and without a mirror image. Margins become scores between 0 and
    1 by the logistic function, since those of windows are summed.

    Examples
    --------
    >>> extractor = DenseExtractor("D", "pool5", weights="embedded", flip=False)
    >>> model = SavedModel(
    ...     np.zeros((2, 512)), np.array([0.0, 1.0]), ("cat", "dog"), (1.0,),
    ...     tuple(extractor.columns([64])), ("embedded",), Aggregation().to_dict(),
    ... )
    >>> scores = SVMClassifier(model, [extractor]).score(Image.new("RGB", (256, 224)), [224])
    >>> scores.posteriors.round(2).tolist(), scores.windows[224].shape
    ([0.5, 0.73], (2, 1, 2))
    """

    def __init__(self, model: SavedModel, extractors: Sequence[DenseExtractor]) -> None:
        refuse_boxes(model)
        for pool in sorted({column.descriptor.pool for column in model.columns}):
            if len(resolve_pooling(pool).parts) > 1:
                raise DataError(
                    f"This model's descriptors are pooled by {pool!r}, over parts which a window "
                    "does not have. Train one with --pool average or max."
                )
        self.model, self.extractors = model, list(extractors)

    @property
    def classes(self) -> tuple[str, ...]:
        """Of its scores."""
        return self.model.classes

    def score(self, image: Image.Image, scales: Sequence[int]) -> ClassScores:
        """Classify an image and its windows: see :class:`Classifier`.

        Raises
        ------
        ImageError
            If the image cannot be described.
        """
        described = {
            Descriptor(extractor.extraction.net, layer, pool, Q): rows.numpy()  # (1, D)
            for extractor in self.extractors
            for Q in self.model.scales
            for (layer, pool), rows in extractor.describe(extractor.load_pixels(image, Q)).items()
        }
        [margins] = self._margins({name: described[name] for name in self._columns})
        windows = {Q: self._score_windows(image, Q) for Q in scales}
        return ClassScores(_logistic(margins), windows)

    def _score_windows(self, image: Image.Image, Q: int) -> Floats:
        """Score the windows of an image at a scale: (C, h, w)."""
        pooled: dict[tuple[str, ...], Tensor] = {}
        for extractor in self.extractors:
            maps = _pool_windows(extractor, extractor.load_pixels(image, Q))
            pooled |= {(extractor.extraction.net, *key): m for key, m in maps.items()}
        h, w = (min(m.shape[axis] for m in pooled.values()) for axis in (1, 2))
        rows = {  # (h·w, D)
            name: pooled[name[:3]][:, :h, :w].flatten(1).T.numpy() for name in self._columns
        }
        return _logistic(self._margins(rows)).T.reshape(-1, h, w)

    @property
    def _columns(self) -> list[Descriptor]:
        return [column.descriptor for column in self.model.columns]

    def _margins(self, described: Mapping[Descriptor, Matrix]) -> Floats:
        return self.model.scores(Aggregation(**self.model.aggregation).rows(described))


class StoredLabels:
    """The posteriors of images, kept in stores of scores; found by the names of their files.

    The paper localises with the labels of its best classification system (Appendix A), which is
    made of several nets, scales and modes; such scores are what ``vggfeat classify`` and ``vggfeat
    fuse`` write.

    Parameters
    ----------
    scores : sequence of Scores
        Fused, each counting the same.
    classes : tuple of str
        Those that are localised.

    Raises
    ------
    StoreError
        If the scores are not of the same images or classes.
    DataError
        If they lack one of the classes, or two images have the same file name.
    """

    def __init__(self, scores: Sequence[Scores], classes: tuple[str, ...]) -> None:
        self._scores = scores
        self._rows = _find_classes(classes, same_classes(scores).keys)
        names = same_images(scores)
        self._names = {PurePosixPath(name).name: name for name in names}
        if len(self._names) < len(names):
            raise DataError(
                "Several images in the scores have files of the same name, so that they cannot "
                "be told apart. Classify the test images alone."
            )

    @classmethod
    def open(cls, paths: Sequence[Path], classes: tuple[str, ...]) -> StoredLabels:
        """Open stores that ``vggfeat classify --out`` or ``vggfeat fuse --out`` wrote."""
        return cls([scores for path in paths for scores in open_scores(path)], classes)

    def of(self, name: str) -> tuple[Floats, Floats]:
        """Return an image's posteriors of the classes localised, and those of all others.

        Raises
        ------
        ImageError
            If there are no scores of it.
        """
        file = PurePosixPath(name).name
        if file not in self._names:
            raise ImageError(f"no scores of {file} are among the labels")
        [row] = np.concatenate(list(posteriors(self._scores, [self._names[file]])))
        return _split(row, self._rows)


def pixels_of(image: Image.Image, Q: int) -> Tensor:
    """Rescale an image to smallest side Q: (1, 3, H, W) of uint8."""
    return torch.from_numpy(rescale(image, Q).copy()).permute(2, 0, 1)[None]


def _find_classes(classes: Sequence[str], of_system: Sequence[str]) -> list[int]:
    """Find classes that are localised among those of a classification system."""
    places = {name: k for k, name in enumerate(of_system)}
    if missing := [name for name in classes if name not in places]:
        raise DataError(
            f"The classification system does not know {missing[0]!r}, which is localised. It "
            f"knows {', '.join(of_system[:5])}{' …' * (len(of_system) > 5)}. Name one of the "
            "same classes."
        )
    return [places[name] for name in classes]


def _split(posteriors: Floats, rows: Sequence[int]) -> tuple[Floats, Floats]:
    """Part the posteriors of classes from those of all others."""
    return posteriors[list(rows)], np.delete(posteriors, list(rows))


def _count_windows(image: Image.Image, Q: int) -> tuple[int, int]:
    """Count the windows of an image at a scale, one past its edge where 32 does not divide it."""
    width, height = rescaled_size(*image.size, Q)
    return -(-(height - SIDE) // STRIDE) + 1, -(-(width - SIDE) // STRIDE) + 1


def _pool_windows(extractor: DenseExtractor, pixels: Tensor) -> dict[tuple[str, str], Tensor]:
    """Pool the maps of each layer over windows: (D, h, w) for each layer and pooling."""
    pooled = {}
    layers = extractor.net.layers
    for layer, (dense_map,) in extractor.maps(pixels).items():
        stride = stride_of(layer, layers)
        # A location of a full connection stands for a whole window already.
        kernel = (SIDE - window_of(layer, layers)) // stride + 1
        step = STRIDE // stride
        rows = dense_map.unfold(1, kernel, step).unbind(1)  # of windows: (D, W, kernel)
        for pool in extractor.extraction.pools:
            pooling = resolve_pooling(pool)
            across = [
                pooling.pool(row.unfold(1, kernel, step).permute(1, 0, 3, 2)).T for row in rows
            ]
            pooled[layer, pool] = torch.stack(across, 1)
    return pooled


def _logistic(margins: Floats) -> Floats:
    shares: Floats = 1 / (1 + np.exp(-margins))
    return shares
