"""What a run looks like: on the terminal, as a page, and beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vggfeat.cli.console import count_progress, grid, note, show
from vggfeat.errors import VggfeatError, WeightsNotFound
from vggfeat.experiments.predict import check_columns
from vggfeat.experiments.submission import lacking, write_submission
from vggfeat.experiments.svm import tested_model
from vggfeat.nets.weights import lacking_source
from vggfeat.report.files import write_results
from vggfeat.report.svm_page import write_page
from vggfeat.report.tables import render_facts
from vggfeat.report.terminal import summary
from vggfeat.report.wanted import evidence_maps, evidence_wanted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vggfeat.cli.working import Work
    from vggfeat.data.datasets.card import DatasetCard, PaperFigure
    from vggfeat.data.image import ImageLike
    from vggfeat.experiments.svm import SVMRun
    from vggfeat.recipes import ResolvedRow
    from vggfeat.report.wanted import Evidence
    from vggfeat.report.words import Headline
    from vggfeat.settings import Features


SHOWN = 5  # unreadable images that are named
ABSENT = 20  # classes without images that are named


def show_run(run: SVMRun, *, as_json: bool) -> None:
    """Print settings, result and times, and warn of images that were left out."""
    stores = ", ".join(map(str, run.stores))
    rows = _settings(run) | {"C": _search(run), "features": stores}
    show(run.to_dict(), render_facts(rows), "", summary(run.result), _times(run), as_json=as_json)
    if run.card.absent:
        names = ", ".join(run.card.absent[:ABSENT])
        more = len(run.card.absent) - ABSENT
        note(
            f"Left out, for there is no image to train with: {names}"
            f"{f' and {more} more classes' if more > 0 else ''}."
        )
    if run.card.partial:
        note(f"This is a part of {run.card.name}: its figures compare with nothing published.")
    for name, reason in list(run.failed.items())[:SHOWN]:
        note(f"Warning: {name} could not be read and was left out: {reason}")
    if len(run.failed) > SHOWN:
        note(f"Warning: so were {len(run.failed) - SHOWN} more; --json names them all.")


def write_report(run: SVMRun, target: Path, work: Work, *, evidence: bool) -> None:
    """Write the page, and its figures beside it."""
    images = dict(zip(run.images.names, run.images.images, strict=True))
    write_page(
        run.result,
        target,
        images,
        title=run.card.title or run.card.name,
        run=_settings(run),
        evidence=_evidence(run, work, images) if evidence else {},
        provenance={
            **{f"net {net}": behind for net, behind in run.provenance.items()},
            "fingerprints": {column.descriptor.path: column.digest for column in run.columns},
            "resampling": run.columns[0].settings["resampling"],
            "decoder": run.columns[0].settings["decoder"],
            "licence of the images": run.card.licence or "yours to say",
        },
        stages={"extract": run.seconds["extract"], "read": run.seconds["read"]},
        paper=[_paper_figure(row) for row in run.card.paper],
        partial=run.card.differences,
    )
    extra = {name: value for name, value in run.to_dict().items() if name != "result"}
    write_results(target.with_suffix(""), run.result, extra)
    note(f"Report: {target}", quiet=work.quiet)


def submit(run: SVMRun, folder: Path) -> None:
    """Write what VOC's evaluation server takes, and warn of what it lacks."""
    written = write_submission(run, folder)
    note(f"Submission: {len(written)} files in {written[0].parent}; pack {folder}/results.")
    if names := lacking(run):
        note(
            f"Warning: the submission is partial: it has no score of {', '.join(names[:3])} and "
            f"{len(names) - 3} others."
            if len(names) > 3
            else f"Warning: the submission is partial: it has no score of {', '.join(names)}."
        )


def _evidence(run: SVMRun, work: Work, images: Mapping[str, ImageLike]) -> Evidence:
    """Draw evidence maps, where the network is here to do so."""
    if "box" in run.features.views:
        return {}
    model = tested_model(run)
    try:
        _refuse_download(run.features, model.nets)
        extractors = [work.network(run.features, net) for net in model.nets]
        for extractor, net in zip(extractors, model.nets, strict=True):
            check_columns(extractor, model.columns_of(net))
        with count_progress("evidence", quiet=work.quiet) as tell:
            wanted = evidence_wanted(run.result)
            return evidence_maps(model, wanted, run.result.names, images, extractors, tell)
    except VggfeatError as error:  # the page is worth having without them
        note(f"No evidence maps: {error}", quiet=work.quiet)
        return {}


def _refuse_download(features: Features, nets: Sequence[str]) -> None:
    """Refuse to fetch weights that nothing was computed with: they are half a gigabyte."""
    for net in nets:
        extraction = features.of(net)
        if source := lacking_source(extraction.weights, net, extraction.layers):
            raise WeightsNotFound(
                f"The features are from a store, and the weights {source.name} of net {net}, which "
                "draw them, are not on this machine. Fetch them, and write the report again: "
                f"vggfeat weights fetch {source.name} --net {net}"
            )


class Outcome(NamedTuple):
    """What became of a row of a recipe: its figure, or none and an exit status."""

    line: ResolvedRow
    told: Headline | None
    plain: dict[str, Any]
    status: int = 0


def comparison(card: DatasetCard, done: Sequence[Outcome], *, same: bool) -> RenderableType:
    """Set the rows of a recipe beside the figures that are expected of them."""
    rows: list[list[object]] = []
    for line, told, _, _ in done:
        expected = line.expected if same else None
        paper = "–" if expected is None else f"{expected:g}"
        if told is None:
            rows.append([line.name, "failed", "–", paper, "–"])
            continue
        comparable = not card.partial and not told.metric.endswith("validation")
        difference = f"{float(told.mean) - expected:+.1f}" if expected and comparable else "–"
        rows.append([line.name, f"{told.text} %", told.metric, paper, difference])
    return grid(["row", "here", "metric", "paper %", "difference"], rows)


def _settings(run: SVMRun) -> dict[str, object]:
    made, behind = run.features, run.provenance
    digests = {column.descriptor.net: column.settings["weights"] for column in run.columns}
    nets = [
        f"net {net}, weights {behind[net]['weights']['source']} ({digest[:12]})"
        for net, digest in digests.items()
    ]
    mirrored = ", averaged with the mirror image" if made.flip else ""
    views = {"image": "", "box": " of the given box"}
    both = " of the whole image and of the given box, stacked"
    view = views[made.views[0]] if len(made.views) == 1 else both
    power = f", power {made.power:g}" if made.power else ""
    resolved = dict.fromkeys(column.descriptor.layer for column in run.columns)
    layers = " + ".join(resolved if len(nets) == 1 else made.layers)
    devices = dict.fromkeys(f"{told['device']}, {told['precision']}" for told in behind.values())
    return {
        "data set": f"{run.card.name}: {len(run.images)} "
        f"{'persons' if run.images.boxes else 'images'}, {_classes(run)}",
        "network": " & ".join(nets),
        "descriptor": f"{layers}{view}, {made.pool} over locations{mirrored}",
        "scales": f"Q = {', '.join(map(str, made.Q))}, {made.aggregate}; "
        f"L2: {made.normalize}{power}; {run.X.shape[1]} dimensions",
        "device": "; ".join(devices),
    }


def _classes(run: SVMRun) -> str:
    every, here = len(run.card.classes), len(run.card.classes) - len(run.card.absent)
    return f"{every} classes" if here == every else f"{here} of {every} classes"


def _search(run: SVMRun) -> str:
    grid, how = run.classifier.C, run.result.settings
    whose: dict[object, str] = {False: ", one for each class", True: ", one for all classes"}
    return (
        f"{grid[0]:g} … {grid[-1]:g} in {len(grid)} steps{whose.get(how.get('shared_C'), '')}, "
        "chosen in the training part"
    )


def _times(run: SVMRun) -> str:
    computed = run.summary.computed
    rate = f"{computed} images, {run.summary.images_per_s:.1f} images/s"
    return (
        f"features: {run.seconds['extract']:.1f} s ({rate if computed else 'all in the store'}); "
        f"choice of C, training and tests: {sum(run.result.seconds.values()):.1f} s"
    )


def _paper_figure(row: PaperFigure) -> tuple[str, float, float | None]:
    who = row.method or f"net {' & '.join(row.nets)}"
    note = f", {row.note}" if row.note else ""
    return f"{who}{note} (Table {row.table})", row.value, row.spread
