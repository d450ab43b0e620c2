"""Golden tests run in a capped environment only; each session makes its inputs once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from golden.environment import lacking
from golden.inputs import Shared


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse golden tests where processors would differ."""
    if item.get_closest_marker("golden") and lacking():
        caps = " ".join(f"{name}={value}" for name, value in lacking().items())
        pytest.fail(f"Golden numbers are checked with {caps}. Use: make golden", pytrace=False)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Make inputs when a case asks for them, and delete them with the session: some are large."""
    root = tmp_path_factory.mktemp("golden")
    yield Shared(root)
    shutil.rmtree(root)
