"""The part of `golden.adapter` for settings and mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from helpers.cli import run


def card_settings() -> dict[str, Any]:
    """Tell of each shipped card how it is tested, and what describes its images by default."""
    from vggfeat.data.datasets import card_names, load_card
    from vggfeat.svm.protocols import protocol_of

    found = {}
    for name in card_names():
        card = load_card(name)
        found[name] = {
            "classes": len(card.classes),
            "reader": card.reader,
            "counts": dict(card.counts),
            "protocol": _protocol(protocol_of(card).model_dump(mode="json"), card.required),
            "features": card.defaults.model_dump(mode="json"),
        }
    return found


def quality_settings(quality: str, card: str) -> dict[str, Any]:
    """Resolve ``--quality`` for a card, where no authors' weights are at hand."""
    from vggfeat.data.datasets import load_card
    from vggfeat.recipes.quality import choose_quality

    return choose_quality(quality, (), load_card(card).defaults).model_dump(mode="json")


def recipe_settings() -> dict[str, Any]:
    """Resolve every shipped recipe: rows of tables, or links of a chain, with all settings."""
    from vggfeat.recipes import open_recipe, recipe_names
    from vggfeat.recipes.classification import ClassificationRecipe
    from vggfeat.recipes.svm import SVMRecipe
    from vggfeat.recipes.training import TrainingRecipe

    found: dict[str, Any] = {}
    for name in recipe_names():
        recipe = open_recipe(name)
        if isinstance(recipe, SVMRecipe):
            found[name] = {
                "dataset": recipe.dataset,
                "classifier": _classifier(recipe.classifier.model_dump(mode="json")),
                "rows": {
                    line.name: line.features.model_dump(mode="json") | {"paper": line.expected}
                    for line in recipe.table()
                },
            }
        elif isinstance(recipe, TrainingRecipe):
            found[name] = {
                link.name: _without_later(link.settings.model_dump(mode="json"))
                | {"paper": link.paper}
                for link in recipe.runs()
            }
        elif isinstance(recipe, ClassificationRecipe):
            found[name] = recipe.model_dump(mode="json", exclude={"name", "title"})
    return found


LATER = {"warmup": 0, "class_weight": "auto"}
"""Settings that have come since, with the value that nothing was said of before."""
SPLITS = {"train-val": "validation", "cv3": "cv3"}
RENAMED = {"--habit": "--c-split", "--C one": "--shared-C", "habit": "c-split"}
"""What is typed and named otherwise since."""
LOSSES = {"auto": "hinge"}
"""The loss of rows in memory, by what is typed."""


def _without_later(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if LATER.get(name, ...) != value}


def _protocol(settings: dict[str, Any], needs: Sequence[str]) -> dict[str, Any]:
    """Tell what was recorded of a protocol; the splits that are needed were of it, too."""
    if settings["kind"] == "splits":
        return settings
    if "shared_C" in settings:
        settings |= {"C": "one" if settings.pop("shared_C") else "per class"}
        settings.pop("seed")  # VOC's is younger
    return settings | {"needs": list(needs)}


def _classifier(settings: dict[str, Any]) -> dict[str, Any]:
    """Name the settings of an SVM as they were called when they were recorded."""
    shared, split = settings.pop("shared_C"), settings.pop("c_split")
    choice = {None: None, False: "per class", True: "one"}[shared]
    settings["loss"] = LOSSES.get(settings["loss"], settings["loss"])
    return _without_later(settings) | {"grid": settings["C"], "C": choice, "habit": SPLITS[split]}


def command_defaults() -> dict[str, dict[str, Any]]:
    """Tell of every command the default of every option that has one."""
    from helpers.commands import root

    found: dict[str, dict[str, Any]] = {}

    def walk(command: Any, name: str) -> None:
        for sub, other in sorted(getattr(command, "commands", {}).items()):
            walk(other, f"{name} {sub}".strip())
        if not hasattr(command, "commands"):
            options = {max(one.opts, key=len): one.default for one in command.params}
            found[name] = {
                option: str(value)
                if isinstance(value, Path)
                else LOSSES.get(value, value)
                if option == "--loss"
                else value
                for option, value in sorted(options.items())
                if option.startswith("--") and value is not None and value is not False
            }

    walk(root(), "")
    return found


def mistake(words: Sequence[str], folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Type a mistake in a folder: how the command ends, what it names, how much it says."""
    before = sorted(folder.rglob("*"))
    with mock.patch("helpers.cli._checked", lambda ran, *_: ran):  # any status will do
        text = " ".join(words)
        for old in (old for old in RENAMED if old.startswith("--")):
            text = text.replace(old, RENAMED[old])
        ran = run(*text.split(" "), cwd=folder)
    return {
        "status": ran.status,
        "names": {name: RENAMED.get(name, name) in ran.err for name in names},
        "traceback": "Traceback" in ran.err,
        "printed": bool(ran.out.strip()),
        "written": [path.name for path in sorted(folder.rglob("*")) if path not in before],
    }
