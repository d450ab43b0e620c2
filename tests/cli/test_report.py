"""The page of ``vggfeat svm --report``, on features that lie in a store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.cli import run
from helpers.networks import formula_weights, write_weights
from helpers.seams import no_downloads, published
from PIL import Image
from support import noise

from vggfeat.nets.registry import folder

MAP = "Sum of all locations"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Draw four images of each of two classes."""
    for label, seed in (("dark", 0), ("light", 40)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(4):
            drawn = Image.fromarray(noise(32, 32, seed=seed + number))
            drawn.save(tmp_path / "set" / label / f"{number}.png")
    return tmp_path


def test_no_weights_are_downloaded_to_draw_maps(images: Path) -> None:
    """With features from a store and weights that are not here, the page says what would do."""
    how = ("--net", "A", "--layer", "pool2", "--Q", "32", "--weights", "torchvision")
    words = ("svm", "--dataset", "set", *how, "--features", "f", "--jobs", "1", "--report")
    weights = write_weights(images / "a.safetensors", formula_weights("A", ["pool2"]))
    with published("torchvision", "A", weights):
        run(*words, "first.html", cwd=images)
        run(*words, "here.html", cwd=images)
        shutil.rmtree(folder())
        with no_downloads() as asked:
            ran = run(*words, "gone.html", cwd=images, env={"VGGFEAT_OFFLINE": ""})
    assert asked == []
    assert "No evidence maps" in ran.err
    assert "vggfeat weights fetch torchvision --net A" in ran.err
    drawn = {path.stem: MAP in path.read_text() for path in images.glob("*.html")}
    assert drawn == {"first": True, "here": True, "gone": False}
