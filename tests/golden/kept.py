"""The JSON files: one a case, its numbers with what they mean and whence they come."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from golden.case import HERE, Case, Taken
from golden.environment import made_with
from golden.rules import Verdict, compare

LARGEST = 40_000
"""Bytes of a file."""


def files() -> list[Path]:
    """List the files, in order."""
    return sorted(HERE.glob("G*.json"))


def read(case: Case) -> dict[str, Any]:
    """Read what is kept of a case."""
    kept: dict[str, Any] = json.loads(case.file.read_text("utf-8"))
    return kept


def record(case: Case, taken: Taken, history: list[dict[str, str]]) -> str:
    """Write the text of a case's file."""
    return encode(
        {
            "case": case.name,
            "command": case.command,
            "history": history,
            "inputs_sha256": taken.inputs_sha256,
            "made_with": made_with(),
            "margins": taken.margins,
            "tolerance": dict(case.tolerance),
            "values": taken.values,
        }
    )


def misses(case: Case, taken: Taken) -> list[Verdict]:
    """Compare a run with what is kept; return what does not hold, inputs and settings first."""
    return [verdict for verdict in verdicts(case, taken) if not verdict.holds]


def verdicts(case: Case, taken: Taken) -> list[Verdict]:
    """Compare a run with what is kept: its inputs, its settings, its numbers."""
    kept = read(case)
    exact = ("command", "inputs_sha256", "tolerance")
    settings = {"command": case.command, "tolerance": dict(case.tolerance)}
    now = json.loads(json.dumps({**settings, "inputs_sha256": taken.inputs_sha256}))
    return [
        *compare({name: kept[name] for name in exact}, now, {}, {}),
        *compare(kept["values"], taken.values, kept["tolerance"], kept["margins"]),
    ]


def encode(content: dict[str, Any]) -> str:
    """Write JSON with sorted keys, and lists of numbers in a line each.

    Raises
    ------
    ValueError
        If it is larger than a file that a reviewer reads may be.
    """
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"\[[^][{}\"]*\]", lambda found: " ".join(found[0].split()), text)
    text = text.replace("[ ", "[").replace(" ]", "]") + "\n"
    if len(text.encode()) > LARGEST:
        raise ValueError(f"{len(text.encode()):,} bytes; a case keeps {LARGEST:,} at most.")
    return text
