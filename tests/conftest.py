"""What several tests share: a home of their own, drawn pictures, the genuine ones if present."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from support import noise

REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's cache and from the network."""
    monkeypatch.setenv("VGGFEAT_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("VGGFEAT_OFFLINE", "1")


@pytest.fixture(scope="session")
def real_pictures() -> Path:
    """Genuine pictures beside the checkout; they may not be shipped."""
    if not REAL.is_dir():
        pytest.skip(f"genuine pictures are not at {REAL}")
    return REAL


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., Path]:
    """Draw a smooth random picture to a file; its seed makes it what it is."""

    def to_file(name: str, width: int = 60, height: int = 44, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(width, height, seed)).save(path)
        return path

    return to_file
