"""The evidence maps of a page: which it wants, and what it says of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from vggfeat.attribution import explain
from vggfeat.data.image import ImageLike, decode
from vggfeat.errors import ImageError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.report.images import describe_exactness, describe_sum, draw_map, strength, write_jpeg
from vggfeat.report.words import Result
from vggfeat.svm.model import SavedModel
from vggfeat.svm.results import SVMResult
from vggfeat.svm.voc_results import APResult

WIDTH = 440  # pixels of a map: shown at half that, so that it is crisp on dense screens
MOST = 24


class Wanted(NamedTuple):
    """Row of an image and a class; ``truth`` is what the image is, if that is not the class."""

    row: int
    label: str
    truth: str = ""


class EvidenceMap(NamedTuple):
    """A map for the page: its drawing, what it adds up to, whether it is exact, and a mistake."""

    jpeg: bytes
    told: str
    exact: str
    truth: str = ""


Evidence = Mapping[tuple[str, str], EvidenceMap]
"""Maps by an image's name and a class."""


def evidence_wanted(result: Result, most: int = MOST) -> list[Wanted]:
    """List the maps that the page of a result shows.

    Parameters
    ----------
    result : SVMResult or APResult
        What was measured.
    most : int
        The first images of the classes come before the clearest mistakes.

    Returns
    -------
    list of Wanted
        For each class the image of highest score that truly has it, and its worst mistake. Of
        random splits those of the first, whose classifier should explain them.

    Examples
    --------
    >>> import numpy as np
    >>> from vggfeat.svm.protocols import evaluate, random_splits
    >>> X, labels = np.repeat(np.eye(2), 8, axis=0), np.repeat([0, 1], 8)
    >>> len(evidence_wanted(evaluate(X, labels, ["cat", "dog"], random_splits(labels))))
    2
    """
    if isinstance(result, SVMResult):
        first, mistakes = _wanted_of_recalls(result)
    else:
        first, mistakes = _wanted_of_precisions(result)
    return [*first, *mistakes][:most]


def evidence_maps(
    model: SavedModel,
    wanted: Sequence[Wanted],
    names: Sequence[str],
    images: Mapping[str, ImageLike],
    extractors: Sequence[DenseExtractor],
    progress: Callable[[int, int], None] | None = None,
) -> dict[tuple[str, str], EvidenceMap]:
    """Explain the images that a page wants.

    Parameters
    ----------
    model : SavedModel
        The classifier that was tested.
    wanted : sequence of Wanted
        As from :func:`evidence_wanted`.
    names : sequence of str
        Name of each row's image.
    images : mapping of name to image
        Where they lie; one that is gone has no map.
    extractors : sequence of DenseExtractor
        As from :func:`~vggfeat.experiments.predict.model_extractors`.
    progress : callable, optional
        Called with maps done and all maps.

    Returns
    -------
    dict
        For image and class, as :func:`~vggfeat.report.svm_page.write_page` takes it.
    """
    found: dict[tuple[str, str], EvidenceMap] = {}
    for done, one in enumerate(wanted, 1):
        name = names[one.row]
        with suppress(ImageError):  # the page shows a lost image by its name
            found[name, one.label] = _map(model, images[name], one, extractors)
        if progress is not None:
            progress(done, len(wanted))
    return found


def _map(
    model: SavedModel, image: ImageLike, wanted: Wanted, extractors: Sequence[DenseExtractor]
) -> EvidenceMap:
    decoded = decode(image, extractors[0].extraction)
    found = explain(model, decoded, extractors, [wanted.label])
    text = (
        f"{describe_sum(found, 0)}; colours to ±{strength(found, 0):.2g} for each 1 % of the image"
    )
    jpeg = write_jpeg(draw_map(decoded, found, 0, WIDTH))
    return EvidenceMap(jpeg, text, describe_exactness(found), wanted.truth)


def _wanted_of_recalls(result: SVMResult) -> tuple[list[Wanted], list[Wanted]]:
    split, names = result.splits[0], result.class_names
    first = [
        Wanted(next(one.row for one in ranked if one.true == c), names[c])
        for c, ranked in enumerate(split.ranked)
        if any(one.true == c for one in ranked)
    ]
    clearest: dict[int, Wanted] = {}
    for one in sorted(split.mistakes, key=lambda one: -one.margin):
        mistake = Wanted(one.row, names[one.predicted], names[one.true])
        clearest.setdefault(one.predicted, mistake)
    return first, list(clearest.values())


def _wanted_of_precisions(result: APResult) -> tuple[list[Wanted], list[Wanted]]:
    lists, names = result.rankings, result.class_names
    right = 1 if result.tested else 0  # without labels nothing is known to be right
    first = [
        Wanted(next(one.row for one in ranked if one.truth == right), names[c])
        for c, ranked in enumerate(lists.ranked)
        if any(one.truth == right for one in ranked)
    ]
    worst = sorted((of[0].rank, c, of[0].row) for c, of in enumerate(lists.worst) if of)
    mistakes = [
        Wanted(row, names[c], ", ".join(result.labels(row)) or "none of the classes")
        for _, c, row in worst
    ]
    return first, mistakes
