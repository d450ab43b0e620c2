"""A result as one HTML page that needs nothing but itself: no network, no script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vggfeat.features.files import refusals, write_whole
from vggfeat.learn.results import SVMResult
from vggfeat.report.figures import Thumbnail, thumbnails, validation_curve
from vggfeat.report.words import chosen_C, figure, headline, percent, printable, seconds

TABLE_CLASSES = 30  # up to so many, the confusion matrix is a table of figures; above, a map


class Shown(NamedTuple):
    """A thumbnail with what is said about it."""

    name: str
    image: str | None
    true: str
    predicted: str
    wrong: bool
    figure: str


class ClassRow(NamedTuple):
    """A line of the per-class table."""

    name: str
    recall: float
    spread: float
    pictures: int
    taken_for: str


class PairShown(NamedTuple):
    """Two classes taken for each other, with examples."""

    true: str
    predicted: str
    pictures: int
    of: int
    examples: list[Shown]


def write_page(
    result: SVMResult,
    target: Path,
    pictures: Mapping[str, Path],
    *,
    title: str,
    run: Mapping[str, object],
    provenance: Mapping[str, object],
    stages: Mapping[str, float] | None = None,
    examples: int = 8,
    mistakes: int = 48,
) -> Path:
    """Write the page, whole or not at all.

    Parameters
    ----------
    result : SVMResult
        What was measured.
    target : Path
        The page; its folder is made.
    pictures : mapping of name to path
        Where the pictures lie; one that is absent or cannot be read is shown by its name.
    title : str
        What was classified, for example the data set's name.
    run : mapping
        The settings that a reader asks for first, in order: net, weights, layer, Q, aggregation,
        device, precision.
    provenance : mapping
        The rest: versions, digests, seeds, command.
    stages : mapping of str to float, optional
        Seconds of stages before the classifier, such as extraction.
    examples : int
        Most thumbnails for a class.
    mistakes : int
        Most thumbnails in the gallery of mistakes.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    StoreError
        If the disk is full or the folder may not be written.
    """
    page = render(
        result,
        pictures,
        title=title,
        run=run,
        provenance=provenance,
        stages=stages or {},
        examples=examples,
        mistakes=mistakes,
    )
    with refusals(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, page.encode())
    return target


def render(
    result: SVMResult,
    pictures: Mapping[str, Path],
    *,
    title: str,
    run: Mapping[str, object],
    provenance: Mapping[str, object],
    stages: Mapping[str, float],
    examples: int,
    mistakes: int,
) -> str:
    """Make the text of the page; the parameters are those of :func:`write_page`."""
    thumbnail = thumbnails(pictures)
    everything = result.mistakes()
    times = {**stages, **result.seconds}
    return (
        _environment()
        .get_template("template.html.j2")
        .render(
            title=title,
            result=result,
            headline=headline(result),
            run=run,
            C=chosen_C(result),
            classes=_classes(result),
            confusion=result.confusion,
            as_table=len(result.class_names) <= TABLE_CLASSES,
            pairs=_pairs(result, thumbnail),
            curve=validation_curve(result),
            ranked=_ranked(result, thumbnail, examples),
            mistakes=[_mistake(result, one, thumbnail) for one in everything[:mistakes]],
            n_mistakes=len(everything),
            times=times,
            longest=max(times.values()),
            total=sum(times.values()),
            provenance=provenance,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files and classes are a stranger's words
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters.update(percent=percent, seconds=seconds, figure=figure)
    return environment


def _classes(result: SVMResult) -> list[ClassRow]:
    confusion = result.confusion
    recalls = np.array([split.recalls for split in result.splits])
    wrong = confusion - np.diag(confusion.diagonal())
    several = len(result.splits) > 1
    spreads = recalls.std(axis=0, ddof=1) if several else np.full(len(wrong), np.nan)
    return [
        ClassRow(
            name,
            float(result.recalls[c]),
            float(spreads[c]),
            int(confusion[c].sum()),
            result.class_names[wrong[c].argmax()] if wrong[c].any() else "",
        )
        for c, name in enumerate(result.class_names)
    ]


def _pairs(result: SVMResult, thumbnail: Thumbnail, most: int = 6) -> list[PairShown]:
    found = result.mistakes()
    pairs = []
    for pair in result.most_confused(most):
        alike = [one for one in found if (one.true, one.predicted) == (pair.true, pair.predicted)]
        pairs.append(
            PairShown(
                result.class_names[pair.true],
                result.class_names[pair.predicted],
                pair.pictures,
                pair.of,
                [_mistake(result, one, thumbnail) for one in alike[:4]],
            )
        )
    return pairs


def _ranked(result: SVMResult, thumbnail: Thumbnail, most: int) -> list[list[Shown]]:
    """Show the first split's: scores of different classifiers have no common order."""
    rows = []
    for c, best in enumerate(result.splits[0].ranked):
        shown = []
        for one in best[:most]:
            name, true = result.names[one.row], result.class_names[one.true]
            wrong = one.true != c
            image = thumbnail(name)
            shown.append(Shown(name, image, true, "", wrong, f"{one.score:+.2f}"))
        rows.append(shown)
    return rows


def _mistake(result: SVMResult, one: Any, thumbnail: Thumbnail) -> Shown:
    name = result.names[one.row]
    true, predicted = result.class_names[one.true], result.class_names[one.predicted]
    return Shown(name, thumbnail(name), true, predicted, True, f"{one.margin:.2f}")
