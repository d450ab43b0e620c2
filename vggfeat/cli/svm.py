"""``vggfeat svm``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from vggfeat.cli import options
from vggfeat.cli.output import Json, Quiet
from vggfeat.cli.targets import check_file, check_folder
from vggfeat.run.quality import quality as settings_of
from vggfeat.settings import Features, checked


@options.of_extraction
def command(
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            "-d",
            help="A shipped data set (`vggfeat datasets list`), a card of your own (.toml), a "
            "folder of class folders, a CSV or Parquet file with the columns path and label, tars "
            "with labels, or an address of any of these.",
        ),
    ],
    root: options.Root = None,
    allow_partial: options.AllowPartial = False,
    quality: options.Quality = None,
    net: options.Nets = None,
    layer: options.Layers = None,
    Q: options.Scales = None,
    weights: options.WeightsSource = None,
    aggregate: options.Aggregate = None,
    normalize: options.Normalize = None,
    power: options.Power = None,
    pool: options.Pool = None,
    view: options.View = None,
    features: options.FeatureFolder = None,
    loss: Annotated[
        str,
        typer.Option("--loss", help="hinge, or squared_hinge.", rich_help_panel=options.CLASSIFIER),
    ] = "hinge",
    solver: Annotated[
        str,
        typer.Option(
            "--solver",
            help="auto, gram, primal or stream; see LinearSVM.",
            rich_help_panel=options.CLASSIFIER,
        ),
    ] = "auto",
    choice: Annotated[
        str | None,
        typer.Option(
            "--C",
            help="VOC: one C 'per class', or 'one' for all.",
            rich_help_panel=options.CLASSIFIER,
        ),
    ] = None,
    habit: Annotated[
        str,
        typer.Option(
            "--habit",
            help="VOC: choose C on val (validation), or in 3 folds of trainval (cv3).",
            rich_help_panel=options.CLASSIFIER,
        ),
    ] = "validation",
    difficult: Annotated[
        str | None,
        typer.Option(
            "--difficult",
            help="VOC: in training, drop difficult objects, or take as negative.",
            rich_help_panel=options.CLASSIFIER,
        ),
    ] = None,
    save: options.Save = None,
    report: options.Report = None,
    evidence: options.Evidence = True,
    submission: options.Submission = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    on_bad_image: options.OnBadImage = "skip",
    workers: options.Workers = None,
    deterministic: options.Deterministic = False,
    engine: options.Engine = "local",
    address: options.Address = None,
    jobs: options.Jobs = -1,
    jobs_backend: options.JobsBackend = None,
    quiet: Quiet = False,
    as_json: Json = False,
    *,
    typed: Mapping[str, Any],
) -> None:
    """Train and test a linear SVM on the features of a labelled data set, as the paper did.

    The data set's card says how it is tested: VOC on its own parts, by average precision;
    Caltech on three random splits, by mean class recall; a folder of yours on three random
    splits, half of each class, at most 30 images, to train. C is chosen in the training part
    alone. What you do not name is the card's: for VOC and Caltech the paper's net D, fc7, scales
    and aggregation; for a folder fc7 at Q = 256. With a store in --features, and without --quality,
    nets, layers, scales, pooling and weights are the store's. Data that are absent are fetched.

    For example:

        vggfeat svm --dataset sample --report sample.html

        vggfeat svm --dataset voc2007 --net D --net E --report voc2007.html

        vggfeat svm --dataset my_folder --layer pool5 --Q 256 --Q 384 --save model
    """
    from vggfeat.cli.experiment import evaluate_svm, save_model
    from vggfeat.cli.showing import show_run, submit, write_report
    from vggfeat.cli.working import Work, settings
    from vggfeat.learn.model import target_of
    from vggfeat.recipe import Classifier
    from vggfeat.run.sources import stored_settings
    from vggfeat.run.submission import check_submission

    check_file("--save", save and target_of(save), makes_folder=True)
    check_file("--report", report, makes_folder=True)
    check_folder("--submission", submission)
    work = Work(
        device,
        precision,
        on_bad_image,
        workers,
        quiet,
        jobs,
        jobs_backend,
        engine,
        address,
        deterministic,
    )
    classifier = checked(
        Classifier, loss=loss, solver=solver, C=choice, habit=habit, difficult=difficult
    )
    # What is none of the choices is refused before data are fetched.
    settings(
        settings_of(quality, Features()) if quality else Features(),
        Q=Q,
        aggregate=aggregate,
        normalize=normalize,
        power=power,
        views=view,
    )
    card, images = work.dataset(dataset, root, allow_partial)
    base = settings_of(quality, card.defaults) if quality else card.defaults
    if features and not quality:  # which names all that is extracted
        base = settings(
            base, **stored_settings(features, base, nets=net, layers=layer, pool=pool, Q=Q)
        )
    chosen = settings(
        base,
        nets=net,
        layers=layer,
        Q=Q,
        weights=weights,
        aggregate=aggregate,
        normalize=normalize,
        power=power,
        pool=pool,
        views=view,
        **typed,
    )
    if submission:
        check_submission(card, images)
    run = evaluate_svm(work, card, images, chosen, classifier, features)
    show_run(run, as_json=as_json)
    if save:  # what took longest first: nothing that fails later loses it
        save_model(run, save, work)
    if submission:
        submit(run, submission)
    if report:
        write_report(run, report, work, evidence=evidence)
