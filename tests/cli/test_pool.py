"""A pooling by its name, in every command that knows it from the registry alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run
from helpers.colours import two_classes
from PIL import Image

from vggfeat import DenseExtractor, FeatureStore, VGGFeatures
from vggfeat.store.column import Descriptor

FAST = ["--layer", "pool2", "--Q", "32", "--weights", "embedded", "--precision", "fp32"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Draw five images of two classes."""
    two_classes(tmp_path / "set")
    return tmp_path


def gem(path: Path, p: float) -> np.ndarray:
    """Pool the maps of an image and of its mirror image by the formula."""
    extractor = DenseExtractor("D", "pool2", weights="embedded", precision="fp32", device="cpu")
    pixels = np.asarray(Image.open(path))
    maps = [extractor.image_maps(side, 32)["pool2"].numpy() for side in (pixels, pixels[:, ::-1])]
    powers = [(np.maximum(m.astype(float), 1e-6) ** p).mean(axis=(1, 2)) for m in maps]
    return np.mean([one ** (1 / p) for one in powers], axis=0)


def test_a_generalised_mean_goes_from_images_to_evidence(folder: Path) -> None:
    """Extracted beside the average, told of, classified, and explained: evidence adds up."""
    run("extract", "set", *FAST, "--pool", "gem3+average", "--out", "f", cwd=folder)
    store = FeatureStore(folder / "f")
    path = folder / "set" / "light" / "2.png"
    (found,) = store.read(names=["set/light/2.png"])[Descriptor("D", "pool2", "gem3", 32)]
    np.testing.assert_allclose(found, gem(path, 3), rtol=1e-4)
    told = run("store", "info", "f", "--json", cwd=folder)
    assert "/D/pool2/gem3/Q32" in told.out

    how = ["--dataset", "set", *FAST, "--pool", "gem3", "--features", "f", "--jobs", "1"]
    run("svm", *how, "--save", "model", cwd=folder)
    said = run("predict", "model", path, "--json", cwd=folder).json["tables"]["predictions"]
    drawn = run("explain", "model", path, "--json", "--out", "e", cwd=folder).json["tables"]
    explained = {row["class"]: row for row in drawn["classes"]}
    for row in said:
        told = explained[row["class"]]
        assert told["sum"] + told["bias"] == pytest.approx(row["score"], rel=1e-4)
    assert [row["class"] for row in said] == ["light"]


def test_a_transformer_takes_a_generalised_mean(folder: Path) -> None:
    """Its rows are those of the formula, and its names have the power."""
    path = folder / "set" / "dark" / "1.png"
    features = VGGFeatures(
        layer="pool2", Q=32, weights="embedded", precision="fp32", pool="gem2.5+max",
        normalize="none",
    )  # fmt: skip
    rows = features.transform([path])
    np.testing.assert_allclose(rows[0, :128], gem(path, 2.5), rtol=1e-4)
    assert features.get_feature_names_out()[[0, 128]].tolist() == [
        "vgg_d_pool2_gem2.5_0",
        "vgg_d_pool2_max_0",
    ]
