"""One run from a data set to a result: extract, choose C, train, test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.data.datasets.card import DatasetCard, IlsvrcProtocol, VocProtocol
from vggfeat.data.imageset import VIEWS, ImageSet
from vggfeat.errors import DataError
from vggfeat.experiments.features import describe
from vggfeat.experiments.sources import Extract, Networks
from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.features.pipeline import Progress, Summary, extract
from vggfeat.recipes import check_protocol
from vggfeat.settings import SVM, Features
from vggfeat.store.column import Column
from vggfeat.svm.linear import LinearSVM
from vggfeat.svm.model import SavedModel
from vggfeat.svm.protocols import evaluate, random_splits
from vggfeat.svm.results import SVMResult
from vggfeat.svm.search import fit_best
from vggfeat.svm.splits import Split
from vggfeat.svm.voc import evaluate_voc
from vggfeat.svm.voc_results import APResult

SplitProgress = Callable[[int, int], None]
"""Called with the parts of a test that are done, and all of them."""


@dataclass
class SVMRun:
    """A test of descriptors on a data set, and all that stands behind it.

    Parameters
    ----------
    card : DatasetCard
        The data set.
    images : ImageSet
        Its images that could be read, in the order of the rows of `X`.
    X : ndarray (N, D)
        Their rows.
    result : SVMResult or APResult
        What the protocol measured.
    features : Features
        What describes the images.
    classifier : SVM
        How the SVM was trained.
    columns : tuple of Column
        What was stacked, in this order, with all settings that made it.
    summary : Summary
        What the extraction did.
    failed : dict
        By name, why images could not be read.
    stores : tuple of Path
        Where the descriptors are kept.
    provenance : dict
        Of each net: versions, device, weights.
    seconds : dict
        Time of each stage.
    """

    card: DatasetCard
    images: ImageSet
    X: Matrix = field(repr=False)
    result: SVMResult | APResult
    features: Features
    classifier: SVM
    columns: tuple[Column, ...]
    summary: Summary
    failed: dict[str, str]
    stores: tuple[Path, ...]
    provenance: dict[str, Any]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the descriptors as plain JSON types."""
        return {
            "dataset": self.card.model_dump(mode="json"),
            "images": len(self.images),
            "skipped": self.failed,
            "dimensions": self.X.shape[1],
            "features": self.features.model_dump(mode="json"),
            "classifier": self.classifier.model_dump(mode="json"),
            "columns": [column.to_dict() for column in self.columns],
            "result": self.result.to_dict(),
            "stores": [str(store) for store in self.stores],
            "provenance": self.provenance,
            "seconds": self.seconds,
        }


def run_svm(
    card: DatasetCard,
    images: ImageSet,
    features: Features,
    networks: Networks,
    classifier: SVM | None = None,
    *,
    folder: Path | None = None,
    on_bad_image: str = "skip",
    workers: int | None = None,
    n_jobs: int | None = -1,
    progress: Progress | None = None,
    split_progress: SplitProgress | None = None,
    extract: Extract = extract,
) -> SVMRun:
    """Test a linear SVM on descriptors of a data set, by the protocol of its card.

    Parameters
    ----------
    card, images : DatasetCard, ImageSet
        As from :func:`~vggfeat.data.datasets.open_dataset`.
    features : Features
        What describes the images.
    networks : callable
        Opens a net, where something is to be computed for a store.
    classifier : SVM, optional
        How the SVM is trained; the hinge and the card's protocol by default.
    folder : Path, optional
        Where descriptors are kept; below :func:`~vggfeat._io.assets.home` by default.
    on_bad_image, workers, progress
        As for :func:`~vggfeat.features.pipeline.extract`.
    n_jobs : int or None
        Processes that train.
    split_progress : callable, optional
        Called with splits done and all splits.
    extract : callable
        What computes, as :func:`~vggfeat.features.pipeline.extract` does.

    Returns
    -------
    SVMRun

    Raises
    ------
    DataError
        If a class has too few images that can be read, or a setting does not belong to the
        protocol.
    """
    classifier = classifier or SVM()
    check_protocol(classifier, card)
    described = describe(
        card,
        images,
        features,
        networks,
        folder=folder,
        on_bad_image=on_bad_image,
        workers=workers,
        progress=progress,
        extract=extract,
    )
    result = _test(card, described.images, described.X, classifier, n_jobs, split_progress)
    return SVMRun(
        card=card,
        images=described.images,
        X=described.X,
        result=result,
        features=features,
        classifier=classifier,
        columns=described.columns,
        summary=described.summary,
        failed=described.failed,
        stores=described.folders,
        provenance=described.provenance,
        seconds={**described.seconds, **result.seconds},
    )


def tested_model(run: SVMRun) -> SavedModel:
    """Return the classifier that was tested; of several random splits, that of the first."""
    result = run.result
    if isinstance(result, APResult):
        return _saved(run, result.svm, result.C[result.trained])
    return _saved(run, result.splits[0].svm, result.splits[0].search.C)


def final_model(run: SVMRun, n_jobs: int | None = -1) -> SavedModel:
    """Return the classifier to use on new images.

    Where splits were drawn at random, it is trained on every image of the data set, C chosen by
    cross-validation among them: the splits tell how good such a classifier is. Where the data set
    has a test part of its own, that part is left out, and the classifier is the tested one.
    """
    result, how = run.result, run.classifier
    if isinstance(result, APResult) or run.images.splits:
        return tested_model(run)
    classes = list(result.class_names)
    labels = np.array([classes.index(label) for label in run.images.labels])
    svm, search = fit_best(
        run.X, labels, n_jobs=n_jobs, loss=how.loss, solver=how.solver, grid=how.C
    )
    return _saved(run, svm, search.C)


def _saved(run: SVMRun, svm: LinearSVM, C: Any) -> SavedModel:
    result, made = run.result, run.features
    several = isinstance(result, APResult)
    known = result.trained if isinstance(result, APResult) else np.ones(len(svm.coef_), bool)
    classes = [name for name, kept in zip(result.class_names, known, strict=True) if kept]
    aggregation = Aggregation(made.aggregate, made.normalize, made.power)
    return SavedModel(
        coef=svm.coef_,
        intercept=svm.intercept_,
        classes=tuple(classes),
        C=tuple(float(one) for one in np.atleast_1d(C)),
        columns=run.columns,
        origins=tuple(_origin(run, net) for net in run.provenance),
        aggregation=aggregation.to_dict(),
        views=made.views,
        multi_label=several,
    )


def _origin(run: SVMRun, net: str) -> str:
    """Say where a net's weights were; a store that others wrote may not tell."""
    weights = run.provenance[net].get("weights", {})
    return str(weights.get("origin", weights.get("source", "auto")))


def _test(
    card: DatasetCard,
    images: ImageSet,
    X: Matrix,
    classifier: SVM,
    n_jobs: int | None,
    progress: SplitProgress | None,
) -> SVMResult | APResult:
    how: dict[str, Any] = {
        "names": images.names,
        "loss": classifier.loss,
        "solver": classifier.solver,
        "grid": classifier.C,
        "n_jobs": n_jobs,
        "progress": progress,
    }
    if isinstance(card.protocol, VocProtocol):
        assert images.targets is not None
        nothing = np.array([], dtype=np.int64)
        return evaluate_voc(
            X,
            images.targets,
            card.classes,
            *(images.splits.get(part, nothing) for part in ("train", "val", "test")),
            groups=VIEWS["image"](images).names,
            ap=card.protocol.ap,
            difficult=classifier.difficult or card.protocol.difficult,
            shared_C=card.protocol.shared_C if classifier.shared_C is None else classifier.shared_C,
            c_split=classifier.c_split,
            **how,
        )
    if isinstance(card.protocol, IlsvrcProtocol):
        raise DataError(f"{card.name} is for classification by a whole network, not for an SVM.")
    protocol = card.protocol
    splits = _given_split(images) or random_splits(
        images.labels,
        n_splits=protocol.splits,
        train_per_class=protocol.train_per_class,
        max_test_per_class=protocol.max_test_per_class,
        train_fraction=protocol.train_fraction,
        random_state=protocol.seed,
    )
    classes = [name for name in card.classes if name not in card.absent]
    return evaluate(
        X,
        [classes.index(label) for label in images.labels],
        classes,
        splits,
        validation=protocol.validation_fraction,
        random_state=protocol.seed,
        **how,
    )


def _given_split(images: ImageSet) -> list[Split]:
    """Return the split that a manifest gives, so that its test images are never trained on."""
    if not images.splits:
        return []
    marked = sum(map(len, images.splits.values()))
    names = {*images.splits} | ({""} if marked < len(images) else set())
    if unknown := sorted(names - {"train", "test"}):
        raise DataError(
            f"The column 'split' says {unknown[0]!r}; it should say train or test for every "
            "image. Remove the column to have splits drawn at random."
        )
    train, test = (images.splits.get(name, np.array([], np.int64)) for name in ("train", "test"))
    return [Split(train, test)]
