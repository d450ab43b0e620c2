"""What a run looks like: on the terminal, as a page, and beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.cli.output import counting, facts, grid, note, show

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vggfeat.cli.working import Work
    from vggfeat.data.schema import DatasetCard, PaperRow
    from vggfeat.recipe import Line
    from vggfeat.report.wanted import Evidence
    from vggfeat.run.pointing import PointingResult
    from vggfeat.run.svm import Run


def show_run(run: Run, *, as_json: bool) -> None:
    """Print settings, result and times, and warn of pictures that were left out."""
    from vggfeat.report.terminal import summary

    stores = ", ".join(map(str, run.stores))
    rows = _settings(run) | {"C": _search(run), "features": stores}
    show(run.to_dict(), facts(rows), "", summary(run.result), _times(run), as_json=as_json)
    if run.failed:
        reasons = " and ".join(str(store / "failed.csv") for store in run.stores)
        note(f"Warning: {len(run.failed)} pictures could not be read and were left out: {reasons}.")


def write_report(run: Run, target: Path, work: Work, *, evidence: bool, pointing: int) -> None:
    """Write the page, and its figures beside it."""
    from vggfeat.report.files import write_results
    from vggfeat.report.page import write_page

    pictures = {
        name: Path(str(picture))
        for name, picture in zip(run.images.names, run.images.pictures, strict=True)
    }
    maps, game = _explained(run, work, pictures, evidence, pointing)
    pointed = {"pointing game": game.line.partition(": ")[2]} if game else {}
    write_page(
        run.result,
        target,
        pictures,
        title=run.card.title or run.card.name,
        run=_settings(run) | pointed,
        evidence=maps,
        provenance={
            **{f"net {net}": behind for net, behind in run.provenance.items()},
            "fingerprints": {one.net: one.fingerprint for one in run.extractions},
            "resampling": run.extractions[0].resampling,
            "decoder": run.extractions[0].decoder,
            "licence of the pictures": run.card.licence or "yours to say",
        },
        stages={"extract": run.seconds["extract"], "read": run.seconds["read"]},
        paper=[_paper_figure(row) for row in run.card.paper],
        partial=run.card.differences,
    )
    extra = {name: value for name, value in run.to_dict().items() if name != "result"}
    extra["pointing"] = game.to_dict() if game else None
    write_results(target.with_suffix(""), run.result, extra)
    note(f"Report: {target}", quiet=work.quiet)


def _explained(
    run: Run, work: Work, pictures: Mapping[str, Path], evidence: bool, pointing: int
) -> tuple[Evidence, PointingResult | None]:
    """Draw evidence maps and play the pointing game, where the network is here to do so."""
    from vggfeat.errors import DataError, WeightsError
    from vggfeat.learn.voc_results import APResult
    from vggfeat.report.wanted import evidence_maps, evidence_wanted
    from vggfeat.run.pointing import pointing_game
    from vggfeat.run.svm import tested_model

    if not evidence or "box" in run.features.views:
        return {}, None
    try:
        extractors = [work.network(run.features, one.net) for one in run.extractions]
    except WeightsError as error:
        note(f"No evidence maps: {error}", quiet=work.quiet)
        return {}, None
    model, result = tested_model(run), run.result
    with counting("evidence", quiet=work.quiet) as tell:
        wanted = evidence_wanted(result)
        maps = evidence_maps(model, wanted, result.names, pictures, extractors, tell)
    if not (pointing and isinstance(result, APResult) and result.tested):
        return maps, None
    try:
        with counting("pointing game", quiet=work.quiet) as tell:
            game = pointing_game(
                model, run.images, Path(run.card.root), extractors, limit=pointing, progress=tell
            )
    except DataError as error:  # a tree without annotations has its result all the same
        note(f"No pointing game: {error}", quiet=work.quiet)
        return maps, None
    note(f"{game.line}, in {game.pictures} test pictures")
    return maps, game


def comparison(
    card: DatasetCard, done: Sequence[tuple[Line, Run]], *, same: bool
) -> RenderableType:
    """Set the rows of a recipe beside the figures that are expected of them."""
    from vggfeat.report.words import headline

    rows: list[list[object]] = []
    for line, run in done:
        told = headline(run.result)
        expected = line.expected if same else None
        comparable = (
            expected is not None and not card.partial and not told.metric.endswith("validation")
        )
        difference = f"{float(told.mean) - expected:+.1f}" if comparable and expected else "–"
        paper = "–" if expected is None else f"{expected:g}"
        rows.append([line.name, f"{told.text} %", told.metric, paper, difference])
    return grid(["row", "here", "metric", "paper %", "difference"], rows)


def _settings(run: Run) -> dict[str, object]:
    made = run.features
    behind = [run.provenance[one.net] for one in run.extractions]
    nets = [
        f"net {one.net}, weights {told['weights']['source']} ({one.weights_sha256[:12]})"
        for one, told in zip(run.extractions, behind, strict=True)
    ]
    mirrored = ", averaged with the mirror image" if made.flip else ""
    views = {"image": "", "box": " of the given box"}
    both = " of the whole image and of the given box, stacked"
    view = views[made.views[0]] if len(made.views) == 1 else both
    power = f", power {made.power:g}" if made.power else ""
    layers = " + ".join(run.extractions[0].layers if len(nets) == 1 else made.layers)
    devices = dict.fromkeys(f"{told['device']}, {told['precision']}" for told in behind)
    return {
        "data set": f"{run.card.name}: {len(run.images)} "
        f"{'persons' if run.images.boxes else 'pictures'}, {len(run.card.classes)} classes",
        "network": " & ".join(nets),
        "descriptor": f"{layers}{view}, {made.pool} over locations{mirrored}",
        "scales": f"Q = {', '.join(map(str, made.Q))}, {made.aggregate}; "
        f"L2: {made.normalize}{power}; {run.X.shape[1]} dimensions",
        "device": "; ".join(devices),
    }


def _search(run: Run) -> str:
    grid, how = run.classifier.grid, run.result.settings
    whose = {"per class": ", one for each class", "one": ", one for all classes"}
    return (
        f"{grid[0]:g} … {grid[-1]:g} in {len(grid)} steps{whose.get(how.get('C', ''), '')}, "
        "chosen in the training part"
    )


def _times(run: Run) -> str:
    computed = run.summary.computed
    rate = f"{computed} pictures, {run.summary.images_per_s:.1f} images/s"
    return (
        f"features: {run.seconds['extract']:.1f} s ({rate if computed else 'all in the store'}); "
        f"choice of C, training and tests: {sum(run.result.seconds.values()):.1f} s"
    )


def _paper_figure(row: PaperRow) -> tuple[str, float, float | None]:
    who = row.method or f"net {' & '.join(row.nets)}"
    note = f", {row.note}" if row.note else ""
    return f"{who}{note} (Table {row.table})", row.value, row.spread
