"""What lists the choices of a network is quick to import."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["config", "registry", "preprocessing", "formats"])
def test_lists_of_choices_import_no_torch(module: str) -> None:
    """`--help` may ask them all."""
    code = f"import sys, vggfeat.nets.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
