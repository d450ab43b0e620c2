"""A result as one HTML page that needs nothing but itself: no network, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vggfeat._io.atomic import make_folder, write_atomic
from vggfeat._io.text import printable
from vggfeat.data.image import ImageLike
from vggfeat.report.ap_page import ap_view
from vggfeat.report.recall_page import recall_view
from vggfeat.report.thumbnails import thumbnails
from vggfeat.report.wanted import Evidence
from vggfeat.report.words import (
    Headline,
    Result,
    chosen_C,
    count,
    figure,
    headline,
    percent,
    seconds,
)
from vggfeat.svm.results import SVMResult

PaperFigure = tuple[str, float, float | None]
"""A row of the paper: its features, its figure and the figure's spread, both in percent."""


class PaperRow(NamedTuple):
    """A line of the table that sets a result beside the paper's."""

    name: str
    value: float
    figure: str
    difference: str
    here: bool


def write_page(
    result: Result,
    target: Path,
    images: Mapping[str, ImageLike],
    *,
    title: str,
    run: Mapping[str, object],
    provenance: Mapping[str, object],
    stages: Mapping[str, float] | None = None,
    paper: Sequence[PaperFigure] = (),
    partial: Sequence[str] = (),
    evidence: Evidence | None = None,
    examples: int = 8,
    mistakes: int = 48,
) -> Path:
    """Write the page, whole or not at all.

    Parameters
    ----------
    result : SVMResult or APResult
        What was measured.
    target : Path
        The page; its folder is made.
    images : mapping of name to image
        Where the images lie; one that is absent or cannot be read is shown by its name.
    title : str
        What was classified, for example the data set's name.
    run : mapping
        The settings that a reader asks for first, in order: net, weights, layer, Q, aggregation,
        device, precision.
    provenance : mapping
        The rest: versions, digests, seeds, command.
    stages : mapping of str to float, optional
        Seconds of stages before the classifier, such as extraction.
    paper : sequence of (name, figure, spread or None)
        The paper's figures for this data set, in percent.
    partial : sequence of str
        What is missing or extra where only a part of the data was there; the page then says so
        first of all, and draws no difference to the paper's.
    evidence : mapping of (name, class) to EvidenceMap, optional
        Where in an image the score of a class arises, as from
        :func:`~vggfeat.report.wanted.evidence_maps`; shown beside the class's images.
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
    thumbnail = thumbnails(images)
    maps = evidence or {}
    if isinstance(result, SVMResult):
        view = recall_view(result, thumbnail, examples, mistakes, maps)
    else:
        view = ap_view(result, thumbnail, examples, maps)
    times = {**(stages or {}), **result.seconds}
    told = headline(result)
    context = {
        "title": title,
        "result": result,
        "headline": told,
        "paper": _beside(result, told, paper, bool(partial)),
        "partial": list(partial),
        "run": run,
        "C": chosen_C(result),
        "exact": next((one.exact for one in maps.values()), ""),
        "times": times,
        "longest": max(times.values()),
        "total": sum(times.values()),
        "provenance": {**view.pop("facts"), **provenance},
        **view,
    }
    page = environment().get_template("svm_page.html.j2").render(context)
    make_folder(target.parent)
    write_atomic(target, page.encode())
    return target


def environment() -> Environment:
    """Open the templates, with the filters that all pages use."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files and classes are a stranger's words
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    made.filters.update(percent=percent, seconds=seconds, figure=figure, count=count)
    return made


def _beside(
    result: Result, told: Headline, paper: Sequence[PaperFigure], partial: bool
) -> list[PaperRow]:
    """Set the headline above the paper's figures; only a figure of the same test is compared."""
    if not paper:
        return []
    same = not partial and (isinstance(result, SVMResult) or result.tested)
    here = float(told.mean) if told.mean != percent(float("nan")) else float("nan")
    rows = [PaperRow("This run", here, told.text, "", True)]
    for name, value, spread in paper:
        shown = f"{value:.1f}" if spread is None else f"{value:.1f} ± {spread:.1f}"
        difference = f"{here - value:+.1f}".replace("-", "−") if same else "–"
        rows.append(PaperRow(name, value, shown, difference, False))
    return rows
