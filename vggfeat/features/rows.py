"""Rows for VGGFeatures: images of any library are named, described, cached and combined."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from vggfeat._io.atomic import explain_os_errors, file_lock
from vggfeat._io.text import counted
from vggfeat.data.image import Crop, ImageLike, ImageRef, decode
from vggfeat.data.imageset import ImageSet
from vggfeat.data.places import absolute, tracked
from vggfeat.errors import ImageError, ParameterError, StoreError, WeightsError
from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.features.elements import Element, iter_blocks
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.features.summary import Progress, Summary, image_bar
from vggfeat.nets.weights import Weights
from vggfeat.settings import Decoding, Extraction, Hardware
from vggfeat.store.store import FeatureStore

ON_BAD_IMAGE = ("error", "nan")
_LAYERS = re.compile(r"\blayers=(?=\()")  # which is `layer` of the transformer
NAMED = 10  # bad images that a warning names


@dataclass(frozen=True)
class RowMaker:
    """Describes images as the settings of a :class:`VGGFeatures` say.

    Parameters
    ----------
    extraction : Extraction
    hardware : Hardware
    weights : str or Weights
    scales : tuple of int
    aggregation : Aggregation
    cache : path or None
    workers : int or None
        Threads that decode.
    on_bad_image : {"error", "nan"}
    verbose : bool
    width : callable
        Counts the columns.
    """

    extraction: Extraction
    hardware: Hardware
    weights: str | Weights
    scales: tuple[int, ...]
    aggregation: Aggregation
    cache: str | Path | None
    workers: int | None
    on_bad_image: str
    verbose: bool
    width: Callable[[], int]

    def __post_init__(self) -> None:
        if self.on_bad_image not in ON_BAD_IMAGE:
            raise ParameterError.not_one_of(
                "on_bad_image", "VGGFeatures", ON_BAD_IMAGE, self.on_bad_image
            )
        if not isinstance(self.weights, str | Weights):
            expected = "a name, a file, or what load_weights returns"
            raise ParameterError.of("weights", "VGGFeatures", expected, type(self.weights))
        if not isinstance(self.cache, str | os.PathLike | None):
            raise ParameterError.of("cache", "VGGFeatures", "a folder or None", self.cache)

    @property
    def extractor(self) -> DenseExtractor:
        """The network, opened once for all that describe by it."""
        try:
            return _open(self.extraction, self.hardware, _WeightsKey(self.weights))
        except WeightsError as error:  # which advises by the arguments of other functions
            lines = (_LAYERS.sub("layer=", line) for line in error.lines)
            raise type(error)(*lines) from error

    def rows(self, X: Any) -> Matrix:
        """Describe images, some of a data set or a generator at a time: (N, D)."""
        total = len(X) if isinstance(X, Sized) and not isinstance(X, Tensor) else 0
        done = Summary(0)
        parts: list[Matrix] = []
        bad: dict[str, str] = {}
        with image_bar("describe") if self.verbose else nullcontext() as progress:
            for block in iter_blocks(X):
                done.images = max(total, done.images + len(block))
                rows, reasons, summary = self._describe(block, done.onto(progress))
                done = done.plus(summary)
                parts.append(rows)
                bad |= reasons
        if bad:
            warnings.warn(_explain_rows(bad), stacklevel=4)
        return np.concatenate(parts) if parts else self._empty_rows(0)

    def _describe(
        self, block: Sequence[Element], progress: Progress | None
    ) -> tuple[Matrix, dict[str, str], Summary]:
        """Return the rows of images, NaN for bad ones, and where these are and why."""
        extractor = self.extractor
        names, bad = self._name(block)
        pairs = list(zip(names, block, strict=True))
        images = {name: tracked(e.image) for name, e in pairs if name and e.image is not None}
        folder = None if self.cache is None else Path(self.cache) / extractor.cache_key
        with nullcontext() if folder is None else _lock(folder):
            store = FeatureStore(folder, "a")
            try:
                summary = extract(
                    ImageSet(tuple(images), tuple(images.values())),
                    extractor,
                    self.scales,
                    store,
                    on_bad_image="error" if self.on_bad_image == "error" else "skip",
                    workers=self.workers,
                    progress=progress,
                )
            except ImageError as error:
                place = next((e.place for name, e in pairs if name == error.name), "")
                raise (ImageError.of(place, error.reason) if place else error) from None
            failed = store.failed
        bad |= {element.place: failed[name] for name, element in pairs if name in failed}
        good = [row for row, element in enumerate(block) if element.place not in bad]
        if not good:
            return self._empty_rows(len(block)), bad, summary
        described = store.read(extractor.descriptors(self.scales), [names[row] for row in good])
        rows = self.aggregation.rows(described)
        if bad:
            whole = self._empty_rows(len(block))
            whole[good] = rows
            return whole, bad, summary
        return rows, bad, summary

    def _name(self, block: Sequence[Element]) -> tuple[list[str], dict[str, str]]:
        """Return a name for each image, empty for one that has none, and where and why that is."""
        decoding = Decoding(exif=self.extraction.exif)
        names: list[str] = []
        bad: dict[str, str] = {}
        for element in block:
            try:
                names.append(_name_image(element.image, decoding))
            except ImageError as error:
                if self.on_bad_image == "error":
                    raise ImageError.of(element.place, str(error)) from error
                names.append("")
                bad[element.place] = str(error)
        return names, bad

    def _empty_rows(self, count: int) -> Matrix:
        return np.full((count, self.width()), np.nan, np.float32)


class _WeightsKey:
    """Weights as they are now: a file that was replaced under its name is another."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights
        self.key: tuple[Any, ...] = (weights,)
        if isinstance(weights, Weights):
            self.key = (weights.net, weights.sha256, weights.pixels)
        elif (path := Path(weights).expanduser()).is_file():
            stat = path.stat()
            times = stat.st_mtime_ns, stat.st_ctime_ns
            self.key = (path.resolve(), stat.st_size, stat.st_ino, *times)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _WeightsKey) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


# A search calls transform for every fold and setting: a network of half a gigabyte is built once.
# Held outside of the transformer, it is neither cloned nor pickled with it.
@lru_cache(maxsize=2)
def _open(extraction: Extraction, hardware: Hardware, key: _WeightsKey) -> DenseExtractor:
    return DenseExtractor(extraction, hardware=hardware, weights=key.weights)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one process at a time describe images: the next finds what the first has done."""
    with explain_os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock = file_lock(folder)
    try:
        lock.acquire()
    except OSError as error:
        raise StoreError(
            f"The cache {folder.parent} cannot be used, since {lock.lock_file} cannot be locked: "
            f"{error.strerror}. Allow that file to be written, or name another cache."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _name_image(image: ImageLike | None, decoding: Decoding) -> str:
    """Name an image for the store: where it is, or by a digest of its file or its pixels."""
    if image is None:
        raise ImageError("it is missing: there is no value")
    image = absolute(image)  # a cache may be used from another folder
    if isinstance(image, Crop):
        return f"{image.path} {image.box}"
    if isinstance(image, Path | ImageRef):
        return str(image)
    if isinstance(image, bytes):
        return f"file-{hashlib.sha256(image).hexdigest()}"
    values = np.asarray(decode(image, decoding) if isinstance(image, Image.Image) else image)
    digest = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return f"pixels-{digest.hexdigest()}"


def _explain_rows(bad: Mapping[str, str]) -> str:
    """Say which rows are NaN, and why."""
    shown = "; ".join(f"{place}: {reason}" for place, reason in list(bad.items())[:NAMED])
    more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return f"{counted(len(bad), 'row')} of NaN, as an image could not be used. {shown}{more}"
