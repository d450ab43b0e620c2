"""Random splits of every class, judged by mean class recall, as on Caltech (Appendix B)."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from sklearn.metrics import confusion_matrix

from vggfeat.data.datasets.card import DatasetCard
from vggfeat.data.datasets.doubts import refuse_quantities
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError
from vggfeat.result import Result
from vggfeat.settings import SVM
from vggfeat.svm.linear import ClassWeight, LinearSVM
from vggfeat.svm.metrics import class_recalls
from vggfeat.svm.protocols.base import (
    Evaluation,
    Fitted,
    Ints,
    Progress,
    Protocol,
    make_svm,
    register,
)
from vggfeat.svm.protocols.recalls import Mistake, Recalls, Tested
from vggfeat.svm.rows import Rows
from vggfeat.svm.search import fit_best
from vggfeat.svm.splits import Split, held_out_part, random_splits

FOLDS = 5
PARTS = ("train", "val", "test")
UNEVEN = 1.5  # times the smallest class: from there on a weight of classes is tried


def _as_fraction(value: Any) -> Any:
    return None if value == "all" else value  # TOML has no null


@register
class RandomSplits(Protocol):
    """Random splits of every class, and mean class recall over them (Appendix B, Caltech).

    A split that a manifest or folders give is taken instead, so that its test images are never
    trained on. C is then chosen on the part val, trained on train, where there are both val and
    test; val alone is what tests.

    Examples
    --------
    >>> RandomSplits(train_fraction="all").train_fraction is None
    True
    """

    kind: Literal["splits"] = "splits"
    metric: Literal["mean class recall"] = "mean class recall"
    splits: int = Field(default=3, ge=1, le=1000)
    # Largest share of a class to train with; None, "all" in TOML, for all but one image.
    train_fraction: Annotated[float | None, Field(gt=0, lt=1), BeforeValidator(_as_fraction)] = 0.5
    train_per_class: int = Field(default=30, ge=1)  # at most
    max_test_per_class: int | None = Field(default=None, ge=1)  # None for all the rest
    # Share of the training images that choose C; None for cross-validation among them.
    validation_fraction: float | None = Field(default=None, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    measure: ClassVar[str] = "mean_class_recall"

    def check(
        self, card: DatasetCard, images: ImageSet | None = None, svm: SVM | None = None
    ) -> None:
        """Refuse images without a label each, and labels or splits that cannot be learned from."""
        super().check(card, images, svm)
        if images is None:
            return
        if not images.labels:
            raise DataError(
                f"The protocol of {card.name} draws splits, which needs one class for each image. "
                'Set kind = "multi-label" (or "voc") in [protocol] of the card where an image may '
                "have several classes or none."
            )
        refuse_quantities(images.labels, card.name)
        self.draw(card, images)

    def draw(self, card: DatasetCard, images: ImageSet) -> list[Split]:
        """Draw the splits, or take the one that a manifest gives.

        Raises
        ------
        DataError
            If a class cannot both train and test, or no class has two images to choose C with.
        """
        splits = _given_split(images) or random_splits(
            images.labels,
            n_splits=self.splits,
            train_per_class=self.train_per_class,
            max_test_per_class=self.max_test_per_class,
            train_fraction=self.train_fraction,
            random_state=self.seed,
        )
        labels, classes = np.array(images.labels), trained_classes(card)
        for number, split in enumerate(splits, 1):
            known = set(labels[split.train].tolist())
            if absent := [name for name in classes if name not in known]:
                where = "The part train" if images.splits else f"Split {number}"
                raise DataError(
                    f"{where} has no image of {', '.join(map(repr, absent))}, which could not be "
                    "learnt. Add some, or leave the class out."
                )
            if np.unique(labels[split.train], return_counts=True)[1].max() < 2:
                raise DataError(
                    "C cannot be chosen: every class has one image to train with, and C is chosen "
                    "on training images that are put aside, so that a class needs two. Add "
                    "images; where half of a class trains, one of four images has two."
                )
        return splits

    def evaluate(
        self,
        card: DatasetCard,
        images: ImageSet,
        X: NDArray[Any],
        svm: SVM = SVM(),  # noqa: B008  # it does not change
        *,
        n_jobs: int | None = -1,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> Evaluation:
        """Train on each split's training part, C chosen within it, and count on its test part.

        Examples
        --------
        >>> X, labels = np.repeat(np.eye(2), 8, axis=0), ("cat",) * 8 + ("dog",) * 8
        >>> names = tuple(map(str, range(16)))
        >>> images = ImageSet(names, names, labels)
        >>> card = DatasetCard(name="pets", reader="folders", classes=("cat", "dog"))
        >>> recall, accuracy, chance = RandomSplits().evaluate(card, images, X).result.headline
        >>> recall.value, recall.spread, accuracy.value, chance.value
        (1.0, 0.0, 1.0, 0.5)
        """
        self.check(card, images, svm)
        classes = trained_classes(card)
        splits = self.draw(card, images)
        labels = np.array([classes.index(label) for label in images.labels])
        tested: list[Tested] = []
        for split in splits:
            folds = self._folds(images, labels, split)
            unfitted = make_svm(svm, self.seed, n_jobs, device)
            weights = _class_weights(card, labels[split.train], svm)
            number = len(tested) + 1
            outcome = _test_split(number, unfitted, X, labels, split, folds, svm.C, weights)
            tested.append(outcome._replace(scores=np.empty((0, 0))) if tested else outcome)
            if progress is not None:
                progress(len(tested), len(splits))
        first, recalls = tested[0], Recalls(classes, images.names, labels, tested)
        parts = " and ".join(part for part in ("train", "val") if part in images.splits)
        if "test" not in images.splits:
            parts = "train"
        trained_on = parts if images.splits else "the training images of the first split"
        return Evaluation(
            self._result(card, images, recalls),
            Fitted(first.svm, classes, first.search.best, f"{trained_on}, as tested"),
            classes,
            tuple(images.names[row] for row in first.split.test),
            first.scores,
            recalls.examples(),
        )

    def fit_all(
        self,
        card: DatasetCard,
        images: ImageSet,
        X: NDArray[Any],
        svm: SVM,
        n_jobs: int | None = -1,
        device: str = "auto",
    ) -> Fitted | None:
        """Train on every image, C chosen among them: the splits tell how good that is."""
        if images.splits:
            return None
        classes = trained_classes(card)
        labels = np.array([classes.index(label) for label in images.labels])
        unfitted, weights = make_svm(svm, 0, n_jobs, device), _class_weights(card, labels, svm)
        fitted, search = fit_best(unfitted, X, labels, class_weights=weights, grid=svm.C)
        weighed = ", its classes balanced" if search.class_weight else ""
        return Fitted(fitted, classes, search.best, f"all {len(labels)} images{weighed}")

    def _folds(self, images: ImageSet, labels: Ints, split: Split) -> int | list[Split]:
        """Return what C is chosen on: positions in the training rows, or a number of folds."""
        val = images.splits.get("val", ())
        if len(val) and "test" in images.splits:
            is_val = np.isin(split.train, val)
            return [Split(np.flatnonzero(~is_val), np.flatnonzero(is_val))]
        if self.validation_fraction is None:
            return FOLDS
        return [held_out_part(labels[split.train], self.validation_fraction, self.seed)]

    def _result(self, card: DatasetCard, images: ImageSet, recalls: Recalls) -> Result:
        n, share = len(recalls.tested), self.validation_fraction
        over = f"over {n} random split{'s' * (n > 1)}"
        choice = f"in {FOLDS} folds of the training images"
        if share is not None:
            choice = f"on {100 * share:g} % of the training images, put aside"
        if images.splits:
            tests = len(recalls.tested[0].split.test)
            over = f"on the given part {'test' if 'test' in images.splits else 'val'}, {tests:,}"
            if {"val", "test"} <= images.splits.keys():
                choice = "on the part val, trained on train"
        stages = recalls.tested[0].seconds
        return Result(
            card.name,
            card.title or card.name,
            recalls.headline(),
            f"{over} of {len(images):,} images in {len(recalls.classes)} classes",
            recalls.parts(),
            {
                "solver": recalls.tested[0].search.solver,
                "choice of C": choice,
                **recalls.class_weights(),
            },
            {"seed": self.seed},
            {stage: sum(split.seconds[stage] for split in recalls.tested) for stage in stages},
            recalls.warnings(),
            card.differences if card.partial else (),
        )


def trained_classes(card: DatasetCard) -> tuple[str, ...]:
    """Return the classes of which there are images."""
    return tuple(name for name in card.classes if name not in card.absent)


def _class_weights(card: DatasetCard, labels: Ints, svm: SVM) -> tuple[ClassWeight | None, ...]:
    """Name the class weights that are tried: both, where a user's own classes differ much in size.

    The paper's protocols weigh no class, and what has its figures beside it is judged as there.
    """
    if svm.class_weight != "auto":
        return ()
    sizes = np.unique(labels, return_counts=True)[1]
    is_even = sizes.max() < UNEVEN * sizes.min()
    return () if card.paper or is_even else (None, "balanced")


def _test_split(
    number: int,
    svm: LinearSVM,
    X: NDArray[Any],
    labels: Ints,
    split: Split,
    folds: int | list[Split],
    grid: Sequence[float],
    weights: Sequence[ClassWeight | None],
) -> Tested:
    """Fit on the training rows alone; the test rows are read only afterwards."""
    start = perf_counter()
    rows = Rows(X, split.train)
    fitted, search = fit_best(
        svm, rows, labels[split.train], class_weights=weights, folds=folds, grid=grid
    )
    end = perf_counter()
    scores, true = fitted.class_scores(Rows(X, split.test)), labels[split.test]
    predicted = scores.argmax(axis=1)
    wrong = np.flatnonzero(predicted != true)
    margins = scores[wrong, predicted[wrong]] - scores[wrong, true[wrong]]
    mistakes = [
        Mistake(number, int(split.test[i]), int(true[i]), int(predicted[i]), float(margin))
        for i, margin in sorted(zip(wrong, margins, strict=True), key=lambda pair: -pair[1])
    ]
    seconds = {
        "choose C": search.seconds,
        "fit": end - start - search.seconds,
        "test": perf_counter() - end,
    }
    classes = range(scores.shape[1])
    confusion = confusion_matrix(true, predicted, labels=classes)
    recalls = class_recalls(true, predicted, len(classes))
    return Tested(split, fitted, search, confusion, recalls, mistakes, scores, seconds)


def _given_split(images: ImageSet) -> list[Split]:
    """Return the split that a manifest or folders give; what tests never trains."""
    if not images.splits:
        return []
    train, val, test = (images.splits.get(name, np.array([], np.int64)) for name in PARTS)
    marked = len(train) + len(val) + len(test)
    unknown = sorted({*images.splits} - {*PARTS, "trainval"}) or ["nothing"]
    if marked < len(images):
        raise DataError(
            f"The column 'split' says {unknown[0]!r}; it should say train, test or val, in small "
            "letters, for every image. Remove the column to have splits drawn at random."
        )
    if not len(test) and not len(val):
        raise DataError(
            "All images are of the part train: there is no test image. Mark some as test or val "
            "in the column 'split', or put them into a folder of that name beside train; or name "
            "the folder train itself, or remove the column, to have splits drawn at random."
        )
    if not len(test):
        return [Split(train, val)]
    return [Split(np.union1d(train, val), test)]
