"""Which pixels of an image a location of a dense map stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vggfeat.learn.solvers import Floats
from vggfeat.nets.config import Layer, stride_of, window_of


class Spans(NamedTuple):
    """Where the locations along one axis of a map lie: pixels [start, end) of each, (n,)."""

    starts: Floats
    ends: Floats

    def mirrored(self, side: int) -> Spans:
        """Bring the spans of a mirror image back to the image.

        Examples
        --------
        >>> Spans(np.array([0.0, 32.0]), np.array([32.0, 64.0])).mirrored(70)
        Spans(starts=array([38.,  6.]), ends=array([70., 38.]))
        """
        return Spans(side - self.ends, side - self.starts)


def spans_of(name: str, layers: Sequence[Layer], count: int) -> Spans:
    """Tell which pixels each of `count` locations of a layer stands for, along one axis.

    Location i has the stride's pixels from i·stride on; one of a full connection has the window
    of 7 such cells of pool5 that fc6 looks at (Section 3.2).

    Examples
    --------
    >>> from vggfeat.nets.config import layers_of
    >>> spans_of("pool5", layers_of("D"), 2)
    Spans(starts=array([ 0., 32.]), ends=array([32., 64.]))
    >>> spans_of("fc7", layers_of("D"), 2)
    Spans(starts=array([ 0., 32.]), ends=array([224., 256.]))
    """
    starts = np.arange(count, dtype=np.float64) * stride_of(name, layers)
    return Spans(starts, starts + window_of(name, layers))


def spread(spans: Spans, side: int, n: int) -> Floats:
    """Spread each span evenly over a grid of n equal steps along a side of an image.

    Parameters
    ----------
    spans : Spans
        What of them lies outside of the image does not count.
    side : int
        Pixels.
    n : int
        Steps of the grid.

    Returns
    -------
    array, shape (n, locations)
        Shares; each column's sum is 1, so that nothing is lost or added.

    Examples
    --------
    >>> spread(Spans(np.array([0.0, 4.0]), np.array([4.0, 8.0])), 6, 3)
    array([[0.5, 0. ],
           [0.5, 0. ],
           [0. , 1. ]])
    """
    starts, ends = np.maximum(spans.starts, 0), np.minimum(spans.ends, side)
    edges = np.linspace(0, side, n + 1)[:, None]
    common = np.minimum(ends, edges[1:]) - np.maximum(starts, edges[:-1])
    shares = np.clip(common, 0, None)
    whole: Floats = shares / shares.sum(axis=0)
    return whole
