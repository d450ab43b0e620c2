"""Record the numbers of cases anew: ``make golden-record CASE=G11 REASON="…"``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from golden import kept
from golden.case import HERE, Case, Taken, load, select, take
from golden.environment import lacking
from golden.inputs import Shared
from golden.rules import Verdict, table

ROOT = HERE.parents[1]


class Refused(Exception):
    """Nothing was recorded, for a reason that the message says."""


def main(words: list[str] | None = None) -> int:
    """Record what is named; return the exit status."""
    parser = argparse.ArgumentParser(prog="make golden-record", description=__doc__)
    parser.add_argument("--case", nargs="*", default=[], help="numbers or names of cases")
    parser.add_argument("--reason", default="", help="why the numbers change")
    asked = parser.parse_args(words)
    try:
        named = check(asked.case, asked.reason, lacking(), changed_files(ROOT))
        commit = _git(ROOT, "rev-parse", "--short=12", "HEAD").strip()
        with tempfile.TemporaryDirectory(prefix="golden-") as folder:
            shared = Shared(Path(folder))
            taken = {case.name: take(case, shared) for case in load().values()}
        print(write(named, load(), taken, {"commit": commit, "reason": asked.reason}))
    except (Refused, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def check(words: list[str], reason: str, caps: Mapping[str, str], changed: list[str]) -> list[Case]:
    """Refuse to begin without what a later reader needs; return the cases that are named.

    Raises
    ------
    Refused
    """
    if not words:
        raise Refused('Name the cases: make golden-record CASE="G11 G12" REASON="…".')
    if len(reason.split()) < 2:
        raise Refused('Say why the numbers change: make golden-record CASE=G11 REASON="…".')
    if caps:
        raise Refused(f"Set {caps}, as make golden-record does.")
    named = select(words)
    allowed = {case.file.relative_to(ROOT).as_posix() for case in named}
    if others := [file for file in changed if file not in allowed]:
        raise Refused(f"Commit first what is changed: {', '.join(others)}.")
    return named


def write(
    named: list[Case], cases: Mapping[str, Case], taken: Mapping[str, Taken], entry: dict[str, str]
) -> str:
    """Write the files of the named cases if no other would change; return the table for a commit.

    Raises
    ------
    Refused
        If a case that was not named has other numbers than it keeps.
    """
    names = [case.name for case in named]
    recorded = [case for case in cases.values() if case.file.exists()]
    missed = {case.name: kept.misses(case, taken[case.name]) for case in recorded}
    if others := [name for name, found in missed.items() if found and name not in names]:
        tables = "\n".join(f"{name}\n{table(missed[name])}" for name in others)
        raise Refused(f"These would change too, and are not named: {', '.join(others)}.\n{tables}")
    lines = [f"Recorded: {entry['reason']}"]
    for case in named:
        history = kept.read(case)["history"] if case.file.exists() else []
        text = kept.record(case, taken[case.name], [*history, entry])
        case.file.write_text(text, "utf-8")
        lines.append(f"\n{case.name}: {_said(missed.get(case.name))}")
    return "\n".join(lines)


def changed_files(root: Path) -> list[str]:
    """List what differs from the last commit, files that git does not know included."""
    listed = _git(root, "status", "--porcelain", "--untracked-files=all").splitlines()
    return [line[3:].split(" -> ")[-1] for line in listed]


def _said(missed: list[Verdict] | None) -> str:
    if missed is None:
        return "new"
    return f"{len(missed)} values change\n{table(missed)}" if missed else "within tolerance"


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
