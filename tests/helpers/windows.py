"""Windows' rule about open files, for a test on Linux."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def keep_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to delete, rename or replace a file that this process has open, as Windows does."""
    for name, paths in {"unlink": 1, "remove": 1, "rename": 2, "replace": 2}.items():
        monkeypatch.setattr(os, name, _refusing(getattr(os, name), paths))


def _refusing(action: Callable[..., Any], paths: int) -> Callable[..., Any]:
    def act(*arguments: Any, **options: Any) -> Any:
        for path in arguments[:paths]:
            if "dir_fd" not in options and os.path.realpath(path) in _open_files():
                raise PermissionError(13, "[WinError 32] it is used by a process", str(path))
        return action(*arguments, **options)

    return act


def _open_files() -> set[str]:
    handles = Path("/proc/self/fd")
    found = set()
    for handle in handles.iterdir():
        try:
            found.add(str(handle.readlink()))
        except FileNotFoundError:  # the one that lists them
            continue
    return found
