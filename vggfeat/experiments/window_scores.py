"""A saved linear SVM as the classification system of localisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError, ImageError
from vggfeat.experiments.predict import predict
from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pooling import resolve_pooling
from vggfeat.localization.boxes import Floats
from vggfeat.localization.outputs import Outputs
from vggfeat.nets.config import STRIDE, stride_of, window_of
from vggfeat.svm.model import SavedModel, refuse_boxes
from vggfeat.train.augment import SIDE


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
    place of each of the model's) and without a mirror image. Margins become outputs between 0 and
    1 by the logistic function, since those of windows are summed.

    Examples
    --------
    >>> extractor = DenseExtractor("D", "pool5", weights="embedded", flip=False)
    >>> model = SavedModel(
    ...     np.zeros((2, 512)), np.array([0.0, 1.0]), ("cat", "dog"), (1.0,),
    ...     tuple(extractor.columns([64])), ("embedded",), Aggregation().to_dict(),
    ... )
    >>> found = SVMClassifier(model, [extractor]).outputs(Image.new("RGB", (256, 224)), [224])
    >>> found.posteriors.round(2).tolist(), found.windows[224].shape
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
        """Of its outputs."""
        return self.model.classes

    def outputs(self, image: Image.Image, scales: Sequence[int]) -> Outputs:
        """Classify an image and its windows: see :class:`~vggfeat.localization.outputs.Classifier`.

        Raises
        ------
        ImageError
            If the image cannot be described.
        """
        [said] = predict(self.model, ImageSet(("image",), (image,)), self.extractors, workers=1)
        if said.scores is None:
            raise ImageError(said.reason)
        return Outputs(_logistic(said.scores), {Q: self._windows(image, Q) for Q in scales})

    def _windows(self, image: Image.Image, Q: int) -> Floats:
        """Score the windows of an image at a scale: (C, h, w)."""
        pooled: dict[tuple[str, ...], Tensor] = {}
        for extractor in self.extractors:
            maps = _pooled(extractor, extractor.load_pixels(image, Q))
            pooled |= {(extractor.extraction.net, *key): m for key, m in maps.items()}
        h, w = (min(m.shape[axis] for m in pooled.values()) for axis in (1, 2))
        names = [column.descriptor for column in self.model.columns]
        rows = Aggregation(**self.model.aggregation).rows(
            {name: _rows(pooled[name[:3]][:, :h, :w]) for name in names}
        )
        return _logistic(self.model.scores(rows)).T.reshape(-1, h, w)


def _pooled(extractor: DenseExtractor, pixels: Tensor) -> dict[tuple[str, str], Tensor]:
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


def _rows(dense_map: Tensor) -> Matrix:
    """Lay out a map (D, h, w) as rows (h·w, D)."""
    rows: Matrix = dense_map.flatten(1).T.numpy()
    return rows


def _logistic(margins: Floats) -> Floats:
    shares: Floats = 1 / (1 + np.exp(-margins))
    return shares
