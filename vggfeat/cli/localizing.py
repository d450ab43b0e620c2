"""``vggfeat localize predict`` and ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggfeat.cli import options, training
from vggfeat.cli.explain import places
from vggfeat.cli.located import (
    Found,
    PlannedTest,
    show_errors,
    show_found,
    write_drawing,
    write_table,
    write_test,
)
from vggfeat.cli.output import Json, Quiet, counting, download_progress, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from vggfeat.data.images import Picture
    from vggfeat.ilsvrc.localize import Localiser, Located, Merging
    from vggfeat.ilsvrc.outputs import Classifier

MERGING = "Merging (Appendix A)"
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", help="Only this class; repeat for several.", rich_help_panel="Data"),
]
Boxes = Annotated[
    list[Path] | None,
    typer.Option(
        "--boxes",
        help="Folder or tar file of ILSVRC's XML files, if they lie elsewhere.",
        rich_help_panel="Data",
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
    typer.Option("--Q", "-Q", help="Test scale; repeat for several. Each net's S by default."),
]
Match = Annotated[
    str,
    typer.Option(
        "--match",
        help="What matches best: iou; or overfeat, the score as OverFeat prints it.",
        rich_help_panel=MERGING,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold", help="The worst match that is merged; 0.4 of iou.", rich_help_panel=MERGING
    ),
]
Average = Annotated[
    str,
    typer.Option(
        "--average",
        help="Of coordinates: over all windows of a box (count), weighted by their class outputs "
        "(score), or of two boxes (pair).",
        rich_help_panel=MERGING,
    ),
]


def predict_command(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="PICTURES", help="What `vggfeat extract` takes."),
    ],
    models: Models,
    classifier: ClassifierOption = None,
    classes: Classes = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for the copies with boxes, PICTURE.jpg each."),
    ] = Path("boxes"),
    top: Annotated[int, typer.Option("--top", min=1, help="Labels of a picture.")] = 1,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Write labels, scores and boxes.")
    ] = None,
    Q: Scales = None,
    match: Match = "iou",
    threshold: Threshold = None,
    average: Average = "count",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find where the objects of pictures are, and draw their boxes on copies.

    Labels are those of a classification system (--classifier), or the classes that the pictures
    are known to show (--class). Boxes are in pixels from 1 on, ends included.

    For example:

        vggfeat localize predict photos/ --model runs/boxes --classifier model.safetensors

        vggfeat localize predict cat.jpg --model runs/boxes --class cat --csv boxes.csv
    """
    from vggfeat.data.imagesets import find_pictures
    from vggfeat.ilsvrc.localize import Merging

    images = find_pictures(sources)
    nets, scales = _nets(models, Q, device, precision)
    merging = Merging(match, threshold, average)
    system = _system(nets, classifier, classes, device, precision, quiet=quiet)
    found: list[Found] = []
    with counting("localize", quiet=quiet) as tell:
        spots = places(images.names, ".jpg")
        rows = zip(images.names, images.pictures, spots, strict=True)
        for done, (name, picture, place) in enumerate(rows, 1):
            one = _found(name, picture, nets, system, scales, merging, top)
            found.append(write_drawing(one, system.classes, out / place))
            if tell:
                tell(done, len(images))
    if table:
        write_table(table, found, system.classes)
    show_found(found, system.classes, as_json=as_json)


def evaluate_command(
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
            help="Scores of the test pictures whose labels count instead: a store of `vggfeat "
            "classify` or `fuse`, as of several nets and scales. Repeat it to fuse some.",
        ),
    ] = None,
    boxes: Boxes = None,
    Q: Scales = None,
    match: Match = "iou",
    threshold: Threshold = None,
    average: Average = "count",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="So many objects of the test part at most.")
    ] = None,
    report: options.Report = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
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

        vggfeat localize evaluate --data VOCdevkit/VOC2007 --model runs/boxes --classifier svm-model
        --report boxes.html

        vggfeat localize evaluate --data ILSVRC2012 --model runs/box-256@256
        --model runs/box-384@352,384 --classifier authors --labels fused
    """
    from vggfeat.errors import ParameterError
    from vggfeat.ilsvrc.boxset import open_boxset
    from vggfeat.ilsvrc.labels import StoredLabels
    from vggfeat.ilsvrc.localize import Merging

    nets, scales = _nets(models, Q, device, precision)
    merging = Merging(match, threshold, average)
    system = said = None
    if labels and not classifier:
        raise ParameterError(
            "--labels says what pictures show. What their windows show, by which boxes are rated, "
            "is the classification system's: name one with --classifier."
        )
    if classifier:
        system = _system(nets, classifier, None, device, precision, quiet=quiet)
    if labels:
        said = StoredLabels.open(labels, nets[0].classes)
    with download_progress(quiet=quiet) as reading:
        found = open_boxset(
            data, classes=nets[0].classes, boxes=boxes or (), parts=("test",), progress=reading
        )
    training.warn_of(found.left_out)
    told = " & ".join(map(str, labels or ())) or classifier or ""
    planned = PlannedTest(found, nets, system, told, scales, merging, limit, said)
    with counting("localize", quiet=quiet) as tell:
        result = planned.run(tell, drawn=bool(report))
    show_errors(result, as_json=as_json)
    if report:
        write_test(planned, result, report)
        note(f"Report: {report}", quiet=quiet)


def _nets(
    models: list[str], Q: list[int] | None, device: str, precision: str
) -> tuple[list[Localiser], list[list[int]]]:
    """Open the nets, and take the test scales of each: its own, those of all, or its S."""
    from vggfeat.ilsvrc.judging import check_classes
    from vggfeat.ilsvrc.localize import Localiser

    nets, scales = [], []
    for model in models:
        path, own = _parted(model)
        net = Localiser.open(path, device=device, precision=precision)
        scales.append(own or Q or [net.S])
        net.extractor.check_scales(scales[-1])
        nets.append(net)
        check_classes(nets[0].classes, net.classes)
    return nets, scales


def _parted(model: str) -> tuple[Path, list[int]]:
    """Part MODEL@352,384 into a path and scales; a path may have an @ of its own."""
    path, _, told = model.rpartition("@")
    numbers = told.split(",")
    if path and all(map(str.isdecimal, numbers)) and not Path(model).expanduser().exists():
        return Path(path), [int(number) for number in numbers]
    return Path(model), []


def _system(
    nets: Sequence[Localiser],
    classifier: str | None,
    classes: list[str] | None,
    device: str,
    precision: str,
    *,
    quiet: bool,
) -> Classifier:
    """Open the classification system, or say what pictures are known to show."""
    from vggfeat.errors import ParameterError
    from vggfeat.ilsvrc.outputs import Alike, Restricted

    wanted = nets[0].classes
    if unknown := [name for name in classes or () if name not in wanted]:
        raise ParameterError.not_one_of("class", "localize predict", wanted, unknown[0])
    if bool(classifier) == bool(classes):
        raise ParameterError(
            "Localising needs labels: either those of a classification system, --classifier MODEL, "
            f"or the class that all pictures show, --class {wanted[0]}."
        )
    if classifier:
        return Restricted(_opened(classifier, nets[0], device, precision, quiet=quiet), wanted)
    return Alike(wanted, [wanted.index(name) for name in classes or ()])


def _opened(
    classifier: str, net: Localiser, device: str, precision: str, *, quiet: bool
) -> Classifier:
    """Open a saved SVM, or a net with fc8."""
    from vggfeat.ilsvrc.outputs import FC8, NetClassifier
    from vggfeat.nets.sources import NAMES
    from vggfeat.nets.weights import load
    from vggfeat.train.checkpoint import BEST

    if model := _saved_model(classifier):
        from vggfeat.cli.predict import open_model
        from vggfeat.run.window_scores import SVMClassifier

        return SVMClassifier(*open_model(model, device, None, quiet=quiet))
    if classifier not in NAMES:
        path = Path(classifier).expanduser()
        file = path / BEST if path.is_dir() else path
        return NetClassifier.open(str(file), device=device, precision=precision)
    with download_progress(quiet=quiet) as progress:
        weights = load(classifier, net.extractor.extraction.net, [FC8], progress=progress)
    return NetClassifier.open(weights, device=device, precision=precision)


def _saved_model(classifier: str) -> Path | None:
    """Find the file of a saved SVM; weights are safetensors as well, and say something else."""
    from safetensors import SafetensorError, safe_open

    path = Path(classifier).expanduser()
    for file in (path, Path(f"{path}.safetensors")):
        if file.is_file():
            try:
                with safe_open(file, "np") as opened:
                    told = (opened.metadata() or {}).get("vggfeat", "")
            except SafetensorError:
                return None
            return file if told.startswith("{") else None
    return None


def _found(
    name: str,
    picture: Picture,
    nets: Sequence[Localiser],
    system: Classifier,
    scales: Sequence[Sequence[int]],
    merging: Merging,
    top: int,
) -> Found:
    from vggfeat.data.images import decode
    from vggfeat.errors import PictureError

    try:
        image = decode(picture)
        return Found(name, _located(image, nets, system, scales, merging, top), image)
    except PictureError as error:
        note(f"Warning: {name}: {error}")
        return Found(name, [], None, str(error))


def _located(
    image: Image.Image,
    nets: Sequence[Localiser],
    system: Classifier,
    scales: Sequence[Sequence[int]],
    merging: Merging,
    top: int,
) -> list[Located]:
    from vggfeat.ilsvrc.localize import locate, windows_of

    said = system.outputs(image, sorted({Q for own in scales for Q in own}))
    windows = windows_of(image, nets, scales, said)
    labels = [k for k in (-said.posteriors).argsort(kind="stable")[:top] if said.posteriors[k] > 0]
    return locate(windows, said.posteriors, image.size, labels=labels, merging=merging)
