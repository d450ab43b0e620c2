"""Where the files lie that travel with vggfeat: assets, data set cards and recipes."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from vggfeat.errors import DataNotFound

PACKAGE = Path(__file__).parents[1]


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
    ValueError
        If it is no TOML.
    """
    with path.open("rb") as file:
        return tomllib.load(file)


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
