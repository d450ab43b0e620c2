"""Weights fed with other pixels, or pooled with another rounding, never share a store."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from helpers.cli import run
from helpers.mistakes import refuses
from PIL import Image
from support import noise

from vggfeat.data.imageset import ImageSet, find_images
from vggfeat.errors import FingerprintMismatch, StoreError
from vggfeat.experiments.predict import model_extractors
from vggfeat.experiments.sources import open_source
from vggfeat.features.aggregate import Aggregation
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.features.transformer import VGGFeatures
from vggfeat.nets.formats import write
from vggfeat.nets.preprocessing import CAFFE, CONVENTIONS, PixelConvention, convention
from vggfeat.nets.weights import Weights, convert, load
from vggfeat.settings import Features
from vggfeat.store.merge import merge
from vggfeat.store.store import FeatureStore
from vggfeat.svm.model import SavedModel

OTHERS = {
    "channels": "RGB",
    "range": 254.99999999,
    "mean": (103.939, 116.779, 123.681),
    "std": (1.0, 1.0, 1.001),
    "pool_rounding": "floor",
}


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    """Draw one image, whose sides are odd: at pool1 the rounding matters."""
    (tmp_path / "p").mkdir()
    Image.fromarray(noise(35, 33, 1)).save(tmp_path / "p" / "1.png")
    return find_images([str(tmp_path / "p")])


def embedded(pixels: PixelConvention | str) -> Weights:
    """Take the embedded weights for ones of other pixels."""
    return dataclasses.replace(load("embedded", layers=["pool1"]), pixels=convention(pixels))


def extractor(pixels: PixelConvention | str) -> DenseExtractor:
    weights = embedded(pixels)
    return DenseExtractor("D", "pool1", weights=weights, precision="fp32")


def extracted(folder: Path, images: ImageSet, pixels: PixelConvention | str) -> FeatureStore:
    store = FeatureStore(folder, "a")
    extract(images, extractor(pixels), [33], store)
    return store


def never(net: str, store: object) -> NoReturn:
    raise AssertionError(f"net {net} was opened")


@pytest.mark.parametrize("field", OTHERS)
def test_every_field_of_the_convention_is_a_setting(field: str) -> None:
    """However small the difference, the text of the convention and the digest differ."""
    assert OTHERS.keys() == {one.name for one in dataclasses.fields(PixelConvention)}
    other = dataclasses.replace(CAFFE, **{field: OTHERS[field]})
    assert str(other) != str(CAFFE)
    digests = [extractor(pixels).columns([33])[0].digest for pixels in (other, CAFFE, "caffe")]
    assert digests[0] != digests[1] == digests[2]


@pytest.mark.parametrize(
    "other", [CONVENTIONS["torchvision"], dataclasses.replace(CAFFE, pool_rounding="floor")]
)
def test_another_convention_is_refused_by_name(
    tmp_path: Path, images: ImageSet, other: PixelConvention
) -> None:
    """The store stays as it was, and the error shows both; the numbers would differ."""
    store = extracted(tmp_path / "f", images, CAFFE)
    refuses(
        lambda: extracted(tmp_path / "f", images, other),
        FingerprintMismatch,
        [f"pixels: stored {CAFFE} → asked {other}"],
    )
    apart = extracted(tmp_path / "g", images, other)
    assert not np.allclose(*store.read().values(), *apart.read().values())
    parts = [tmp_path / "f", tmp_path / "g"]
    refuses(lambda: merge(parts, tmp_path / "all"), FingerprintMismatch, ["pixels"])


@pytest.mark.parametrize("convention", ["caffe", "torchvision"])
def test_the_command_line_refuses_it(tmp_path: Path, images: ImageSet, convention: str) -> None:
    """Files of the same numbers that `weights convert --pixels` told apart stay apart."""
    drawn = load("embedded", "D", layers=("pool1",))
    told = {"net": "D", "source": "mine", "licence": "none"}
    one = write(tmp_path / "one.safetensors", drawn.state, drawn.pixels, **told)
    other = tmp_path / "other.safetensors"
    run("weights", "convert", one, other, "--pixels", convention)
    words = ["extract", tmp_path / "p", "--out", tmp_path / "f", "--layer", "pool1", "--Q", "33"]
    run(*words, "--weights", one)
    if convention == "caffe":
        run(*words, "--weights", other)
        return
    refused = run(*words, "--weights", other, status=5)
    assert "pixels: stored BGR" in refused.err
    features = Features(layers=("pool1",), Q=(33,), weights=str(one))
    assert open_source(images, "D", features, tmp_path / "f", never).summary.present == 1
    others = features.but(weights=str(other))
    refuses(
        lambda: open_source(images, "D", others, tmp_path / "f", never),
        StoreError,
        ["pixels: stored BGR"],
    )


def test_a_sources_name_does_not_hide_other_pixels(tmp_path: Path, images: ImageSet) -> None:
    """A store of the embedded weights with torchvision's pixels is none of the embedded ones."""
    store = extracted(tmp_path / "f", images, "torchvision")
    assert store.provenance("D")["weights"]["source"] == "embedded"
    features = Features(layers=("pool1",), Q=(33,), weights="embedded")
    refuses(
        lambda: open_source(images, "D", features, tmp_path / "f", never),
        StoreError,
        ["pixels: stored RGB"],
    )


def test_a_models_pixels_are_those_of_its_weights(tmp_path: Path) -> None:
    """A model is not fed with descriptors of pixels that it was not trained on."""
    columns, how = tuple(extractor(CAFFE).columns([33])), Aggregation().to_dict()
    model = SavedModel(np.ones((2, 64)), np.ones(2), ("a", "b"), (1.0,), columns, (), how)
    right, wrong = (embedded(name) for name in CONVENTIONS)
    [opened] = model_extractors(model, weights=[right])
    assert opened.weights.pixels == CAFFE
    refuses(lambda: model_extractors(model, weights=[wrong]), StoreError, ["pixels", "RGB", "BGR"])


def test_a_cache_keeps_conventions_apart(tmp_path: Path, images: ImageSet) -> None:
    """A transformer with other pixels does not get the rows of those before it."""
    rows = []
    for cache in (tmp_path / "cache", None):
        for pixels in CONVENTIONS:
            weights = embedded(pixels)
            one = VGGFeatures(layer="pool1", Q=33, weights=weights, cache=cache, precision="fp32")
            rows.append(one.transform(list(images.images)))
    assert not np.allclose(rows[0], rows[1])
    np.testing.assert_array_equal(rows[:2], rows[2:])


def test_conversion_changes_no_number(tmp_path: Path) -> None:
    """The digest of the numbers alone does not tell two conventions apart: hence the setting."""
    drawn = load("embedded", "D", layers=("conv1_1",))
    told = {"net": "D", "source": "mine", "licence": "none"}
    one = write(tmp_path / "one.safetensors", drawn.state, drawn.pixels, **told)
    other = convert(one, tmp_path / "other.safetensors", "D", "torchvision")
    assert other.sha256 == load(one, "D", ("conv1_1",)).sha256
    assert re.match("RGB 0-1 minus", str(other.pixels))
