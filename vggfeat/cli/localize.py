"""``vggfeat localize``: train, predict, evaluate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vggfeat._io.atomic import make_folder, write_atomic
from vggfeat._io.text import counted
from vggfeat.cli import options
from vggfeat.cli.console import (
    Json,
    Quiet,
    count_progress,
    download_progress,
    is_first_process,
    note,
    note_left_out,
    restart_hint,
    show_result,
    warn_of_failures,
)
from vggfeat.cli.explain import places
from vggfeat.cli.targets import (
    check_drawings,
    check_file,
    check_folder,
    check_report,
    check_table,
)
from vggfeat.data.imageset import find_images
from vggfeat.errors import DataError, ParameterError
from vggfeat.report.images import draw_boxes, write_jpeg
from vggfeat.report.page import write_page
from vggfeat.report.tables import write_csv, write_files
from vggfeat.result import Cell, Result
from vggfeat.settings import BoxTraining, Decoding, Execution, Features, Localization, Merging

NOTHING_KEPT = "Nothing is kept: a test is of all its images. --limit makes it shorter."
SCALES = options.typed_options(
    Features,
    "Q",
    Q={"help": "Test scale; repeat for several. Each net's S by default.", "panel": ""},
)

group = typer.Typer(
    name="localize",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Find where objects are: train, use and test a net that predicts boxes (Appendix A).",
)


@group.command("train")
@options.with_options(
    training=options.model_options(
        BoxTraining,
        *("net", "S", "freeze", "batch", "learning_rate", "momentum", "weight_decay", "dropout"),
        *("epochs", "patience", "colour_shift", "seed", "exif"),
    ),
    localization=options.model_options(Localization),
    execution=options.model_options(Execution, *options.NETWORK),
)
def train_command(
    *,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="A year of VOC (VOCdevkit/VOC2007), ILSVRC's folder, or sample-voc.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    init: Annotated[
        str,
        typer.Option(
            "--init",
            help="The classification net to begin from: a file, best of the same S; authors, "
            "torchvision; or embedded, whose fc6 and fc7 are drawn.",
            rich_help_panel=options.PANELS[BoxTraining],
        ),
    ] = "embedded",
    training: BoxTraining,
    localization: Localization,
    classes: options.OnlyClasses = None,
    boxes: options.Boxes = None,
    resume: options.Resume = False,
    tensorboard: options.TensorBoard = False,
    execution: Execution,
    workers: options.DecodingProcesses = 2,
    micro: options.Micro = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a net whose last layer predicts a box, from a classification net.

    The crops, the mirror images and the schedule are those of `vggfeat train`; the loss is the
    squared distance of the box, and what is judged by is its mean intersection over union with the
    true one, of validation images.

    For example:

        vggfeat localize train --data VOCdevkit/VOC2007 --freeze conv --out runs/boxes

        vggfeat localize train --data sample-voc --class bird --class boat --out runs/two

        vggfeat localize train --data ILSVRC2012 --init runs/d-256/best.safetensors --out runs/d-box
    """
    from vggfeat.cli.training import (
        boxset_of,
        open_trainer,
        show_trained,
        starting_weights,
        warn_of_scale,
    )
    from vggfeat.experiments import localization as work

    typed = training.model_fields_set
    check_folder("--out", out)
    net = work.choose_net(init, training, typed)
    trainer = open_trainer(
        execution,
        workers,
        micro,
        compiled=False,
        quiet=quiet,
        tensorboard=tensorboard,
        resume_hint="the same command with --resume",
    )
    boxset = boxset_of(data, classes, boxes, training, quiet=quiet)
    settings = work.complete_training(training.but(net=net), len(boxset.train), typed)
    classifying = starting_weights(init, net, "fc7", quiet)
    warn_of_scale(classifying, training.S)
    start = work.begin_training(boxset, classifying, settings, localization, execution.device)
    done = trainer(
        settings, boxset.trainset, out, weights=start.weights, resume=resume, task=start.task
    )
    if is_first_process():
        show_trained(trainer, done, as_json=as_json)
        warn_of_failures(done.failed)


@group.command("predict")
@options.with_options(
    scales=SCALES,
    decoding=options.model_options(Decoding),
    merging=options.model_options(Merging),
    execution=options.model_options(Execution, *options.NETWORK),
)
def predict_command(
    *,
    sources: options.Images,
    models: options.Models,
    relative_to: options.RelativeTo = None,
    path_column: options.PathColumn = None,
    classifier: options.ClassifierSource = None,
    classes: options.OnlyClasses = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for the copies with boxes, IMAGE.jpg each."),
    ] = Path("boxes"),
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="Labels of an image, with --classifier; 1 by default."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Write labels, scores and boxes.")
    ] = None,
    scales: options.Typed,
    decoding: Decoding,
    merging: Merging,
    execution: Execution,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find where the objects of images are, and draw their boxes on copies.

    Labels are those of a classification system (--classifier), or all classes that the images
    are known to show (--class). Boxes are in pixels from 1 on, ends included.

    For example:

        vggfeat localize predict photos/ --model runs/boxes --classifier model.safetensors

        vggfeat localize predict cat.jpg --model runs/boxes --class cat --csv boxes.csv
    """
    from vggfeat.experiments import localization as work

    if classes and top:
        raise ParameterError(
            "--top says nothing to --class: all classes that are named are looked for. Leave out "
            "one of the two."
        )
    check_file("--csv", table, made_by=(out,))
    columns = [column.name for column in work.COLUMNS]
    check_table("--csv", table, columns)
    check_drawings("--out", out, columns)
    images = find_images(sources, relative_to, path_column=path_column)
    note_left_out(images.left_out, quiet=quiet)
    with download_progress(quiet=quiet) as fetching:
        system, labels = work.open_predictor(
            models,
            scales.get("Q", ()),
            execution,
            classifier=classifier,
            classes=classes or (),
            merging=merging,
            tell=partial(note, quiet=quiet),
            progress=fetching,
        )
    rows: list[tuple[Cell, ...]] = []
    done: list[str] = []
    failed = 0

    def write() -> None:
        if table:
            make_folder(table.parent)  # where no image could be drawn, nobody has made it
            write_csv(work.box_table(rows), table)

    with count_progress(
        "localize", quiet=quiet, hint=lambda: restart_hint(done, table, write)
    ) as tell:
        spots = places(images.names, ".jpg")
        localized = work.localize(images, system, labels or top or 1, decoding)
        for image, place in zip(localized, spots, strict=True):
            target = out / place
            if image.image is None:
                note(f"Warning: {image.name}: {image.reason}")
                failed += 1
            else:
                make_folder(target.parent)
                write_atomic(target, write_jpeg(draw_boxes(image.image, image.marks()), 92))
            rows += image.rows(str(target))
            done.append(image.name)
            if tell:
                tell(len(done), len(images))
    write()
    drawn = len(done) - failed
    settings = {"boxes drawn in": str(out)} if drawn else {}
    about = f"{counted(drawn, 'image')} drawn"
    boxes = work.box_table(rows, () if as_json else work.SHOWN)
    show_result(
        Result("localize", "Boxes", (), about, (boxes,), settings=settings),
        as_json=as_json,
        left_out=images.left_out.to_dict(),
    )
    if not drawn:
        reasons = [f", as {row[0]}: {row[-1]}" for row in rows[:1]]
        raise DataError(
            f"No image could be read, so that there are no boxes{''.join(reasons)}. Name "
            "images that are whole."
        )


@group.command("evaluate")
@options.with_options(
    scales=SCALES,
    decoding=options.model_options(Decoding),
    merging=options.model_options(Merging),
    execution=options.model_options(Execution, *options.NETWORK),
)
def evaluate_command(
    *,
    data: Annotated[
        str,
        typer.Option("--data", help="A year of VOC, ILSVRC's folder, or sample-voc."),
    ],
    models: options.Models,
    classifier: options.ClassifierSource = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "--labels",
            help="Scores of the test images whose labels count instead: a store of `vggfeat "
            "classify` or `fuse`, as of several nets and scales. Repeat it to fuse some.",
        ),
    ] = None,
    boxes: options.Boxes = None,
    scales: options.Typed,
    decoding: Decoding,
    merging: Merging,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="So many objects of the test part at most.")
    ] = None,
    report: options.Report = None,
    execution: Execution,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Test localisation as the paper does (Tables 8 to 10): protocol 1, and with labels protocol 2.

    Protocol 1 takes the box of the true class from the central crop. Protocol 2 needs a
    classification system (--classifier): it applies the net densely, merges the boxes of all
    windows and asks whether one of the first five labels is right with a box that is. An object is
    found if the intersection over union with it is more than 0.5. Labels are the classification
    system's, among all classes that it knows, or those of --labels.

    For example:

        vggfeat localize evaluate --data VOCdevkit/VOC2007 --model runs/boxes --report boxes.html

        vggfeat localize evaluate --data VOCdevkit/VOC2007 --model runs/boxes --classifier model

        vggfeat localize evaluate --data ILSVRC2012 --model a --model b@352,384 --classifier c
    """
    from vggfeat.experiments import localization as work

    check_report("--report", report)
    if labels and not classifier:
        raise ParameterError(
            "--labels says what images show. What their windows show, by which boxes are rated, "
            "is the classification system's: name one with --classifier."
        )
    with download_progress(quiet=quiet) as fetching:
        system = work.open_tested(
            models,
            scales.get("Q", ()),
            execution,
            classifier=classifier,
            labels=labels or (),
            merging=merging,
            tell=partial(note, quiet=quiet),
            progress=fetching,
        )
    labels_from = " & ".join(map(str, labels or ())) or classifier or ""
    with download_progress(quiet=quiet) as reading:
        test = work.open_test(
            data, system, labels_from, boxes=boxes or (), decoding=decoding, progress=reading
        )
    warn_of_failures(test.data.left_out)
    with count_progress("localize", quiet=quiet, hint=lambda: NOTHING_KEPT) as tell:
        result = test.evaluate(limit, tell)
    show_result(result, as_json=as_json)
    if report:
        write_page(result, report, test.open_image)
        write_files(result, report.with_suffix(""))
        note(f"Report: {report}", quiet=quiet)
