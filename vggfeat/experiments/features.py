"""Rows for a data set: every net and view of its images, described once, kept and stacked."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat._io.assets import home
from vggfeat._io.text import size
from vggfeat.data.datasets.card import DatasetCard
from vggfeat.data.imageset import VIEWS, ImageSet, View
from vggfeat.errors import DataError, ParameterError
from vggfeat.experiments.identical import IdenticalImages, choose_kept, find_identical
from vggfeat.experiments.sources import Extract, Networks, ViewSource, extract_source, open_source
from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.features.pooling import gives_posteriors, list_features
from vggfeat.features.summary import Progress, Summary
from vggfeat.settings import Execution, Features
from vggfeat.store.column import Column

# Numbers that are read and combined at a time: 0.5 GB, and as much again for what becomes of them.
AT_ONCE = 2**27
IN_MEMORY = 2 << 30  # bytes of all rows; more are kept in a file, and read from it block by block
SHOWN = 3  # unreadable images that an error names


@dataclass(frozen=True)
class Described:
    """Rows of a data set, and what stands behind them.

    Parameters
    ----------
    images : ImageSet
        The images that could be read, in the order of the rows of `X`.
    X : ndarray (N, D) of float32
        Their rows; a memory map where they take more than ``IN_MEMORY``, of float16 where all
        descriptors were kept as float16.
    columns : tuple of Column
        What was stacked for one view, in this order, with all settings that made it.
    provenance : dict
        Of each net: weights, device and versions.
    folders : tuple of Path
        Where the descriptors are kept.
    failed : dict
        By name, why images could not be read.
    summary : Summary
        What the extraction did, of all nets and views together.
    seconds : dict
        Time of each stage.
    identical : IdenticalImages
        Which of them are the same, byte for byte; some may have been left out for it.
    """

    images: ImageSet
    X: Matrix = field(repr=False)
    columns: tuple[Column, ...]
    provenance: dict[str, Any]
    folders: tuple[Path, ...]
    failed: dict[str, str]
    summary: Summary
    seconds: dict[str, float]
    identical: IdenticalImages = field(default_factory=IdenticalImages)


def describe(
    card: DatasetCard,
    images: ImageSet,
    features: Features,
    networks: Networks,
    *,
    folder: Path | None = None,
    execution: Execution = Execution(),  # noqa: B008  # it does not change
    deduplicate: bool = False,
    progress: Progress | None = None,
    extract: Extract = extract,
) -> Described:
    """Describe a data set by its settings; what a store has already is not computed again.

    Parameters
    ----------
    card, images : DatasetCard, ImageSet
        As from :func:`~vggfeat.data.datasets.open_dataset`.
    features : Features
        What describes the images.
    networks : callable
        Opens a net, where something is to be computed for a store.
    folder : Path, optional
        A store; one below :func:`~vggfeat._io.assets.home` for each net by default. Where it holds
        all that is asked for of these images, under whatever names, no network is opened.
    execution : Execution
        What is done with bad images, and how many threads decode.
    deduplicate : bool
        Whether of images that are the same, byte for byte, one alone gets a row: see
        :func:`~vggfeat.experiments.identical.choose_kept`.
    progress : callable, optional
        As for :func:`~vggfeat.features.pipeline.extract`.
    extract : callable
        What computes, as that does.

    Returns
    -------
    Described

    Raises
    ------
    DataError
        If no image of a class can be read, or boxes are wanted that are not given.
    ParameterError
        If posteriors are asked for, which are no features.
    StoreDamaged
        If a file of a store is not what was written.
    """
    if scores := [how for how in features.pool.split("+") if gives_posteriors(how)]:
        raise ParameterError(
            f"The pool {scores[0]!r} gives posteriors, which are a decision already, and no "
            f"features: `vggfeat classify` is for them. Take {list_features()}."
        )
    aggregation = Aggregation(features.aggregate, features.normalize, features.power)
    views = [(name, VIEWS[name](images)) for name in features.views]
    total = Summary(sum(len(view.images) for _, view in views) * len(features.nets))
    sources: list[tuple[View, ViewSource]] = []
    how: dict[str, Any] = {
        "on_bad_image": execution.on_bad_image,
        "workers": execution.workers,
        "extract": extract,
    }
    for name, view in views:
        for net in features.nets:
            how["progress"] = total.onto(progress)
            if folder:
                place = _place(folder, name)
                source = open_source(view.images, net, features, place, networks, **how)
            else:
                extractor = networks(net, None)
                place = _place(default_store(card, extractor), name)
                source = extract_source(view.images, extractor, features, place, **how)
            total = total.plus(source.summary)
            sources.append((view, source))
    return _gathered(images, sources, aggregation, total, deduplicate)


def default_store(card: DatasetCard, extractor: DenseExtractor) -> Path:
    """Folder below the cache in which a data set's descriptors are kept.

    It follows from the data set's name and place and from the settings, so that a second run
    finds the descriptors of the first, and another setting or data set never meets them.
    """
    text = "\n".join((card.name, card.source, card.root, extractor.cache_key))
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return home() / "features" / digest[:16]


def _place(folder: Path, view: str) -> Path:
    """Keep crops beside the whole images, in a store of their own: their names are others."""
    if view == "image":
        return folder
    folder = folder.resolve()
    return folder.with_name(f"{folder.stem}-boxes{folder.suffix}")


def _gathered(
    images: ImageSet,
    sources: Sequence[tuple[View, ViewSource]],
    aggregation: Aggregation,
    summary: Summary,
    deduplicate: bool,
) -> Described:
    start = time.perf_counter()
    rows = [
        row
        for row in range(len(images))
        if all(view.names[row] in source.held for view, source in sources)
    ]
    readable = images.take(rows)
    folders = tuple(dict.fromkeys(source.folder for _, source in sources))
    failed = {name: reason for _, source in sources for name, reason in source.failed.items()}
    _refuse_lost_classes(images, readable, failed)
    view, source = sources[0]
    ids = source.store.identify([source.held[view.names[row]] for row in rows])
    identical = find_identical(readable, ids)
    if deduplicate and identical.groups:
        kept = choose_kept(readable, ids)
        rest = readable.take(kept)
        removed = sorted({*readable.names} - {*rest.names})
        identical = replace(identical, removed=tuple(removed))
        _refuse_emptied_classes(readable, rest)
        readable, rows = rest, [rows[at] for at in kept]
    for store in {source.folder: source.store for _, source in sources}.values():
        store.check_digests()  # of numbers that came from elsewhere, or lay here for long
    X = _rows(sources, rows, aggregation)
    by_net = {source.net: source for _, source in sources}
    return Described(
        readable,
        X,
        tuple(column for source in by_net.values() for column in source.columns),
        {net: source.provenance for net, source in by_net.items()},
        folders,
        failed,
        summary,
        {"extract": summary.seconds, "read": time.perf_counter() - start},
        identical,
    )


def _rows(
    sources: Sequence[tuple[View, ViewSource]], rows: Sequence[int], aggregation: Aggregation
) -> Matrix:
    """Combine descriptors into rows, in memory or, where they are too many, in a file."""
    for _, source in sources:
        aggregation.check(source.columns)
    widths = [column.width for _, source in sources for column in source.columns]
    step = max(1, AT_ONCE // sum(widths))
    pieces = _combined(sources, rows, aggregation, step)
    first = next(pieces)
    shape = (len(rows), first.shape[1])
    if first.itemsize * shape[0] * shape[1] > IN_MEMORY:
        half = all(source.store.dtype == "float16" for _, source in sources)
        return _in_a_file(chain([first], pieces), shape, np.dtype("float16" if half else "float32"))
    X = np.empty(shape, np.float32)
    for number, piece in enumerate(chain([first], pieces)):
        X[number * step : number * step + len(piece)] = piece
    return X


def _combined(
    sources: Sequence[tuple[View, ViewSource]],
    rows: Sequence[int],
    aggregation: Aggregation,
    step: int,
) -> Iterator[Matrix]:
    """Read and combine some rows at a time, so that raw descriptors never are in memory whole."""
    for first in range(0, len(rows), step):
        some = rows[first : first + step]
        arrays = [source.read([view.names[row] for row in some]) for view, source in sources]
        yield aggregation.rows(arrays)


def _in_a_file(
    pieces: Iterable[Matrix], shape: tuple[int, int], dtype: np.dtype[np.floating[Any]]
) -> Matrix:
    """Keep rows in a file without a name, which is gone when nobody reads it any longer."""
    folder = home() / "features"
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = dtype.itemsize * shape[0] * shape[1], shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"The rows of {shape[0]:,} images with {shape[1]:,} numbers take {size(needed)}, "
            f"and {folder} has room for {size(free)}. Make room, set VGGFEAT_HOME to a folder on "
            "another disk, or ask for fewer scales, layers or nets."
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        for piece in pieces:
            np.asarray(piece, dtype).tofile(file)
        file.flush()
        return np.memmap(file, dtype, "r", shape=shape)


def _refuse_emptied_classes(images: ImageSet, rest: ImageSet) -> None:
    if lost := sorted(set(images.classes) - set(rest.classes)):
        raise DataError(
            f"Without identical images there is none of {', '.join(lost)}: all are under other "
            "labels as well. Correct the labels, or leave out --deduplicate."
        )


def _refuse_lost_classes(images: ImageSet, readable: ImageSet, failed: Mapping[str, str]) -> None:
    first = "; ".join(f"{name}: {reason}" for name, reason in list(failed.items())[:SHOWN])
    if not len(readable):
        raise DataError(f"No image can be read: {first}.")
    if lost := sorted(set(images.labels) - set(readable.labels)):
        raise DataError(
            f"No image of {', '.join(lost)} can be read. Mend or remove the class. {first}."
        )
