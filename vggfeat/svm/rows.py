"""Descriptors read block by block: rows of a matrix, a memory map or an HDF5 data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggfeat.errors import DataError
from vggfeat.store.shard import to_float32

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK_BYTES = 32 << 20  # of one block of rows, and of each array of their scores


class Rows:
    """Some rows of descriptors, left where they are until a slice of them is read.

    Parameters
    ----------
    X : array, shape (N, D)
        Anything that slices by rows: an array, a memory map, an HDF5 data set, other rows.
    rows : array of int, shape (m,)
        Row numbers. In a file, ascending ones are read fastest.

    Examples
    --------
    >>> some = Rows(np.arange(8.0).reshape(4, 2), [1, 3])
    >>> some.shape, some[1:], some[:, 0]
    ((2, 2), array([[6., 7.]]), array([2., 6.]))
    """

    ndim = 2

    def __init__(self, X: Any, rows: ArrayLike) -> None:
        chosen = np.asarray(rows, dtype=np.int64)
        if isinstance(X, Rows):
            X, chosen = X.source, X.rows[chosen]
        self.source: Any = X
        self.rows: Ints = chosen
        self.shape: tuple[int, int] = (len(chosen), X.shape[1])
        self.dtype: np.dtype[Any] = X.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a slice of the rows, or of rows and columns."""
        which, columns = key if isinstance(key, tuple) else (key, slice(None))
        rows = self.rows[which]
        if isinstance(self.source, np.ndarray):
            return np.asarray(self.source[rows, columns])
        return self._from_file(rows, columns)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def _from_file(self, rows: Ints, columns: Any) -> NDArray[Any]:
        """Read whole blocks and choose from them: HDF5 is slow at picking rows one by one."""
        found = np.empty((len(rows), self.shape[1]), self.dtype)[:, columns]
        for start, stop in block_ends(self.source, 1):
            mine = np.flatnonzero((rows >= start) & (rows < stop))
            if len(mine):
                first, last = rows[mine].min(), rows[mine].max()
                found[mine] = self.source[first : last + 1, columns][rows[mine] - first]
        return found


def linear_scores(X: Any, coef: Floats, intercept: Floats) -> Floats:
    """Score rows, shape (N, C), reading them block by block.

    Parameters
    ----------
    X : array, shape (N, D)
        Anything that slices by rows.
    coef : array, shape (C, D)
    intercept : array, shape (C,)

    Examples
    --------
    >>> linear_scores(np.eye(2), np.array([[1.0, 2.0]]), np.zeros(1))
    array([[1.],
           [2.]])
    """
    scores = np.empty((len(X), len(coef)))
    for start, stop in block_ends(X, len(coef)):
        scores[start:stop] = as_floats(X[start:stop]) @ coef.T + intercept
    return scores


def in_blocks(X: Any) -> bool:
    """Tell whether X, of shape (N, D), can be read by rows as it is; else it is copied."""
    if isinstance(X, Rows):
        return True
    if isinstance(X, np.ndarray):
        return X.ndim == 2 and X.dtype.kind == "f" and X.size > 0
    # Of what is no array, a data set in a file; not a table, nor a sparse matrix.
    return not hasattr(X, "iloc") and not hasattr(X, "nnz") and hasattr(X, "chunks")


def check_finite(X: Any) -> None:
    """Refuse descriptors that are not numbers, reading them once.

    Raises
    ------
    DataError
        If one is a NaN or an infinity.
    """
    for start, stop in block_ends(X, 1):
        check_block(as_floats(X[start:stop]), start)


def check_block(block: NDArray[Any], start: int) -> None:
    """Refuse rows from ``start`` on that are not numbers, as :func:`check_finite` does."""
    if not np.isfinite(block).all():
        raise DataError(
            f"Descriptors must be finite. Rows {start} to {start + len(block) - 1} hold a NaN or "
            "an infinity: find and extract them again."
        )


def block_ends(X: Any, width: int) -> Iterator[tuple[int, int]]:
    """Yield first row and end of blocks, so that (B, D) and (B, width) stay small."""
    n, D = X.shape
    size = max(1, BLOCK_BYTES // (8 * max(D, width)))
    for start in range(0, n, size):
        yield start, min(n, start + size)


def as_floats(block: Any) -> NDArray[Any]:
    """Turn a block into an array of its own precision, at least float32."""
    if block.dtype != np.float16:
        return np.asarray(block, dtype=np.float64 if block.dtype == np.float64 else np.float32)
    floats = np.empty(block.shape, np.float32)
    to_float32(block, floats)
    return floats
