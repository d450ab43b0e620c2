"""The tree of commands as the parser has it: names, options, and whether words parse."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from typer.main import get_command

from vggfeat.cli import app, import_command

ENDS = {"|", ">", "<", "&&", ";"}
"""Words at which a shell's command ends."""


@cache
def root() -> Any:
    """Build the tree with all commands imported, once for all tests."""
    whole: Any = get_command(app)
    whole.commands = {name: import_command(name) for name in whole.commands}
    return whole


@cache
def commands() -> dict[str, Any]:
    """Map each command's full name, such as ``store export``, to its command."""
    return dict(_walk(root(), ""))


@cache
def groups() -> dict[str, Any]:
    """Map each group's name to it; the root has the empty name."""
    found = {"": root()}
    for name in _names(root()):
        command = root().get_command(_context(root()), name)
        if hasattr(command, "list_commands"):
            found[name] = command
    return found


def labels(command: Any) -> dict[str, Any]:
    """Map what a user reads, such as ``--out`` or ``IMAGES``, to each parameter."""
    return {label(parameter): parameter for parameter in command.params}


def label(parameter: Any) -> str:
    """Name a parameter: an option by its first long spelling, an argument by its metavar."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper()).rstrip(".")
    long = [spelling for spelling in parameter.opts if spelling.startswith("--")]
    return str(long[0])


def spellings(command: Any) -> set[str]:
    """List every way of typing an option of a command, ``--help`` included."""
    typed = {word for option in command.params for word in (*option.opts, *option.secondary_opts)}
    return {word for word in typed if word.startswith("-")} | {"--help", "-h"}


def words_of(line: str) -> list[str]:
    """Split a shell's line, and return the words after ``vggfeat`` up to the command's end."""
    words = shlex.split(line, comments=True)
    words = words[words.index("vggfeat") + 1 :]
    end = next((place for place, word in enumerate(words) if word in ENDS), len(words))
    return words[:end]


def parse(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Parse words without running anything; return the command's name and its parameters.

    Raises the parser's own UsageError for a command or an option that there is not, a value of
    the wrong type and an argument that is missing.
    """
    if {"--help", "-h"} & set(words):
        name, unknown = named_options(words)
        assert not unknown, f"{unknown} is no command or option"
        return name, {}
    context = root().make_context("vggfeat", list(words))
    name, command, left = root().resolve_command(context, list(words))
    if hasattr(command, "list_commands"):
        context = command.make_context(name, list(left), parent=context)
        own, command, left = command.resolve_command(context, left)
        name = f"{name} {own}"
    return name, dict(command.make_context(name, left, parent=context).params)


def named_options(words: Sequence[str]) -> tuple[str, set[str]]:
    """Return the command that words begin with, and the options among them that it lacks."""
    depth = 2 if words[0] in groups() and len(words) > 1 and words[1][0] != "-" else 1
    name = " ".join(words[:depth])
    typed = {word.partition("=")[0] for word in words[depth:] if word.startswith("--")}
    if name.startswith("-"):
        return "", {name} - spellings(root())
    known = commands().get(name) or groups().get(name)
    return name, typed - spellings(known) if known else {name}


def _walk(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in _names(group):
        command = group.get_command(_context(group), name)
        if hasattr(command, "list_commands"):
            yield from _walk(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _names(group: Any) -> list[str]:
    return list(group.list_commands(_context(group)))


def _context(command: Any) -> Any:
    return command.make_context("vggfeat", [], resilient_parsing=True)
