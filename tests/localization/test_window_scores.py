"""A saved SVM asked about windows, compared with pooling and scoring them by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support import noise

from vggfeat.errors import DataError
from vggfeat.experiments.predict import predict
from vggfeat.features.aggregate import Aggregation
from vggfeat.features.extractor import DenseExtractor
from vggfeat.localization.classifiers import SVMClassifier, pixels_of
from vggfeat.svm.model import SavedModel

IMAGE = Image.fromarray(noise(320, 256))


def model_of(extractor: DenseExtractor, widths: list[int], Q: int = 64) -> SavedModel:
    rng = np.random.default_rng(0)
    return SavedModel(
        rng.normal(size=(2, sum(widths))),
        np.array([0.1, -0.2]),
        ("cat", "dog"),
        (1.0,),
        tuple(extractor.columns([Q])),
        ("embedded",),
        Aggregation().to_dict(),
    )


@pytest.mark.parametrize(
    ("layer", "width", "stride"),
    [("pool4", 512, 16), pytest.param("pool5", 512, 32, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("pool", ["average", "max", "gem3"])
def test_a_window_is_scored_by_the_locations_in_it(
    layer: str, width: int, stride: int, pool: str
) -> None:
    """Each window's locations are pooled, normalised and scored, as a slice of the map by hand."""
    extractor = DenseExtractor(
        "D", layer, weights="embedded", flip=False, pool=pool, precision="fp32"
    )
    model = model_of(extractor, [width])
    found = SVMClassifier(model, [extractor]).score(IMAGE, [256]).windows[256]
    [dense_map] = extractor.maps(pixels_of(IMAGE, 256))[layer]
    side, step = 224 // stride, 32 // stride
    assert found.shape == (2, 2, 4)
    for i, j in np.ndindex(2, 4):
        window = dense_map[:, i * step : i * step + side, j * step : j * step + side].flatten(1)
        pooled = {
            "average": window.mean(1),
            "max": window.max(1).values,
            "gem3": (window**3).mean(1) ** (1 / 3),
        }[pool]
        row = pooled / pooled.norm()
        margin = torch.from_numpy(model.coef).float() @ row + torch.tensor([0.1, -0.2])
        np.testing.assert_allclose(found[:, i, j], margin.sigmoid(), atol=1e-4)


def test_an_image_is_scored_as_predict_does() -> None:
    """The label is that of the whole image, mirror image and all."""
    from vggfeat.data.imageset import ImageSet

    extractor = DenseExtractor("D", "pool3", weights="embedded", precision="fp32")
    model = model_of(extractor, [256])
    [said] = predict(model, ImageSet(("a",), (IMAGE,)), [extractor], workers=1)
    found = SVMClassifier(model, [extractor]).score(IMAGE, [224]).posteriors
    assert said.scores is not None
    np.testing.assert_allclose(np.log(found / (1 - found)), said.scores, rtol=1e-4)


def test_what_has_no_window_is_refused() -> None:
    """Pools over parts of an image."""
    extractor = DenseExtractor("D", "pool3", weights="embedded", pool="cells", precision="fp32")
    with pytest.raises(DataError, match="'cells'"):
        SVMClassifier(model_of(extractor, [256]), [extractor])
