"""Weights fed with other pixels, or pooled with another rounding, never share a store."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run
from helpers.mistakes import refuses
from PIL import Image
from support import noise

from vggfeat.data.imagesets import ImageSet, find_pictures
from vggfeat.errors import FingerprintMismatch, StoreError
from vggfeat.features.extract import extract
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.merge import merge
from vggfeat.features.store import FeatureStore
from vggfeat.features.transformer import VGGFeatures
from vggfeat.learn.model import SavedModel
from vggfeat.nets.formats import write
from vggfeat.nets.pixels import CAFFE, CONVENTIONS, PixelConvention
from vggfeat.nets.weights import convert, load
from vggfeat.run.predict import model_extractors
from vggfeat.run.sources import stored
from vggfeat.settings import Features

OTHERS = {
    "channels": "RGB",
    "range": 254.99999999,
    "mean": (103.939, 116.779, 123.681),
    "std": (1.0, 1.0, 1.001),
    "pool_rounding": "floor",
}


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    """Draw one picture, whose sides are odd: at pool1 the rounding matters."""
    (tmp_path / "p").mkdir()
    Image.fromarray(noise(35, 33, 1)).save(tmp_path / "p" / "1.png")
    return find_pictures([str(tmp_path / "p")])


def extractor(pixels: PixelConvention | str) -> DenseExtractor:
    weights = load("embedded", "D", layers=("pool1",), pixels=pixels)
    return DenseExtractor("D", "pool1", weights=weights, precision="fp32")


def extracted(folder: Path, images: ImageSet, pixels: PixelConvention | str) -> FeatureStore:
    chosen = extractor(pixels)
    store = FeatureStore(folder, chosen.extraction, images.names, stats=images.stats())
    extract(images, chosen, [33], store)
    return store


@pytest.mark.parametrize("field", OTHERS)
def test_every_field_of_the_convention_is_in_the_fingerprint(field: str) -> None:
    """However small the difference, the text of the convention and the fingerprint differ."""
    assert OTHERS.keys() == {one.name for one in dataclasses.fields(PixelConvention)}
    other = dataclasses.replace(CAFFE, **{field: OTHERS[field]})
    assert str(other) != str(CAFFE)
    assert extractor(other).extraction.fingerprint != extractor(CAFFE).extraction.fingerprint
    assert extractor("caffe").extraction == extractor(CAFFE).extraction


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
    assert stored(tmp_path / "f", "D", images, features) is not None
    refuses(
        lambda: stored(tmp_path / "f", "D", images, features.but(weights=str(other))),
        StoreError,
        ["another setting of pixels", "BGR"],
    )


def test_a_sources_name_does_not_hide_other_pixels(tmp_path: Path, images: ImageSet) -> None:
    """A store of the embedded weights with torchvision's pixels is none of the embedded ones."""
    chosen = extractor("torchvision")
    behind = {"weights": {"source": "embedded", "origin": "embedded"}}
    store = FeatureStore(
        tmp_path / "f",
        chosen.extraction,
        images.names,
        stats=images.stats(),
        provenance=behind,
    )
    extract(images, chosen, [33], store)
    features = Features(layers=("pool1",), Q=(33,), weights="embedded")
    refuses(
        lambda: stored(tmp_path / "f", "D", images, features),
        StoreError,
        ["another setting of pixels"],
    )


def test_a_models_pixels_are_those_of_its_weights(tmp_path: Path) -> None:
    """A model is not fed with descriptors of pixels that it was not trained on."""
    made = extractor(CAFFE).extraction.to_dict()
    model = SavedModel(np.ones((2, 64)), np.ones(2), ("a", "b"), (1.0,), (made,), (), (33,), {})
    right, wrong = (load("embedded", "D", ("pool1",), pixels=name) for name in CONVENTIONS)
    [opened] = model_extractors(model, weights=[right])
    assert opened.extraction.pixels == str(CAFFE)
    refuses(lambda: model_extractors(model, weights=[wrong]), StoreError, ["pixels", "RGB", "BGR"])


def test_a_cache_keeps_conventions_apart(tmp_path: Path, images: ImageSet) -> None:
    """A transformer with other pixels does not get the rows of those before it."""
    rows = []
    for cache in (tmp_path / "cache", None):
        for pixels in CONVENTIONS:
            weights = load("embedded", "D", layers=("pool1",), pixels=pixels)
            one = VGGFeatures(layer="pool1", Q=33, weights=weights, cache=cache, precision="fp32")
            rows.append(one.transform(list(images.pictures)))
    assert not np.allclose(rows[0], rows[1])
    np.testing.assert_array_equal(rows[:2], rows[2:])


def test_a_store_that_does_not_say_it_is_refused(tmp_path: Path, images: ImageSet) -> None:
    """What was made before the convention was kept may be of any: it is to be made anew."""
    extracted(tmp_path / "f", images, CAFFE)
    path = tmp_path / "f" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"], manifest["nets"]["D"]["settings"]["pixels"]
    path.write_text(json.dumps(manifest))
    for action in (
        lambda: FeatureStore.open(tmp_path / "f"),
        lambda: extracted(tmp_path / "f", images, CAFFE),
    ):
        error = refuses(action, StoreError, [str(path), "pixels"])
        assert not isinstance(error, FingerprintMismatch)


def test_conversion_changes_no_number(tmp_path: Path) -> None:
    """The digest of the numbers alone does not tell two conventions apart: hence the setting."""
    drawn = load("embedded", "D", layers=("conv1_1",))
    told = {"net": "D", "source": "mine", "licence": "none"}
    one = write(tmp_path / "one.safetensors", drawn.state, drawn.pixels, **told)
    other = convert(one, tmp_path / "other.safetensors", "D", "torchvision")
    assert other.sha256 == load(one, "D", ("conv1_1",)).sha256
    assert re.match("RGB 0-1 minus", str(other.pixels))
