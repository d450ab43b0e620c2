"""How far the numbers of another machine, or of other caps, lie from those that are kept.

``python -m golden.collect --out FOLDER`` there, ``python -m golden.spread FOLDER`` here: for each
case the largest share of its tolerance that is used. Above a third, the case is to be mended.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from golden import kept
from golden.case import load
from golden.rules import ABSENT, Rule, Verdict, compare, kind_of, rule_of


def spread(folder: Path) -> dict[str, tuple[float, str]]:
    """Return by case the largest share and its path; infinite where an exact value differs."""
    shares = {}
    for name, case in load().items():
        file = folder / f"{name}.json"
        if not file.exists() or not case.file.exists():
            continue
        known, found = kept.read(case), json.loads(file.read_text("utf-8"))
        verdicts = compare(known["values"], found["values"], known["tolerance"], known["margins"])
        worst = max((_share(v, known["tolerance"]), v.path) for v in verdicts)
        shares[name] = worst
    return shares


def _share(verdict: Verdict, tolerance: Mapping[str, Rule]) -> float:
    """Return the share that is used; of a bound on a distance, by how much the distance moved."""
    bound = kind_of(rule_of(verdict.path, tolerance)) == "at_most"
    if bound and verdict.holds and verdict.found != ABSENT:
        return abs(verdict.found - verdict.kept) / verdict.allowed
    return verdict.used


if __name__ == "__main__":
    for name, (share, path) in spread(Path(sys.argv[1])).items():
        print(f"{name:24} {share:8.3f}  {path}")
