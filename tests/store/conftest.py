"""A folder for a store, or none."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=[True, False], ids=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Name a folder, or none for a store in memory."""
    return tmp_path / "features" if request.param else None
