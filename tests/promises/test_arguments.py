"""An error in Python names arguments; the command line says the same of options."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cli import run
from helpers.mistakes import refuses
from packing import jpeg

from vggfeat import DenseExtractor, FeatureStore, VGGFeatures, find_images, load_weights
from vggfeat.errors import VggfeatError
from vggfeat.nets.runtimes import check_deterministic

PIXELS = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "device": (lambda: DenseExtractor("D", "pool1", device="cuda:77"), "device='auto'"),
    "precision": (
        lambda: DenseExtractor("D", "pool1", device="cpu", precision="fp16"),
        "precision='fp32'",
    ),
    "deterministic": (lambda: check_deterministic(torch.device("mps")), "deterministic=True"),
    "file of weights": (lambda: load_weights("auto", "C"), "weights=FILE"),
    "layer": (lambda: load_weights("embedded", "D", ["fc7"]), "weights='authors'"),
    "no weights": (lambda: load_weights("authors", "D", ["pool5"]), "weights='embedded'"),
    "posteriors": (
        lambda: DenseExtractor("D", "fc8", pool="softmax", locations="l2"),
        "normalize='locations'",
    ),
    "transformer": (
        lambda: VGGFeatures(layer="pool9", weights="embedded").fit(),
        "'layer' parameter",
    ),
    "names": (lambda: find_images(["a/1.jpg", "b/../a/../a.jpg"], "b"), "relative_to=DIR"),
    "folder": (lambda: FeatureStore(".", "a"), "folder"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in a folder with an image."""
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    Path("a/1.jpg").write_bytes(jpeg(1))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_error_in_python_names_no_option(mistake: str, folder: None) -> None:
    """What it advises can be typed in Python; a whole command may be named."""
    act, named = MISTAKES[mistake]
    error = refuses(act, VggfeatError, [named])
    said = re.sub(r"`[^`]*`|vggfeat [a-z]+ --\S+ \S+", "", str(error))
    assert not re.findall(r"--[a-z]\S*", said)


def test_the_command_line_names_the_option(folder: None) -> None:
    """The same error tells what to type."""
    ran = run("extract", "a", "--layer", "pool1", "--device", "cuda:77", status=6)
    assert "--device auto" in ran.err
    ran = run("extract", "a", "--layer", "pool1", "--relative-to", "b", status=3)
    assert "--relative-to DIR" in ran.err
