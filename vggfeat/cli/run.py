"""``vggfeat run``: the tables of the paper, and its chains of trained networks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggfeat.cli import options, training
from vggfeat.cli.errors import run_errors
from vggfeat.cli.output import Json, Quiet, grid, note, note_error, show
from vggfeat.cli.showing import Outcome, comparison, show_run, submit, write_report
from vggfeat.cli.targets import check_file, check_folder
from vggfeat.cli.watching import Watched
from vggfeat.cli.working import Work, settings

if TYPE_CHECKING:
    from vggfeat.recipe import Recipe
    from vggfeat.train.chain import Chain, Linked

# Options that say nothing to some kinds of recipes: of features, of whole networks, of training.
OF_FEATURES = (
    "dataset", "root", "report", "evidence", "pointing", "submission", "jobs", "jobs_backend",
)  # fmt: skip
OF_TABLES = (
    "allow_partial", "weights", "features", "on_bad_image", "deterministic", "engine", "address",
)  # fmt: skip
OF_CHAINS = ("out", "val", "val_fraction", "tensorboard", "micro", "compile_net", "decoder")
SILENT = {
    "Recipe": ("makes a table of features", (*OF_CHAINS, "data", "runs")),
    "Classification": ("tests networks", (*OF_FEATURES, *OF_CHAINS)),
    "Chain": ("trains networks", (*OF_FEATURES, *OF_TABLES, "runs")),
}
ILSVRC = 1000  # classes: with others, the paper's errors say nothing


def run_command(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A shipped recipe, or a file: my.toml."),
    ],
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Another data set than the recipe's.")
    ] = None,
    root: options.Root = None,
    allow_partial: options.AllowPartial = False,
    weights: options.WeightsSource = None,
    features: options.FeatureFolder = None,
    report: options.Report = None,
    evidence: options.Evidence = True,
    pointing: options.Pointing = 50,
    submission: options.Submission = None,
    data: Annotated[
        Path | None, typer.Option("--data", help=training.IMAGES, rich_help_panel=training.PANEL)
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
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Every link has a folder in it.", rich_help_panel=training.PANEL
        ),
    ] = Path("runs"),
    val: training.Val = None,
    val_fraction: training.ValFraction = None,
    tensorboard: training.TensorBoard = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    on_bad_image: options.OnBadImage = "skip",
    workers: options.Workers = None,
    deterministic: options.Deterministic = False,
    micro: training.Micro = None,
    compile_net: training.Compile = False,
    decoder: training.Decoder = "pillow",
    engine: options.Engine = "local",
    address: options.Address = None,
    jobs: options.Jobs = -1,
    jobs_backend: options.JobsBackend = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a recipe: all rows of a table of the paper, or a chain of networks to train.

    Of a table, features are computed once for each net and scale and shared by all rows. With
    several rows, each has a report of its own, named after it.

    Of a table of errors on ILSVRC, a row stays empty where one of its networks is absent; that of
    another file is named by --weights d-256=FILE.

    Of a chain, every link begins from the weights of another. What is trained already is skipped,
    what was interrupted goes on; recipes that share links can share a folder.

    For example:

        vggfeat run pipelines/table11-voc2007.toml --report table11.html

        vggfeat run embedded-best --dataset caltech101 --root 101_ObjectCategories

        vggfeat run table04-multi-scale --data ILSVRC2012 --runs runs

        vggfeat run train-e-jitter --data ILSVRC2012 --out runs
    """
    from vggfeat.ilsvrc.recipe import Classification
    from vggfeat.recipe import Recipe, open_recipe

    loaded = open_recipe(recipe)
    _refuse(context, type(loaded).__name__, loaded.name)
    check_file("--report", report, makes_folder=True)
    check_folder("--submission", submission)
    check_folder("--out", out)
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
    if isinstance(loaded, Classification):
        given = _given(data, loaded.name, "tests")
        run_errors(loaded, work, given, runs, weights, features, allow_partial, as_json)
        return
    if isinstance(loaded, Recipe):
        asked = _Asked(dataset, root, allow_partial, weights, features, submission)
        _run_table(loaded, work, asked, report, evidence, pointing, as_json)
        return
    trains = training.engine_of(device, precision, workers or 2, micro, compile_net, decoder)
    trainer = Watched(trains, quiet, tensorboard)
    given = _given(data, loaded.name, "trains")
    _run_chain(loaded, trainer, given, out, val, val_fraction, as_json)


def _refuse(context: typer.Context, kind: str, recipe: str) -> None:
    """Refuse an option that would say nothing to this recipe."""
    from vggfeat.errors import ParameterError

    does, names = SILENT[kind]
    for parameter in context.command.params:
        if parameter.name in names and options.is_typed(context, parameter.name):
            raise ParameterError(
                f"{parameter.opts[0]} says nothing to {recipe}, which {does}. Leave it out; "
                "`vggfeat run --help` tells which options are for which recipes."
            )


@dataclass(frozen=True)
class _Asked:
    """What was typed instead of a table's own, and what to write of every row."""

    dataset: str | None
    root: Path | None
    allow_partial: bool
    weights: list[str] | None
    features: Path | None
    submission: Path | None


def _run_table(
    loaded: Recipe,
    work: Work,
    asked: _Asked,
    report: Path | None,
    evidence: bool,
    pointing: int,
    as_json: bool,
) -> None:
    from vggfeat.errors import VggfeatError
    from vggfeat.report.words import headline
    from vggfeat.run.submission import check_submission

    card, images = work.dataset(asked.dataset or loaded.dataset, asked.root, asked.allow_partial)
    several = len(loaded.rows) > 1
    submission = asked.submission
    if submission:
        check_submission(card, images)
    done: list[Outcome] = []
    for row in loaded.table():
        note("", f"{loaded.name}, {row.name}", quiet=work.quiet)
        try:
            chosen = settings(row.features, weights=asked.weights)
            run = work.run(card, images, chosen, loaded.classifier, asked.features)
            if not as_json:
                show_run(run, as_json=False)
            done.append(Outcome(row, headline(run.result), run.to_dict()))
            if submission:
                submit(run, submission / _slug(row.name) if several else submission)
            if report:
                target = report.with_stem(f"{report.stem}-{_slug(row.name)}") if several else report
                write_report(run, target, work, evidence=evidence, pointing=pointing)
        except VggfeatError as error:  # the other rows are as good without this one
            note_error(f"Error: {row.name}", error)
            done = [one for one in done if one.line is not row]
            done.append(Outcome(row, None, {"error": str(error)}, error.exit_status))
    result = {"recipe": loaded.name, "rows": [{"row": o.line.name, **o.plain} for o in done]}
    show(result, comparison(card, done, same=asked.dataset is None), as_json=as_json)
    if worst := max(one.status for one in done):
        raise typer.Exit(worst)


def _given(data: Path | None, recipe: str, does: str) -> Path:
    from vggfeat.errors import ParameterError

    if data is None:
        raise ParameterError(f"{recipe} {does} networks: name the images by --data ILSVRC_ROOT.")
    return data


def _run_chain(
    chain: Chain,
    trainer: Watched,
    data: Path,
    out: Path,
    val: Path | None,
    val_fraction: float | None,
    as_json: bool,
) -> None:
    from vggfeat.train.chain import train_chain

    seed = chain.runs()[0].settings.seed
    found = training.images_of(data, val, val_fraction, seed, quiet=trainer.quiet)
    done = []
    for linked in train_chain(chain, found, out, trainer=trainer):
        done.append(linked)
        state = "is trained already" if linked.skipped else "is trained"
        if training.first():
            note(f"{linked.run.name} {state}: {linked.out}", quiet=trainer.quiet)
    if training.first():
        _show_chain(chain, done, len(found.classes) == ILSVRC, as_json)


def _show_chain(chain: Chain, done: list[Linked], same: bool, as_json: bool) -> None:
    rows: list[list[object]] = []
    for linked in done:
        errors = [f"{100 * (1 - linked.best[key]):.1f}" for key in ("val_top1", "val_top5")]
        paper = "/".join(f"{one:.1f}" for one in linked.run.paper or ()) if same else ""
        state = "before" if linked.skipped else "now"
        rows.append([linked.run.name, state, len(linked.history), "/".join(errors), paper or "–"])
    columns = ["link", "trained", "epochs", "top-1/top-5 error %", "paper, dense %"]
    result = {
        "recipe": chain.name,
        "links": [
            {
                "name": linked.run.name,
                "skipped": linked.skipped,
                "weights": str(linked.out / "best.safetensors"),
                "best": linked.best,
                "epochs": len(linked.history),
            }
            for linked in done
        ],
    }
    about = "Errors are of central crops; Table 3's are of the dense network, and lower for it."
    show(result, grid(columns, rows), about, as_json=as_json)


def _slug(name: str) -> str:
    """Make a part of a file's name of a row's: ``D & E, image`` becomes ``d-e-image``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
