"""What is imported when: `import vggfeat` at once, torch with what computes, no more than that."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "sklearn", "scipy", "pandas", "h5py", "matplotlib", "rich", "torchvision"}


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("__version__", ()),
        ("ImageSet", ()),
        ("FeatureStore", ("h5py",)),
        ("DenseExtractor", ("torch",)),
        ("VGGFeatures", ("sklearn", "scipy", "pandas")),  # of which scikit-learn has the others
    ],
)
def test_a_name_imports_what_it_needs(name: str, needed: tuple[str, ...]) -> None:
    """Nobody waits for torch, scikit-learn or a reader of images that is not used."""
    code = f"import sys, vggfeat; vggfeat.{name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert HEAVY & loaded <= set(needed)
    assert "PIL.PdfImagePlugin" not in loaded
