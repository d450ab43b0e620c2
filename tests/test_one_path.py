"""Command line, transformer and library give the same numbers, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run

from vggfeat import DenseExtractor, FeatureStore, VGGFeatures, aggregate, extract, find_images

SHAPES = [(60, 44), (44, 60), (60, 44), (71, 44), (60, 44), (300, 31), (44, 60)]


@pytest.mark.parametrize("how", ["average", pytest.param("stack", marks=pytest.mark.slow)])
def test_four_surfaces_one_result(
    how: str, draw: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Extracted on disk, in memory, through scikit-learn, or exported: equal bits."""
    monkeypatch.chdir(tmp_path)
    for i, (width, height) in enumerate(SHAPES):
        draw(f"images/{i}.png", width, height, seed=i)
    images = find_images(["images"])
    extractor = DenseExtractor("D", "pool4", weights="embedded")

    store = FeatureStore(None, "a")
    extract(images, extractor, (40, 64), store)
    library = aggregate(store.read(names=images.names), how)

    arguments = ["images", "--layer", "pool4", "--Q", "40", "--Q", "64", "--weights", "embedded"]
    run("extract", *arguments, "--out", "f", "--quiet")
    opened = FeatureStore("f")
    assert tuple(opened.names) == images.names
    assert np.array_equal(aggregate(opened.read(), how), library)

    features = VGGFeatures(layer="pool4", Q=(40, 64), aggregate=how, weights="embedded")
    assert np.array_equal(features.transform(list(images.images)), library)
    cached = features.set_params(cache="cache")
    assert np.array_equal(cached.transform(list(images.images)), library)

    run("store", "export", "f", "x.npz", "--aggregate", how)
    assert np.array_equal(np.load("x.npz")["X"], library)
