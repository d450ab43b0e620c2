"""Record what every ``--help`` says: ``PYTHONPATH=tests python -m promises.record_help``."""

from __future__ import annotations

import re
import textwrap
from functools import cache
from pathlib import Path

from helpers.cli import run
from helpers.commands import commands, groups

HELP = Path(__file__).parent / "help"
WIDTH = 100
PLAIN = {"COLUMNS": "2000", "NO_COLOR": "1", "TERM": "dumb"}
"""So wide that nothing is broken: what a line holds does not depend on its neighbours."""
_PANEL = re.compile(r"╭─ (.*?) ─*╮")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_PROGRAM = re.compile(r"^( *Usage: ).*?vggfeat", re.MULTILINE)
"""Begins with how this process was started."""


def pages() -> dict[str, str]:
    """Return the help of every command and group, by the name of its file."""
    return {file_of(name): read_help(name) for name in (*groups(), *commands())}


def file_of(name: str) -> str:
    """Name the file of a command's help; that of all commands is ``vggfeat.txt``."""
    return f"{name.replace(' ', '-') or 'vggfeat'}.txt"


@cache
def read_help(name: str) -> str:
    """Return a command's help, without frames, each paragraph and each option wrapped by itself."""
    shown = _COLOUR.sub("", run(*name.split(), "--help", env=PLAIN).out)
    shown = _PROGRAM.sub(r"\1vggfeat", shown)
    lines: list[str] = []
    for raw in shown.splitlines():
        if panel := _PANEL.fullmatch(raw.strip()):
            lines += ["", panel[1]]
        elif raw.startswith("│"):
            lines = _with_entry(lines, raw.strip("│").strip())
        elif not raw.startswith("╰"):
            lines += textwrap.wrap(raw.strip(), WIDTH) or [""]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return f"{text}\n"


def _with_entry(lines: list[str], entry: str) -> list[str]:
    """Add an option or a command; its default, which has a line of its own, goes to its text."""
    entry = re.sub(r" {2,}", "  ", entry)
    if re.fullmatch(r"\[(default: .*|required)\]", entry):
        return [*lines[:-1], *_wrap(f"{lines[-1]} {entry}")]
    return [*lines, *_wrap(f"  {entry}")]


def _wrap(entry: str) -> list[str]:
    return textwrap.wrap(entry, WIDTH, subsequent_indent=" " * 6, break_long_words=False)


def record() -> None:
    """Write every page anew, and remove those of commands that are gone."""
    HELP.mkdir(exist_ok=True)
    now = pages()
    for stale in {path.name for path in HELP.glob("*.txt")} - set(now):
        (HELP / stale).unlink()
    for file, text in now.items():
        (HELP / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    record()
