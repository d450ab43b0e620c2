"""What every ``--help`` says: as recorded, with examples that parse and a text for each option."""

from __future__ import annotations

import difflib
import subprocess
import sys

import pytest
from helpers.commands import commands, groups, labels, parse, root, words_of

from promises.record_help import HELP, file_of, read_help
from vggfeat.cli import COMMANDS

RECORD = "make help-record (or: PYTHONPATH=tests python -m promises.record_help)"
AT_ONCE = {"datasets list", "datasets show", "store info"} | {
    f"weights {name}" for name in ("list", "show", "convert")
}
EVERY = (*groups(), *commands())


@pytest.mark.parametrize("name", EVERY)
def test_help_is_as_recorded(name: str) -> None:
    """Names, types, defaults, sections and texts change on purpose only."""
    file = HELP / file_of(name)
    now, recorded = read_help(name), file.read_text(encoding="utf-8") if file.is_file() else ""
    difference = difflib.unified_diff(
        recorded.splitlines(), now.splitlines(), f"recorded in {file.name}", "now", lineterm="", n=1
    )
    if lines := list(difference):
        pytest.fail("\n".join([*lines, f"If this is meant: {RECORD}"]), pytrace=False)


def test_each_recorded_page_is_of_a_command() -> None:
    """A command that goes takes its page along."""
    assert {path.name for path in HELP.iterdir()} == {file_of(name) for name in EVERY}


@pytest.mark.parametrize("name", ["", *commands()])
def test_examples_parse(name: str) -> None:
    """A command's help has an example of it; the command and options of each example exist."""
    lines = [line for line in read_help(name).splitlines() if _is_example(line)]
    named = {parse(words_of(line))[0] for line in lines}
    assert named, f"vggfeat {name} --help has no example"
    assert not name or name in named


@pytest.mark.parametrize("name", commands())
def test_each_parameter_has_a_help_text(name: str) -> None:
    """What a parameter does is said where it is listed."""
    silent = [label for label, parameter in labels(commands()[name]).items() if not parameter.help]
    assert not silent


def test_each_command_prints_json_and_can_be_quiet() -> None:
    """README promises the one of every command, the other of all that work for a while."""
    lacks = {
        option: {name for name, command in commands().items() if option not in labels(command)}
        for option in ("--json", "--quiet")
    }
    assert lacks == {"--json": set(), "--quiet": AT_ONCE}


def test_the_page_of_all_commands_lists_them() -> None:
    """A user finds every command, or its group, on the first page, with what it does."""
    page = read_help("").partition("\nCommands\n")[2].splitlines()
    entries = dict(line.strip().partition("  ")[::2] for line in page if line[2:3] != " ")
    assert list(entries) == list(root().commands)
    assert all(entries.values())


def test_what_a_command_is_said_to_do_is_what_its_help_says() -> None:
    """The list of commands is written without importing them, and may not differ from them."""
    said = {name: command.help.partition("\n\n")[0] for name, command in root().commands.items()}
    assert {name: " ".join(text.split()) for name, text in said.items()} == COMMANDS


def test_the_page_of_all_commands_imports_none() -> None:
    """It is there at once: no command, no settings and nothing that computes is loaded for it."""
    code = (
        "import sys; from vggfeat.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = ('pydantic', 'numpy', 'PIL', 'h5py', 'torch', 'vggfeat.settings')\n"
        "heavy += tuple(f'vggfeat.cli.{name}' for name in ('extract', 'svm', 'store', 'options'))\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    words = [sys.executable, "-c", code]
    listed = subprocess.run([*words, "--help"], capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines()[-1] == "[]"
    own = subprocess.run([*words, "svm", "--help"], capture_output=True, text=True, check=True)
    assert "vggfeat.settings" in own.stdout.splitlines()[-1]


def test_no_help_imports_what_computes() -> None:
    """A command says what it takes before torch and scikit-learn are loaded, which takes long."""
    code = (
        "import sys; from vggfeat.cli import COMMANDS, import_command\n"
        "for name in COMMANDS: import_command(name)\n"
        "heavy = ('torch', 'sklearn', 'scipy', 'matplotlib', 'pandas')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]


def _is_example(line: str) -> bool:
    return line.startswith("vggfeat ") or "| vggfeat " in line
