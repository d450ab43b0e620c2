"""Linear SVMs on features: tested, saved, and their networks opened for new images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.cli.console import note, work_progress
from vggfeat.experiments.predict import model_extractors
from vggfeat.experiments.svm import final_model, run_svm
from vggfeat.nets.runtimes import describe_device
from vggfeat.svm.gram import DEVICE
from vggfeat.svm.model import save
from vggfeat.svm.voc_results import APResult

if TYPE_CHECKING:
    from vggfeat.cli.working import Work
    from vggfeat.data.datasets.card import DatasetCard
    from vggfeat.data.imageset import ImageSet
    from vggfeat.experiments.svm import SVMRun
    from vggfeat.features.extractor import DenseExtractor
    from vggfeat.settings import SVM, Features
    from vggfeat.svm.model import SavedModel


def evaluate_svm(
    work: Work,
    card: DatasetCard,
    images: ImageSet,
    features: Features,
    classifier: SVM,
    folder: Path | None,
) -> SVMRun:
    """Describe the images of a data set, and test a linear SVM on them."""
    # A device of the cluster says nothing of this machine's.
    DEVICE.set("auto" if work.execution.engine == "ray" else work.execution.device)
    with work_progress("extract", quiet=work.quiet) as shown, work.parallel():
        return run_svm(
            card,
            images,
            features,
            partial(work.network, features),
            classifier,
            folder=folder,
            on_bad_image=work.execution.on_bad_image,
            workers=work.execution.workers,
            n_jobs=work.execution.jobs,
            progress=shown.images,
            split_progress=shown.splits,
            extract=work.extract,
        )


def open_networks(
    model: SavedModel, device: str, weights: list[str] | None, *, quiet: bool
) -> list[DenseExtractor]:
    """Open the networks of a model, and say what runs where."""
    extractors = model_extractors(model, device, weights or ())
    for extractor in extractors:
        done = extractor.extraction
        note(
            f"Net {done.net}, {', '.join(done.layers)}, Q {', '.join(map(str, model.scales))}, "
            f"{done.precision} on {describe_device(extractor.device)}",
            quiet=quiet,
        )
    return extractors


def save_model(run: SVMRun, path: Path, work: Work) -> None:
    """Train the model that new images are judged by, and write it."""
    with work.parallel():
        model = final_model(run, work.execution.jobs)
    chosen = ", ".join(f"{C:g}" for C in model.C)
    note(f"Model: {save(path, model)}, {_trained_on(run)}, with C = {chosen}.")


def _trained_on(run: SVMRun) -> str:
    if isinstance(run.result, APResult):
        return "trained on train and val, as tested"
    if run.images.splits:
        return "trained on the part train, as tested"
    return f"trained on all {len(run.images)} images"
