"""What README and docs show: fenced blocks, and commands in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_COMMAND = re.compile(r"\bvggfeat (?!is\b)[^'\"]+")


class Shown(NamedTuple):
    """A piece of a document, and where it begins."""

    file: Path
    line: int
    text: str

    @property
    def place(self) -> str:
        """Name the place as an editor does."""
        return f"{self.file.relative_to(ROOT).as_posix()}:{self.line}"


def documents() -> list[Path]:
    """List the pages that users read."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(*languages: str) -> list[Shown]:
    """Return the fenced blocks of some languages, in the order of the pages."""
    return [
        Shown(page, _line(text, block.start(2)), block[2])
        for page in documents()
        for text in [page.read_text(encoding="utf-8")]
        for block in _BLOCK.finditer(text)
        if block[1] in languages
    ]


def shell_lines(program: str) -> list[Shown]:
    """Return what the pages type at a prompt, and recipes and cards in their headers."""
    typed = [
        Shown(block.file, block.line + number, line.removeprefix("$ "))
        for block in blocks("console", "bash", "sh")
        for number, line in enumerate(block.text.splitlines())
        if line.startswith("$ ")
    ]
    heads = [
        Shown(file, number, line.removeprefix("#").strip())
        for folder in ("pipelines", "datasets")
        for file in sorted((ROOT / folder).glob("*.toml"))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if line.startswith("#   ")
    ]
    return [shown for shown in typed + heads if program in shown.text.split()]


def mentioned_commands() -> Iterator[Shown]:
    """Find the commands that the pages name in their text, such as ``vggfeat store info``."""
    for page in documents():
        text = _BLOCK.sub(_blank, page.read_text(encoding="utf-8"))
        for span in _SPAN.finditer(text):
            if command := _COMMAND.search(" ".join(span[1].split())):
                yield Shown(page, _line(text, span.start()), command[0])


def _blank(block: re.Match[str]) -> str:
    return "\n" * block[0].count("\n")


def _line(text: str, start: int) -> int:
    return text.count("\n", 0, start) + 1
