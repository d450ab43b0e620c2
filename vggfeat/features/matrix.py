"""Rows of a feature store that are read when they are needed: for SVMs over more than memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vggfeat.errors import StoreError
from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.store.column import Descriptor
from vggfeat.store.store import FeatureStore


class StoreRows:
    """The combined descriptors of images, left in the store until a slice of them is read.

    :class:`~vggfeat.svm.linear.LinearSVM` takes them as they are: with ``solver="stream"``, which
    ``"auto"`` resolves to where they are too many for memory, it reads them block by block. What
    is float16 on disk stays so there, and is float32 in the block that is read.

    Parameters
    ----------
    store : FeatureStore
    aggregation : Aggregation, optional
        How scales are combined and normalised; the paper's by default.
    columns : sequence of Descriptor, optional
        All that the store has, by default.
    names : sequence of str, optional
        Images, in the order of the rows; all that have these columns, by default.

    Raises
    ------
    StoreError
        If an image is not there, or none is.

    Examples
    --------
    >>> from vggfeat.store.column import Column
    >>> fc7 = Column(Descriptor("D", "fc7", "average", 384), {"weights": "ab12"}, 2)
    >>> store = FeatureStore(None, "a")
    >>> store.add_columns([fc7])
    >>> values = {fc7.descriptor: np.array([[3.0, 4.0], [0.0, 2.0]])}
    >>> store.write(["a.jpg", "b.jpg"], [[1, 1], [2, 2]], np.zeros((2, 2), int), values)
    >>> X = StoreRows(store)
    >>> X.shape, X[1:]
    ((2, 2), array([[0., 1.]], dtype=float32))
    """

    ndim = 2
    dtype = np.dtype(np.float32)
    chunks = None  # as of an HDF5 data set: rows are read where they lie

    def __init__(
        self,
        store: FeatureStore,
        aggregation: Aggregation | None = None,
        columns: Sequence[Descriptor] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.store = store
        self.aggregation = aggregation or Aggregation()
        self.columns = list(store.columns if columns is None else columns)
        self.names = np.array(store.complete(self.columns) if names is None else names, object)
        if not len(self.names):
            raise StoreError(f"{store!r} has no image with all of these columns.")
        lacking = self.names[~store.has(self.columns, self.names.tolist()).all(axis=1)]
        store.read(self.columns, lacking[:1].tolist())  # says what is not there, and why
        self.aggregation.check(store.columns[name] for name in self.columns)
        self.shape: tuple[int, int] = (len(self.names), self._read(self.names[:1]).shape[1])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: Any) -> Matrix:
        """Read a slice of the rows, or of rows and columns."""
        which, columns = key if isinstance(key, tuple) else (key, slice(None))
        return self._read(self.names[which])[:, columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Matrix:
        """Read all rows, as a solver that keeps them in memory does."""
        return np.asarray(self[:], dtype)

    def _read(self, names: Any) -> Matrix:
        return self.aggregation.rows(self.store.read(self.columns, names.tolist()))
