"""The tree of commands is built once for all that is run: hundreds of commands are typed here."""

from __future__ import annotations

from functools import cache

import pytest
from typer.main import get_command

build_once = cache(get_command)


@pytest.fixture(autouse=True)
def _built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.main.get_command", build_once)
