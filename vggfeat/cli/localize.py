"""``vggfeat localize``: train, predict, evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from safetensors import SafetensorError, safe_open

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
    note_error,
    restart_hint,
    show_result,
    warn_of_failures,
)
from vggfeat.cli.explain import places
from vggfeat.cli.targets import check_file, check_folder
from vggfeat.data.imageset import find_images
from vggfeat.errors import DataError, ImageError, ParameterError
from vggfeat.nets.config import layers_of
from vggfeat.nets.formats import read
from vggfeat.nets.registry import NAMES
from vggfeat.recipes import BEST
from vggfeat.result import BoxMark, Cell, Result, Table, TableColumn
from vggfeat.settings import BoxTraining, Decoding, Execution, Localization, Merging

if TYPE_CHECKING:
    from vggfeat.classification.classes import Classes
    from vggfeat.localization.classifiers import Classifier
    from vggfeat.localization.predict import Detection, Localizer

WAITED = 50  # updates
NOTHING_KEPT = "Nothing is kept: a test is of all its images. --limit makes it shorter."
OnlyClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--class", help="Only this class; repeat for several.", rich_help_panel=options.DATA
    ),
]
Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        help="A run of `vggfeat localize train`, or its best.safetensors; MODEL@352,384 for test "
        "scales of its own. Repeat it: the boxes of several nets are united.",
    ),
]
ClassifierOption = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        help="The classification system: what `vggfeat svm --save` wrote, a run of `vggfeat "
        "train`, or weights with fc8 (a file, authors, torchvision).",
    ),
]
Scales = Annotated[
    list[int] | None,
    typer.Option(
        "--Q", "-Q", min=1, help="Test scale; repeat for several. Each net's S by default."
    ),
]
COLUMNS = (
    TableColumn("image", "Image"),
    TableColumn("class", "Class"),
    TableColumn("key", "Key"),
    TableColumn("posterior", "Posterior", "number"),
    TableColumn("score", "Score", "number"),
    TableColumn("windows", "Windows", "int"),
    *(TableColumn(edge, edge, "number") for edge in ("xmin", "ymin", "xmax", "ymax")),
    TableColumn("drawing", "Drawing"),
    TableColumn("error", "Error"),
)
SHOWN = ("image", "class", "posterior", "xmin", "ymin", "xmax", "ymax")
"""Columns that fit a terminal."""

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
    classes: OnlyClasses = None,
    boxes: options.Boxes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
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
        engine_of,
        show_trained,
        starting_weights,
        warn_of_scale,
    )
    from vggfeat.cli.watching import MonitoredTrainer
    from vggfeat.localization.training import BoxRegression, init_from_classifier
    from vggfeat.train.distributed import world_size

    typed = training.model_fields_set
    check_folder("--out", out)
    settings = training.but(net=_net(init, training.net if "net" in typed else None))
    engine = engine_of(execution, workers, micro, False)
    trainer = MonitoredTrainer(engine, quiet, tensorboard, "the same command with --resume")
    found = boxset_of(data, classes, boxes, settings, quiet=quiet)
    if "batch" not in typed:
        settings = settings.but(batch=max(world_size(), _batch_of(len(found.train))))
    if "patience" not in typed:
        settings = settings.but(patience=_patience_of(len(found.train), settings.batch))
    task = BoxRegression.on(found, localization.regression, training.S, localization.visible)
    classifying = starting_weights(init, settings.net, "fc7", quiet)
    warn_of_scale(classifying, training.S)
    weights = init_from_classifier(
        classifying,
        task,
        balanced=localization.balanced,
        seed=settings.seed,
        device=execution.device,
    )
    done = trainer(settings, found.trainset, out, weights=weights, resume=resume, task=task)
    if is_first_process():
        show_trained(trainer, done, as_json=as_json)
        warn_of_failures(done.failed)


@group.command("predict")
@options.with_options(
    decoding=options.model_options(Decoding),
    merging=options.model_options(Merging),
    execution=options.model_options(Execution, *options.NETWORK),
)
def predict_command(
    *,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES", help="What `vggfeat extract` takes."),
    ],
    models: Models,
    relative_to: options.RelativeTo = None,
    classifier: ClassifierOption = None,
    classes: OnlyClasses = None,
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
    Q: Scales = None,
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
    from vggfeat.classification.classes import chosen, named
    from vggfeat.data.image import decode
    from vggfeat.localization.classifiers import ConstantClassifier
    from vggfeat.localization.predict import LocalizationSystem
    from vggfeat.report.tables import write_csv

    if classes and top:
        raise ParameterError(
            "--top says nothing to --class: all classes that are named are looked for. Leave out "
            "one of the two."
        )
    check_folder("--out", out)
    check_file("--csv", table, made_by=(out,))
    images = find_images(sources, relative_to)
    nets, scales = _open_nets(models, Q, execution)
    keys = nets[0].classes
    wanted = chosen(classes or (), keys, "localize predict")
    if bool(classifier) == bool(classes):
        raise ParameterError(
            "Localising needs labels: either those of a classification system, --classifier MODEL, "
            f"or the class that all images show, --class {named(keys).names[0]!r}."
        )
    system_of_labels: Classifier = ConstantClassifier(keys, [keys.index(key) for key in wanted])
    if classifier:
        system_of_labels = _open_classifier(classifier, nets[0], execution, quiet=quiet)
    system = LocalizationSystem(nets, scales, system_of_labels, merging=merging)
    rows: list[tuple[Cell, ...]] = []
    done: list[str] = []

    def write() -> None:
        if table:
            make_folder(table.parent)  # where no image could be drawn, nobody has made it
            write_csv(_box_table(rows), table)

    failed = 0
    with count_progress(
        "localize", quiet=quiet, hint=lambda: restart_hint(done, table, write)
    ) as tell:
        spots = places(images.names, ".jpg")
        for name, image, place in zip(images.names, images.images, spots, strict=True):
            try:
                decoded = decode(image, decoding)
                detections = system.predict(decoded, len(wanted) or top or 1)
            except ImageError as error:
                note_error(f"Warning: {name}", error)
                rows.append((name, *[None] * (len(COLUMNS) - 2), str(error)))
                failed += 1
            else:
                target = out / place
                _draw(decoded, detections, named(keys), target)
                rows += [_row(name, detection, named(keys), target) for detection in detections]
            done.append(name)
            if tell:
                tell(len(done), len(images))
    write()
    drawn = len(done) - failed
    settings = {"boxes drawn in": str(out)} if drawn else {}
    about = f"{counted(drawn, 'image')} drawn"
    boxes = _box_table(rows) if as_json else _box_table(rows, SHOWN)
    show_result(
        Result("localize", "Boxes", (), about, (boxes,), settings=settings), as_json=as_json
    )
    if not drawn:
        reasons = [f", as {row[0]}: {row[-1]}" for row in rows[:1]]
        raise DataError(
            f"No image could be read, so that there are no boxes{''.join(reasons)}. Name "
            "images that are whole."
        )


@group.command("evaluate")
@options.with_options(
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
    models: Models,
    classifier: ClassifierOption = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "--labels",
            help="Scores of the test images whose labels count instead: a store of `vggfeat "
            "classify` or `fuse`, as of several nets and scales. Repeat it to fuse some.",
        ),
    ] = None,
    boxes: options.Boxes = None,
    Q: Scales = None,
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

        vggfeat localize evaluate --data ILSVRC2012 --model a@256 --model b@352,384
    """
    from vggfeat.localization.classifiers import StoredLabels
    from vggfeat.localization.data import open_boxset
    from vggfeat.localization.evaluate import evaluate
    from vggfeat.localization.predict import LocalizationSystem
    from vggfeat.report.page import write_page
    from vggfeat.report.tables import write_files

    check_file("--report", report, makes_folder=True)
    if labels and not classifier:
        raise ParameterError(
            "--labels says what images show. What their windows show, by which boxes are rated, "
            "is the classification system's: name one with --classifier."
        )
    nets, scales = _open_nets(models, Q, execution)
    system_of_labels = None
    if classifier:
        system_of_labels = _open_classifier(
            classifier, nets[0], execution, windows_only=bool(labels), quiet=quiet
        )
    stored = StoredLabels.open(labels, nets[0].classes) if labels else None
    system = LocalizationSystem(nets, scales, system_of_labels, stored, merging)
    with download_progress(quiet=quiet) as reading:
        boxset = open_boxset(
            data,
            classes=nets[0].classes,
            boxes=boxes or (),
            parts=("test",),
            decoding=decoding,
            progress=reading,
        )
    warn_of_failures(boxset.left_out)
    with count_progress("localize", quiet=quiet, hint=lambda: NOTHING_KEPT) as tell:
        result = evaluate(
            boxset,
            system,
            limit=limit,
            labels_from=" & ".join(map(str, labels or ())) or classifier or "",
            progress=tell,
        )
    show_result(result, as_json=as_json)
    if report:
        rows = {name: rows[0] for name, rows in boxset.test.images()}
        write_page(result, report, lambda name: boxset.test.open(rows[name]))
        write_files(result, report.with_suffix(""))
        note(f"Report: {report}", quiet=quiet)


def _open_nets(
    models: list[str], Q: list[int] | None, execution: Execution
) -> tuple[list[Localizer], list[list[int]]]:
    """Open the nets, and take the test scales of each: its own, those of all, or its S."""
    from vggfeat.cli.working import check_machine
    from vggfeat.localization.predict import Localizer

    check_machine(execution)
    nets, scales = [], []
    for model in models:
        path, own = _split_scales(model)
        net = Localizer.open(path, device=execution.device, precision=execution.precision)
        scales.append(own or Q or [net.S])
        nets.append(net)
    return nets, scales


def _split_scales(model: str) -> tuple[Path, list[int]]:
    """Part MODEL@352,384 into a path and scales; a path may have an @ of its own."""
    path, _, typed = model.rpartition("@")
    numbers = typed.split(",")
    if path and all(map(str.isdecimal, numbers)) and not Path(model).expanduser().exists():
        return Path(path), [int(number) for number in numbers]
    return Path(model), []


def _open_classifier(
    classifier: str,
    net: Localizer,
    execution: Execution,
    *,
    windows_only: bool = False,
    quiet: bool,
) -> Classifier:
    """Open a saved SVM, or a net with fc8, of which some classes are localised."""
    from vggfeat.cli.experiment import open_networks
    from vggfeat.localization.classifiers import FC8, ClassSubset, NetClassifier, SVMClassifier
    from vggfeat.nets.weights import load
    from vggfeat.svm.model import load as load_model

    whole: Classifier
    if model := _find_model(classifier):
        svm = load_model(model)
        whole = SVMClassifier(svm, open_networks(svm, execution.device, None, quiet=quiet))
        return ClassSubset(whole, net.classes)
    how: dict[str, Any] = {"device": execution.device, "precision": execution.precision}
    how["windows_only"] = windows_only
    if classifier in NAMES:
        with download_progress(quiet=quiet) as progress:
            weights = load(classifier, net.extractor.extraction.net, [FC8], progress=progress)
        whole = NetClassifier.open(weights, **how)
    else:
        path = Path(classifier).expanduser()
        whole = NetClassifier.open(str(path / BEST if path.is_dir() else path), **how)
    return ClassSubset(whole, net.classes)


def _find_model(classifier: str) -> Path | None:
    """Find the file of a saved SVM; weights are safetensors as well, and say something else."""
    path = Path(classifier).expanduser()
    for file in (path, Path(f"{path}.safetensors")):
        if file.is_file():
            try:
                with safe_open(file, "np") as opened:
                    about = (opened.metadata() or {}).get("vggfeat", "")
            except SafetensorError:
                return None
            return file if about.startswith("{") else None
    return None


def _draw(image: Any, detections: list[Detection], classes: Classes, target: Path) -> None:
    """Draw the boxes on a copy of the image, the likeliest last."""
    from vggfeat.report.images import draw_boxes, write_jpeg

    marks = []
    for detection in reversed(detections):
        left, top, right, bottom = detection.box.tolist()
        label = classes.names[detection.label]
        marks.append(BoxMark((left, top, right, bottom), "predicted", label))
    make_folder(target.parent)
    write_atomic(target, write_jpeg(draw_boxes(image, marks), 92))


def _box_table(rows: Sequence[tuple[Cell, ...]], names: Sequence[str] = ()) -> Table:
    """Lay out boxes, in pixels from 1 on, ends included; all columns, or those named."""
    shown = [place for place, column in enumerate(COLUMNS) if not names or column.name in names]
    cells = tuple(tuple(row[place] for place in shown) for row in rows)
    return Table("boxes", "Boxes", tuple(COLUMNS[place] for place in shown), cells)


def _row(name: str, detection: Detection, classes: Classes, drawing: Path) -> tuple[Cell, ...]:
    from vggfeat.localization.boxes import as_annotated

    key = classes.keys[detection.label]
    figures = (detection.posterior, detection.score, detection.windows)
    box = as_annotated(detection.box)
    return (name, classes.names[detection.label], key, *figures, *box, str(drawing), "")


def _batch_of(images: int) -> int:
    """Take the paper's batch, or of a small set so few images that an epoch has four updates."""
    return min(BoxTraining().batch, max(8, images // 4 // 8 * 8))


def _patience_of(images: int, batch: int) -> int:
    """Wait for some updates at least: a small set has few of them in an epoch."""
    return max(BoxTraining().patience, WAITED // max(1, images // batch))


def _net(init: str, net: str | None) -> str:
    """Tell which net the weights to begin from are of; a file may not be of another."""
    if init in NAMES:
        layers_of(net := net or BoxTraining().net)  # which refuses a net that there is not
        return net
    if not Path(init).expanduser().is_file():
        expected = f"one of {', '.join(map(repr, NAMES))}, or a file of weights"
        raise ParameterError.of("init", "localize train", expected, init)
    found = read(init).net
    if net not in (None, found):
        raise ParameterError(f"--net {net}: the file {init} is of net {found}. Leave out --net.")
    return found
