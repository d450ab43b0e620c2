"""Where the files lie that travel with vggfeat: assets, data set cards and recipes."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from vggfeat.errors import DataNotFound

PACKAGE = Path(__file__).parent
LARGEST_TEXT = 1 << 20  # bytes of a card or a recipe
MOST_DOTS = 1000  # in a line of it


def asset(name: str) -> Path:
    """Path of a file or folder of ``vggfeat/assets``.

    Parameters
    ----------
    name : str
        Path below the assets, for example ``"clipart10"``.

    Raises
    ------
    DataNotFound
        If the installation lacks it.

    Examples
    --------
    >>> asset("clipart10").is_dir()
    True
    """
    return _existing(PACKAGE / "assets" / name)


def shared(kind: str) -> Path:
    """Folder of the shipped ``datasets`` (cards) or ``pipelines`` (recipes).

    An installed package carries them in ``vggfeat/_share``; in a checkout they lie beside the
    package, next to ``pyproject.toml``.

    Examples
    --------
    >>> (shared("datasets") / "sample.toml").is_file()
    True
    """
    if (PACKAGE.parent / "pyproject.toml").is_file():
        return _existing(PACKAGE.parent / kind)
    return _existing(PACKAGE / "_share" / kind)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a card or a recipe.

    Raises
    ------
    ValueError, RecursionError
        If it is no TOML, or larger or deeper than any is: a key of a hundred thousand dots takes
        the standard library gigabytes.
    """
    with path.open("rb") as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise ValueError(f"it has more than {LARGEST_TEXT:,} bytes")
    if any(line.count(b".") > MOST_DOTS for line in content.splitlines()):
        raise ValueError(f"it has a line of more than {MOST_DOTS} dots")
    return tomllib.loads(content.decode("utf-8"))


def home() -> Path:
    """Folder of downloaded weights: ``VGGFEAT_HOME``, or ``vggfeat`` in the user's cache folder."""
    if chosen := os.environ.get("VGGFEAT_HOME"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "vggfeat"


def offline() -> bool:
    """Tell whether ``VGGFEAT_OFFLINE`` forbids the network."""
    return os.environ.get("VGGFEAT_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DataNotFound(
            f"{path} is missing, though it is part of vggfeat. "
            "Reinstall it: pip install --force-reinstall vggfeat"
        )
    return path
