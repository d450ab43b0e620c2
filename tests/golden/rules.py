"""By which rule a found number may differ from the kept one, and what a comparison says.

Rules, by a pattern of the path (``*`` stands for anything, the longest pattern that fits holds)::

    "exact"              equal; also the rule of every path that no pattern fits
    {"abs": x}           |Δ| ≤ x
    {"rel": x}           |Δ| ≤ x · |kept|
    {"rel_norm": x}      |Δ| ≤ x · the "norm" kept beside it, or beside what holds it
    {"rms_norm": x}      a list of numbers: root mean square of Δ ≤ x · the "norm" kept beside it
    {"at_most": x}       found ≤ x, whatever was kept: for distances
    "choice"             in the set of `margins` for this path; exact where it has none
    {"order": x}         as many ids; two whose scores in `margins` differ by at most x may swap

With ``"optional": True`` in a rule, the found values may lack the path.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Rule = str | Mapping[str, Any]
KINDS = ("exact", "choice", "abs", "rel", "rel_norm", "rms_norm", "at_most", "order")
OF_LISTS = ("rms_norm", "order")
ABSENT = "(absent)"
SHOWN = 10


@dataclass(frozen=True)
class Verdict:
    """One path, compared."""

    path: str
    kept: Any
    found: Any
    delta: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the difference is allowed; NaN is not."""
        return self.delta <= self.allowed

    @property
    def used(self) -> float:
        """Share of what is allowed that is used."""
        return 0.0 if self.delta == 0 else self.delta / self.allowed if self.allowed else math.inf


@dataclass(frozen=True)
class Leaf:
    """One value, its rule, and the norm that it is measured by."""

    value: Any
    rule: Rule
    norm: float | None


def rule_of(path: str, tolerance: Mapping[str, Rule]) -> Rule:
    """Return the rule of the longest pattern that fits."""
    fitting = [pattern for pattern in tolerance if fnmatchcase(path, pattern)]
    return tolerance[max(fitting, key=len)] if fitting else "exact"


def kind_of(rule: Rule) -> str:
    """Name the kind of a rule.

    Raises
    ------
    ValueError
        If there is no such rule.
    """
    named = [rule] if isinstance(rule, str) else [key for key in rule if key != "optional"]
    if len(named) != 1 or named[0] not in KINDS:
        raise ValueError(f"{rule!r} is no rule. There are: {', '.join(KINDS)}.")
    return named[0]


def compare(
    kept: Mapping[str, Any],
    found: Mapping[str, Any],
    tolerance: Mapping[str, Rule],
    margins: Mapping[str, Any],
) -> list[Verdict]:
    """Compare every path of kept and found values."""
    kept_leaves, found_leaves = (dict(leaves(values, tolerance)) for values in (kept, found))
    verdicts = []
    for path in sorted(kept_leaves | found_leaves):
        if path not in found_leaves:
            leaf = kept_leaves[path]
            optional = not isinstance(leaf.rule, str) and leaf.rule.get("optional", False)
            delta = 0.0 if optional else math.inf
            verdicts.append(Verdict(path, leaf.value, ABSENT, delta, 0.0))
        elif path not in kept_leaves:
            verdicts.append(Verdict(path, ABSENT, found_leaves[path].value, math.inf, 0.0))
        else:
            value = found_leaves[path].value
            verdicts.append(judge(path, kept_leaves[path], value, margins.get(path)))
    return verdicts


def judge(path: str, kept: Leaf, found: Any, margin: Any = None) -> Verdict:
    """Measure one difference by its rule."""
    kind = kind_of(kept.rule)
    size = 0.0 if isinstance(kept.rule, str) else float(kept.rule.get(kind, 0.0))
    delta, allowed = 0.0 if _same(kept.value, found) else math.inf, 0.0
    if kind == "choice":
        if margin is not None and found in margin:
            delta = 0.0
    elif kind == "order":
        delta, allowed = _disorder(kept.value, found, margin), size
    elif kind == "rms_norm":
        delta, allowed = _root_mean_square(kept.value, found), size * _norm(path, kept)
    elif kind != "exact" and _is_number(kept.value) and _is_number(found):
        if kind == "at_most":
            return Verdict(path, kept.value, found, found, size)
        unit = {"abs": 1.0, "rel": abs(kept.value)}.get(kind)
        delta = abs(found - kept.value)
        allowed = size * (_norm(path, kept) if unit is None else unit)
    return Verdict(path, kept.value, found, delta, allowed)


def leaves(
    values: Any, tolerance: Mapping[str, Rule], path: str = "", norm: float | None = None
) -> Iterator[tuple[str, Leaf]]:
    """Walk through nested values: path and leaf. A list under a rule of lists is one leaf."""
    rule = rule_of(path, tolerance)
    if isinstance(values, Mapping) and values:
        norm = values.get("norm", norm)
        for key, value in values.items():
            yield from leaves(value, tolerance, f"{path}/{key}".lstrip("/"), norm)
    elif isinstance(values, Sequence) and not isinstance(values, str) and values:
        if kind_of(rule) in OF_LISTS:
            yield path, Leaf(list(values), rule, norm)
            return
        for number, value in enumerate(values):
            yield from leaves(value, tolerance, f"{path}/{number}".lstrip("/"), norm)
    else:
        yield path, Leaf(values, rule, norm)


def unused(values: Mapping[str, Any], tolerance: Mapping[str, Rule]) -> list[str]:
    """List the patterns that hold for no path of these values: each is a mistake."""
    lists = [path for path, _ in leaves(values, tolerance)]
    return [p for p in tolerance if not any(fnmatchcase(path, p) for path in lists)]


def table(verdicts: Sequence[Verdict]) -> str:
    """Write the first misses as a table: path, kept, found, Δ, allowed."""
    rows = [("path", "kept", "found", "Δ", "allowed")]
    for verdict in verdicts[:SHOWN]:
        kept, found = (_short(value) for value in (verdict.kept, verdict.found))
        rows.append((verdict.path, kept, found, f"{verdict.delta:.3g}", f"{verdict.allowed:.3g}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if len(verdicts) > SHOWN:
        lines.append(f"and {len(verdicts) - SHOWN} more")
    return "\n".join(lines)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(kept: Any, found: Any) -> bool:
    return bool(kept == found) and isinstance(kept, bool) == isinstance(found, bool)


def _norm(path: str, leaf: Leaf) -> float:
    if leaf.norm is None:
        raise ValueError(f"{path}: no norm is kept beside it")
    return float(leaf.norm)


def _root_mean_square(kept: Any, found: Any) -> float:
    """Measure the difference of two lists of numbers; infinite where they are no such lists."""
    lists = (kept, found)
    if not all(isinstance(v, list) and all(map(_is_number, v)) for v in lists):
        return math.inf
    if len(kept) != len(found):
        return math.inf
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(kept, found, strict=True)) / len(kept))


def _disorder(kept: Any, found: Any, scores: Mapping[str, float] | None) -> float:
    """By how much the scores contradict an order, or a choice of the first few, at most."""
    if not isinstance(kept, list) or not isinstance(found, list) or len(kept) != len(found):
        return math.inf
    if scores is None or len(set(found)) < len(found):
        return math.inf
    ids = [str(value) for value in found]
    if not set(ids) <= set(scores):
        return math.inf
    listed = [scores[name] for name in ids]
    rest = [score for name, score in scores.items() if name not in set(ids)]
    worst = 0.0
    for place, score in enumerate(listed):
        worst = max(worst, max([*listed[place + 1 :], *rest], default=score) - score)
    return worst


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
