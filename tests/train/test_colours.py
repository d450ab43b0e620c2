"""The mean and the principal components of pixels against NumPy's on all of them at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support import noise

from vggfeat.data.image import decode
from vggfeat.errors import DataError, ParameterError
from vggfeat.train import colours
from vggfeat.train.colours import ILSVRC, Colours, colour_shifts, principal_components


def images() -> list[np.ndarray]:
    return [noise(30 + i, 20, seed=i) for i in range(5)]


def test_components_are_those_of_the_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamed over images in chunks, they are NumPy's of the stacked pixels in [0, 1]."""
    monkeypatch.setattr(colours, "_CHUNK", 77)
    rows = np.concatenate([p.reshape(-1, 3) for p in images()]).astype(np.float64)
    found = principal_components(iter(images()))
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-14)
    values, vectors = np.array(found.values), np.array(found.vectors)
    assert values[0] > values[1] > values[2] > 0
    covariance = np.cov(rows / 255, rowvar=False, bias=True)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, covariance, rtol=1e-11)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    assert (vectors[np.abs(vectors).argmax(axis=0), range(3)] > 0).all()


def test_colours_survive_json() -> None:
    """What a checkpoint keeps is equal after it was written and read."""
    found = principal_components(images())
    assert Colours.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_common_components_are_eigenvalues_in_the_unit_of_a_channel(
    real_images: Path,
) -> None:
    """Photographs have eigenvalues near those used for ILSVRC, and nearly the same first axis."""
    paths = sorted((real_images / "caltech101").rglob("*.jpg"))[::60]
    if not paths:
        pytest.skip("no photographs of Caltech-101")
    found = principal_components(np.asarray(decode(path)) for path in paths)
    assert 0.5 < found.values[0] / ILSVRC.values[0] < 2
    axis = abs(np.array(found.vectors)[:, 0] @ np.array(ILSVRC.vectors)[:, 0])
    assert axis > 0.99


def test_the_common_vectors_are_orthonormal() -> None:
    """The published four decimals form a rotation to within their rounding."""
    vectors = np.array(ILSVRC.vectors)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=3e-4)


def test_shifts_have_the_covariance_of_the_formula() -> None:
    """P·(α∘λ) with α of variance 0.01 has the covariance 0.01·P·diag(λ²)·Pᵀ."""
    alphas = np.random.default_rng(0).normal(0, 0.1, (200_000, 3))
    found = np.cov(colour_shifts(alphas, ILSVRC).numpy(), rowvar=False)
    P, values = np.array(ILSVRC.vectors), np.array(ILSVRC.values)
    expected = 0.01 * P @ np.diag(values**2) @ P.T
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_what_is_no_image_is_refused() -> None:
    """No images at all, or arrays of another kind, are named."""
    with pytest.raises(DataError, match="no image was read"):
        principal_components([])
    with pytest.raises(ParameterError, match=r"arrays \(H, W, 3\) of uint8.*float64"):
        principal_components([np.zeros((4, 4, 3))])
