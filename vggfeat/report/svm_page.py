"""The templates of the pages of training and localisation."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vggfeat._io.text import printable
from vggfeat.report.words import count, figure, percent, seconds


def environment() -> Environment:
    """Open the templates, with the filters that all pages use."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files and classes are a stranger's words
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    made.filters.update(percent=percent, seconds=seconds, figure=figure, count=count)
    return made
