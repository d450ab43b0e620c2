"""What a test by VOC's protocol found, in full."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggfeat.svm.ap import APKind, Floats, PRCurve, mean_average_precision
from vggfeat.svm.choice import CSearch
from vggfeat.svm.linear import LinearSVM
from vggfeat.svm.rankings import Rankings
from vggfeat.svm.results import plain
from vggfeat.svm.solvers import Ints


@dataclass(frozen=True)
class APResult:
    """Average precision of every class, and all that stands behind it.

    Arrays per class are in the order of ``class_names``, with NaN where a class has no figure.

    Parameters
    ----------
    class_names : tuple of str
        The C classes.
    names : tuple of str
        Name of every row's image.
    ap : "ap11" or "area"
        The headline's kind.
    ap11, area : array, shape (C,)
        Average precision of both kinds on the test part.
    C : array, shape (C,)
        The C that each class was trained with; NaN for a class that was not trained.
    searched : array, shape (C,), bool
        Classes that took part in the choice of C.
    search : CSearch
        The choice, of the classes searched.
    parts : dict of str to array
        Row numbers of ``"train"``, ``"val"`` and ``"test"``, as they were given.
    positives : dict of str to array, shape (C,)
        How many positives each class has in each part.
    truth : array, shape (n_test, C), int8
        Targets of the test part; 0 throughout if they are not public.
    scores : array, shape (n_test, C)
        Scores of the test part; NaN for a class that was not trained.
    curves : tuple of PRCurve
        Precision and recall of each class; empty curves where there is none.
    rankings : Rankings
        For each class the first rows, the first negatives and the last positives.
    svm : LinearSVM
        The classifier of the trained classes; not part of :meth:`to_dict`.
    settings : dict
        Loss, solver, grid, seed, and what was made of difficult objects and of C.
    seconds : dict
        Time of each stage.
    """

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    ap: APKind
    ap11: Floats
    area: Floats
    C: Floats
    searched: NDArray[np.bool_]
    search: CSearch
    parts: dict[str, Ints]
    positives: dict[str, Ints]
    truth: NDArray[np.int8] = field(repr=False)
    scores: Floats = field(repr=False)
    curves: tuple[PRCurve, ...] = field(repr=False)
    rankings: Rankings = field(repr=False)
    svm: LinearSVM = field(repr=False, compare=False)
    settings: dict[str, Any]
    seconds: dict[str, float]

    @property
    def per_class(self) -> Floats:
        """Average precision of the headline's kind, shape (C,)."""
        return self.ap11 if self.ap == "ap11" else self.area

    @property
    def mAP(self) -> float:
        """The headline: mean over the classes that have an average precision."""
        return mean_average_precision(self.per_class)

    @property
    def mAP11(self) -> float:
        """Mean of the 11-point average precision (2007)."""
        return mean_average_precision(self.ap11)

    @property
    def mAP_area(self) -> float:
        """Mean of the area under the curve (2010 and later)."""
        return mean_average_precision(self.area)

    @property
    def tested(self) -> bool:
        """Whether the test part has labels; if not, there are scores only."""
        return bool((self.truth != 0).any())

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Classes that could be trained, shape (C,)."""
        return ~np.isnan(self.C)

    @property
    def validation(self) -> Floats:
        """Average precision in validation, shape (n_C, C), the mean over folds."""
        every = np.full((len(self.search.grid), len(self.class_names)), np.nan)
        every[:, self.searched] = self.search.per_class
        return every

    @property
    def validation_per_class(self) -> Floats:
        """Average precision in validation at the chosen C, shape (C,)."""
        best = np.searchsorted(self.search.grid, np.nan_to_num(self.C, nan=self.search.grid[0]))
        return self.validation[best, np.arange(len(self.class_names))]

    @property
    def validation_mAP(self) -> float:
        """Mean of the average precision in validation at the chosen C."""
        return mean_average_precision(self.validation_per_class)

    @property
    def at_edge(self) -> NDArray[np.bool_]:
        """Classes whose best C lies at the grid's edge, shape (C,)."""
        edge = np.zeros(len(self.class_names), dtype=bool)
        edge[self.searched] = self.search.at_edge
        return edge

    @property
    def warnings(self) -> list[str]:
        """What the reader should know: classes left out, and choices of C that are in doubt."""
        unsearched = self.trained & ~self.searched
        untested = self.trained & (self.positives["test"] == 0) & self.tested
        sentences = (
            (~self.trained, "No positives, or no negatives, to train {} with: left out."),
            (untested, "No positives to test {} with: left out of the mean."),
            (
                unsearched,
                "No positives on both sides of a validation to choose C for {}: it is the one "
                "that is best for the other classes.",
            ),
            (self.at_edge, f"The best C of {{}} lies at the edge of the grid {self._grid}."),
        )
        found = [text.format(self._listed(which)) for which, text in sentences if which.any()]
        if self.at_edge.any():
            found[-1] += " A wider grid may do better."
        return found

    def labels(self, row: int) -> list[str]:
        """Name the classes that a test row truly has."""
        at = int(np.flatnonzero(self.parts["test"] == row)[0])
        return [self.class_names[c] for c in np.flatnonzero(self.truth[at] > 0)]

    def to_dict(self) -> dict[str, Any]:
        """Return all but scores, truth and classifier as plain JSON types; NaN becomes None."""
        return {
            "metric": "mAP",
            "ap": self.ap,
            "mAP": plain(self.mAP),
            "mAP_ap11": plain(self.mAP11),
            "mAP_area": plain(self.mAP_area),
            "validation_mAP": plain(self.validation_mAP),
            "tested": self.tested,
            "class_names": list(self.class_names),
            "classes": self._classes(),
            "validation": {
                "grid": list(self.search.grid),
                "per_class": [plain(scores) for scores in self.validation],
                "mean": plain(self.search.overall),
                "solver": self.search.solver,
            },
            "curves": [{"recall": plain(r), "precision": plain(p)} for r, p in self.curves],
            **{
                name: [[one._asdict() for one in ranking] for ranking in of_each_class]
                for name, of_each_class in self.rankings._asdict().items()
            },
            "rows": {part: len(rows) for part, rows in self.parts.items()},
            "names": list(self.names),
            "settings": dict(self.settings),
            "seconds": dict(self.seconds),
            "warnings": self.warnings,
        }

    def _classes(self) -> list[dict[str, Any]]:
        validation = self.validation_per_class
        return [
            {
                "name": name,
                "ap11": plain(float(self.ap11[c])),
                "area": plain(float(self.area[c])),
                "C": plain(float(self.C[c])),
                "at_edge": bool(self.at_edge[c]),
                "validation": plain(float(validation[c])),
                "positives": {part: int(count[c]) for part, count in self.positives.items()},
            }
            for c, name in enumerate(self.class_names)
        ]

    @property
    def _grid(self) -> str:
        return f"{self.search.grid[0]:g} … {self.search.grid[-1]:g}"

    def _listed(self, which: NDArray[np.bool_]) -> str:
        if which.all() and len(which) > 1:
            return "all classes"
        return ", ".join(self.class_names[c] for c in np.flatnonzero(which))
