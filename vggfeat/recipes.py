"""Recipes: one file says what is run on which data set, and what should come out."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vggfeat._io.assets import read_toml, shared
from vggfeat.classification.recipe import Classification, TableRow
from vggfeat.data.datasets.card import DatasetCard, VocProtocol
from vggfeat.errors import DataError, DataNotFound, ParameterError
from vggfeat.settings import SVM, Features, Settings, Training, check_each, data_error
from vggfeat.train.chain import Chain


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def check_protocol(svm: SVM, card: DatasetCard) -> None:
    """Refuse settings of an SVM that a data set's protocol has no use for.

    Raises
    ------
    DataError
        Naming the setting.
    """
    if isinstance(card.protocol, VocProtocol):
        return
    fields = (("shared_C", None), ("difficult", None), ("c_split", "train-val"))
    if given := [name for name, default in fields if getattr(svm, name) != default]:
        raise DataError(
            f"{card.name} is tested by {card.protocol.metric}, where every image has one "
            f"class: {given[0]} says nothing there. It belongs to data sets with an average "
            "precision, such as voc2007."
        )


class RecipeRow(_Frozen):
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
    features: dict[str, Any] = {}
    expected: float | None = None


class Line(NamedTuple):
    """A row with all of its settings."""

    name: str
    features: Features
    expected: float | None


class Recipe(_Frozen):
    """A run: a data set, what describes its images, the classifier, one row or several.

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
    rows : tuple of RecipeRow
        The lines of the table; one that adds nothing by default.

    Examples
    --------
    >>> recipe = load_recipe("table11-caltech101")
    >>> [(line.name, line.features.nets, line.expected) for line in recipe.table()]
    [('D', ('D',), 91.8), ('E', ('E',), 92.3), ('D & E', ('D', 'E'), 92.7)]
    """

    name: str = ""
    title: str = ""
    dataset: str
    features: Features = Features()
    classifier: SVM = SVM()
    rows: tuple[RecipeRow, ...] = Field(default=(RecipeRow(),), min_length=1)

    @model_validator(mode="after")
    def _rows_hold(self) -> Self:
        self.table()
        return self

    def table(self) -> list[Line]:
        """Return the rows, each with all of its settings."""
        lines = []
        for row in self.rows:
            features = self.features.but(**row.features)
            name = row.name or " & ".join(features.nets)
            lines.append(Line(name, features, row.expected))
        return lines


def recipe_names() -> list[str]:
    """Names of the shipped recipes.

    Examples
    --------
    >>> "table11-voc2007" in recipe_names()
    True
    """
    return sorted(path.stem for path in shared("pipelines").glob("*.toml"))


def open_recipe(name: str, typed: Sequence[str] = ()) -> Recipe | Chain | Classification:
    """Read a shipped recipe, or one of your own: of a table, or of networks to train.

    A recipe that names its ``protocol`` tests whole networks, one with ``links`` trains them, and
    any other is of features and a linear SVM.

    Parameters
    ----------
    name : str
        Name of a shipped recipe, or path of a ``.toml`` file.
    typed : sequence of str
        Settings over the recipe's and over those of its rows or links, as ``features.Q=[256,384]``.

    Raises
    ------
    DataNotFound
        If there is none of that name.
    DataError
        If it does not hold what a recipe holds.
    ParameterError
        If a setting is none of the recipe's, or has a value that it cannot have.

    Examples
    --------
    >>> [run.name for run in open_recipe("train-e-jitter").runs()]
    ['a-256', 'e-256', 'e-384', 'e-jitter']
    >>> open_recipe("embedded-fast", ["features.Q=[64,96]"]).table()[0].features.Q
    (64, 96)
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = shared("pipelines") / f"{name}.toml"
    if not path.is_file():
        raise DataNotFound(
            f"There is no recipe {name!r}. Shipped: {', '.join(recipe_names())}. Or name a file "
            "of your own, such as my.toml."
        )
    try:
        told = read_toml(path)
        kind = Classification if "protocol" in told else Chain if "links" in told else Recipe
        recipe = kind(**{"name": path.stem, **told})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise data_error(f"{path} is not a recipe", error) from error
    if not typed:
        return recipe
    settings = _read_settings(recipe, typed)
    try:
        return kind(**{"name": path.stem, **_put_over(told, settings)})
    except ValueError as error:
        words = " ".join(f"--set {one}" for one in typed)
        raise ParameterError(*data_error(f"{recipe.name} with {words}", error).lines) from error


def _read_settings(
    recipe: Recipe | Chain | Classification, typed: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Read settings as they are typed, by parts, and check each by itself."""
    parts = PARTS.get(type(recipe), {})
    settings: dict[str, dict[str, Any]] = {}
    for word in typed:
        place, equals, text = word.partition("=")
        part, dot, name = place.strip().partition(".")
        if not (equals and dot):
            raise ParameterError(
                f"--set {word} names no setting. Write part.name=value, as features.Q=[256,384]."
            )
        if part not in parts:
            known = f"has {' and '.join(parts)}" if parts else "tests networks as they are"
            raise ParameterError(
                f"--set {word}: no part is called {part!r}; {recipe.name} {known}."
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:  # a word needs no quotes
            value = text.strip()
        check_each(parts[part], {name: value}, {name: f"--set {place}"})
        settings.setdefault(part, {})[name] = value
    return settings


def _put_over(told: dict[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put settings over a recipe's and over those of each row or link.

    The figures that are expected go: they are those of the recipe's own settings.
    """
    told = told | {part: {**told.get(part, {}), **values} for part, values in settings.items()}
    for lines in {"rows", "links"} & set(told):
        told[lines] = [
            {name: value for name, value in line.items() if name not in ("expected", "paper")}
            | {part: {**line[part], **values} for part, values in settings.items() if part in line}
            for line in told[lines]
        ]
    return told


def load_recipe(name: str) -> Recipe:
    """Read the recipe of a table.

    Parameters
    ----------
    name : str
        As :func:`open_recipe` takes it.

    Raises
    ------
    DataNotFound
        If there is none of that name.
    DataError
        If it does not hold what a recipe holds, or trains or tests networks.
    """
    recipe = open_recipe(name)
    if not isinstance(recipe, Recipe):
        does = "trains networks and has no table" if isinstance(recipe, Chain) else "tests networks"
        raise DataError(f"{name} {does}. Run it with: vggfeat run {name} --data …")
    return recipe


PARTS: dict[type, dict[str, type[Settings]]] = {
    Recipe: {"features": Features, "classifier": SVM},
    Chain: {"training": Training},
}
"""Settings that `vggfeat run --set` sets, by the kind of the recipe."""
Scale = int | tuple[int, int]


class Evaluated(NamedTuple):
    """A trained net, and how it was tested.

    Parameters
    ----------
    net : str
        Configuration of Table 1.
    Q : tuple of int
        Test scales.
    S : int or (int, int), optional
        Training scale, where it is known.
    source : str
        Where its weights are from, which may tell the training scale as well.
    """

    net: str
    Q: tuple[int, ...]
    S: Scale | None = None
    source: str = ""


class Published(NamedTuple):
    """A line of one of the paper's tables of classification errors.

    Parameters
    ----------
    table, row : str
        Where it stands.
    paper : (float, float)
        Top-1 and top-5 error in validation, in percent.
    unlike : str
        Why no difference from it means anything; empty where one does.
    """

    table: str
    row: str
    paper: tuple[float, float]
    unlike: str = ""


def published(tested: Sequence[Evaluated], mode: str) -> list[Published]:
    """Find what the paper measured with these nets, each at its own scales.

    Where a training scale is not known, it is every line that it might be.

    Examples
    --------
    >>> D = Evaluated("D", (256, 384, 512), source="authors")
    >>> [(one.row, one.paper, one.unlike) for one in published([D], "both")]
    [('D, multi-crop & dense', (24.4, 7.2), '')]
    >>> [one.row for one in published([D, D._replace(net="E")], "multicrop")]
    ['D & E, multi-crop']
    >>> [(one.row, one.unlike) for one in published([Evaluated("B", (256,))], "dense")]
    [('B, S = 256', 'the training scale S of net B is not known')]
    """
    named = [open_recipe(name) for name in recipe_names()]
    tables = [one for one in named if isinstance(one, Classification)]
    nets = [net for table in tables for net in table.nets.values()]
    # A source that stands in for a net of the tables was trained at its scale.
    sources = {(net.net, net.weights): net.S for net in nets if net.weights}
    known = [one._replace(S=one.S or sources.get((one.net, one.source))) for one in tested]
    unknown = [one.net for one in known if one.S is None]
    unlike = f"the training scale S of net {unknown[0]} is not known" if unknown else ""
    found: dict[tuple[str, ...], Published] = {}
    for table in tables:
        for row in table.rows:
            if row.mode == mode and row.paper and _same_nets(table, row, known):
                line = Published(table.title, row.name, row.paper, unlike)
                found.setdefault(tuple(sorted(use.net for use in row.uses)), line)
    return list(found.values())


def _same_nets(table: Classification, row: TableRow, tested: Sequence[Evaluated]) -> bool:
    """Tell whether a row tests these nets at these scales; an S that is not known may be any."""
    uses = [(table.nets[use.net].net, frozenset(use.Q), table.nets[use.net].S) for use in row.uses]
    left = Counter(uses)
    left.subtract((one.net, frozenset(one.Q), one.S) for one in tested if one.S is not None)
    if any(count < 0 for count in left.values()):
        return False
    rest = Counter((net, Q) for net, Q, _ in left.elements())
    return rest == Counter((one.net, frozenset(one.Q)) for one in tested if one.S is None)
