"""A saved SVM asked about windows, compared with pooling and scoring them by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.mistakes import refuses
from PIL import Image
from support import noise

from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError
from vggfeat.experiments.predict import predict
from vggfeat.features.aggregate import Aggregation
from vggfeat.features.extractor import DenseExtractor
from vggfeat.localization.classifiers import SVMClassifier, pixels_of
from vggfeat.svm.model import SavedModel

IMAGE = Image.fromarray(noise(320, 256))
POOLINGS = {
    "average": lambda values: values.mean(1),
    "max": lambda values: values.max(1).values,
    "gem3": lambda values: (values**3).mean(1) ** (1 / 3),
}


def classifier(layer: str, width: int, **how: object) -> SVMClassifier:
    """Make an SVM of two classes, with random weights."""
    extractor = DenseExtractor("D", layer, weights="embedded", precision="fp32", **how)
    coef, intercept = np.random.default_rng(0).normal(size=(2, width)), np.array([0.1, -0.2])
    columns, settings = tuple(extractor.columns([64])), Aggregation().to_dict()
    names = ("cat", "dog")
    model = SavedModel(coef, intercept, names, (1.0,), columns, ("embedded",), settings)
    return SVMClassifier(model, [extractor])


@pytest.mark.parametrize(
    ("layer", "stride"), [("pool4", 16), pytest.param("pool5", 32, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("pool", POOLINGS)
def test_a_window_is_scored_by_the_locations_in_it(layer: str, stride: int, pool: str) -> None:
    """Each window's locations are pooled, normalised and scored, as a slice of the map by hand."""
    svm = classifier(layer, 512, flip=False, pool=pool)
    found = svm.score(IMAGE, [256]).windows[256]
    [dense_map] = svm.extractors[0].maps(pixels_of(IMAGE, 256))[layer]
    coef, intercept = (torch.from_numpy(x).float() for x in (svm.model.coef, svm.model.intercept))
    side, step = 224 // stride, 32 // stride
    assert found.shape == (2, 2, 4)
    for i, j in np.ndindex(2, 4):
        window = dense_map[:, i * step : i * step + side, j * step : j * step + side].flatten(1)
        row = POOLINGS[pool](window)
        expected = (coef @ (row / row.norm()) + intercept).sigmoid()
        np.testing.assert_allclose(found[:, i, j], expected, atol=1e-4)


def test_an_image_is_scored_as_predict_does() -> None:
    """The label is that of the whole image, mirror image and all."""
    svm = classifier("pool3", 256)
    [said] = predict(svm.model, ImageSet(("a",), (IMAGE,)), svm.extractors, workers=1)
    found = svm.score(IMAGE, [224]).posteriors
    np.testing.assert_allclose(np.log(found / (1 - found)), said.scores, rtol=1e-4)


def test_what_has_no_window_is_refused() -> None:
    """Pools over parts of an image."""
    refuses(lambda: classifier("pool3", 256, pool="cells"), DataError, ["'cells'"])
