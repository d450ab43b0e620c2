"""Average precisions, laid out: classes, curves, choice of C, rankings, mistakes and missed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.text import shorten, signed
from vggfeat.result import (
    Axis,
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
from vggfeat.svm.ap import APKind, average_precisions, mean_average_precision, precision_recall
from vggfeat.svm.protocols.base import Example, Floats, Ints, marks, validation_lines
from vggfeat.svm.search import GridSearchResult

RANKED = 12  # rows that a result keeps of each of a class's lists
SHOWN = {"ranked": 8, "mistakes": 4, "missed": 4}  # of them in galleries
TITLES = {"ranked": "Ranked first", "mistakes": "Worst mistakes", "missed": "Missed"}
NONE = "none of the classes"
AP_TITLES: Mapping[APKind, str] = {"ap11": "11-point", "area": "Area"}
AP_WORDS: Mapping[APKind, str] = {"ap11": "11-point", "area": "area under the curve"}


class Scored(NamedTuple):
    """A row in a class's ranking: its position, truth (-1, 0, +1), score, and rank from 1 on."""

    row: int
    truth: int
    score: float
    rank: int


def rank_rows(truth: NDArray[np.int8], scores: Floats, n: int) -> dict[str, list[Scored]]:
    """Rank the rows of a class, equal scores in the order given, as average precision does.

    Parameters
    ----------
    truth : array, shape (N,), of -1, 0 and +1
    scores : array, shape (N,)
        NaN, of a class that could not be trained, has no ranking.
    n : int
        Length of each list.

    Returns
    -------
    dict
        ``ranked``, the rows of highest score; ``mistakes``, the negatives of highest score;
        ``missed``, the positives of lowest score, the lowest first.

    Examples
    --------
    >>> lists = rank_rows(np.array([1, -1, 1]), np.array([0.9, 0.8, 0.7]), n=1)
    >>> lists["mistakes"][0].rank, lists["missed"][0]
    (2, Scored(row=2, truth=1, score=0.7, rank=3))
    """
    order = np.empty(0, int) if np.isnan(scores).any() else np.argsort(-scores, kind="stable")
    ranking = [
        Scored(int(i), int(truth[i]), float(scores[i]), rank) for rank, i in enumerate(order, 1)
    ]
    return {
        "ranked": ranking[:n],
        "mistakes": [scored for scored in ranking if scored.truth < 0][:n],
        "missed": [scored for scored in reversed(ranking) if scored.truth > 0][:n],
    }


@dataclass(frozen=True)
class Precisions:
    """Scores of a test part and the choice of C, laid out as tables and figures.

    Parameters
    ----------
    classes, names : tuple of str
        The C classes, and the name of each row's image.
    parts : dict of str to array
        Row numbers of train, val and test.
    truth : array, shape (N, C), of -1, 0 and +1
        Of all rows.
    scores : array, shape (n_test, C)
        NaN for a class that was not trained.
    ap : "ap11" or "area"
        The kind of the headline.
    C : array, shape (C,)
        What each class was trained with; NaN for a class that was not.
    searched : array, shape (C,), bool
        Classes that took part in the choice of C.
    search : GridSearchResult
        The choice, of the classes searched.
    shared : bool
        Whether there is one C for all classes.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    parts: Mapping[str, Ints]
    truth: NDArray[np.int8]
    scores: Floats
    ap: APKind
    C: Floats
    searched: NDArray[np.bool_]
    search: GridSearchResult
    shared: bool

    @cached_property
    def known(self) -> NDArray[np.int8]:
        """Targets of the test part, shape (n_test, C); 0 throughout if they are not public."""
        return self.truth[self.parts["test"]]

    @cached_property
    def tested(self) -> bool:
        """Whether the test part has labels; if not, there are scores only."""
        return bool((self.known != 0).any())

    @cached_property
    def figures(self) -> dict[APKind, Floats]:
        """Average precision of each class on the test part, of both kinds."""
        kinds: tuple[APKind, ...] = (self.ap, "area" if self.ap == "ap11" else "ap11")
        return {kind: average_precisions(self.known, self.scores, kind) for kind in kinds}

    @cached_property
    def validation(self) -> Floats:
        """Average precision in validation, shape (n_C, C), the mean over folds."""
        every = np.full((len(self.search.grid), len(self.classes)), np.nan)
        every[:, self.searched] = self.search.per_class
        return every

    @cached_property
    def validated(self) -> Floats:
        """Average precision in validation at the chosen C, shape (C,)."""
        best = np.searchsorted(self.search.grid, np.nan_to_num(self.C, nan=self.search.grid[0]))
        return np.asarray(self.validation[best, np.arange(len(self.classes))])

    @cached_property
    def lists(self) -> list[dict[str, list[Scored]]]:
        """Rankings of each class on the test part."""
        pairs = zip(self.known.T, self.scores.T, strict=True)
        return [rank_rows(truth, scores, RANKED) for truth, scores in pairs]

    def headline(self) -> tuple[Measure, ...]:
        """Return the means over classes; without public test labels that of validation alone."""
        validation = mean_average_precision(self.validated)
        in_validation = Measure("validation_mAP", "mAP in validation", validation)
        if not self.tested:
            return (in_validation,)
        (kind, figures), (other, others) = self.figures.items()
        return (
            Measure("mAP", f"mAP ({AP_WORDS[kind]})", mean_average_precision(figures)),
            Measure(f"mAP_{other}", f"mAP ({AP_WORDS[other]})", mean_average_precision(others)),
            in_validation,
        )

    def about(self) -> str:
        """Say on what the headline was measured."""
        shown = self.figures[self.ap] if self.tested else self.validated
        known, every, n = int((~np.isnan(shown)).sum()), len(shown), len(self.parts["test"])
        classes = f"over {every} classes" if known == every else f"over {known} of {every} classes"
        if not n:
            return f"{classes}; there are no test images"
        if not self.tested:
            return f"{classes}; the {n:,} test images are scored, their labels are not public"
        return f"{classes} on {n:,} test images"

    def warnings(self) -> tuple[str, ...]:
        """Say which classes are left out, and which choices of C are in doubt."""
        trained, edge = ~np.isnan(self.C), self._at_edge()
        grid = f"{shorten(self.search.grid[0])} … {shorten(self.search.grid[-1])}"
        train, val = (self.truth[self.parts[part]] for part in ("train", "val"))
        in_train, in_val = (train > 0).any(axis=0), (val > 0).any(axis=0)
        unsearched = trained & ~self.searched
        one_sided = unsearched & in_train & in_val & ~(train < 0).any(axis=0)
        no_test = self.tested & trained & ~(self.known > 0).any(axis=0)
        sentences = (
            (~trained & ~(in_train | in_val), "No positives to train {} with: left out."),
            (~trained & (in_train | in_val), "No negatives to train {} with: left out."),
            (no_test, "No positives to test {} with: left out of the mean."),
            (
                unsearched & ~one_sided,
                "No positives on both sides of a validation to choose C for {}: it is the one "
                "that is best for the other classes.",
            ),
            (
                one_sided,
                "No negatives to train with in a validation to choose C for {}: it is the one that "
                "is best for the other classes.",
            ),
            (
                edge,
                f"The best C of {{}} lies at the edge of the grid {grid}. A wider grid may do "
                "better.",
            ),
        )
        return tuple(text.format(self._listed(which)) for which, text in sentences if which.any())

    def layout(self) -> tuple[Part, ...]:
        """Return all tables and figures, in the order of the page."""
        parts: list[Part] = [self._class_table()]
        if self.tested and not np.isnan(self.figures[self.ap]).all():
            parts.append(self._curves())
        parts += [self._validation_table(), self._validation_lines(), self._choice()]
        if len(self.parts["test"]):
            parts += [self._ranking_table(), *self._galleries()]
        return tuple(parts)

    def examples(self) -> tuple[Example, ...]:
        """Choose each class's first image that truly has it, and its highest mistake."""
        right = 1 if self.tested else 0  # without labels nothing is known to be right
        first = [
            Example(self._name(scored), label)
            for label, lists in zip(self.classes, self.lists, strict=True)
            for scored in [scored for scored in lists["ranked"] if scored.truth == right][:1]
        ]
        worst = sorted(
            (lists["mistakes"][0].rank, c, lists["mistakes"][0])
            for c, lists in enumerate(self.lists)
            if lists["mistakes"]
        )
        wrong = [
            Example(self._name(scored), self.classes[c], self._labels(scored) or NONE)
            for _, c, scored in worst
        ]
        return (*first, *wrong)

    def _class_table(self) -> Table:
        validation = TableColumn("validation", "On val", "percent", bar=not self.tested)
        C, parts = TableColumn("C", "C", "number"), ("train", "val", "test")
        precisions = [
            TableColumn(kind, AP_TITLES[kind], "percent", bar=kind == self.ap)
            for kind in self.figures
        ]
        columns = [
            TableColumn("class", "Class"),
            *(precisions if self.tested else []),
            validation,
            C,
        ]
        columns += [TableColumn(part, f"+ {part}", "int") for part in parts]
        positives = [(self.truth[self.parts[part]] > 0).sum(axis=0) for part in parts]
        figures = [*self.figures.values()] if self.tested else []
        values = [array.tolist() for array in (*figures, self.validated, self.C, *positives)]
        cells = zip(self.classes, *values, strict=True)
        note = "AP on the test part and in validation, and how many positives each part has."
        return Table("classes", "Average precision", tuple(columns), tuple(cells), note)

    def _curves(self) -> Lines:
        figures, series = self.figures[self.ap], []
        for c, label in enumerate(self.classes):
            if not np.isnan(figures[c]):
                recall, precision = precision_recall(self.scores[:, c], self.known[:, c])
                name = f"{label}, {100 * figures[c]:.1f}"
                series.append(Series(name, tuple(recall.tolist()), tuple(precision.tolist())))
        x, y = Axis("Recall", "percent"), Axis("Precision", "percent")
        note = "Precision at each positive of the test part, and the class's AP in percent."
        title = "Precision and recall"
        return Lines("curves", title, x, y, tuple(series), note, panels=True)

    def _validation_table(self) -> Table:
        columns = (
            TableColumn("class", "Class"),
            TableColumn("C", "C", "number"),
            TableColumn("validation", "Validation", "percent"),
        )
        rows = tuple(
            (label, C, float(self.validation[k, c]))
            for c, label in enumerate(self.classes)
            for k, C in enumerate(self.search.grid)
        )
        return Table("validation", "Validation", columns, rows, shown=0, section="Choice of C")

    def _validation_lines(self) -> Lines:
        """Draw a line for each class, and their mean, on which one C for all is chosen."""
        grid = self.search.grid
        series = [
            Series(
                self.classes[c],
                grid,
                tuple(self.validation[:, c].tolist()),
                () if self.shared else marks(grid, [float(self.C[c])]),
                "thin",
            )
            for c in np.flatnonzero(self.searched)
        ]
        best = marks(grid, self.search.best) if self.shared else ()
        mean = Series("mean", grid, tuple(self.search.overall.tolist()), best, "strong")
        note = "A thin line for each class, named in the table, a strong one for their mean."
        return validation_lines([*series, mean], "AP", note)

    def _choice(self) -> Matrix:
        """Lay out the AP in validation of each class at each C, the chosen one marked."""
        rows = np.flatnonzero(self.searched)
        chosen = np.searchsorted(self.search.grid, self.C[rows])
        return Matrix(
            "choice",
            "AP in validation",
            tuple(self.classes[c] for c in rows),
            tuple(map(shorten, self.search.grid)),
            tuple(map(tuple, self.validation.T[rows].tolist())),
            "percent",
            marks=tuple(enumerate(chosen.tolist())),
            section="Choice of C",
        )

    def _ranking_table(self) -> Table:
        columns = (
            TableColumn("class", "Class"),
            TableColumn("list", "List"),
            TableColumn("rank", "Rank", "int"),
            TableColumn("image", "Image"),
            TableColumn("score", "Score", "number"),
            TableColumn("truth", "Truth", "int"),
        )
        rows = tuple(
            (label, name, scored.rank, self._name(scored), scored.score, scored.truth)
            for label, lists in zip(self.classes, self.lists, strict=True)
            for name, ranking in lists.items()
            for scored in ranking
        )
        return Table("rankings", "Rankings", columns, rows, shown=0, section="Images")

    def _galleries(self) -> list[Gallery]:
        galleries = []
        for name, title in TITLES.items():
            strips = tuple(
                Strip(label, tuple(self._tile(c, s) for s in lists[name][: SHOWN[name]]))
                for c, (label, lists) in enumerate(zip(self.classes, self.lists, strict=True))
                if lists[name]
            )
            if strips and (self.tested or name == "ranked"):
                galleries.append(Gallery(name, title, strips, section="Images"))
        return galleries

    def _tile(self, c: int, scored: Scored) -> GalleryImage:
        caption = f"rank {scored.rank:,}, score {signed(scored.score)}"
        if not self.tested or scored.truth > 0:
            return GalleryImage(self._name(scored), caption)
        if scored.truth == 0:
            return GalleryImage(self._name(scored), f"{caption}, difficult", "difficult")
        return GalleryImage(
            self._name(scored), f"{caption}, shows {self._labels(scored) or NONE}", "wrong"
        )

    def _name(self, scored: Scored) -> str:
        return self.names[int(self.parts["test"][scored.row])]

    def _labels(self, scored: Scored) -> str:
        """Name the classes that a test row truly has."""
        return ", ".join(self.classes[c] for c in np.flatnonzero(self.known[scored.row] > 0))

    def _at_edge(self) -> NDArray[np.bool_]:
        """Tell the classes whose best C lies at the grid's edge, shape (C,)."""
        edge = np.zeros(len(self.classes), dtype=bool)
        edge[self.searched] = self.search.at_edge
        return edge

    def _listed(self, which: NDArray[np.bool_]) -> str:
        if which.all() and len(which) > 1:
            return "all classes"
        return ", ".join(self.classes[c] for c in np.flatnonzero(which))
