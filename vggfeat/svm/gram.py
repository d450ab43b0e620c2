"""The Gram matrix X Xᵀ, in blocks, on the GPU where there is one."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import numpy as np
import torch

from vggfeat.nets.runtimes import resolve_device
from vggfeat.svm.solvers import Floats

DEVICE: ContextVar[str] = ContextVar("DEVICE", default="auto")
"""Where products are taken: ``"auto"`` for the GPU where there is one, or a device of torch."""


def gram_matrix(X: Any, rows: int = 2048, columns: int = 4096) -> Floats:
    """Compute X Xᵀ in blocks, each block pair once.

    Products are taken in the precision of ``X`` (at least float32) and summed over column blocks
    in float64. Finer products would be lost: libsvm itself keeps its kernel rows as float32. The
    result is float64 because scikit-learn would otherwise convert it at every single fit.

    Parameters
    ----------
    X : array, shape (N, D)
        Descriptors; anything that slices by rows and columns, such as a memory map.
    rows, columns : int
        Size of a block.

    Returns
    -------
    array, shape (N, N), float64

    Examples
    --------
    >>> gram_matrix(np.array([[1.0, 0.0], [1.0, 2.0]]))
    array([[1., 1.],
           [1., 5.]])
    """
    n, D = X.shape
    precision: type[np.floating[Any]] = np.float64 if X.dtype == np.float64 else np.float32
    on = resolve_device(DEVICE.get())
    K = np.zeros((n, n))
    for column in range(0, D, columns):
        part = np.array(X[:, column : column + columns], dtype=precision, order="C")
        block = torch.from_numpy(part).to(on if on.type == "cuda" else "cpu")
        for i in range(0, n, rows):
            products = block[i : i + rows] @ block[: i + rows].T
            K[i : i + rows, : i + rows] += products.cpu().numpy()
    for i in range(0, n, rows):
        K[:i, i : i + rows] = K[i : i + rows, :i].T
        corner = K[i : i + rows, i : i + rows]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T  # symmetric to the last bit
    return K
