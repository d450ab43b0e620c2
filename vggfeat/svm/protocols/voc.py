"""Fixed parts and an average precision for each class, as PASCAL VOC has them.

One Gram matrix of trainval serves every class, every C, every fold and the final fit (Appendix B;
PAPER Section 6).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vggfeat.data.datasets.card import DatasetCard
from vggfeat.data.datasets.voc import LISTS, Task
from vggfeat.data.imageset import VIEWS, ImageSet
from vggfeat.errors import DataError
from vggfeat.result import Result
from vggfeat.settings import SVM
from vggfeat.svm.ap import APKind, average_precisions
from vggfeat.svm.linear import LinearSVM, choose_solver, gram_matrix, trainable
from vggfeat.svm.protocols.base import (
    Evaluation,
    Fitted,
    Floats,
    Ints,
    Progress,
    Protocol,
    make_svm,
    register,
)
from vggfeat.svm.protocols.precisions import Precisions
from vggfeat.svm.rows import Rows
from vggfeat.svm.search import GridSearchResult, nearest_to_one, select_C
from vggfeat.svm.splits import Split, held_out_part, rarest_class, stratified_folds
from vggfeat.svm.submission import write_scores

Bools = NDArray[np.bool_]
Targets = NDArray[np.int8]
PARTS = ("train", "val", "test")


class _Training(NamedTuple):
    """Rows of trainval, what they are fitted to, and what is true of them."""

    rows: Ints
    fitted: Targets
    truth: Targets
    folds: list[Split]


@register
class VOC(Protocol):
    """Train, validation and test parts, and an average precision for each class (VOC's devkit).

    C is chosen on the parts train → val; the classifier of both together is tested on test.

    Examples
    --------
    >>> VOC(ap="ap11").difficult
    'drop'
    """

    kind: Literal["voc"] = "voc"
    metric: Literal["mAP"] = "mAP"
    # Images with ImageSets/Main, or persons in given boxes with ImageSets/Action.
    task: Task = "classification"
    ap: APKind  # the year's own: of 11 points (2007), or the area (2010 and later)
    # What an image with only difficult objects of a class is to that class in training; in
    # evaluation it is always left out.
    difficult: Literal["drop", "negative"] = "drop"
    shared_C: bool = False  # noqa: N815  # one C for all classes, instead of one for each
    # Name of the file that the evaluation server takes, with {class} in it; empty where the test
    # labels are public.
    server_file: str = ""
    seed: int = Field(default=0, ge=0)  # of folds and solvers

    measure: ClassVar[str] = "mAP"
    svm_settings: ClassVar[frozenset[str]] = frozenset({"shared_C", "difficult", "c_split"})
    multi_label: ClassVar[bool] = True
    example: ClassVar[str] = "voc2007"

    def parts(self, card: DatasetCard, images: ImageSet) -> dict[str, Ints]:
        """Return row numbers of train, val and test, as the data set gives them.

        Raises
        ------
        DataError
            If train or val has no row, or two parts share one.
        """
        parts = {part: images.splits.get(part, np.array([], np.int64)) for part in PARTS}
        for part, use in (("train", "train"), ("val", "choose C")):
            if not len(parts[part]):
                raise DataError(
                    f"The part {part} of {card.name} has no row: there is nothing to {use} with."
                )
        for part, other in (("train", "val"), ("train", "test"), ("val", "test")):
            if (common := np.intersect1d(parts[part], parts[other])).size:
                raise DataError(
                    f"The parts {part} and {other} of {card.name} have {common.size} rows in "
                    f"common, such as {images.names[common[0]]!r}. Take them out of one."
                )
        return parts

    def check(
        self, card: DatasetCard, images: ImageSet | None = None, svm: SVM | None = None
    ) -> None:
        """Refuse images without targets, and targets or parts that cannot be learned from."""
        super().check(card, images, svm)
        if images is None:
            return
        if images.targets is None or images.targets.shape[1] != len(card.classes):
            raise DataError(
                f"The protocol of {card.name} needs a target for each image and each of its "
                f"{len(card.classes)} classes."
            )
        _searchable(self._training(images, self.parts(card, images), svm or SVM()))

    def draw(self, card: DatasetCard, images: ImageSet) -> list[Split]:
        """Return the one split: train and val together, and test."""
        parts = self.parts(card, images)
        return [Split(np.union1d(parts["train"], parts["val"]), parts["test"])]

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
        """Choose C on train and val, fit both together with it, and rank the test part.

        Test rows whose targets are 0 throughout have no labels: they are scored, and there is no
        average precision. Without a test part there is nothing but the figures of validation.

        Examples
        --------
        >>> names = tuple(map(str, range(12)))
        >>> X = np.tile(np.eye(2), (6, 1))
        >>> parts = dict(zip(("train", "val", "test"), np.split(np.arange(12), 3)))
        >>> targets = np.where(X > 0, 1, -1).astype(np.int8)
        >>> images = ImageSet(names, names, targets=targets, splits=parts)
        >>> card = DatasetCard(name="pets", reader="manifest", classes=("cat", "dog"))
        >>> result = VOC(ap="area").evaluate(card, images, X).result
        >>> result.headline[0].value, result.tables["classes"].column("C")
        (1.0, [1.0, 1.0])
        """
        self.check(card, images, svm)
        assert images.targets is not None
        truth, parts = images.targets, self.parts(card, images)
        stages = _Stages(progress)
        known = self._training(images, parts, svm)
        rows = Rows(X, known.rows)
        able = trainable(known.fitted)
        unfitted = make_svm(svm, self.seed, n_jobs, device)
        gram = None
        if choose_solver(svm.solver, *rows.shape) == "gram":
            gram = gram_matrix(rows, device=device)
        stages.end("Gram matrix")
        shared = self._shared_C(svm)
        searched, search = self._choose_C(
            unfitted, rows, known, grid=svm.C, gram=gram, per_class=not shared
        )
        C = _spread_C(search, searched, able)
        stages.end("choose C")
        fitted = unfitted.set_params(C=C[able])
        fitted.fit(rows, known.fitted[:, able], gram=gram)
        stages.end("fit")
        scores = np.full((len(parts["test"]), len(card.classes)), np.nan)
        if len(scores):
            scores[:, able] = fitted.class_scores(Rows(X, parts["test"]))
        stages.end("test")
        precisions = Precisions(
            card.classes, images.names, parts, truth, scores, self.ap, C, searched, search, shared
        )
        return Evaluation(
            self._result(card, images, precisions, stages.seconds, svm),
            Fitted(
                fitted,
                tuple(name for name, trained in zip(card.classes, able, strict=True) if trained),
                tuple(float(value) for value in C[able]),
                "train and val, as tested",
            ),
            card.classes,
            tuple(images.names[row] for row in parts["test"]),
            scores,
            precisions.examples(),
            "" if precisions.tested else "measured in validation",
        )

    def check_submission(self, card: DatasetCard, images: ImageSet) -> None:
        """Refuse a data set whose test labels are public, or whose test images are not here."""
        if not self.server_file:
            super().check_submission(card, images)
        if not len(images.splits.get("test", ())):
            raise DataError(
                f"There are no test images of {card.name} in {card.root}. Put its test archive "
                "there, and run the same command again."
            )

    def write_submission(
        self, card: DatasetCard, evaluation: Evaluation, folder: Path
    ) -> list[Path]:
        """Write the server's files into the tree ``results/VOC2012/…`` that it wants packed."""
        inside = folder / "results" / Path(card.folder).name / LISTS[self.task]
        # Of a person the image's id and the number among its objects.
        rows = [name.replace("#", " ") for name in evaluation.names]
        return write_scores(inside, self.server_file, evaluation.classes, rows, evaluation.scores)

    def _shared_C(self, svm: SVM) -> bool:
        return self.shared_C if svm.shared_C is None else svm.shared_C

    def _training(self, images: ImageSet, parts: dict[str, Ints], svm: SVM) -> _Training:
        """Gather the targets of trainval; the test part is not looked at."""
        assert images.targets is not None
        rows = np.union1d(parts["train"], parts["val"])
        known = images.targets[rows]
        fitted = known
        if (svm.difficult or self.difficult) == "negative":
            fitted = np.where(known == 0, -1, known).astype(np.int8)
        if not trainable(fitted).any():
            raise DataError(
                "No class has both positives and negatives in train and val, so none can be "
                "trained. Check that the labels belong to these images."
            )
        if svm.c_split == "cv3":
            image_of = np.array(VIEWS["image"](images).names)  # several persons may be in one
            folds = _grouped_folds(known, image_of[rows], self.seed)
        else:
            folds = [Split(*(np.searchsorted(rows, np.sort(parts[p])) for p in ("train", "val")))]
        return _Training(rows, fitted, known, folds)

    def _choose_C(
        self, svm: LinearSVM, rows: Rows, known: _Training, **search: Any
    ) -> tuple[Bools, GridSearchResult]:
        """Search C for the classes that some fold can both train and validate."""
        searched = _searchable(known)
        result = select_C(
            svm,
            rows,
            known.fitted[:, searched],
            folds=known.folds,
            score=lambda targets, scores: average_precisions(targets, scores, self.ap),
            truth=known.truth[:, searched],
            **search,
        )
        return searched, result

    def _result(
        self,
        card: DatasetCard,
        images: ImageSet,
        precisions: Precisions,
        seconds: dict[str, float],
        svm: SVM,
    ) -> Result:
        choice = {
            "train-val": "on val, trained on train",
            "cv3": "in three folds of train and val",
        }[svm.c_split]
        whose = "all classes" if self._shared_C(svm) else "each class"
        return Result(
            card.name,
            card.title or card.name,
            precisions.headline(),
            precisions.about(),
            precisions.layout(),
            {
                "solver": precisions.search.solver,
                "choice of C": f"one for {whose}, {choice}",
                "difficult": svm.difficult or self.difficult,
                **{f"images to {part}": len(rows) for part, rows in precisions.parts.items()},
                **self._drawn(images),
            },
            {"seed": self.seed},
            seconds,
            precisions.warnings(),
            card.differences if card.partial else (),
        )

    def _drawn(self, images: ImageSet) -> dict[str, str]:
        return {}


@register
class MultiLabel(VOC):
    """Images of several labels each, or none: VOC's protocol on a manifest of one's own.

    Its column ``split`` says train, val or test. Without it the parts are drawn, by the rarest
    class of each image.

    Examples
    --------
    >>> MultiLabel().test_fraction
    0.5
    """

    kind: Literal["multi-label"] = "multi-label"  # type: ignore[assignment]
    ap: APKind = "area"
    test_fraction: float = Field(default=0.5, gt=0, lt=1)
    val_fraction: float = Field(default=0.5, gt=0, lt=1)  # of what is not for testing

    svm_settings: ClassVar[frozenset[str]] = frozenset({"shared_C", "c_split"})
    example: ClassVar[str] = "a CSV file with the column labels (a|b)"

    def parts(self, card: DatasetCard, images: ImageSet) -> dict[str, Ints]:
        """Return the parts that the column ``split`` gives, or draw them."""
        given = dict(images.splits)
        if not given:
            given["rest"], given["test"] = self._halves(card, images, self.test_fraction)
        if not len(given.get("val", ())):  # of a manifest that names train and test alone
            known = given.get("train", given.get("trainval", np.array([], np.int64)))
            rest = given.pop("rest", known)
            if not len(rest):
                raise DataError(
                    f"The part train of {card.name} has no image: there is nothing to train with. "
                    "Mark some, as in the column 'split', or leave all splits out to have them "
                    "drawn."
                )
            train, val = self._halves(card, images.take(rest), self.val_fraction, self.seed + 1)
            given |= {"train": rest[train], "val": rest[val]}
        return super().parts(card, replace(images, splits=given))

    def _halves(
        self, card: DatasetCard, images: ImageSet, share: float, seed: int | None = None
    ) -> Split:
        """Put a share of the images aside, by the rarest class of each."""
        assert images.targets is not None
        labels = rarest_class(images.targets)
        if not np.unique(labels, return_counts=True)[1].max(initial=0) > 1:
            raise DataError(
                f"{card.name} has too few images to draw a part from: no class has two. Add "
                "images, or write a column 'split' with train, val and test."
            )
        return held_out_part(labels, share, self.seed if seed is None else seed)

    def _drawn(self, images: ImageSet) -> dict[str, str]:
        val = f"{100 * self.val_fraction:g} % of the rest to validate, seed {self.seed}"
        if not images.splits:
            test = f"{100 * self.test_fraction:g} % to test"
            return {"parts": f"drawn by the rarest class of each image: {test}, {val}"}
        return {} if len(images.splits.get("val", ())) else {"parts": f"drawn of train: {val}"}


class _Stages:
    """Time of each stage, told as it ends."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._since = perf_counter()

    def end(self, stage: str) -> None:
        now = perf_counter()
        self.seconds[stage], self._since = now - self._since, now
        if self._progress is not None:
            self._progress(len(self.seconds), 4)


def _searchable(known: _Training) -> Bools:
    """Tell for which classes some fold can both train and validate; DataError if for none."""
    able = [
        trainable(known.fitted[train]) & (known.truth[val] > 0).any(axis=0)
        for train, val in known.folds
    ]
    searched: Bools = np.any(able, axis=0)
    if not searched.any():
        raise DataError(
            "C cannot be chosen: no class has positives and negatives in train, and positives "
            "in val. Give more images, or choose C by cross-validation on both together: "
            "--c-split cv3."
        )
    return searched


def _grouped_folds(known: Targets, groups: NDArray[Any], seed: int) -> list[Split]:
    """Deal whole groups over three folds, each by all that its rows have."""
    names, group_of = np.unique(groups, return_inverse=True)
    labels = np.full((len(names), known.shape[1]), -1, np.int8)
    np.maximum.at(labels, group_of, known)
    return [
        Split(*(np.flatnonzero(np.isin(group_of, part)) for part in fold))
        for fold in stratified_folds(labels, 3, seed)
    ]


def _spread_C(search: GridSearchResult, searched: Bools, able: Bools) -> Floats:
    """Give every class that is trained its C; one that was not searched, the best for all."""
    tied = search.overall >= np.max(search.overall) - 1e-12
    best = search.grid[nearest_to_one(search.grid, tied)]
    C = np.where(able, best if len(search.best) > 1 else search.best[0], np.nan)
    C[searched] = search.C
    return C
