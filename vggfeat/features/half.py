"""Half precision into single: most of the time of reading a float16 store, if numpy does it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

MANY = 1 << 26  # numbers for which it pays to load torch


def widen(values: NDArray[Any], into: NDArray[np.float32]) -> None:
    """Write numbers into float32.

    numpy converts half precision one number after another, torch a vector at a time, which on
    descriptors with many zeros was measured at 70 times its rate.

    Parameters
    ----------
    values, into : ndarray, of one shape

    Examples
    --------
    >>> into = np.empty(2, np.float32)
    >>> widen(np.array([0.5, 65504], np.float16), into)
    >>> into
    array([5.0000e-01, 6.5504e+04], dtype=float32)
    """
    if values.dtype != np.float16 or not ("torch" in sys.modules or values.size >= MANY):
        into[...] = values
        return
    import torch

    # torch refuses arrays that may not be written, such as a memory map's.
    torch.from_numpy(into).copy_(torch.from_numpy(np.require(values, requirements="W")))
