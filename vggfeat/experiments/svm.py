"""Linear SVMs on the features of a data set: tested by its protocol, and saved for new images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vggfeat.data.datasets.card import DatasetCard, PaperFigure
from vggfeat.data.datasets.doubts import list_doubts
from vggfeat.experiments.features import Described
from vggfeat.features.aggregate import Aggregation
from vggfeat.result import Result
from vggfeat.settings import SVM, Features
from vggfeat.svm.model import SavedModel
from vggfeat.svm.protocols import Evaluation, Fitted, protocol_of
from vggfeat.svm.protocols.base import Progress

NAMED = 5  # unreadable images in the notes of a result; --json names all
ABSENT = 20  # classes without images in them


@dataclass(frozen=True)
class SVMRun:
    """A test of features on a data set, and all that stands behind it.

    Parameters
    ----------
    card : DatasetCard
    described : Described
        Its images that could be read, and their rows.
    features : Features
        What describes the images.
    svm : SVM
        How the SVM was trained.
    evaluation : Evaluation
        What the protocol measured.
    paper : tuple of PaperFigure
        What the paper has for the same.
    """

    card: DatasetCard
    described: Described
    features: Features
    svm: SVM
    evaluation: Evaluation
    paper: tuple[PaperFigure, ...] = ()

    @property
    def result(self) -> Result:
        """What was measured, beside the paper's figures, with all settings behind it."""
        result, described = self.evaluation.result, self.described
        first, *others = result.headline
        paper = tuple(figure.as_published(self.evaluation.unlike) for figure in self.paper)
        return replace(
            result,
            headline=(replace(first, paper=paper), *others),
            settings={**self._settings(), **result.settings},
            provenance={
                "nets": described.provenance,
                "columns": [column.to_dict() for column in described.columns],
                "stores": [str(folder) for folder in described.folders],
                "features": self.features.model_dump(mode="json"),
                "svm": self.svm.model_dump(mode="json"),
                "licence of the images": self.card.licence or "yours to say",
                **result.provenance,
            },
            seconds={**described.seconds, **result.seconds},
            notes=(*self._notes(), *result.notes),
        )

    def background(self) -> dict[str, Any]:
        """Return the data set's card and the images that were left out, as plain JSON types."""
        described = self.described
        return {
            "dataset": self.card.model_dump(mode="json"),
            "skipped": dict(described.failed),
            "left_out": described.images.left_out.to_dict(),
            "identical": described.identical.groups,
            "deduplicated": described.identical.removed,
        }

    def tested_model(self) -> SavedModel:
        """Return the classifier that was tested; of several random splits, that of the first."""
        return self._model(self.evaluation.fitted)

    def final_model(self, n_jobs: int | None = -1, device: str = "auto") -> tuple[SavedModel, str]:
        """Return the classifier to use on new images, and what it was trained on.

        Where splits were drawn at random, it is trained on every image of the data set, C chosen
        by cross-validation among them: the splits tell how good such a classifier is. Where the
        data set has a test part of its own, the classifier is the tested one.
        """
        described = self.described
        fitted = protocol_of(self.card).fit_all(
            self.card, described.images, described.X, self.svm, n_jobs, device
        )
        fitted = fitted or self.evaluation.fitted
        return self._model(fitted), fitted.trained_on

    def _model(self, fitted: Fitted) -> SavedModel:
        made = self.features
        return SavedModel(
            coef=fitted.svm.coef_,
            intercept=fitted.svm.intercept_,
            classes=fitted.classes,
            C=tuple(map(float, fitted.C)),
            columns=self.described.columns,
            origins=tuple(map(_origin, self.described.provenance.values())),
            aggregation=Aggregation(made.aggregate, made.normalize, made.power).to_dict(),
            views=made.views,
            multi_label=protocol_of(self.card).multi_label,
        )

    def _settings(self) -> dict[str, Any]:
        described, features = self.described, self.features
        behind = described.provenance.values()
        digests = {c.descriptor.net: c.settings["weights"] for c in described.columns}
        weights = [
            f"{net}: {described.provenance[net]['weights']['source']} ({digest[:12]})"
            for net, digest in digests.items()
        ]
        devices = dict.fromkeys(f"{net['device']}, {net['precision']}" for net in behind)
        images = described.images
        return {
            "data set": self.card.name,
            "persons" if images.boxes else "images": len(images),
            "classes": len(self.card.classes) - len(self.card.absent),
            "nets": list(digests),
            "weights": weights,
            "layers": list(dict.fromkeys(c.descriptor.layer for c in described.columns)),
            "pool": features.pool,
            "mirror image": features.flip,
            "views": list(features.views),
            "Q": list(features.Q),
            "aggregate": features.aggregate,
            "normalize": features.normalize,
            **({"power": features.power} if features.power else {}),
            "dimensions": described.X.shape[1],
            "device": list(devices),
            "loss": self.evaluation.fitted.svm.loss_,
            **({"class weight": self.svm.class_weight} if self.svm.class_weight != "auto" else {}),
            "C": list(self.svm.C),
        }

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if absent := self.card.absent:
            more = len(absent) - ABSENT
            others = f" and {more} more classes" if more > 0 else ""
            names = ", ".join(absent[:ABSENT])
            notes.append(f"Left out, for there is no image to train with: {names}{others}.")
        failed = list(self.described.failed.items())
        notes += [
            f"{name} could not be read and was left out: {why}" for name, why in failed[:NAMED]
        ]
        if len(failed) > NAMED:
            notes.append(f"So were {len(failed) - NAMED} more; --json names them all.")
        images, identical = self.described.images, self.described.identical
        if identical.groups:
            splits = protocol_of(self.card).draw(self.card, images)
            notes += identical.notes(images, splits)
        if not self.card.is_published:
            notes += [*images.left_out.warnings, *images.left_out.notes]
        return (*notes, *list_doubts(images))


def evaluate(
    card: DatasetCard,
    described: Described,
    features: Features,
    svm: SVM = SVM(),  # noqa: B008  # it does not change
    *,
    n_jobs: int | None = -1,
    device: str = "auto",
    paper: Sequence[PaperFigure] | None = None,
    progress: Progress | None = None,
) -> SVMRun:
    """Test a linear SVM on the rows of a data set, by the protocol of its card.

    Parameters
    ----------
    card : DatasetCard
        As from :func:`~vggfeat.data.datasets.open_dataset`.
    described : Described
        As from :func:`~vggfeat.experiments.features.describe`.
    features : Features
        What described the images.
    svm : SVM
        How it is trained; the hinge and the card's protocol by default.
    n_jobs : int or None
        Processes that train.
    device : str
        Where the Gram matrix is computed.
    paper : sequence of PaperFigure, optional
        What the paper has for the same; by default the figures of the card.
    progress : callable, optional
        Called with the stages that are done, and all of them.

    Raises
    ------
    DataError
        If a class has too few images that can be read, or a setting does not belong to the
        protocol.
    """
    evaluation = protocol_of(card).evaluate(
        card,
        described.images,
        described.X,
        svm,
        n_jobs=n_jobs,
        device=device,
        progress=progress,
    )
    figures = card.paper if paper is None else tuple(paper)
    return SVMRun(card, described, features, svm, evaluation, figures)


def _origin(behind: dict[str, Any]) -> str:
    """Say where a net's weights were; a store that others wrote may not tell."""
    weights = behind.get("weights", {})
    return str(weights.get("origin", weights.get("source", "auto")))
