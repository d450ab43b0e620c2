"""Every option of every command does something: its value arrives, or its effect is seen."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.cli import Ran, run
from helpers.commands import commands, labels

from promises.effects import EFFECTS, remove_outputs
from promises.inputs import make_inputs
from promises.option_row import EFFECT, FLAG, FREE, Row
from promises.option_rows import AFTER_READING, ROWS, TOGETHER
from promises.seams import NotCalled, Stopped, recording, small_networks, watching_reading

ARRIVING = [row for row in ROWS if row.place != EFFECT]
WRONG = [row for row in ROWS if row.wrong not in (FLAG, FREE)]


def name_of(row: Row) -> str:
    """Name a row's test after its command, its option and, where they differ, its recipe."""
    return f"{row.command} {row.label} {row.base.partition(' ')[0]}"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make once what commands take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGGFEAT_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("VGGFEAT_OFFLINE", "1")
        return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def here(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder of one's own, where all of it seems to lie."""
    for entry in inputs.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "")
    return tmp_path


def test_the_table_has_each_option_of_each_command() -> None:
    """An option without a row fails here, and so does a row without an option."""
    there = {(name, label) for name, command in commands().items() for label in labels(command)}
    listed = {(row.command, row.label) for row in ROWS}
    assert listed == there
    assert set(EFFECTS) == {(row.command, row.label) for row in ROWS if row.place == EFFECT}


@pytest.mark.parametrize("row", ARRIVING, ids=name_of)
def test_a_value_arrives(row: Row, here: Path) -> None:
    """What is typed reaches what does the work; without it, something else does."""
    assert arrived(row, words_with(row)) == row.value
    remove_outputs()
    try:
        default = arrived(row, row.base)
    except NotCalled:
        return  # without the option, nobody is called
    assert default != row.value


@pytest.mark.parametrize("row", WRONG, ids=name_of)
def test_a_wrong_value_is_refused_by_name(row: Row, here: Path) -> None:
    """Exit status 2, without a trace, before anything is written or anything large is read."""
    before = set(here.iterdir())
    words, _, status = row.wrong.partition(" → ")
    with small_networks(row.command), watching_reading() as read:
        typed = words_with(row, words)
        ran = run(*row.command.split(), *typed.split(), status=int(status or 2))
    assert "Traceback" not in ran.err
    assert names(ran.err, row, words), ran.err
    assert not read or (row.command, row.label) in AFTER_READING, f"{list(read)} came first"
    assert set(here.iterdir()) == before


@pytest.mark.parametrize("words", TOGETHER)
def test_options_that_exclude_each_other_are_refused(words: str, here: Path) -> None:
    """What would be replaced or ignored without a word is refused instead, by name."""
    with recording(words.partition(" --")[0]), watching_reading() as read:
        ran = run(*words.split(), status=2)
    assert all(option in ran.err for option in TOGETHER[words])
    assert not read


@pytest.mark.parametrize(("command", "label"), EFFECTS)
def test_an_effect_is_seen(command: str, label: str, here: Path) -> None:
    """What an option changes in what is printed or written."""
    with small_networks(command):
        EFFECTS[command, label](command)


@pytest.mark.parametrize("name", commands())
def test_help_names_each_option(name: str) -> None:
    """`--help` lists every option and argument."""
    shown = run(*name.split(), "--help").out
    assert not [label for label in labels(commands()[name]) if label not in shown]


def words_with(row: Row, typed: str | None = None) -> str:
    """Put an option behind the other words; an argument stands in their place."""
    words = row.typed if typed is None else typed
    return f"{row.base} {words}" if row.label.startswith("--") else words


def names(message: str, row: Row, words: str) -> bool:
    """Tell whether a message names the option, as Python or the command line does, or its value.

    An argument has no name that a user types: its value is named, or the ending of its file.
    """
    if not row.label.startswith("--"):
        value = words.split()[-1]
        suffix = Path(value).suffix[1:]
        return value in message or bool(suffix and suffix in message)
    bare = row.label.strip("-").lower()
    said = re.sub(r"[_ ]", "-", message.lower())
    return re.search(rf"(?<![a-z]){bare}s?(?![a-z])", said) is not None


def arrived(row: Row, words: str) -> object:
    """Run a command until it has handed over, and look up what a row is about."""
    with recording(row.command) as record, suppress(Stopped):
        ran: Ran = run(*row.command.split(), *words.split())
        assert ran.status == 0
    return record.value(row.place)
