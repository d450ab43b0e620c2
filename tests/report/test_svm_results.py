"""What the protocols of linear SVMs measure, on the terminal and on the page."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from helpers.pages import Page
from helpers.rows import evaluate_parts, evaluate_splits
from PIL import Image
from rich.console import Console

from vggfeat.report.page import write_page
from vggfeat.report.tables import render_result
from vggfeat.result import Gallery

RECALLS = ["bird", "boat, small", '"bug"']
PRECISIONS = ["cat", "dog", "owl", "yak"]
GRID = (0.1, 1.0, 10.0)


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def recalls():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = unit(rng.random((60, 40)) + 0.25 * rng.random((3, 40))[y])
    return evaluate_splits(X, y, RECALLS, grid=GRID).result


def precisions(hidden=False, untested=False):
    """Score images with several classes; no yak trains, and no owl is tested."""
    rng = np.random.default_rng(0)
    present = rng.random((120, 4)) < 0.35
    X = unit(rng.random((120, 20)) + 0.5 * present @ rng.random((4, 20)))
    targets = np.where(present, 1, -1)
    targets[rng.random((120, 4)) < 0.05] = 0
    targets[:80, 3] = -1
    targets[80:, 2] = -1
    targets[80:] *= not hidden
    parts = np.arange(40), np.arange(40, 80), np.arange(80, 80 if untested else 120)
    return evaluate_parts(X, targets, PRECISIONS, parts, grid=GRID).result


@pytest.fixture(params=["recalls", "precisions", "hidden", "untested"])
def result(request):
    """Give a result of each kind, also of test labels or images that are not there."""
    if request.param == "recalls":
        return recalls()
    return precisions(hidden=request.param == "hidden", untested=request.param == "untested")


def test_pages_show_every_class_image_and_drawing(result, tmp_path):
    def open_image(name):
        return Image.new("RGB", (30, 20), (int(name), 90, 200))

    page = Page(write_page(result, tmp_path / "page.html", open_image))
    assert set(result.tables["classes"].column("class")) <= {row[0] for row in page.rows if row}
    assert f"{100 * result.headline[0].value:.1f}" in page.text
    galleries = [part for part in result.parts if isinstance(part, Gallery)]
    tags = Counter(tag for tag, _ in page.tags)
    assert tags["img"] == sum(len(strip.tiles) for each in galleries for strip in each.strips)
    assert tags["svg"] >= 1


@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_has_classes_and_headline(result, width):
    """A row for each class and, last, the figure that counts, on a narrow terminal, too."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(render_result(result))
    lines = out.getvalue().splitlines()
    for label in result.tables["classes"].column("class"):
        assert any(line.startswith(label) for line in lines)
    assert "…" not in out.getvalue().replace(" … ", " to ")
    assert f"{100 * result.headline[0].value:.1f}" in " ".join(lines[-2:])
