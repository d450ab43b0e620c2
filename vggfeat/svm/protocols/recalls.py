"""Mean class recall over splits, laid out: classes, confusions, choice of C, rankings, mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.text import counted, signed
from vggfeat.result import (
    Gallery,
    GalleryImage,
    Lines,
    Matrix,
    Measure,
    Part,
    Series,
    Strip,
    Table,
    TableColumn,
)
from vggfeat.svm.linear import LinearSVM
from vggfeat.svm.protocols.base import Example, Floats, Ints, marks, validation_lines
from vggfeat.svm.search import GridSearchResult
from vggfeat.svm.splits import Split

RANKED = 12  # test images of highest score that a result keeps for each class
SHOWN = 8  # of them in a gallery
WORST = 12  # mistakes that a page shows first
PAIRS, EXAMPLES = 100, 4  # pairs of confused classes with images on it, and images of each


class Mistake(NamedTuple):
    """A test image of a split taken for another class, which won by a margin."""

    split: int
    row: int
    true: int
    predicted: int
    margin: float


class Tested(NamedTuple):
    """One split: what was chosen, and how well it did; of later ones no scores are kept."""

    split: Split
    svm: LinearSVM
    search: GridSearchResult
    confusion: NDArray[np.int64]
    recalls: Floats
    mistakes: list[Mistake]
    scores: Floats
    seconds: dict[str, float]


@dataclass(frozen=True)
class Recalls:
    """Recalls over splits, laid out as tables and figures.

    Parameters
    ----------
    classes, names : tuple of str
        Classes, and the name of each row's image.
    labels : array, shape (N,)
        Positions in `classes`.
    tested : sequence of Tested
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: Ints
    tested: Sequence[Tested]

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Test images of all splits, true class by predicted class, shape (C, C)."""
        return np.asarray(np.sum([split.confusion for split in self.tested], axis=0))

    @cached_property
    def mistakes(self) -> list[Mistake]:
        """Mistakes of all splits, the worst first."""
        every = [mistake for split in self.tested for mistake in split.mistakes]
        return sorted(every, key=lambda mistake: -mistake.margin)

    def headline(self) -> tuple[Measure, ...]:
        """Mean over splits of mean class recall and of accuracy, and what guessing would give.

        Spreads are the sample's standard deviation (divisor n - 1): the splits drawn are a
        sample of those that could be. The paper does not say which it prints; this is the larger.
        """
        chance = Measure("chance", "chance level", 1 / len(self.classes), reference=True)
        images = self.confusion.sum(axis=1)
        largest = Measure(
            "largest_class",
            "accuracy by always naming the largest class",
            float(images.max() / images.sum()),
            reference=True,
        )
        return (
            _over_splits("mean_class_recall", "mean class recall", self._means()),
            _over_splits("accuracy", "accuracy", self._accuracies()),
            chance,
            *([largest] if len({*images.tolist()}) > 1 else []),
        )

    def class_weights(self) -> dict[str, str]:
        """Say with which class weight the splits were trained, where it was chosen with C."""
        if not self._weights_chosen:
            return {}
        weights = dict.fromkeys(split.search.class_weight or "none" for split in self.tested)
        return {"class weight": f"{' or '.join(weights)}, chosen with C"}

    def parts(self) -> tuple[Part, ...]:
        """Return all tables and figures, in the order of the page."""
        confusion = Matrix(
            "confusion",
            "Confusion",
            self.classes,
            self.classes,
            tuple(map(tuple, self.confusion.tolist())),
            note="Test images of all splits: true class by predicted class.",
            section="Confusion",
        )
        parts = [
            self._class_table(),
            *([self._pair_table()] if self.mistakes else []),
            confusion,
            self._split_table(),
            self._validation_table(),
            self._validation_lines(),
            *self._ranked(),
            *(self._mistakes() if self.mistakes else ()),
        ]
        return tuple(parts)

    def warnings(self) -> tuple[str, ...]:
        """Say what is in doubt about the choice of C."""
        return tuple(
            (f"Split {number}: " if len(self.tested) > 1 else "") + split.search.warning
            for number, split in enumerate(self.tested, 1)
            if split.search.warning
        )

    def examples(self) -> tuple[Example, ...]:
        """Choose each class's first image that truly has it, and the worst mistake for it.

        Those of the first split, whose classifier explains them.
        """
        first = self.tested[0]
        rows, true = first.split.test, self.labels[first.split.test]
        right = []
        for c, label in enumerate(self.classes):
            ranked = _order(first.scores[:, c])[:RANKED]
            right += [Example(self.names[rows[i]], label) for i in ranked[true[ranked] == c][:1]]
        worst: dict[int, Example] = {}
        for _, row, truth, predicted, _ in first.mistakes:
            wrong = Example(self.names[row], self.classes[predicted], self.classes[truth])
            worst.setdefault(predicted, wrong)
        return (*right, *worst.values())

    def _means(self) -> list[float]:
        return [float(np.nanmean(split.recalls)) for split in self.tested]

    def _accuracies(self) -> list[float]:
        return [float(np.trace(of) / of.sum()) for of in (each.confusion for each in self.tested)]

    @property
    def _weights_chosen(self) -> bool:
        return any(split.search.weights_tried > 1 for split in self.tested)

    def _class_table(self) -> Table:
        recalls = np.array([split.recalls for split in self.tested])
        tested = ~np.isnan(recalls[0])  # a class is tested in every split, or in none
        mean = np.where(tested, recalls.mean(axis=0), np.nan)
        several = len(recalls) > 1
        spread = recalls.std(axis=0, ddof=1) if several else np.full(len(mean), np.nan)
        wrong = self.confusion - np.diag(self.confusion.diagonal())
        columns = (
            TableColumn("class", "Class"),
            TableColumn("recall", "Recall", "percent", bar=True),
            TableColumn("spread", "±", "percent"),
            TableColumn("images", "Tested", "int"),
            TableColumn("taken_for", "Most often taken for"),
        )
        rows = tuple(
            (
                name,
                float(mean[c]),
                float(spread[c]),
                int(self.confusion[c].sum()),
                self.classes[wrong[c].argmax()] if wrong[c].any() else "",
            )
            for c, name in enumerate(self.classes)
        )
        return Table("classes", "Classes", columns, rows)

    def _pairs(self) -> list[tuple[int, int]]:
        """List pairs (true, predicted) of classes taken for each other, most frequent first."""
        counts, of = self.confusion, self.confusion.sum(axis=1)
        pairs = [(int(t), int(p)) for t, p in np.argwhere(counts) if t != p]
        return sorted(pairs, key=lambda tp: (-counts[tp], -counts[tp] / of[tp[0]], tp))

    def _pair_table(self) -> Table:
        columns = (
            TableColumn("class", "Class"),
            TableColumn("taken_for", "Taken for"),
            TableColumn("images", "Images", "int"),
            TableColumn("of", "of", "int"),
        )
        rows = tuple(
            (
                self.classes[t],
                self.classes[p],
                int(self.confusion[t, p]),
                int(self.confusion[t].sum()),
            )
            for t, p in self._pairs()
        )
        return Table("confused", "Most confused", columns, rows, shown=5, section="Confusion")

    def _split_table(self) -> Table:
        columns = (
            TableColumn("split", "Split", "int"),
            TableColumn("train", "To train", "int"),
            TableColumn("test", "To test", "int"),
            TableColumn("C", "C", "number"),
            *([TableColumn("class_weight", "Class weight")] if self._weights_chosen else []),
            TableColumn("validation", "Validation", "percent"),
            TableColumn("recall", "Mean class recall", "percent"),
            TableColumn("accuracy", "Accuracy", "percent"),
        )
        rows = tuple(
            (
                number,
                len(split.split.train),
                len(split.split.test),
                split.search.best[0],
                *([split.search.class_weight or "none"] if self._weights_chosen else []),
                split.search.best_score,
                recall,
                accuracy,
            )
            for number, (split, recall, accuracy) in enumerate(
                zip(self.tested, self._means(), self._accuracies(), strict=True), 1
            )
        )
        return Table("splits", "Splits", columns, rows, shown=10, section="Choice of C")

    def _validation_table(self) -> Table:
        columns = (
            TableColumn("split", "Split", "int"),
            TableColumn("C", "C", "number"),
            TableColumn("validation", "Validation", "percent"),
        )
        rows = tuple(
            (number, C, float(score))
            for number, split in enumerate(self.tested, 1)
            for C, score in zip(split.search.grid, split.search.overall, strict=True)
        )
        return Table("validation", "Validation", columns, rows, shown=0, section="Choice of C")

    def _validation_lines(self) -> Lines:
        series = [
            Series(
                f"split {number}",
                split.search.grid,
                tuple(split.search.overall.tolist()),
                marks(split.search.grid, split.search.best),
            )
            for number, split in enumerate(self.tested, 1)
        ]
        note = "Measured on training images that were put aside" + (
            ", a line for each split." if len(series) > 1 else "."
        )
        return validation_lines(series, "Mean class recall", note)

    def _ranked(self) -> tuple[Part, ...]:
        """Rank the first split's images: scores of several classifiers have no common order."""
        first = self.tested[0]
        columns = (
            TableColumn("class", "Class"),
            TableColumn("rank", "Rank", "int"),
            TableColumn("image", "Image"),
            TableColumn("truth", "Is"),
            TableColumn("score", "Score", "number"),
        )
        rows, strips = [], []
        for c, name in enumerate(self.classes):
            tiles = []
            for rank, i in enumerate(_order(first.scores[:, c])[:RANKED], 1):
                row, score = first.split.test[i], float(first.scores[i, c])
                image, truth = self.names[row], self.classes[self.labels[row]]
                rows.append((name, rank, image, truth, score))
                wrong = truth != name
                caption = f"score {signed(score)}" + f", shows {truth}" * wrong
                tiles.append(GalleryImage(image, caption, "wrong" if wrong else ""))
            strips.append(Strip(name, tuple(tiles[:SHOWN])))
        of = "" if len(self.tested) == 1 else " of the first split"
        note = f"The test images{of} that each class scores highest."
        return (
            Table("ranked", "Ranked first", columns, tuple(rows), shown=0, section="Ranked first"),
            Gallery("ranked", "Ranked first", tuple(strips), note, section="Ranked first"),
        )

    def _mistakes(self) -> tuple[Part, ...]:
        columns = (
            TableColumn("split", "Split", "int"),
            TableColumn("image", "Image"),
            TableColumn("class", "Class"),
            TableColumn("predicted", "Taken for"),
            TableColumn("margin", "By", "number"),
        )
        rows = tuple(
            (m.split, self.names[m.row], self.classes[m.true], self.classes[m.predicted], m.margin)
            for m in self.mistakes
        )
        worst = _each_once(self.mistakes)[:WORST]
        strips = [Strip("The worst: the wrong class's score is higher by", self._tiles(worst))]
        pairs = self._pairs()
        for t, p in pairs[:PAIRS]:
            alike = _each_once(m for m in self.mistakes if (m.true, m.predicted) == (t, p))
            n, of = self.confusion[t, p], self.confusion[t].sum()
            title = f"{self.classes[t]} taken for {self.classes[p]}: {n} of {of}"
            strips.append(Strip(title, self._tiles(alike[:EXAMPLES], named=False)))
        images = len({mistake.row for mistake in self.mistakes})
        note = (
            f"{counted(len(self.mistakes), 'mistake')} in {counted(len(self.tested), 'split')}, "
            f"on {counted(images, 'image')}; the file mistakes.csv has each."
        )
        if len(pairs) > PAIRS:
            note += f" The {PAIRS} most frequent of {len(pairs):,} confusions are shown."
        return (
            Table("mistakes", "Mistakes", columns, rows, shown=0, section="Mistakes"),
            Gallery("mistakes", "Mistakes", tuple(strips), note, section="Mistakes"),
        )

    def _tiles(
        self, mistakes: Iterable[Mistake], *, named: bool = True
    ) -> tuple[GalleryImage, ...]:
        """Show mistakes, with by how much the wrong class's score is higher."""
        several, tiles = len(self.tested) > 1, []
        for split, row, true, predicted, margin in mistakes:
            classes = f"{self.classes[true]}, taken for {self.classes[predicted]}: "
            caption = f"{classes * named}{margin:.2f} higher{f', split {split}' * several}"
            tiles.append(GalleryImage(self.names[row], caption, "wrong"))
        return tuple(tiles)


def _over_splits(name: str, title: str, values: Sequence[float]) -> Measure:
    """Average a figure over splits, with its spread where there are several."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Measure(name, title, float(np.mean(values)), spread=spread)


def _each_once(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """Take the first mistake of each image: it may be of the test part of several splits."""
    first: dict[int, Mistake] = {}
    for mistake in mistakes:
        first.setdefault(mistake.row, mistake)
    return list(first.values())


def _order(scores: Floats) -> Ints:
    return np.argsort(-scores, kind="stable")
