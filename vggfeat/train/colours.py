"""The colours of a training set: their mean, and the directions in which they vary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vggfeat.data.image import Pixels
from vggfeat.errors import DataError, ParameterError

Triple = tuple[float, float, float]
_CHUNK = 1 << 20  # pixels whose squares are summed at once: 24 MB as float64


@dataclass(frozen=True)
class Colours:
    """The colours of a training set.

    Parameters
    ----------
    mean : tuple of three float
        Mean R, G, B, in 0–255.
    values : tuple of three float
        Eigenvalues of the covariance of R, G, B in [0, 1], the largest first.
    vectors : tuple of three tuples
        Eigenvectors as the columns of a matrix whose rows are R, G, B.
    """

    mean: Triple
    values: Triple
    vectors: tuple[Triple, Triple, Triple]

    @property
    def deviation(self) -> float:
        """Root mean square of what is left when the mean is subtracted, in 0–255.

        Examples
        --------
        >>> round(ILSVRC.deviation, 1)
        72.2
        """
        return 255 * math.sqrt(sum(self.values) / 3)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Colours:
        """Inverse of :meth:`to_dict`, also after JSON made lists of the tuples."""
        r, g, b = map(_triple, saved["vectors"])
        return cls(_triple(saved["mean"]), _triple(saved["values"]), (r, g, b))


# The authors' mean and the components commonly used for ILSVRC. They are eigenvalues, not their
# roots: 0.24 in all is the variance of three channels whose deviation is 0.28 each.
ILSVRC = Colours(
    mean=(123.68, 116.779, 103.939),
    values=(0.2175, 0.0188, 0.0045),
    vectors=((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203)),
)


def principal_components(images: Iterable[Pixels]) -> Colours:
    """Compute the mean and the principal components of the pixels of a training set.

    Sums of whole numbers are exact, so the result is that of all pixels at once; the memory is
    that of one image. Every pixel counts the same. Of each vector the entry largest in
    magnitude is positive.

    Parameters
    ----------
    images : iterable of ndarray (H, W, 3) of uint8
        RGB; looked at once.

    Raises
    ------
    DataError
        If there is no pixel.

    Examples
    --------
    >>> grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    >>> found = principal_components([grey])
    >>> found.mean, [round(value, 4) for value in found.values]
    ((127.5, 127.5, 127.5), [0.252, 0.0, 0.0])
    """
    count = 0
    total = np.zeros(3, np.int64)
    squares = np.zeros((3, 3), np.int64)
    for image in images:
        for rows in _chunks(image):
            count += len(rows)
            total += rows.sum(axis=0).astype(np.int64)
            squares += (rows.T @ rows).astype(np.int64)  # exact: below 2⁵³ in a chunk
    if not count:
        raise DataError("There are no pixels to compute the mean colour of: no image was read.")
    mean = total / count
    covariance = (squares / count - np.outer(mean, mean)) / 255**2
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, range(3)])
    return Colours.from_dict({"mean": mean, "values": values, "vectors": vectors})


def colour_shifts(alphas: Sequence[Triple], colours: Colours) -> Tensor:
    """Compute Krizhevsky's P·(α∘λ), which is added to every pixel of an image.

    λ and P are the eigenvalues and eigenvectors of the covariance of R, G, B. Read literally, the
    formula depends on the unit, since λ has its square: here it is that of [0, 1], where the
    values commonly used belong. An image's red varies by 0.1·0.2175·0.57 ≈ 0.012, 3 of 255.

    Returns
    -------
    Tensor (B, 3) of float64
        R, G, B in units of a full channel.

    Examples
    --------
    >>> colour_shifts([(0.1, 0.0, 0.0)], ILSVRC).numpy().round(4)
    array([[-0.0123, -0.0126, -0.0127]])
    """
    alpha, values, vectors = (
        torch.tensor(numbers, dtype=torch.float64)
        for numbers in (alphas, colours.values, colours.vectors)
    )
    return alpha * values @ vectors.T


def _triple(values: Iterable[float]) -> Triple:
    first, second, third = map(float, values)
    return first, second, third


def _chunks(image: Pixels) -> Iterator[npt.NDArray[np.float64]]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ParameterError.of(
            "images",
            "principal_components",
            "arrays (H, W, 3) of uint8",
            f"{image.shape} of {image.dtype}",
        )
    rows = image.reshape(-1, 3)
    for begin in range(0, len(rows), _CHUNK):
        yield rows[begin : begin + _CHUNK].astype(np.float64)
