"""Campaigns of faults work in memory where they can: a kill does not ask how slow a disk is."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory, or one on the disk where there is none."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="vggfeat-faults-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
