"""What every protocol does: it trains and tests on rows of a data set, and says what came out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat.data.datasets.card import DatasetCard
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError, ParameterError
from vggfeat.result import Axis, Lines, Result, Series, Table, TableColumn
from vggfeat.settings import SVM, Settings
from vggfeat.svm.linear import LinearSVM
from vggfeat.svm.splits import Split

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Called with the stages of a test that are done, and all of them."""


class Fitted(NamedTuple):
    """A classifier, the classes of its rows, their C, and in words what it was trained on."""

    svm: LinearSVM
    classes: tuple[str, ...]
    C: tuple[float, ...]
    trained_on: str


class Example(NamedTuple):
    """An image and a class whose score explains a result; ``truth`` is what a mistake shows."""

    image: str
    label: str
    truth: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What a protocol measured, and what a saved model, a submission and heat maps need.

    Parameters
    ----------
    result : Result
    fitted : Fitted
        The classifier that was tested; of several random splits that of the first.
    classes : tuple of str
        The columns of `scores`.
    names : tuple of str
        The images that it was tested on.
    scores : array, shape (N, C)
        Their scores, NaN for a class that could not be trained.
    examples : tuple of Example
        The first image of each class, then the worst mistakes.
    unlike : str
        Why its first measure does not compare with the paper's figures, if so.
    """

    result: Result
    fitted: Fitted = field(repr=False)
    classes: tuple[str, ...]
    names: tuple[str, ...] = field(repr=False)
    scores: Floats = field(repr=False)
    examples: tuple[Example, ...] = field(repr=False)
    unlike: str = ""

    def score_table(self) -> Table:
        """Lay out the scores of all test images: a row for each."""
        columns = (
            TableColumn("image", "Image"),
            *(TableColumn(c, c, "number") for c in self.classes),
        )
        rows = zip(self.names, self.scores.tolist(), strict=True)
        return Table("scores", "Scores", columns, tuple((name, *row) for name, row in rows))


class Protocol(Settings, ABC):
    """How a data set is split, trained on and judged: ``[protocol]`` of its card.

    The fields of a subclass are the keys of that table. :func:`register` adds one to the
    protocols under its ``kind``.
    """

    kind: str
    metric: str
    measure: ClassVar[str]
    """Name of the headline's first measure."""
    svm_settings: ClassVar[frozenset[str]] = frozenset()
    """Settings of :class:`~vggfeat.settings.SVM` that this protocol uses, and not every other."""
    multi_label: ClassVar[bool] = False
    """Whether an image may have several classes, or none."""
    example: ClassVar[str] = ""
    """A data set of it, to name in messages."""

    def check(
        self, card: DatasetCard, images: ImageSet | None = None, svm: SVM | None = None
    ) -> None:
        """Refuse what labels and splits alone tell that it cannot do, and settings it does not use.

        Parameters
        ----------
        card : DatasetCard
        images : ImageSet, optional
            None before they are fetched and read. They need not be described yet.
        svm : SVM, optional

        Raises
        ------
        DataError
            Naming the labels that are lacking, or why the images cannot be split or learned from.
        ParameterError
            Naming a setting that the protocol does not use, whatever its value.
        """
        given = svm.model_fields_set if svm else set()
        for name in sorted(given - self.svm_settings):
            examples = [kind.example for kind in PROTOCOLS.values() if name in kind.svm_settings]
            if examples:
                raise ParameterError.ignored(
                    name,
                    f"{card.name}, whose protocol is {self.kind} ({self.metric})",
                    f"data sets such as {' or '.join(examples)}",
                )

    def draw(self, card: DatasetCard, images: ImageSet) -> list[Split]:
        """Return the rows that train and those that test, of each split; none without an SVM."""
        return []

    @abstractmethod
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
        """Train on the rows of a data set, C chosen in the training part alone, and test.

        Parameters
        ----------
        card, images : DatasetCard, ImageSet
            As from :func:`~vggfeat.data.datasets.open_dataset`.
        X : array, shape (N, D)
            A row for each image, L2-normalised.
        svm : SVM
        n_jobs : int or None
            Processes that train.
        device : str
            Where the Gram matrix is computed.
        progress : callable, optional

        Raises
        ------
        DataError
            If the images cannot be split or learned from.
        """

    def fit_all(
        self,
        card: DatasetCard,
        images: ImageSet,
        X: NDArray[Any],
        svm: SVM,
        n_jobs: int | None = -1,
        device: str = "auto",
    ) -> Fitted | None:
        """Train on every image what new images are classified by; None to keep the tested one."""
        return None

    def check_submission(self, card: DatasetCard, images: ImageSet) -> None:
        """Refuse a data set that has no evaluation server, or no test images here.

        Raises
        ------
        DataError
            Saying which.
        """
        raise DataError(
            f"The test labels of {card.name} are public; there is nothing to submit. Leave out "
            "--submission."
        )

    def write_submission(
        self, card: DatasetCard, evaluation: Evaluation, folder: Path
    ) -> list[Path]:
        """Write what the evaluation server takes, where it alone has the test labels."""
        raise NotImplementedError(self.kind)


def make_svm(svm: SVM, seed: int, n_jobs: int | None, device: str) -> LinearSVM:
    """Make an unfitted classifier of settings; its C is chosen later.

    The class weight ``"auto"`` is none here: a protocol that chooses it tries both.
    """
    return LinearSVM(
        loss=svm.loss,
        solver=svm.solver,
        class_weight="balanced" if svm.class_weight == "balanced" else None,
        random_state=seed,
        n_jobs=n_jobs,
        device=device,
    )


PROTOCOLS: dict[str, type[Protocol]] = {}


def register(protocol: type[Protocol]) -> type[Protocol]:
    """Register a protocol under the default of its ``kind``."""
    PROTOCOLS[protocol.model_fields["kind"].default] = protocol
    return protocol


def validation_lines(series: Sequence[Series], metric: str, note: str) -> Lines:
    """Draw validation figures over C, the chosen values marked."""
    x, y = Axis("C", log=True), Axis(f"{metric} in validation", "percent")
    title = f"{metric} in validation for each C"
    note += (
        " A larger C fits the training images more closely; a ring marks the one that is chosen."
    )
    return Lines("validation", title, x, y, tuple(series), note, section="Choice of C")


def marks(grid: Sequence[float], chosen: Sequence[float]) -> tuple[int, ...]:
    """Return the positions of chosen values in a grid, each once."""
    return tuple(dict.fromkeys(list(grid).index(C) for C in chosen))
