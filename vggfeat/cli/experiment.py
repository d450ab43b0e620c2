"""Linear SVMs on features: tested, shown, and written as models, submissions and reports."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.cli import options
from vggfeat.cli.console import (
    count_progress,
    download_progress,
    in_options,
    note,
    note_error,
    note_left_out,
    work_progress,
)
from vggfeat.cli.tables import FinishedRow, show_rows
from vggfeat.cli.targets import check_file, check_folder, check_report
from vggfeat.data.datasets import load_card, open_dataset
from vggfeat.data.datasets.card import PaperFigure, is_card
from vggfeat.data.datasets.doubts import list_doubts
from vggfeat.data.image import decode
from vggfeat.errors import VggfeatError, WeightsNotFound
from vggfeat.experiments.features import describe
from vggfeat.experiments.predict import check_columns
from vggfeat.experiments.svm import SVMRun, evaluate
from vggfeat.nets.weights import lacking_source
from vggfeat.report.heat_maps import draw_heat_maps
from vggfeat.report.page import write_page
from vggfeat.report.tables import write_csv, write_files
from vggfeat.result import Measure, Result
from vggfeat.settings import SVM, Features
from vggfeat.svm.model import save, target_of
from vggfeat.svm.protocols import protocol_of

if TYPE_CHECKING:
    from PIL import Image

    from vggfeat.cli.options import Typed
    from vggfeat.cli.working import Work
    from vggfeat.data.datasets.card import DatasetCard
    from vggfeat.data.imageset import ImageSet
    from vggfeat.recipes.svm import SVMRecipe
    from vggfeat.result import Gallery
    from vggfeat.svm.model import SavedModel


def open_labelled(
    work: Work,
    dataset: str,
    root: Path | None,
    allow_partial: bool,
    svm: SVM,
    outputs: Outputs,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
) -> tuple[DatasetCard, ImageSet]:
    """Open a data set, and refuse one that an SVM cannot be tested on so, or submitted for."""
    if is_card(dataset) and (card := load_card(dataset)).kind:  # before anything is fetched
        protocol_of(card).check(card, svm=svm)
    with download_progress(quiet=work.quiet) as fetching:
        card, images = open_dataset(
            dataset,
            root,
            allow_partial=allow_partial,
            path_column=path_column,
            label_column=label_column,
            progress=fetching,
        )
    if card.partial:
        note(f"Warning: {card.name} is partial: its figures compare with nothing published.")
    if not card.is_published:
        note_left_out(images.left_out, quiet=work.quiet)
    protocol = protocol_of(card)
    protocol.check(card, images, svm)
    for doubt in list_doubts(images):
        note(f"Warning: {doubt}")
    if outputs.submission:
        protocol.check_submission(card, images)
    return card, images


def evaluate_svm(
    work: Work,
    card: DatasetCard,
    images: ImageSet,
    features: Features,
    svm: SVM,
    folder: Path | None,
    paper: Sequence[PaperFigure] | None = None,
    *,
    deduplicate: bool = False,
) -> SVMRun:
    """Describe the images of a data set, and test a linear SVM on them."""
    with work_progress("extract", quiet=work.quiet) as progress:
        described = describe(
            card,
            images,
            features,
            partial(work.network, features),
            folder=folder,
            execution=work.execution,
            deduplicate=deduplicate,
            progress=progress.images,
            extract=work.extract,
        )
        return evaluate(
            card,
            described,
            features,
            svm,
            n_jobs=work.execution.jobs,
            device=_gram_device(work),
            paper=paper,
            progress=progress.splits,
        )


@dataclass(frozen=True)
class Outputs:
    """What is written of a test: a model, a submission to VOC's server, and a report."""

    save: Path | None = None
    submission: Path | None = None
    report: Path | None = None
    evidence: bool = True

    def check(self) -> None:
        """Refuse, before anything is computed, what cannot be written."""
        check_file("--save", self.save and target_of(self.save), makes_folder=True)
        check_report("--report", self.report)
        check_folder("--submission", self.submission)

    def below(self, name: str) -> Outputs:
        """Name outputs of their own for a row of a table."""
        report, folder = self.report, self.submission
        return replace(
            self,
            report=report and report.with_stem(f"{report.stem}-{name}"),
            submission=folder and folder / name,
        )

    def write(self, run: SVMRun, work: Work) -> int:
        """Write them, what took longest first; each fails alone. Return the exit status."""
        writers: list[tuple[Path | None, Callable[[SVMRun, Path, Work], None]]] = [
            (self.save, _save_model),
            (self.submission, _submit),
            (self.report, partial(_write_report, evidence=self.evidence)),
        ]
        status = 0
        for target, write in writers:
            if target is not None:
                try:
                    write(run, target, work)
                except VggfeatError as error:
                    note_error("Error", error)
                    status = status or error.exit_status
        return status


@dataclass(frozen=True)
class Overrides:
    """What was typed instead of a table's own."""

    dataset: str | None
    root: Path | None
    allow_partial: bool
    typed: Typed
    features: Path | None


def run_svm_table(
    recipe: SVMRecipe, work: Work, overrides: Overrides, outputs: Outputs, *, as_json: bool
) -> None:
    """Run a recipe of features, and print its rows beside the figures that are expected."""
    card, images = open_labelled(
        work,
        overrides.dataset or recipe.dataset,
        overrides.root,
        overrides.allow_partial,
        recipe.classifier,
        outputs,
    )
    rows = _evaluated_rows(recipe, work, card, images, overrides, outputs)
    show_rows(recipe, rows, each=True, as_json=as_json)


def _evaluated_rows(
    recipe: SVMRecipe,
    work: Work,
    card: DatasetCard,
    images: ImageSet,
    overrides: Overrides,
    outputs: Outputs,
) -> Iterator[FinishedRow]:
    """Test every row; no failure of one stops the others."""
    for row in recipe.table():
        note("", f"{recipe.name}, {row.name}", quiet=work.quiet)
        paper: tuple[PaperFigure, ...] = ()
        if row.expected is not None and overrides.dataset is None:
            paper = (PaperFigure(method=row.name, value=row.expected),)
        try:
            features = row.features.but(**overrides.typed)
            run = evaluate_svm(
                work, card, images, features, recipe.classifier, overrides.features, paper
            )
        except VggfeatError as error:
            protocol = protocol_of(card)
            figures = tuple(figure.as_published() for figure in paper)
            measure = Measure(protocol.measure, protocol.metric, float("nan"), paper=figures)
            result = Result(row.name, row.name, (measure,), failed=str(error))
            yield FinishedRow(row.name, result, _for_recipe(error))
        else:
            own = outputs.below(_slug(row.name)) if len(recipe.rows) > 1 else outputs
            write = partial(own.write, run, work)
            yield FinishedRow(row.name, run.result, None, run.background(), write)


def _for_recipe(error: VggfeatError) -> VggfeatError:
    """Name, instead of options of `svm`, the settings of a recipe: `run` has no such options."""
    flags = {
        flag: f"{part}.{name}"
        for part, model in (("features", Features), ("classifier", SVM))
        for name, flag in options.typed_options(model, without=["weights"]).flags.items()
    }
    # Not those of another command, as in: vggfeat train --net A
    pattern = rf"(vggfeat [\w -]*)?({'|'.join(map(re.escape, flags))}) ([\w.+-]*\w)"

    def setting(match: re.Match[str]) -> str:
        return match[0] if match[1] else f"--set {flags[match[2]]}={match[3]}"

    translated = copy(error)
    lines = map(in_options, error.lines)
    translated.lines = tuple(re.sub(pattern, setting, line) for line in lines)
    translated.args = ("\n".join(translated.lines),)
    return translated


def _slug(name: str) -> str:
    """Make a part of a file's name of a row's: ``D & E, image`` becomes ``d-e-image``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _save_model(run: SVMRun, path: Path, work: Work) -> None:
    """Train the model that classifies new images, and write it."""
    model, trained_on = run.final_model(work.execution.jobs, _gram_device(work))
    chosen = ", ".join(f"{C:g}" for C in dict.fromkeys(model.C))
    note(f"Model: {save(path, model)}, trained on {trained_on}, with C = {chosen}.")


def _gram_device(work: Work) -> str:
    """Return the device that was typed; one of a cluster says nothing of this machine's."""
    return "auto" if work.execution.engine == "ray" else work.execution.device


def _submit(run: SVMRun, folder: Path, work: Work) -> None:
    """Write what VOC's evaluation server takes, and warn of what it lacks."""
    files = protocol_of(run.card).write_submission(run.card, run.evaluation, folder)
    note(f"Submission: {len(files)} files in {files[0].parent}; pack {folder}/results.")
    # Some may be of another part than test: the lists of a partial tree do not say.
    if names := sorted({*run.described.images.missing, *run.described.failed}):
        more = f" and {len(names) - 3} others" if len(names) > 3 else ""
        note(
            f"Warning: the submission is partial: it has no score of {', '.join(names[:3])}{more}."
        )


def _write_report(run: SVMRun, target: Path, work: Work, *, evidence: bool) -> None:
    """Write the page, and its figures beside it."""
    by_name = dict(zip(run.described.images.names, run.described.images.images, strict=True))

    def open_image(name: str) -> Image.Image:
        return decode(by_name[name])

    result = run.result
    if evidence and "box" not in run.features.views:
        result = replace(result, parts=(*result.parts, *_heat_maps(run, work)))
    write_page(result, target, open_image)
    folder = target.with_suffix("")
    write_files(result, folder)
    write_csv(run.evaluation.score_table(), folder / "scores.csv")
    note(f"Report: {target}", quiet=work.quiet)


def _heat_maps(run: SVMRun, work: Work) -> list[Gallery]:
    """Draw what in images the scores come from, where the network is here to do so."""
    model, images = run.tested_model(), run.described.images
    try:
        _refuse_download(run.features, model)
        extractors = [work.network(run.features, net) for net in model.nets]
        for extractor, net in zip(extractors, model.nets, strict=True):
            check_columns(extractor, model.columns_of(net))
        with count_progress("heat maps", quiet=work.quiet) as progress:
            by_name = dict(zip(images.names, images.images, strict=True))
            return [draw_heat_maps(model, run.evaluation.examples, by_name, extractors, progress)]
    except VggfeatError as error:  # the page is worth having without them
        note(f"No heat maps: {error}", quiet=work.quiet)
        return []


def _refuse_download(features: Features, model: SavedModel) -> None:
    """Refuse to fetch weights that nothing was computed with: they are half a gigabyte."""
    for net in model.nets:
        extraction = features.of(net)
        if source := lacking_source(extraction.weights, net, extraction.layers):
            raise WeightsNotFound(
                f"The features are from a store, and the weights {source.name} of net {net}, which "
                "draw them, are not on this machine. Fetch them, and write the report again: "
                f"vggfeat weights fetch {source.name} --net {net}"
            )
