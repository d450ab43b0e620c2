"""Compare what two versions found on one machine: what is chosen or counted is equal.

Arrays agree to 1e-6 of their norm, scores of an SVM number by number to 1e-6; values that have a
tolerance between machines have 1e-6 here, in the same unit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from golden.collect import ABOUT
from golden.rules import ABSENT, Rule, Verdict, compare, kind_of

CLOSE = 1e-6
SCORES = "scores"


def strict(kept: Path, found: Path) -> dict[str, list[Verdict]]:
    """Compare two folders of `golden.collect`: verdicts by case; a case that is new has none."""
    names = [{f.stem for f in folder.glob("*.json") if f.name != ABOUT} for folder in (kept, found)]
    verdicts: dict[str, list[Verdict]] = {}
    for name in sorted(names[0] | names[1]):
        if name not in names[0]:
            verdicts[name] = []
        elif name not in names[1]:
            verdicts[name] = [Verdict(name, "case", ABSENT, math.inf, 0.0)]
        else:
            verdicts[name] = [*_values(kept, found, name), *_arrays(kept, found, name)]
    return verdicts


def tightened(tolerance: Mapping[str, Rule]) -> dict[str, Rule]:
    """Make the rules strict: 1e-6 for numbers, equal for choices; a bound of a distance stays."""
    strict_rules: dict[str, Rule] = {}
    for pattern, rule in tolerance.items():
        kind = kind_of(rule)
        if isinstance(rule, str) or kind == "order":
            strict_rules[pattern] = "exact"
        elif kind == "at_most":
            strict_rules[pattern] = rule
        else:
            strict_rules[pattern] = {**rule, kind: min(CLOSE, rule[kind])}
    return strict_rules


def _values(kept: Path, found: Path, name: str) -> list[Verdict]:
    before, now = (json.loads((f / f"{name}.json").read_text("utf-8")) for f in (kept, found))
    inputs = compare({"inputs": before["inputs_sha256"]}, {"inputs": now["inputs_sha256"]}, {}, {})
    return inputs + compare(before["values"], now["values"], tightened(before["tolerance"]), {})


def _arrays(kept: Path, found: Path, name: str) -> list[Verdict]:
    before, now = (_load(folder / f"{name}.npz") for folder in (kept, found))
    verdicts = []
    for array in sorted(before | now):
        path = f"array {array}"
        if array in before and array in now:
            verdicts.append(judge_array(path, before[array], now[array]))
        else:
            there = ("array", ABSENT) if array in before else (ABSENT, "array")
            verdicts.append(Verdict(path, *there, math.inf, 0.0))
    return verdicts


def judge_array(path: str, kept: np.ndarray, found: np.ndarray) -> Verdict:
    """Measure the difference of two arrays: floats by norm, scores by number, others exactly."""
    shapes = (f"{kept.dtype} {kept.shape}", f"{found.dtype} {found.shape}")
    if shapes[0] != shapes[1]:
        return Verdict(path, *shapes, math.inf, 0.0)
    if kept.dtype.kind != "f":
        return Verdict(path, *shapes, 0.0 if np.array_equal(kept, found) else math.inf, 0.0)
    difference = found.astype(np.float64) - kept.astype(np.float64)
    if path.startswith(f"array {SCORES}"):
        return Verdict(path, *shapes, float(np.abs(difference).max(initial=0.0)), CLOSE)
    norm = float(np.linalg.norm(kept.astype(np.float64)))
    return Verdict(path, *shapes, float(np.linalg.norm(difference)), CLOSE * norm)


def _load(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}
