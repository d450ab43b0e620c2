"""Pixels that are named for a file of weights stay with what was computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cli import run
from helpers.colours import two_classes

from vggfeat.nets.weights import load
from vggfeat.store.store import FeatureStore

FEATURES = ("--layer", "pool2", "--Q", "32", "-q")
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # of torchvision's convolutions


@pytest.fixture
def caffe(tmp_path: Path) -> Path:
    """Write the authors' numbers under torchvision's names, as others do."""
    weights = load("embedded", layers=["pool5"])
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in weights.state))
    places = dict(zip(names, PLACES, strict=True))
    state = {
        f"features.{places[layer]}.{part}": values
        for (layer, _, part), values in ((n.rpartition("."), v) for n, v in weights.state.items())
    }
    torch.save(state, tmp_path / "vgg16_caffe.pth")
    two_classes(tmp_path / "set", 4)
    return tmp_path


def read(store: Path) -> np.ndarray:
    """Read the one column of a store."""
    [column] = FeatureStore(store).read().values()
    return column


@pytest.mark.filterwarnings("error::vggfeat.errors.PixelsAssumedWarning")
def test_named_pixels_are_those_of_the_store_and_of_the_model(caffe: Path) -> None:
    """Neither a test on the store nor a prediction needs to be told again."""
    typed = ("--weights", "vgg16_caffe.pth", "--pixels", "caffe")
    run("extract", "set", *FEATURES, *typed, "--out", "store", cwd=caffe)
    run("extract", "set", *FEATURES, "--weights", "embedded", "--out", "right", cwd=caffe)
    np.testing.assert_allclose(read(caffe / "store"), read(caffe / "right"), rtol=1e-2)
    words = ("svm", "--dataset", "set", "--features", "store", "--jobs", "1", "-q", "--json")
    run(*words, "--save", "model", cwd=caffe)
    run("predict", "model", "set", cwd=caffe)
    refused = run(*words, "--pixels", "torchvision", cwd=caffe, status=5)
    assert "pixels" in refused.err


@pytest.mark.filterwarnings("default::vggfeat.errors.PixelsAssumedWarning")
def test_every_command_says_what_it_assumes(caffe: Path) -> None:
    """In one line, with what to type."""
    typed = ("--weights", "vgg16_caffe.pth", "--out", "store")
    said = run("extract", "set", *FEATURES, *typed, cwd=caffe).err
    assert "Warning: vgg16_caffe.pth" in said
    assert "--pixels caffe" in said
