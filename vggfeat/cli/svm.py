"""``vggfeat svm``."""

from __future__ import annotations

from typing import Annotated

import typer

from vggfeat.cli import options
from vggfeat.cli.console import Json, Quiet, show_result
from vggfeat.recipes.quality import choose_quality
from vggfeat.settings import SVM, Execution, Features


@options.with_options(
    typed=options.typed_options(Features),
    svm=options.model_options(SVM),
    execution=options.model_options(Execution, *options.DESCRIBING, *options.CLUSTER, "jobs"),
)
def command(
    *,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            "-d",
            help="A shipped data set (`vggfeat datasets list`), a card of your own (.toml), a "
            "folder of class folders or of VOC's layout, a CSV or Parquet file with path and label "
            "(or labels, a|b, where an image has several or none), tars with labels, or an address "
            "of any of these.",
        ),
    ],
    root: options.Root = None,
    path_column: options.PathColumn = None,
    label_column: options.LabelColumn = None,
    allow_partial: options.AllowPartial = False,
    deduplicate: Annotated[
        bool,
        typer.Option(
            "--deduplicate",
            help="Keep one of images that are the same byte for byte, one to train with rather "
            "than to test; none, where their labels differ.",
            rich_help_panel=options.DATA,
        ),
    ] = False,
    quality: options.Quality = None,
    typed: options.Typed,
    features: options.FeatureFolder = None,
    svm: SVM,
    save: options.Save = None,
    report: options.Report = None,
    evidence: options.Evidence = True,
    submission: options.Submission = None,
    execution: Execution,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train and test a linear SVM on the features of a labelled data set, as the paper did.

    The data set's card says how it is tested: VOC on its own parts, by average precision;
    Caltech on three random splits, by mean class recall; a folder or file of yours on the split
    that it gives (folders or a column split: train, val, test), else on three random ones, half of
    each class, at most 30 images, to train. C is chosen in the training part alone. What you do not
    name is the card's: for VOC and Caltech the paper's net D, fc7, scales and aggregation. For data
    of yours it is --quality standard; where a net, layer or weights are named, --quality paper.
    With a store in --features, and without --quality, nets, layers, scales, pooling and weights are
    the store's. Data that are absent are fetched.

    For example:

        vggfeat svm --dataset sample --report sample.html

        vggfeat svm --dataset voc2007 --net D --net E --report voc2007.html

        vggfeat svm --dataset my_folder --save model

        vggfeat svm --dataset my_folder --net E --Q 256 --Q 384
    """
    from vggfeat.cli.experiment import Outputs, evaluate_svm, open_labelled
    from vggfeat.cli.working import Work
    from vggfeat.experiments.sources import choose_features

    outputs = Outputs(save, submission, report, evidence)
    outputs.check()
    choose_quality(quality)  # one that there is not is refused before data are fetched
    work = Work(execution, quiet)
    card, images = open_labelled(
        work,
        dataset,
        root,
        allow_partial,
        svm,
        outputs,
        path_column=path_column,
        label_column=label_column,
    )
    chosen = choose_features(quality, typed, card.defaults, features)
    run = evaluate_svm(work, card, images, chosen, svm, features, deduplicate=deduplicate)
    try:  # files first, whatever the terminal can show; and the result, whatever becomes of them
        status = outputs.write(run, work)
    finally:
        show_result(run.result, as_json=as_json, **run.background())
    if status:
        raise typer.Exit(status)
