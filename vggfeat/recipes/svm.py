"""A table of features and linear SVMs: a data set, what describes its images, the classifier."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from vggfeat.settings import SVM, Features, Settings


class SVMRow(Settings):
    """One line of a table: settings that are not the recipe's, and the paper's figure.

    Parameters
    ----------
    name : str
        As in the paper's table; the nets by default.
    features : dict
        Settings of :class:`~vggfeat.settings.Features` that differ.
    expected : float, optional
        The paper's figure, in percent.
    """

    name: str = ""
    features: dict[str, Any] = Field(default={})
    expected: float | None = None


class ResolvedRow(NamedTuple):
    """A row with all of its settings."""

    name: str
    features: Features
    expected: float | None


class SVMRecipe(Settings):
    """Features and linear SVMs: a data set, what describes its images, the classifier, the rows.

    Parameters
    ----------
    name : str
        The file's name, without its suffix.
    title : str
        What it reproduces.
    dataset : str
        Name of a card.
    features : Features
        What describes the images.
    classifier : SVM
        How C is chosen, and with which loss.
    rows : tuple of SVMRow
        The lines of the table; one that adds nothing by default.

    Examples
    --------
    >>> from vggfeat.recipes import open_svm_recipe
    >>> recipe = open_svm_recipe("table11-caltech101")
    >>> [(row.name, row.features.nets, row.expected) for row in recipe.table()]
    [('D', ('D',), 91.8), ('E', ('E',), 92.3), ('D & E', ('D', 'E'), 92.7)]
    """

    name: str = ""
    title: str = ""
    dataset: str
    features: Features = Features()
    classifier: SVM = SVM()
    rows: tuple[SVMRow, ...] = Field(default=(SVMRow(),), min_length=1)

    @model_validator(mode="after")
    def _rows_hold(self) -> Self:
        self.table()
        return self

    def table(self) -> list[ResolvedRow]:
        """Return the rows, each with all of its settings; of equal names the second has a (2)."""
        rows: list[ResolvedRow] = []
        seen: Counter[str] = Counter()
        for row in self.rows:
            features = self.features.but(**row.features)
            name = row.name or " & ".join(features.nets)
            seen[name] += 1
            name = f"{name} ({seen[name]})" if seen[name] > 1 else name
            rows.append(ResolvedRow(name, features, row.expected))
        return rows
