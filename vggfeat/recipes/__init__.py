"""Recipes: one file says what is run on which data, and what the paper has for it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vggfeat._io.assets import read_toml, shared
from vggfeat.errors import DataError, DataNotFound, ParameterError
from vggfeat.recipes.classification import ClassificationRecipe
from vggfeat.recipes.localization import LocalizationRecipe
from vggfeat.recipes.svm import SVMRecipe
from vggfeat.recipes.training import TrainingRecipe
from vggfeat.settings import SVM, Decoding, Features, Merging, Settings, Training
from vggfeat.validation import check_each, data_error

Recipe = SVMRecipe | ClassificationRecipe | LocalizationRecipe | TrainingRecipe
PARTS: dict[type, dict[str, type[Settings]]] = {
    SVMRecipe: {"features": Features, "classifier": SVM},
    LocalizationRecipe: {"merging": Merging, "decoding": Decoding},
    TrainingRecipe: {"training": Training},
}
"""Settings that `vggfeat run --set` sets, by the kind of the recipe."""


def recipe_names() -> list[str]:
    """Names of the shipped recipes.

    Examples
    --------
    >>> "table11-voc2007" in recipe_names()
    True
    """
    return sorted(path.stem for path in shared("pipelines").glob("*.toml"))


def open_recipe(name: str, typed: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe, or one of your own.

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
        kind: type[Recipe] = SVMRecipe
        content = read_toml(path)
        kind = _kind(content)
        recipe = kind(**{"name": path.stem, **content})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise data_error(f"{path} is not a recipe", error, kind) from error
    if not typed:
        return recipe
    settings = _read_settings(recipe, typed)
    try:
        return kind(**{"name": path.stem, **_put_over(content, settings)})
    except ValueError as error:
        words = " ".join(f"--set {word}" for word in typed)
        refused = data_error(f"{recipe.name} with {words}", error, kind)
        raise ParameterError(*refused.lines) from error


def open_svm_recipe(name: str) -> SVMRecipe:
    """Read the recipe of a table of features and linear SVMs.

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
    if not isinstance(recipe, SVMRecipe):
        trains = isinstance(recipe, TrainingRecipe)
        does = "trains networks and has no table" if trains else "tests networks"
        raise DataError(f"{name} {does}. Run it with: vggfeat run {name} --data …")
    return recipe


def _kind(content: Mapping[str, Any]) -> type[Recipe]:
    """Tell the kind of a recipe by its keys."""
    if "protocol" in content:
        kinds: dict[str, type[Recipe]] = {
            "classification": ClassificationRecipe,
            "localization": LocalizationRecipe,
        }
        if (protocol := content["protocol"]) not in kinds:
            raise ValueError(f"protocol must be {' or '.join(map(repr, kinds))}. Got {protocol!r}.")
        return kinds[protocol]
    return TrainingRecipe if "links" in content else SVMRecipe


def _read_settings(recipe: Recipe, typed: Sequence[str]) -> dict[str, dict[str, Any]]:
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
            right = f"has {' and '.join(parts)}" if parts else "tests networks as they are"
            raise ParameterError(
                f"--set {word}: no part is called {part!r}; {recipe.name} {right}."
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:  # a word needs no quotes
            value = text.strip()
        check_each(parts[part], {name: value}, {name: f"--set {place}"})
        settings.setdefault(part, {})[name] = value
    return settings


def _put_over(
    content: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Put settings over a recipe's and over those of each row or link.

    The figures that are expected go: they are those of the recipe's own settings.
    """
    changed = {
        **content,
        **{part: {**content.get(part, {}), **values} for part, values in settings.items()},
    }
    for lines in {"rows", "links"} & set(changed):
        changed[lines] = [
            {name: value for name, value in line.items() if name not in ("expected", "paper")}
            | {part: {**line[part], **values} for part, values in settings.items() if part in line}
            for line in changed[lines]
        ]
    return changed
