"""``vggfeat svm`` and ``vggfeat predict``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggfeat.cli import options
from vggfeat.cli.extract import open_extractor
from vggfeat.cli.output import (
    Json,
    Quiet,
    download_progress,
    facts,
    grid,
    note,
    show,
    work_progress,
)

if TYPE_CHECKING:
    from vggfeat.data.schema import PaperRow
    from vggfeat.learn.model import SavedModel
    from vggfeat.run.predict import Prediction
    from vggfeat.run.svm import Run

Best = tuple[str, dict[str, float], str]
"""A picture's name, its best classes with their scores, and why it has none."""


def svm_command(
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            "-d",
            help="A shipped data set (sample), a folder of class folders, or a CSV file with the "
            "columns path and label.",
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Where a data set lies: its tree, or its archives."),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Use data that are not all there, and say so.")
    ] = False,
    net: Annotated[str | None, typer.Option("--net", help="Configuration of Table 1.")] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", help="Layer; repeat for several, stacked.")
    ] = None,
    Q: Annotated[
        list[int] | None, typer.Option("--Q", "-Q", help="Test scale; repeat for several.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="auto, authors, torchvision, embedded, or a file."),
    ] = None,
    aggregate: Annotated[
        str | None, typer.Option("--aggregate", help="Across scales: average, max or stack.")
    ] = None,
    normalize: options.Normalize = "descriptor",
    power: options.Power = None,
    pool: options.Pool = "average",
    flip: options.Flip = True,
    exif: options.Exif = True,
    features: Annotated[
        Path | None,
        typer.Option("--features", help="Folder of the store; in VGGFEAT_HOME by default."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="Write a model for `vggfeat predict`.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write a page, such as report.html; its figures as JSON and CSV go to report/.",
        ),
    ] = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    on_bad_image: options.OnBadImage = "skip",
    workers: options.Workers = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Processes that train; -1 for all.")] = -1,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train and test a linear SVM on the features of a labelled data set.

    Three random splits: half of each class, at most 30 pictures, to train; the rest to test. C is
    chosen by cross-validation in the training part alone. The result is the mean class recall
    and its standard deviation over the splits. Without --net, --layer, --Q, --weights,
    --aggregate and --power those of the data set's card are taken, else the paper's: D, fc7,
    256, average, no power (1 turns a card's power off).

    For example:

        vggfeat svm --dataset sample --report sample.html

        vggfeat svm --dataset my_folder --layer pool5 --Q 256 --Q 384 --save model
    """
    from vggfeat.data.cards import open_dataset
    from vggfeat.features.aggregate import Aggregation
    from vggfeat.run.svm import run_svm

    with download_progress(quiet=quiet) as fetching:
        card, images = open_dataset(dataset, root, allow_partial=allow_partial, progress=fetching)
    if card.partial:
        note(f"Warning: {card.name} is partial: its figures compare with nothing published.")
    wanted = card.defaults
    scales = tuple(Q or wanted.Q)
    aggregation = Aggregation(
        aggregate or wanted.aggregate, normalize, wanted.power if power is None else power
    )
    extractor = open_extractor(
        net or wanted.net,
        layer or list(wanted.layers),
        weights or wanted.weights,
        flip,
        pool,
        aggregation.locations,
        exif,
        device,
        precision,
        quiet,
    )
    with work_progress("extract", quiet=quiet) as work:
        run = run_svm(
            card,
            images,
            extractor,
            scales,
            aggregation,
            store_folder=features,
            on_bad_image=on_bad_image,
            workers=workers,
            n_jobs=jobs,
            progress=work.pictures,
            split_progress=work.splits,
        )
    _show_run(run, as_json)
    if report:
        _write_report(run, report)
        note(f"Report: {report}", quiet=quiet)
    if save:
        _save(run, save, jobs)


def predict_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="What --save wrote.")],
    sources: Annotated[
        list[str],
        typer.Argument(metavar="PICTURES", help="Folders, files, globs or lists."),
    ],
    weights: Annotated[
        str | None, typer.Option("--weights", help="Where the model's weights lie, if they moved.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes to show.")] = 1,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Write names, classes and all scores.")
    ] = None,
    device: options.Device = "auto",
    on_bad_image: options.OnBadImage = "skip",
    workers: options.Workers = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Tell the classes of new pictures with a saved model.

    The network, layer, scales and aggregation are those the model was trained with. A score above
    0 means that the class's own SVM says yes; a picture's class is the one of highest score.

    For example:

        vggfeat predict model new_pictures/ --top 3

        vggfeat predict model new_pictures/ --csv scores.csv
    """
    from vggfeat.data.imagesets import find_pictures
    from vggfeat.features.device import describe_device
    from vggfeat.learn.model import load
    from vggfeat.run.predict import model_extractor, predict

    loaded = load(model)
    images = find_pictures(sources)
    extractor = model_extractor(loaded, device, weights)
    done = extractor.extraction
    note(
        f"Net {done.net}, {', '.join(done.layers)}, Q {', '.join(map(str, loaded.scales))}, "
        f"{done.precision} on {describe_device(extractor.device)}",
        quiet=quiet,
    )
    with work_progress("predict", quiet=quiet) as work, _score_table(table, loaded) as write:
        best: list[Best] = []
        for one in predict(
            loaded,
            images,
            extractor,
            workers=workers,
            on_bad_image=on_bad_image,
            progress=work.pictures,
        ):
            write(one)
            best.append((one.name, _best(loaded, one, top), one.reason))
    _show_predictions(best, top, as_json)


def _show_run(run: Run, as_json: bool) -> None:
    from vggfeat.report.terminal import summary

    rows = _settings(run) | {"features": run.store}
    show(run.to_dict(), facts(rows), "", summary(run.result), _times(run), as_json=as_json)
    if run.summary.failed:
        note(
            f"Warning: {run.summary.failed} pictures could not be read and were left out: "
            f"{run.store / 'failed.csv'}."
        )


def _settings(run: Run) -> dict[str, object]:
    made = run.extraction
    behind = run.provenance
    mirrored = ", averaged with the mirror image" if made.flip else ""
    power = f", power {run.aggregation.power:g}" if run.aggregation.power else ""
    return {
        "data set": f"{run.card.name}: {len(run.images)} pictures, {len(run.card.classes)} classes",
        "network": f"net {made.net}, weights {behind['weights']['source']} "
        f"({made.weights_sha256[:12]})",
        "descriptor": f"{' + '.join(made.layers)}, {made.pool} over locations{mirrored}",
        "scales": f"Q = {', '.join(map(str, run.scales))}, {run.aggregation.how}; "
        f"L2: {run.aggregation.normalize}{power}; {run.X.shape[1]} dimensions",
        "device": f"{behind['device']}, {made.precision}",
    }


def _times(run: Run) -> str:
    computed = run.summary.computed
    rate = f"{computed} pictures, {run.summary.images_per_s:.1f} images/s"
    return (
        f"features: {run.seconds['extract']:.1f} s ({rate if computed else 'all in the store'}); "
        f"choice of C, training and tests: {sum(run.result.seconds.values()):.1f} s"
    )


def _write_report(run: Run, target: Path) -> None:
    from vggfeat.report.files import write_results
    from vggfeat.report.page import write_page

    pictures = {
        name: Path(str(picture))
        for name, picture in zip(run.images.names, run.images.pictures, strict=True)
    }
    made = run.extraction
    write_page(
        run.result,
        target,
        pictures,
        title=run.card.title or run.card.name,
        run=_settings(run),
        provenance={
            "weights": run.provenance["weights"],
            "fingerprint": made.fingerprint,
            "resampling": made.resampling,
            "decoder": made.decoder,
            "versions": run.provenance["versions"],
            "licence of the pictures": run.card.licence or "yours to say",
            "made": run.provenance["made"],
        },
        stages={"extract": run.seconds["extract"], "read": run.seconds["read"]},
        paper=[_paper_figure(row) for row in run.card.paper],
        partial=run.card.differences,
    )
    extra = {name: value for name, value in run.to_dict().items() if name != "result"}
    write_results(target.with_suffix(""), run.result, extra)


def _paper_figure(row: PaperRow) -> tuple[str, float, float | None]:
    who = row.method or f"net {' & '.join(row.nets)}"
    note = f", {row.note}" if row.note else ""
    return f"{who}{note} (Table {row.table})", row.value, row.spread


def _save(run: Run, path: Path, jobs: int) -> None:
    from vggfeat.learn.model import save
    from vggfeat.run.svm import final_model

    model = final_model(run, jobs)
    chosen = ", ".join(f"{C:g}" for C in model.C)
    written = save(path, model)
    note(f"Model: {written}, trained on all {len(run.images)} pictures with C = {chosen}.")


def _best(model: SavedModel, one: Prediction, top: int) -> dict[str, float]:
    if one.scores is None:
        return {}
    order = one.scores.argsort()[::-1][:top]
    return {model.classes[c]: float(one.scores[c]) for c in order}


def _show_predictions(best: list[Best], top: int, as_json: bool) -> None:
    if as_json:
        rows = [
            {"picture": name, "error": reason} if reason else {"picture": name, "classes": classes}
            for name, classes, reason in best
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    shown = max((len(classes) for _, classes, _ in best), default=top)
    headings = ["picture", *["class", "score"] * shown]
    lines: list[list[object]] = [
        [name, *(cell for label, score in classes.items() for cell in (label, f"{score:+.2f}"))]
        for name, classes, reason in best
        if not reason
    ]
    show({}, grid(headings, lines), as_json=False)
    for name, _, reason in best:
        if reason:
            note(f"Warning: {name}: {reason}")


@contextmanager
def _score_table(
    target: Path | None, model: SavedModel
) -> Iterator[Callable[[Prediction], object]]:
    """Open the CSV of all scores before anything is computed; it is there whole or not at all."""
    if target is None:
        yield lambda one: None
        return
    from vggfeat.features.files import replacing

    with (
        replacing(target) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["name", "class", *model.classes, "error"])

        def write(one: Prediction) -> None:
            scores = [""] * len(model.classes) if one.scores is None else one.scores
            writer.writerow([one.name, *(_best(model, one, 1) or [""]), *scores, one.reason])

        yield write
