"""Classification (Section 3.2): which posteriors make a result, and how often it is wrong.

In the paper's order the map of class scores is averaged over locations, then comes the soft-max;
then image and mirror image are averaged, then scales, modes and nets. All after the soft-max are
means of posteriors, whose order does not matter.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.assets import home
from vggfeat._io.atomic import make_folder, write_atomic
from vggfeat.classification.classes import Classes, classes_of
from vggfeat.classification.scores import Floats, Scores
from vggfeat.data.imageset import ImageSet
from vggfeat.data.partition import WHOLE, Partition
from vggfeat.errors import DataError, ParameterError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import Progress, Summary, extract
from vggfeat.features.pooling import MOST_CROPS
from vggfeat.store.store import FeatureStore

MODES = ("dense", "multicrop", "both")
LOCATIONS = ("scores", "posteriors")
TOP = 5

Ints = NDArray[np.int64]


def pools_of(mode: str = "dense", locations: str = "scores", grid: int = 5) -> tuple[str, ...]:
    """Name the poolings of fc8 that a mode of evaluation averages.

    Parameters
    ----------
    mode : {"dense", "multicrop", "both"}
        The network over the whole image, over a grid of crops, or the mean of both (Table 5).
    locations : {"scores", "posteriors"}
        What of the dense map is averaged over locations: class scores, as the paper has it, or
        posteriors.
    grid : int
        Crops along each side; the paper's 5 make, with mirror images and three scales, 150.

    Raises
    ------
    ParameterError
        For what is none of these.

    Examples
    --------
    >>> pools_of("both"), pools_of("multicrop", grid=3)
    (('softmax', 'crops5'), ('crops3',))
    """
    if mode not in MODES:
        raise ParameterError.not_one_of("mode", "classify", MODES, mode)
    if locations not in LOCATIONS:
        raise ParameterError.not_one_of("locations", "classify", LOCATIONS, locations)
    if not 1 <= grid <= MOST_CROPS:
        raise ParameterError.of("grid", "classify", f"an int from 1 to {MOST_CROPS}", grid)
    dense = "softmax" if locations == "scores" else "posteriors"
    return {"dense": (dense,), "multicrop": (f"crops{grid}",), "both": (dense, f"crops{grid}")}[
        mode
    ]


def mode_of(pools: Sequence[str]) -> str:
    """Name the paper's mode of evaluation that averages these poolings; empty if none does.

    Examples
    --------
    >>> mode_of(("softmax", "crops5")), mode_of(("posteriors",))
    ('both', '')
    """
    found = [mode for mode in MODES if set(pools_of(mode)) == set(pools)]
    return found[0] if found else ""


def default_store(extractor: DenseExtractor) -> Path:
    """Folder below the cache in which the scores of a net are kept, of whatever images."""
    return home() / "scores" / extractor.cache_key


def score(
    images: ImageSet,
    extractor: DenseExtractor,
    scales: Sequence[int],
    folder: Path | None = None,
    *,
    shard: Partition = WHOLE,
    on_bad_image: str = "skip",
    workers: int | None = None,
    progress: Progress | None = None,
    extract: Callable[..., Summary] = extract,
) -> tuple[list[Scores], Summary]:
    """Run a net over images, and keep their posteriors; what a store has is not computed again.

    Each pooling is a column of its own, so that to average two modes computes only what neither
    has computed before.

    Parameters
    ----------
    images : ImageSet
    extractor : DenseExtractor
        Of fc8, with poolings as from :func:`pools_of`.
    scales : sequence of int
        Test scales Q.
    folder : Path, optional
        The store; by default one below the cache.
    shard : Partition
        Which share of the images to do. Several processes or machines can do one each, into the
        same folder; the whole is then put together by a last run, which finds all of it there.
    on_bad_image, workers, progress
        As for :func:`~vggfeat.features.pipeline.extract`.
    extract : callable
        What computes, as :func:`~vggfeat.features.pipeline.extract` does.

    Returns
    -------
    scores, summary
        Of each pooling its scores, and what was done in all.

    Raises
    ------
    WeightsError
        If nothing says what the outputs of the net are called.
    """
    images = images if shard == WHOLE else images.take(shard.rows(len(images)))
    outputs = classes_of(extractor.weights).keys
    store = FeatureStore(folder or default_store(extractor), "a")
    summary = extract(
        images,
        extractor,
        scales,
        store,
        outputs=outputs,
        on_bad_image=on_bad_image,
        workers=workers,
        share=shard.share,
        progress=progress,
    )
    made, names = extractor.extraction, tuple(images.names)
    return [Scores(store, made.net, (pool,), tuple(scales), names) for pool in made.pools], summary


def top_k(posteriors: Floats, k: int) -> Ints:
    """Return the k likeliest classes (n, k), the likeliest first; of equal ones the first.

    Examples
    --------
    >>> top_k(np.array([[0.1, 0.6, 0.3], [0.4, 0.2, 0.4]]), 2)
    array([[1, 2],
           [0, 2]])
    """
    return np.argsort(-posteriors, axis=1, kind="stable")[:, :k]


def ranks(posteriors: Floats, labels: Ints) -> Ints:
    """Count the classes (n,) that come before the true one, in the order of :func:`top_k`.

    Examples
    --------
    >>> ranks(np.array([[0.1, 0.6, 0.3], [0.4, 0.2, 0.4]]), np.array([2, 2]))
    array([1, 1])
    """
    true = np.take_along_axis(posteriors, labels[:, None], axis=1)
    before = np.arange(posteriors.shape[1]) < labels[:, None]
    found: Ints = ((posteriors > true) | ((posteriors == true) & before)).sum(axis=1)
    return found


@dataclass(frozen=True)
class Errors:
    """How often the true class was not among the likeliest.

    Parameters
    ----------
    tested, wrong1, wrong5 : ndarray (C,) of int64
        Of each class: its images; those whose likeliest class is another; those whose five
        likeliest classes are others.

    Examples
    --------
    >>> errors = errors_of([np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])], np.array([0, 1]), 3)
    >>> errors.top1, errors.top5, errors.images
    (0.5, 0.0, 2)
    """

    tested: Ints
    wrong1: Ints
    wrong5: Ints

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.tested.sum())

    @property
    def top1(self) -> float:
        """Top-1 error, a share from 0 to 1."""
        return float(self.wrong1.sum() / self.tested.sum())

    @property
    def has_top5(self) -> bool:
        """Whether a class can be outside of the five likeliest: the top-5 error says something."""
        return len(self.tested) > TOP

    @property
    def top5(self) -> float:
        """Top-5 error, a share from 0 to 1."""
        return float(self.wrong5.sum() / self.tested.sum())


def errors_of(blocks: Iterable[Floats], labels: Ints, classes: int) -> Errors:
    """Count errors, block by block.

    Parameters
    ----------
    blocks : iterable of ndarray (n, C)
        Posteriors, as from :func:`posteriors`.
    labels : ndarray (N,) of int64
        The true classes of all images.
    classes : int
        C.

    Raises
    ------
    DataError
        If there is no image.
    """
    if not len(labels):
        raise DataError("There is no image to test on.")
    counts = np.zeros((3, classes), np.int64)
    start = 0
    for block in blocks:
        some = labels[start : start + len(block)]
        start += len(block)
        place = ranks(block, some)
        for row, counted in zip(counts, (some, some[place >= 1], some[place >= TOP]), strict=True):
            row += np.bincount(counted, minlength=classes)
    return Errors(*counts)


def write_errors(
    folder: Path, errors: Errors, classes: Classes, about: Mapping[str, Any]
) -> list[Path]:
    """Write ``results.json``, with the errors and all that is behind them, and ``classes.csv``.

    Parameters
    ----------
    folder : Path
        Where to; made if absent.
    errors : Errors
    classes : Classes
    about : mapping
        Data, settings and provenance, as plain JSON types.

    Raises
    ------
    StoreError
        If the disk is full or the folder may not be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["class", "name", "images", "top-1 errors", "top-5 errors"])
    counts = (errors.tested, errors.wrong1, errors.wrong5)
    writer.writerows(zip(classes.keys, classes.names, *counts, strict=True))
    told = {"top1": errors.top1, "top5": errors.top5, "images": errors.images, **about}
    make_folder(folder)
    contents = {
        "results.json": json.dumps(told, indent=1, allow_nan=False) + "\n",
        "classes.csv": text.getvalue(),
    }
    for name, content in contents.items():
        write_atomic(folder / name, content.encode("utf-8", "surrogateescape"))
    return [folder / name for name in contents]
