"""The public names, the import's weight, and the shipped data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import vggfeat
from vggfeat._io.assets import asset
from vggfeat.data.datasets import DatasetCard, card_names, load_card, open_dataset
from vggfeat.errors import VggfeatError

ROOT = Path(__file__).parents[1]


def test_public_names_are_these() -> None:
    """What a user may import from vggfeat is a list that changes only on purpose."""
    assert vggfeat.__all__ == [
        "VGG",
        "Column",
        "DenseExtractor",
        "Descriptor",
        "Extraction",
        "FeatureStore",
        "Features",
        "Hardware",
        "ImageSet",
        "LinearSVM",
        "VGGFeatures",
        "VggfeatError",
        "Weights",
        "aggregate",
        "extract",
        "find_images",
        "load_weights",
    ]
    for name in vggfeat.__all__:
        assert getattr(vggfeat, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'extract_all'"):
        vggfeat.extract_all  # noqa: B018


EXTRACT = """
import sys; from vggfeat.cli import main
sys.argv = "vggfeat extract images --layer pool1 --Q 32 --out features --quiet".split()
try: main()
except SystemExit as end: assert not end.code
"""
TRAINING = ["vggfeat.train", "vggfeat.classification", "vggfeat.localization"]


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import vggfeat, vggfeat.cli", ["torch", "h5py"]),
        (EXTRACT, ["sklearn", "scipy", "matplotlib", "torchvision", "pandas", *TRAINING]),
        (
            "import vggfeat.data.imageset, vggfeat.data.datasets",
            ["torch", "sklearn", "scipy", "matplotlib", "pandas", "h5py", "fsspec"],
        ),
    ],
    ids=["import", "extract", "data"],
)
def test_what_is_not_needed_is_not_loaded(
    code: str, heavy: list[str], draw: Callable[..., Path], tmp_path: Path
) -> None:
    draw("images/a.png", 40, 30)
    code += f"\nimport sys; print([name for name in {heavy} if name in sys.modules])"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout


def test_errors_are_builtins_with_an_exit_status_of_their_kind() -> None:
    """Every error can be caught as the builtin it resembles; kinds have different statuses."""

    def tree(kind: type[VggfeatError]) -> list[type[VggfeatError]]:
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]

    kinds = VggfeatError.__subclasses__()
    assert len({kind.exit_status for kind in kinds}) == len(kinds)
    for kind in tree(VggfeatError)[1:]:
        builtin = (ValueError, RuntimeError, OSError, ImportError)
        assert issubclass(kind, builtin), kind


def test_shipped_cards_hold_what_they_promise() -> None:
    """Every card can be read, is named as its file, and matches the images that ship."""
    for name in card_names():
        card = load_card(name)
        assert isinstance(card, DatasetCard)
        assert card.name == name
        assert card.licence
        assert card.source
    card, images = open_dataset("sample")
    assert len(images) == card.images == 300
    assert {images.labels.count(label) for label in card.classes} == {30}


def test_data_folders_hold_no_python() -> None:
    """A .py file in datasets/ would shadow another project's package."""
    for folder in ("datasets", "pipelines"):
        assert not list((ROOT / folder).rglob("*.py"))


def test_embedded_parts_carry_their_licences() -> None:
    """The weights' notice names authors, licence and change; the images' their dedication."""
    notice = asset("LICENSE-vgg_d_conv.txt").read_text()
    for word in ("Simonyan", "Zisserman", "CC BY 4.0", "fp16"):
        assert word in notice
    assert "public domain" in asset("clipart10/LICENSE.txt").read_text()
