"""What came out of localising: drawings, tables, errors, the page."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from vggfeat._io.atomic import make_folder, replacing, write_atomic
from vggfeat.cli.console import grid, note, note_error, show
from vggfeat.data.image import decode
from vggfeat.errors import DataError, ImageError
from vggfeat.features.provenance import versions
from vggfeat.localization.boxes import as_annotated
from vggfeat.localization.evaluate import judge
from vggfeat.localization.predict import locate, windows_of
from vggfeat.report.files import write_localisation
from vggfeat.report.images import draw_boxes, write_jpeg
from vggfeat.report.localisation_page import write_localisation_page
from vggfeat.report.localisation_paper import compares, lacking, papers
from vggfeat.report.tables import render_facts
from vggfeat.report.words import percent
from vggfeat.result import BoxMark

if TYPE_CHECKING:
    from PIL import Image

    from vggfeat.classification.classes import Classes
    from vggfeat.data.image import ImageLike
    from vggfeat.localization.boxed import Boxed
    from vggfeat.localization.data import BoxSet
    from vggfeat.localization.judged import Errors, LocalisationResult
    from vggfeat.localization.labels import StoredLabels
    from vggfeat.localization.outputs import Classifier
    from vggfeat.localization.predict import Localiser, Located, Merging
    from vggfeat.settings import Decoding

SHOWN = 5  # images that are warned of
SIDES = ("xmin", "ymin", "xmax", "ymax")
KEPT = 100  # objects whose windows are kept, for a page to choose from


class Found(NamedTuple):
    """An image's labels with their boxes, or why it has none; where it is drawn."""

    name: str
    labels: list[Located]
    image: Image.Image | None
    reason: str = ""
    drawn: str = ""


def find_boxes(
    name: str,
    image: ImageLike,
    nets: Sequence[Localiser],
    system: Classifier,
    scales: Sequence[Sequence[int]],
    merging: Merging,
    top: int,
    decoding: Decoding,
) -> Found:
    """Find the likeliest objects of an image; of one that cannot be read, say why."""
    try:
        decoded = decode(image, decoding)
        return Found(name, _located(decoded, nets, system, scales, merging, top), decoded)
    except ImageError as error:
        note_error(f"Warning: {name}", error)
        return Found(name, [], None, str(error))


def _located(
    image: Image.Image,
    nets: Sequence[Localiser],
    system: Classifier,
    scales: Sequence[Sequence[int]],
    merging: Merging,
    top: int,
) -> list[Located]:

    said = system.outputs(image, sorted({Q for own in scales for Q in own}))
    windows = windows_of(image, nets, scales, said)
    labels = [k for k in (-said.posteriors).argsort(kind="stable")[:top] if said.posteriors[k] > 0]
    return locate(windows, said.posteriors, image.size, labels=labels, merging=merging)


def write_drawing(found: Found, classes: Classes, target: Path) -> Found:
    """Draw the boxes on a copy of the image, and let the image go."""
    if found.image is None:
        return found
    boxes = [
        BoxMark((left, top, right, bottom), "predicted", classes.names[one.label])
        for one in found.labels
        for left, top, right, bottom in [one.box.tolist()]
    ]
    make_folder(target.parent)
    write_atomic(target, write_jpeg(draw_boxes(found.image, boxes[::-1]), 92))
    return found._replace(image=None, drawn=str(target))


def show_found(found: Sequence[Found], classes: Classes, *, as_json: bool) -> None:
    """Print what was found in each image.

    Raises
    ------
    DataError
        If none could be read, once that is printed.
    """
    _print_found(found, classes, as_json=as_json)
    if all(one.reason for one in found):
        reasons = [f", as {one.name}: {one.reason}" for one in found[:1]]
        raise DataError(
            f"No image could be read, so that there are no boxes{''.join(reasons)}. Name "
            "images that are whole."
        )


def _print_found(found: Sequence[Found], classes: Classes, *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"image": one.name, "error": one.reason}
            if one.reason
            else {
                "image": one.name,
                "drawing": one.drawn,
                "labels": [_row(label, classes) for label in one.labels],
            }
            for one in found
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    lines: list[list[object]] = [
        [
            one.name,
            row["class"],
            f"{row['posterior']:.2f}",
            ", ".join(f"{row[side]:.0f}" for side in SIDES),
            row["windows"],
        ]
        for one in found
        for row in (_row(label, classes) for label in one.labels)
    ]
    headings = ["image", "class", "posterior", "xmin, ymin, xmax, ymax", "windows"]
    if drawn := {str(Path(one.drawn).parent) for one in found if one.drawn}:
        told = render_facts({"drawn in": ", ".join(sorted(drawn))})
        show({}, grid(headings, lines), told, as_json=False)


def write_table(target: Path, found: Sequence[Found], classes: Classes) -> None:
    """Write a row for each label of each image."""
    columns = ("image", "class", "key", "posterior", "score", "windows", *SIDES, "error")
    make_folder(target.parent)  # where no image could be drawn, nobody has made it
    with (
        replacing(target) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for one in found:
            if one.reason:
                writer.writerow({"image": one.name, "error": one.reason})
            for label in one.labels:
                writer.writerow({"image": one.name, **_row(label, classes)})


def _row(one: Located, classes: Classes) -> dict[str, Any]:
    return {
        "class": classes.names[one.label],
        "key": classes.keys[one.label],
        "posterior": one.posterior,
        "score": one.score,
        "windows": one.windows,
        **dict(zip(SIDES, as_annotated(one.box), strict=True)),
    }


class PlannedTest(NamedTuple):
    """A test of localisation: on what, with what, and how."""

    data: BoxSet
    nets: Sequence[Localiser]
    system: Classifier | None
    classifier: str
    scales: Sequence[Sequence[int]]
    merging: Merging
    limit: int | None
    labels: StoredLabels | None = None

    def run(
        self, progress: Callable[[int, int], None] | None, *, drawn: bool = False
    ) -> LocalisationResult:
        """Run it; where it is to be drawn, with the windows of some objects."""
        tested = self.tested
        return judge(
            tested,
            self.data.classes,
            self.nets,
            classifier=self.system,
            labels=self.labels,
            scales=self.scales,
            merging=self.merging,
            keep=spread(tested.part.labels.tolist(), KEPT) if drawn else (),
            settings=self.settings(),
            progress=progress,
        )

    @property
    def tested(self) -> Boxed:
        """The test part, as far as it is wanted."""
        every = self.data.test
        return every if self.limit is None else every.take(range(min(self.limit, len(every))))

    def settings(self) -> dict[str, Any]:
        """Say how it is tested, as plain JSON types."""
        scales = [list(own) for own in self.scales]
        return {
            "data": self.data.source,
            "part": self.data.tested,
            "nets": [
                {
                    "net": net.extractor.extraction.net,
                    "regression": net.regression,
                    "S": net.S,
                    "Q": own,
                    "weights": net.extractor.weights.sha256,
                    "precision": net.extractor.extraction.precision,
                }
                for net, own in zip(self.nets, scales, strict=True)
            ],
            "classifier": self.classifier or None,
            "merging": asdict(self.merging),
            "objects": len(self.data.test),
            "limit": self.limit,
            "left_out": dict(self.data.left_out),
        }


def spread(labels: Sequence[int], most: int) -> set[int]:
    """Choose rows of as many classes as can be: of each its first one, then its second, ….

    Examples
    --------
    >>> sorted(spread([0, 0, 0, 1, 2, 2], 4))
    [0, 1, 3, 4]
    """
    seen: dict[int, int] = {}
    turns = []
    for row, label in enumerate(labels):
        turns.append((seen.get(label, 0), row))
        seen[label] = turns[-1][0] + 1
    ordered = [row for _, row in sorted(turns)]
    first = ordered[: len(seen)]
    if len(first) > most:  # spread over the classes
        return {first[k * len(first) // most] for k in range(most)}
    return set(ordered[:most])


def show_errors(result: LocalisationResult, *, as_json: bool) -> None:
    """Print errors by class, and the paper's where they are of the same images."""

    def cells(name: str, e: Errors) -> list[object]:
        shown = (e.central, e.top1, e.top5, e.box, e.single) if result.dense else (e.central,)
        return [name, *map(percent, shown), e.of]

    dense = ["top-1 %", f"top-{result.top} %", "box %", "single window %"]
    headings = ["class", "central %", *(dense if result.dense else []), "objects"]
    rows = [cells(name, result.errors(c)) for c, name in enumerate(result.names)]
    rows.append(cells("all", result.errors()))
    told = {
        "part": result.settings["part"],
        "error": "intersection over union with every true box 0.5 or less",
        "central": "protocol 1: the true class's box from the central crop",
    }
    if result.dense:
        told["top-1"] = "protocol 2: labels of the classification system, boxes merged"
        told["box"] = "the same boxes, the class being given; single window: without merging"
    if reasons := lacking(result):
        told["partial"] = "; ".join(reasons)
    if compares(result):
        for table in dict.fromkeys(row.table for row in papers(result)):
            shown = [f"{row.error} ({row.name})" for row in papers(result) if row.table == table]
            told[f"{table}, %"] = ", ".join(shown)
    # Of 50,000 images the rows would take a while to write, for nobody.
    plain = result.to_dict() if as_json else {}
    show(plain, grid(headings, rows), render_facts(told), as_json=as_json)
    for name, reason in list(result.failed.items())[:SHOWN]:
        note(f"Warning: {name} could not be used and was left out: {reason}")
    if len(result.failed) > SHOWN:
        note(f"Warning: {len(result.failed) - SHOWN:,} more images were left out.")


def write_test(planned: PlannedTest, result: LocalisationResult, target: Path) -> None:
    """Write the page, and the figures into a folder beside it."""
    tested, engine = planned.tested, versions(planned.nets[0].extractor)
    rows = {name: rows[0] for name, rows in tested.images()}
    how = planned.settings()
    nets = [
        f"{one['net']}, S = {one['S']}, {one['regression'].upper()}, "
        f"Q = {', '.join(map(str, one['Q']))}"
        for one in how["nets"]
    ]
    write_localisation_page(
        result,
        target,
        lambda name: tested.open(rows[name]),
        title=f"Localisation, {planned.data.source}",
        run={
            "part": how["part"],
            "nets": " & ".join(nets),
            "classification": planned.classifier or "none: the class is given",
            "merging": f"{planned.merging.match}, {planned.merging.average}",
            "classes": len(result.classes),
        },
        provenance={
            "weights": ", ".join(one["weights"][:12] for one in how["nets"]),
            "versions": ", ".join(f"{name} {number}" for name, number in engine.items()),
        },
    )
    write_localisation(target.with_suffix(""), result)
