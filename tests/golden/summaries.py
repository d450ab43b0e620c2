"""An array in a few numbers, so that a change of the array beyond a tolerance changes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from golden.rules import Rule

SUMS = 8


def summary(values: ArrayLike) -> dict[str, Any]:
    """Norm, mean, and eight sums with signs of their own that never change.

    A difference of norm d changes such a sum by about d, whatever the length, so that the root
    mean square of the eight changes estimates d.
    """
    flat = np.asarray(values, np.float64).ravel()
    sums = [float(flat @ signs(number, flat.size)) for number in range(SUMS)]
    return {"norm": float(np.linalg.norm(flat)), "mean": float(flat.mean()), "sums": sums}


def within(pattern: str, tolerance: float) -> dict[str, Rule]:
    """Rules for the summaries at a pattern, where the arrays may differ by so much of their norm.

    A mean of n numbers differs by 1/√n of that at most; a tenth is allowed, for n from 100 on.
    """
    return {
        f"{pattern}/norm": {"rel": tolerance},
        f"{pattern}/mean": {"rel_norm": tolerance / 10},
        f"{pattern}/sums": {"rms_norm": tolerance},
    }


def signs(number: int, size: int) -> np.ndarray:
    """Return +1 or −1 for each of `size` places, by an integer formula."""
    mixed = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed += np.uint64((number + 1) * 0xD1B54A32D192ED03 % 2**64)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return ((mixed >> np.uint64(40)) & np.uint64(1)).astype(np.float64) * 2 - 1


def distance(found: ArrayLike, kept: ArrayLike) -> float:
    """Return the distance of two arrays as a share of the norm of the second."""
    reference = np.asarray(kept, np.float64)
    return float(
        np.linalg.norm(np.asarray(found, np.float64) - reference) / np.linalg.norm(reference)
    )
