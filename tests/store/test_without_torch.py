"""The store on a machine that has no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
sys.modules["torch"] = None  # as if it were not installed
import pytest
words = ["-q", "--noconftest", "-p", "no:cacheprovider", "--import-mode=importlib"]
words += ["-m", "not slow", "-k", "not s3 and not bucket and not refusals_say"]
sys.exit(pytest.main([*words, sys.argv[1]]))
"""


@pytest.mark.slow
def test_the_tests_of_the_store_need_no_torch() -> None:
    """All pass where importing it fails, but those of a bucket, whose server is a fixture."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(here)],
        cwd=here.parents[1],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
