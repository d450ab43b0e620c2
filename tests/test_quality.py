"""What is taken where a quality is named, or nothing at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cli import run
from helpers.mistakes import refuses
from PIL import Image

from vggfeat import VGGFeatures
from vggfeat.data.datasets import load_card
from vggfeat.errors import ParameterError
from vggfeat.experiments.sources import choose_features
from vggfeat.nets.config import layers_of
from vggfeat.recipes import open_svm_recipe
from vggfeat.recipes.quality import QUALITIES, SHIPPED, choose_quality, read_quality
from vggfeat.settings import Features

ACTION = load_card("voc2012-action").defaults
SAMPLE = load_card("sample").defaults
PAPER = Features()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_qualities_need_nothing_but_what_ships(name: str) -> None:
    """One net, D, its embedded weights, and layers up to pool5."""
    features = read_quality(name)
    kinds = {layer.name: layer.kind for layer in layers_of("D")}
    assert (features.nets, features.weights) == (("D",), ("embedded",))
    assert all(kinds[layer] in ("conv", "pool") for layer in features.layers)
    assert features == open_svm_recipe(f"embedded-{name}").features


def test_each_quality_costs_more_than_the_one_before() -> None:
    """In pixels that go through the network; standard is one scale."""
    pixels = [sum(Q * Q for Q in read_quality(name).Q) for name in SHIPPED]
    assert sorted(set(pixels)) == pixels
    assert len(read_quality("standard").Q) == 1


@pytest.mark.parametrize(
    ("quality", "typed", "right"),
    [
        (None, {}, "standard"),
        (None, {"Q": (384,)}, "standard"),
        (None, {"nets": ("E",)}, "paper"),
        (None, {"layers": ("pool5",)}, "paper"),
        (None, {"weights": ("torchvision",)}, "paper"),
        ("best", {"layers": ("pool5",)}, "best"),
        ("paper", {"Q": (384,)}, "paper"),
    ],
)
def test_a_net_a_layer_or_weights_leave_the_rest_to_the_paper(
    quality: str | None, typed: dict[str, Any], right: str
) -> None:
    """Whatever else is named goes over the standard quality, or the one asked for."""
    assert choose_features(quality, typed) == read_quality(right).but(**typed)


def test_the_transformer_has_the_same_rule() -> None:
    """Without a download where nothing is named; an argument is called by its name in Python."""
    standard = read_quality("standard")
    names = VGGFeatures().get_feature_names_out()
    rows = VGGFeatures(Q=64).transform([np.zeros((64, 80, 3), np.uint8)])
    assert rows.shape == (1, len(names))
    assert {name.split("_")[3] for name in names} == set(standard.pool.split("+"))
    assert len(VGGFeatures(net="A").get_feature_names_out()) == 4096
    assert len(VGGFeatures(layer="pool5").get_feature_names_out()) == 512
    assert len(VGGFeatures(quality="fast").get_feature_names_out()) == 1024
    refuses(VGGFeatures(net="F").fit, ParameterError, ["net", "'F'"])
    refuses(VGGFeatures(layer="fc9").fit, ParameterError, ["layer", "'fc9'"])
    refuses(VGGFeatures(quality="good").fit, ParameterError, QUALITIES)
    refuses(VGGFeatures(net=("D", "E")).fit, ParameterError, ["net"])


def test_settings_of_a_card_stand_where_no_quality_is_named() -> None:
    """Those of a paper's data set are the quality paper, in its own scales; views stay."""
    assert choose_quality(None, ["nets"], SAMPLE) == SAMPLE
    voc = load_card("voc2007").defaults
    assert choose_quality("paper", (), voc) == voc
    assert choose_quality("paper", (), SAMPLE) == PAPER
    assert choose_quality("fast", (), ACTION) == read_quality("fast").but(views=("image", "box"))
    refuses(lambda: choose_quality("good"), ParameterError, QUALITIES)


def test_what_is_described_unnamed_is_read_unnamed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Offline; a store is read as the quality that has its columns, whatever weights it names."""
    monkeypatch.setenv("VGGFEAT_OFFLINE", "1")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    ran = run("extract", "a.png", "--Q", "256", "--json", cwd=tmp_path).json
    assert {path.split("/")[3] for path in ran["dimensions"]} == {"average", "max", "cells"}
    standard = read_quality("standard")
    assert choose_features(None, {}, None, tmp_path / "features").but(weights="auto") == (
        standard.but(weights="auto")
    )
    run("extract", "a.png", "--layer", "pool5", "--out", "other", "--Q", "64", cwd=tmp_path)
    other = choose_features(None, {}, None, tmp_path / "other")
    assert other.but(weights="auto") == PAPER.but(layers="pool5", Q=64)
