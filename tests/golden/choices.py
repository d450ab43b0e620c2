"""Which values of C may be chosen: margins of the rule "choice"."""

from __future__ import annotations

from collections.abc import Sequence


def near_best(grid: Sequence[float], scores: Sequence[float], within: float = 0.01) -> list[float]:
    """Name the values of C whose validation score is at most so much below the best."""
    best = max(scores)
    return [C for C, score in zip(grid, scores, strict=True) if score > best - within]
