"""Linear SVMs on features: tested, shown, and written as models, submissions and reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.cli.console import count_progress, note, note_error, work_progress
from vggfeat.data.image import decode
from vggfeat.errors import VggfeatError, WeightsNotFound
from vggfeat.experiments.features import describe
from vggfeat.experiments.predict import check_columns
from vggfeat.experiments.svm import SVMRun, evaluate
from vggfeat.nets.weights import lacking_source
from vggfeat.report.heat_maps import draw_heat_maps
from vggfeat.report.page import write_page
from vggfeat.report.tables import write_csv, write_files
from vggfeat.svm.model import save
from vggfeat.svm.protocols import protocol_of

if TYPE_CHECKING:
    from PIL import Image

    from vggfeat.cli.working import Work
    from vggfeat.data.datasets.card import DatasetCard
    from vggfeat.data.imageset import ImageSet
    from vggfeat.result import Gallery
    from vggfeat.settings import SVM, Features
    from vggfeat.svm.model import SavedModel


def evaluate_svm(
    work: Work,
    card: DatasetCard,
    images: ImageSet,
    features: Features,
    svm: SVM,
    folder: Path | None,
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
            progress=progress.splits,
        )


@dataclass(frozen=True)
class Outputs:
    """What is written of a test: a model, a submission to VOC's server, and a report."""

    save: Path | None = None
    submission: Path | None = None
    report: Path | None = None
    evidence: bool = True

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
