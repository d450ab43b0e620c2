"""The inputs of the cases: each made once a session, when a case first asks for it.

What makes them stands in `golden.making`; each is a function of the folder to fill::

    @made("I1")
    def photos(folder: Path) -> None: ...

Integer formulas, lossless files, `numpy.random.RandomState`: never what a new version of a
library may draw, rescale or compress in another way.
"""

from __future__ import annotations

import hashlib
import pkgutil
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

MAKERS: dict[str, Callable[[Path], None]] = {}
_ORIENTATION = 0x0112
_PIXELS = (".png", ".tif")


def made(name: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Say what fills the folder of an input."""

    def enlist(function: Callable[[Path], None]) -> Callable[[Path], None]:
        MAKERS[name] = function
        return function

    return enlist


class Shared:
    """The inputs of one session, below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sums: dict[str, str] = {}

    def path(self, name: str) -> Path:
        """Return the folder of an input, filled; nobody may change what is in it."""
        folder = self.root / name
        if not folder.is_dir():
            _load_makers()
            half = self.root / f"{name}.half"
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
            MAKERS[name](half)
            half.rename(folder)
        return folder

    def sha256(self, name: str) -> str:
        """Digest an input: names, and pixels of images (files change with the compressor)."""
        if name not in self._sums:
            folder, digest = self.path(name), hashlib.sha256()
            for file in sorted(file for file in folder.rglob("*") if file.is_file()):
                digest.update(f"{file.relative_to(folder).as_posix()}\n".encode())
                digest.update(_content(file))
            self._sums[name] = digest.hexdigest()
        return self._sums[name]

    def work(self, name: str) -> Path:
        """Make an empty folder for one run of a case."""
        folder = self.root / f"work-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


class Inputs:
    """What one run of a case sees: the inputs, and a folder of its own.

    Attributes
    ----------
    work : Path
        Empty at first, deleted afterwards.
    used : set of str
        The inputs that were asked for.
    """

    def __init__(self, shared: Shared, work: Path) -> None:
        self._shared = shared
        self.work = work
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Path:
        """Return the folder of an input, which the case may read only."""
        self.used.add(name)
        return self._shared.path(name)

    def copy(self, *names: str, to: str) -> Path:
        """Copy inputs into one folder ``to`` of `work`, which the case may change."""
        for name in names:
            shutil.copytree(self[name], self.work / to, dirs_exist_ok=True)
        return self.work / to


def _content(file: Path) -> bytes:
    """Read what of a file does not depend on who compressed it; other files by their digest."""
    if file.suffix in _PIXELS:
        with Image.open(file) as image:
            facts = f"{image.mode} {image.size} {image.getexif().get(_ORIENTATION)}"
            palette = bytes(image.getpalette() or [])
            return facts.encode() + np.asarray(image).tobytes() + palette
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def _load_makers() -> None:
    for module in pkgutil.iter_modules([str(Path(__file__).parent / "making")]):
        import_module(f"golden.making.{module.name}")
