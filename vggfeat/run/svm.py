"""One run from a data set to a result: extract, choose C, train, test."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.data.imagesets import ImageSet
from vggfeat.data.schema import DatasetCard, IlsvrcProtocol, VocProtocol
from vggfeat.errors import DataError
from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.features.dense import DenseExtractor
from vggfeat.features.extract import Progress, Summary, extract
from vggfeat.features.extraction import Extraction
from vggfeat.features.provenance import provenance
from vggfeat.features.store import FeatureStore
from vggfeat.learn.model import SavedModel
from vggfeat.learn.protocols import evaluate, random_splits
from vggfeat.learn.results import SVMResult
from vggfeat.learn.search import fit_best
from vggfeat.learn.splits import Split
from vggfeat.learn.voc import evaluate_voc
from vggfeat.learn.voc_results import APResult
from vggfeat.resources import home


@dataclass
class Run:
    """A test of descriptors on a data set, and all that stands behind it.

    Parameters
    ----------
    card : DatasetCard
        The data set.
    images : ImageSet
        Its pictures that could be read, in the order of the rows of `X`.
    X : ndarray (N, D)
        Their rows.
    result : SVMResult or APResult
        What the protocol measured.
    extraction : Extraction
        What made the descriptors.
    scales : tuple of int
        Test scales Q.
    aggregation : Aggregation
        How they were combined.
    summary : Summary
        What the extraction did.
    store : Path
        Where the descriptors are kept.
    provenance : dict
        Versions, device, weights.
    seconds : dict
        Time of each stage.
    """

    card: DatasetCard
    images: ImageSet
    X: Matrix = field(repr=False)
    result: SVMResult | APResult
    extraction: Extraction
    scales: tuple[int, ...]
    aggregation: Aggregation
    summary: Summary
    store: Path
    provenance: dict[str, Any]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the descriptors as plain JSON types."""
        return {
            "dataset": self.card.model_dump(mode="json"),
            "pictures": len(self.images),
            "skipped": self.summary.failed,
            "dimensions": self.X.shape[1],
            "extraction": self.extraction.to_dict(),
            "scales": list(self.scales),
            "aggregation": self.aggregation.to_dict(),
            "result": self.result.to_dict(),
            "store": str(self.store),
            "provenance": self.provenance,
            "seconds": self.seconds,
        }


def run_svm(
    card: DatasetCard,
    images: ImageSet,
    extractor: DenseExtractor,
    scales: tuple[int, ...],
    aggregation: Aggregation,
    *,
    store_folder: Path | None = None,
    on_bad_image: str = "skip",
    workers: int | None = None,
    n_jobs: int | None = -1,
    progress: Progress | None = None,
    split_progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Test a linear SVM on descriptors of a data set, by the protocol of its card.

    Parameters
    ----------
    card, images : DatasetCard, ImageSet
        As from :func:`~vggfeat.data.cards.open_dataset`.
    extractor : DenseExtractor
        The network.
    scales : tuple of int
        Test scales Q.
    aggregation : Aggregation
        How descriptors of several scales become one row.
    store_folder : Path, optional
        Where descriptors are kept; below :func:`~vggfeat.resources.home` by default.
    on_bad_image, workers, progress
        As for :func:`~vggfeat.features.extract.extract`.
    n_jobs : int or None
        Processes that train.
    split_progress : callable, optional
        Called with splits done and all splits.

    Returns
    -------
    Run

    Raises
    ------
    DataError
        If a class has too few pictures that can be read.
    """
    folder = store_folder or default_store(card, extractor.extraction)
    behind = provenance(extractor)
    store = FeatureStore(
        folder, extractor.extraction, images.names, stats=images.stats(), provenance=behind
    )
    summary = extract(
        images,
        extractor,
        scales,
        store,
        on_bad_image=on_bad_image,
        workers=workers,
        progress=progress,
    )
    start = time.perf_counter()
    found = set(store.view_names(scales))
    readable = images.take([row for row, name in enumerate(images.names) if name in found])
    _refuse_lost_classes(images, readable, folder)
    X = aggregation.rows(store.read(scales, readable.names))
    seconds = {"extract": summary.seconds, "read": time.perf_counter() - start}
    result = _test(card, readable, X, n_jobs, split_progress)
    return Run(
        card=card,
        images=readable,
        X=X,
        result=result,
        extraction=extractor.extraction,
        scales=scales,
        aggregation=aggregation,
        summary=summary,
        store=folder,
        provenance=behind,
        seconds={**seconds, **result.seconds},
    )


def default_store(card: DatasetCard, extraction: Extraction) -> Path:
    """Folder below the cache in which a data set's descriptors are kept.

    It follows from the data set's name and place and from the settings, so that a second run
    finds the descriptors of the first, and another setting or data set never meets them.
    """
    told = "\n".join((card.name, card.source, card.root, extraction.fingerprint))
    digest = hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()
    return home() / "features" / digest[:16]


def final_model(run: Run, n_jobs: int | None = -1) -> SavedModel:
    """Return the classifier to use on new pictures.

    Where splits were drawn at random, it is trained on every picture of the data set, C chosen by
    cross-validation among them: the splits tell how good such a classifier is. Where the data set
    has a test part of its own, that part is left out, and the classifier is the tested one.
    """
    result = run.result
    classes = list(result.class_names)
    if isinstance(result, APResult):
        svm, C = result.svm, result.C[result.trained]
        classes = [c for c, known in zip(classes, result.trained, strict=True) if known]
    elif run.images.splits:
        svm, C = result.splits[0].svm, np.atleast_1d(result.splits[0].search.C)
    else:
        labels = [classes.index(label) for label in run.images.labels]
        svm, search = fit_best(run.X, np.array(labels), n_jobs=n_jobs)
        C = np.atleast_1d(search.C)
    return SavedModel(
        coef=svm.coef_,
        intercept=svm.intercept_,
        classes=tuple(classes),
        C=tuple(float(one) for one in C),
        extraction=run.extraction.to_dict(),
        scales=run.scales,
        aggregation=run.aggregation.to_dict(),
        weights_source=run.provenance["weights"]["origin"],
        weights_sha256=run.extraction.weights_sha256,
        multi_label=isinstance(result, APResult),
    )


def _test(
    card: DatasetCard,
    images: ImageSet,
    X: Matrix,
    n_jobs: int | None,
    progress: Callable[[int, int], None] | None,
) -> SVMResult | APResult:
    if isinstance(card.protocol, VocProtocol):
        return _test_voc(card, card.protocol, images, X, n_jobs, progress)
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
        names=images.names,
        validation=protocol.validation_fraction,
        random_state=protocol.seed,
        n_jobs=n_jobs,
        progress=progress,
    )


def _test_voc(
    card: DatasetCard,
    protocol: VocProtocol,
    images: ImageSet,
    X: Matrix,
    n_jobs: int | None,
    progress: Callable[[int, int], None] | None,
) -> APResult:
    assert images.targets is not None
    if not len(images.parts.get("test", ())):
        raise DataError(
            f"There are no test pictures of {card.title or card.name} in {card.root}, so that "
            "nothing can be tested. Put its test archive there."
        )
    return evaluate_voc(
        X,
        images.targets,
        card.classes,
        images.parts["train"],
        images.parts["val"],
        images.parts["test"],
        names=images.names,
        ap=protocol.ap,
        difficult=protocol.difficult,
        C=protocol.C,
        n_jobs=n_jobs,
        progress=progress,
    )


def _given_split(images: ImageSet) -> list[Split]:
    """Return the split that a manifest gives, so that its test pictures are never trained on."""
    if not images.splits:
        return []
    if unknown := sorted(set(images.splits) - {"train", "test"}):
        raise DataError(
            f"The column 'split' says {unknown[0]!r}; it should say train or test for every "
            "picture. Remove the column to have splits drawn at random."
        )
    rows = np.array([split == "train" for split in images.splits])
    return [Split(np.flatnonzero(rows), np.flatnonzero(~rows))]


def _refuse_lost_classes(images: ImageSet, readable: ImageSet, folder: Path) -> None:
    if not len(readable):
        raise DataError(f"No picture can be read; the reasons are in {folder / 'failed.csv'}.")
    if lost := sorted(set(images.labels) - set(readable.labels)):
        raise DataError(
            f"No picture of {', '.join(lost)} can be read. Mend or remove the class; the reasons "
            f"are in {folder / 'failed.csv'}."
        )
