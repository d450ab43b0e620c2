"""``vggfeat run``: the tables of the paper, and its chains of trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggfeat.cli import options
from vggfeat.cli.console import Json, Quiet, show
from vggfeat.cli.targets import check_folder, check_report
from vggfeat.errors import ParameterError
from vggfeat.recipes import open_recipe, recipe_names
from vggfeat.recipes.classification import ClassificationRecipe
from vggfeat.recipes.localization import LocalizationRecipe
from vggfeat.recipes.svm import SVMRecipe
from vggfeat.report.tables import render_table
from vggfeat.result import Table, TableColumn
from vggfeat.settings import Execution, Features

KINDS = {
    "SVMRecipe": "features, SVM",
    "ClassificationRecipe": "test",
    "LocalizationRecipe": "test",
    "TrainingRecipe": "training",
}
# Options that say nothing to some kinds of recipes: of features, of whole networks, of training.
OF_FEATURES = (
    "dataset", "root", "report", "evidence", "submission", "jobs",
)  # fmt: skip
OF_TABLES = (
    "allow_partial", "weights", "features", "on_bad_image", "deterministic", "engine", "address",
)  # fmt: skip
OF_CHAINS = ("out", "val", "val_fraction", "tensorboard", "micro", "compile_net")
SILENT = {
    "SVMRecipe": ("makes a table of features", (*OF_CHAINS, "data", "runs", "boxes")),
    "ClassificationRecipe": ("tests networks", (*OF_FEATURES, *OF_CHAINS, "boxes")),
    "LocalizationRecipe": ("tests networks", (*OF_FEATURES, *OF_CHAINS)),
    "TrainingRecipe": ("trains networks", (*OF_FEATURES, *OF_TABLES, "runs", "boxes")),
}


@options.with_options(
    typed=options.typed_options(Features, "weights"),
    execution=options.model_options(Execution, *options.DESCRIBING, *options.CLUSTER, "jobs"),
)
def command(
    *,
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A shipped recipe, or a file: my.toml."),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the shipped recipes, and run none.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PART.NAME=VALUE",
            help="Another setting than the recipe's, for all of its rows or links: "
            "features.Q=[256,384], classifier.loss=squared_hinge, training.epochs=20; repeat for "
            "several.",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Another data set than the recipe's.")
    ] = None,
    root: options.Root = None,
    allow_partial: options.AllowPartial = False,
    typed: options.Typed,
    features: options.FeatureFolder = None,
    report: options.Report = None,
    evidence: options.Evidence = True,
    submission: options.Submission = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help=options.LABELLED, rich_help_panel=options.TRAINING),
    ] = None,
    runs: Annotated[
        Path,
        typer.Option(
            "--runs",
            help="Where the networks lie that a table tests: what --out was, when they were "
            "trained.",
            rich_help_panel=options.DATA,
        ),
    ] = Path("runs"),
    boxes: options.Boxes = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Every link has a folder in it.", rich_help_panel=options.TRAINING
        ),
    ] = Path("runs"),
    val: options.Val = None,
    val_fraction: options.ValFraction = None,
    tensorboard: options.TensorBoard = False,
    execution: Execution,
    micro: options.Micro = None,
    compile_net: options.Compile = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a recipe: all rows of a table of the paper, or a chain of networks to train.

    Of a table, features are computed once for each net and scale and shared by all rows. With
    several rows, each has a report of its own, named after it.

    Of a table of errors on ILSVRC, of classification or of localisation, a row stays empty where
    one of its networks is absent; that of another file is named by --weights d-256=FILE.

    Of a chain, every link begins from the weights of another. What is trained already is skipped,
    what was interrupted goes on; recipes that share links can share a folder.

    For example:

        vggfeat run --list

        vggfeat run pipelines/table11-voc2007.toml --report table11.html

        vggfeat run embedded-best --dataset caltech101 --root 101_ObjectCategories

        vggfeat run table11-voc2007 --set 'features.Q=[256,384]' --set features.weights=torchvision

        vggfeat run table04-multi-scale --data ILSVRC2012 --runs runs

        vggfeat run table09-localisation --data ILSVRC2012 --runs runs

        vggfeat run train-e-jitter --data ILSVRC2012 --out runs
    """
    from vggfeat.cli.experiment import Outputs, Overrides, run_svm_table
    from vggfeat.cli.ilsvrc import TableInputs, run_networks
    from vggfeat.cli.training import open_trainer, run_chain
    from vggfeat.cli.working import Work

    if list_:
        _list_recipes(as_json=as_json)
        return
    if recipe is None:
        raise ParameterError(
            "RECIPE is missing: name one, as in vggfeat run embedded-fast. All that are shipped "
            "are listed by: vggfeat run --list"
        )
    loaded = open_recipe(recipe, set_ or ())
    _refuse(context, type(loaded).__name__, loaded.name)
    check_report("--report", report)
    check_folder("--submission", submission)
    check_folder("--out", out)
    work = Work(execution, quiet)
    if isinstance(loaded, ClassificationRecipe | LocalizationRecipe):
        given = _given(data, loaded.name, "tests")
        inputs = TableInputs(
            given, runs, typed.get("weights") or [], features, boxes or [], allow_partial
        )
        run_networks(loaded, work, inputs, as_json=as_json)
        return
    if isinstance(loaded, SVMRecipe):
        overrides = Overrides(dataset, root, allow_partial, typed, features)
        outputs = Outputs(None, submission, report, evidence)
        run_svm_table(loaded, work, overrides, outputs, as_json=as_json)
        return
    trainer = open_trainer(
        execution,
        execution.workers or 2,
        micro,
        compile_net,
        quiet=quiet,
        tensorboard=tensorboard,
        resume_hint="the same command",
    )
    given = _given(data, loaded.name, "trains")
    run_chain(loaded, trainer, given, out, val, val_fraction, as_json)


def _list_recipes(*, as_json: bool) -> None:
    columns = (
        TableColumn("recipe", "Recipe"),
        TableColumn("title", "Title"),
        TableColumn("kind", "Kind"),
        TableColumn("data", "Data"),
    )
    rows = []
    for name in recipe_names():
        recipe = open_recipe(name)
        data = recipe.dataset if isinstance(recipe, SVMRecipe) else "ilsvrc2012"
        rows.append((name, recipe.title, KINDS[type(recipe).__name__], data))
    table = Table("recipes", "Shipped recipes", columns, tuple(rows))
    show({"recipes": table.records()}, render_table(table), as_json=as_json)


def _refuse(context: typer.Context, kind: str, recipe: str) -> None:
    """Refuse an option that would say nothing to this recipe."""
    does, names = SILENT[kind]
    for parameter in context.command.params:
        if parameter.name in names and options.is_typed(context, parameter.name):
            raise ParameterError(
                f"{parameter.opts[0]} says nothing to {recipe}, which {does}. Leave it out; "
                "`vggfeat run --help` tells which options are for which recipes."
            )


def _given(data: Path | None, recipe: str, does: str) -> Path:
    if data is None:
        raise ParameterError(f"{recipe} {does} networks: name the images by --data ILSVRC_ROOT.")
    return data
