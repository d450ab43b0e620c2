"""What a row of the table of options is, and what several commands share."""

from __future__ import annotations

from typing import Any, NamedTuple

EFFECT = "effect"
"""The value is seen in what the command prints or writes: a check in `effects` looks at it."""
FLAG = "a flag has no value"
FREE = "any text may name something: what is not there is told by what looks for it"


class Row(NamedTuple):
    """An option of a command."""

    command: str
    base: str
    label: str
    typed: str
    place: str
    value: Any
    wrong: str


def rows(command: str, base: str, *of: tuple[str, str, str, Any, str]) -> list[Row]:
    """Name the command and the words before the option, for several options."""
    return [Row(command, base, *one) for one in of]


def working(place: str) -> list[tuple[str, str, str, Any, str]]:
    """Options of how a command works; those of the network arrive where it is opened."""
    return [
        ("--device", "--device cuda:1", "DenseExtractor.fields.device", "cuda:1", "--device tpu"),
        (
            "--precision",
            "--precision bf16",
            "DenseExtractor.extraction.precision",
            "bf16",
            "--precision fp8",
        ),
        *images(place),
        (
            "--deterministic",
            "--deterministic",
            "DenseExtractor.fields.deterministic",
            True,
            FLAG,
        ),
    ]


def images(place: str) -> list[tuple[str, str, str, Any, str]]:
    """Options of how images are read."""
    return [
        (
            "--on-bad-image",
            "--on-bad-image error",
            f"{place}.on_bad_image",
            "error",
            "--on-bad-image keep",
        ),
        ("--workers", "--workers 3", f"{place}.workers", 3, "--workers 0"),
    ]


PRINTED = [
    ("--quiet", "--quiet", EFFECT, None, FLAG),
    ("--json", "--json", EFFECT, None, FLAG),
]
