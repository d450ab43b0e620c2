"""Campaigns of faults work in memory where they can: a kill does not ask how slow a disk is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.killing import folder_in_memory


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory, or one on the disk where there is none."""
    with folder_in_memory(tmp_path) as folder:
        yield folder
