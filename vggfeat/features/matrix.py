"""Rows of a feature store that are read when they are needed: for SVMs over more than memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.features.reading import Reader


class StoreRows:
    """The combined descriptors of pictures, left in the store until a slice of them is read.

    :class:`~vggfeat.learn.svm.LinearSVM` takes them as they are: with ``solver="stream"``, which
    ``"auto"`` resolves to where they are too many for memory, it reads them block by block. What
    is float16 on disk stays so there, and is float32 in the block that is read.

    Parameters
    ----------
    store : FeatureStore
        One net of a store, opened.
    aggregation : Aggregation, optional
        How scales are combined and normalised; the paper's by default.
    scales : sequence of int, optional
        Test scales Q; all that the store has, by default.
    names : sequence of str, optional
        Pictures, in the order of the rows; all that have these scales, by default.

    Raises
    ------
    StoreError
        If a picture is not there, or none is.

    Examples
    --------
    >>> from vggfeat.settings import Extraction
    >>> from vggfeat.features.store import FeatureStore
    >>> store = FeatureStore(None, Extraction("D", "ab12", ("fc7",)), ["a.jpg", "b.jpg"])
    >>> [part] = store.extraction.parts([384])
    >>> store.write([0, 1], {part: np.array([[3.0, 4.0], [0.0, 2.0]])})
    >>> X = StoreRows(store)
    >>> X.shape, X[1:]
    ((2, 2), array([[0., 1.]], dtype=float32))
    """

    ndim = 2
    dtype = np.dtype(np.float32)
    chunks = None  # as of an HDF5 data set: rows are read where they lie

    def __init__(
        self,
        store: Reader,
        aggregation: Aggregation | None = None,
        scales: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.store = store
        self.aggregation = aggregation or Aggregation()
        self.aggregation.check(store.extraction)
        self.scales = store.scales if scales is None else list(scales)
        self.rows = store.rows(self.scales, names)
        self.shape: tuple[int, int] = (len(self.rows), self._read(self.rows[:1]).shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Matrix:
        """Read a slice of the rows, or of rows and columns."""
        which, columns = key if isinstance(key, tuple) else (key, slice(None))
        return self._read(self.rows[which])[:, columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Matrix:
        """Read all rows, as a solver that keeps them in memory does."""
        return np.asarray(self[:], dtype)

    def _read(self, rows: Any) -> Matrix:
        return self.aggregation.rows(self.store.read_rows(self.scales, rows))
