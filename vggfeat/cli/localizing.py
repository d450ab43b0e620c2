"""``vggfeat localize predict`` and ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggfeat.cli import options
from vggfeat.cli.console import (
    Json,
    Quiet,
    count_progress,
    download_progress,
    note,
    restart_hint,
    warn_of_failures,
)
from vggfeat.cli.explain import places
from vggfeat.cli.targets import check_file, check_folder
from vggfeat.data.imageset import find_images
from vggfeat.errors import ParameterError
from vggfeat.settings import Decoding, Execution

if TYPE_CHECKING:
    from vggfeat.cli.located import Found

MERGING = "Merging (Appendix A)"
NOTHING = "Nothing is kept: a test is of all its images. --limit makes it shorter."
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
    typer.Option(
        "--Q", "-Q", min=1, help="Test scale; repeat for several. Each net's S by default."
    ),
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


@options.with_options(
    decoding=options.model_options(Decoding),
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
    classes: Classes = None,
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
    match: Match = "iou",
    threshold: Threshold = None,
    average: Average = "count",
    decoding: Decoding,
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
    from vggfeat.classification.classes import named
    from vggfeat.cli.located import find_boxes, show_found, write_drawing, write_table
    from vggfeat.cli.systems import nets_of, system_of
    from vggfeat.localization.predict import Merging

    if classes and top:
        raise ParameterError(
            "--top says nothing to --class: all classes that are named are looked for. Leave out "
            "one of the two."
        )
    check_folder("--out", out)
    check_file("--csv", table, made_by=(out,))
    merging = Merging(match, threshold, average)
    images = find_images(sources, relative_to)
    nets, scales = nets_of(models, Q, execution)
    system = system_of(nets, classifier, classes, execution, quiet=quiet)
    told = named(system.classes)
    wanted = len(classes) if classes else top or 1
    found: list[Found] = []

    def write() -> None:
        if table:
            write_table(table, found, told)

    with count_progress(
        "localize", quiet=quiet, hint=lambda: restart_hint(found, table, write)
    ) as tell:
        spots = places(images.names, ".jpg")
        rows = zip(images.names, images.images, spots, strict=True)
        for done, (name, image, place) in enumerate(rows, 1):
            one = find_boxes(name, image, nets, system, scales, merging, wanted, decoding)
            found.append(write_drawing(one, told, out / place))
            if tell:
                tell(done, len(images))
    write()
    show_found(found, told, as_json=as_json)


@options.with_options(
    decoding=options.model_options(Decoding),
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
    boxes: Boxes = None,
    Q: Scales = None,
    match: Match = "iou",
    threshold: Threshold = None,
    average: Average = "count",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="So many objects of the test part at most.")
    ] = None,
    report: options.Report = None,
    decoding: Decoding,
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
    from vggfeat.cli.located import PlannedTest, show_errors, write_test
    from vggfeat.cli.systems import nets_of, system_of
    from vggfeat.localization.data import open_boxset
    from vggfeat.localization.labels import StoredLabels
    from vggfeat.localization.predict import Merging

    check_file("--report", report, makes_folder=True)
    merging = Merging(match, threshold, average)
    if labels and not classifier:
        raise ParameterError(
            "--labels says what images show. What their windows show, by which boxes are rated, "
            "is the classification system's: name one with --classifier."
        )
    nets, scales = nets_of(models, Q, execution)
    system = said = None
    if classifier:
        system = system_of(nets, classifier, None, execution, quiet=quiet)
    if labels:
        said = StoredLabels.open(labels, nets[0].classes)
    with download_progress(quiet=quiet) as reading:
        found = open_boxset(
            data,
            classes=nets[0].classes,
            boxes=boxes or (),
            parts=("test",),
            decoding=decoding,
            progress=reading,
        )
    warn_of_failures(found.left_out)
    told = " & ".join(map(str, labels or ())) or classifier or ""
    planned = PlannedTest(found, nets, system, told, scales, merging, limit, said)
    with count_progress("localize", quiet=quiet, hint=lambda: NOTHING) as tell:
        result = planned.run(tell, drawn=bool(report))
    show_errors(result, as_json=as_json)
    if report:
        write_test(planned, result, report)
        note(f"Report: {report}", quiet=quiet)
