"""What a test over random splits found, in full."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat.svm.choice import CSearch
from vggfeat.svm.linear import LinearSVM
from vggfeat.svm.metrics import recall_of
from vggfeat.svm.solvers import Floats


class Mistake(NamedTuple):
    """A test image taken for another class; ``margin`` is by how much that class won."""

    row: int
    true: int
    predicted: int
    margin: float


class Ranked(NamedTuple):
    """A test image among those that a class scores highest."""

    row: int
    true: int
    score: float


class ConfusedPair(NamedTuple):
    """How many images of one class were taken for another, of how many."""

    true: int
    predicted: int
    images: int
    of: int


@dataclass(frozen=True)
class SplitResult:
    """One split: what was chosen, and how well it did.

    Parameters
    ----------
    n_train, n_test : int
        Numbers of images.
    search : CSearch
        The choice of C.
    confusion : array, shape (C, C)
        Test images, true class by predicted class.
    mistakes : tuple of Mistake
        The clearest first.
    ranked : tuple of tuple of Ranked
        For each class the test images of highest score.
    seconds : dict
        Time of each stage: ``"choose C"``, ``"fit"``, ``"test"``.
    svm : LinearSVM
        The classifier; not part of :meth:`to_dict`.
    """

    n_train: int
    n_test: int
    search: CSearch
    confusion: NDArray[np.int64]
    mistakes: tuple[Mistake, ...]
    ranked: tuple[tuple[Ranked, ...], ...]
    seconds: dict[str, float]
    svm: LinearSVM = field(repr=False, compare=False)

    @property
    def recalls(self) -> Floats:
        """Recall of each class, shape (C,); NaN for a class without test images."""
        return recall_of(self.confusion)

    @property
    def mean_class_recall(self) -> float:
        """Mean over the classes that have test images."""
        return float(np.nanmean(self.recalls))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the classifier as plain JSON types."""
        return {
            "n_train": self.n_train,
            "n_test": self.n_test,
            "mean_class_recall": self.mean_class_recall,
            "recalls": plain(self.recalls),
            "confusion": self.confusion.tolist(),
            "search": self.search.to_dict(),
            "mistakes": [mistake._asdict() for mistake in self.mistakes],
            "ranked": [[one._asdict() for one in ranked] for ranked in self.ranked],
            "seconds": dict(self.seconds),
        }


@dataclass(frozen=True)
class SVMResult:
    """Mean class recall over splits, and all that stands behind it.

    Parameters
    ----------
    class_names : tuple of str
        Classes, in the order of every array here.
    names : tuple of str
        Name of each row's image.
    splits : tuple of SplitResult
        In the order drawn.
    settings : dict
        Loss, solver, grid, folds and seed.
    """

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    splits: tuple[SplitResult, ...]
    settings: dict[str, Any]

    @property
    def mean_class_recall(self) -> float:
        """Mean over splits of mean class recall."""
        return float(np.mean(self._per_split))

    @property
    def std(self) -> float:
        """Spread of mean class recall over splits; NaN for a single split.

        The sample standard deviation (divisor n - 1): the splits drawn are a sample of those
        that could be. The paper does not say which it prints; this is the larger one.
        """
        return float(np.std(self._per_split, ddof=1)) if len(self.splits) > 1 else float("nan")

    @property
    def recalls(self) -> Floats:
        """Recall of each class, the mean over splits, shape (C,)."""
        recalls = np.array([split.recalls for split in self.splits])
        tested = ~np.isnan(recalls[0])  # a class is tested in every split, or in none
        return np.where(tested, recalls.mean(axis=0), np.nan)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Test images of all splits, true class by predicted class, shape (C, C)."""
        total: NDArray[np.int64] = np.sum([split.confusion for split in self.splits], axis=0)
        return total

    @property
    def seconds(self) -> dict[str, float]:
        """Time of each stage, over all splits."""
        stages = self.splits[0].seconds
        return {stage: sum(split.seconds[stage] for split in self.splits) for stage in stages}

    @property
    def warnings(self) -> list[str]:
        """What the reader should know about the choice of C."""
        found = [(number, split.search.warning) for number, split in enumerate(self.splits, 1)]
        return [f"Split {number}: {warning}" for number, warning in found if warning]

    def most_confused(self, n: int = 10) -> list[ConfusedPair]:
        """List the pairs of classes most often taken for each other, the most frequent first."""
        counts, of = self.confusion, self.confusion.sum(axis=1)
        pairs = [
            ConfusedPair(int(t), int(p), int(counts[t, p]), int(of[t]))
            for t, p in np.argwhere(counts)
            if t != p
        ]
        return sorted(pairs, key=lambda pair: (-pair.images, -pair.images / pair.of, pair))[:n]

    def mistakes(self) -> list[Mistake]:
        """List the mistakes of all splits, the clearest first, each image once."""
        clearest: dict[int, Mistake] = {}
        for mistake in sorted(
            (mistake for split in self.splits for mistake in split.mistakes),
            key=lambda mistake: -mistake.margin,
        ):
            clearest.setdefault(mistake.row, mistake)
        return list(clearest.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON types; NaN becomes None."""
        return {
            "metric": "mean class recall",
            "mean_class_recall": self.mean_class_recall,
            "std": plain(self.std),
            "std_ddof": 1,
            "class_names": list(self.class_names),
            "recalls": plain(self.recalls),
            "confusion": self.confusion.tolist(),
            "splits": [split.to_dict() for split in self.splits],
            "names": list(self.names),
            "settings": dict(self.settings),
            "seconds": self.seconds,
            "warnings": self.warnings,
        }

    @property
    def _per_split(self) -> list[float]:
        return [split.mean_class_recall for split in self.splits]


def plain(values: Floats | float) -> Any:
    """Turn a float, or an array of them, into JSON types; NaN becomes None."""
    if isinstance(values, float):
        return None if np.isnan(values) else values
    return [None if np.isnan(value) else float(value) for value in values]
