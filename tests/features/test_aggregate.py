"""Aggregation against sums worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import normalize as sklearn_l2

from vggfeat.errors import ParameterError
from vggfeat.features.aggregate import Aggregation, aggregate, combine
from vggfeat.store.column import Column, Descriptor


def column(Q: int, net: str = "D", layer: str = "fc7") -> Descriptor:
    return Descriptor(net, layer, "average", Q)


ARRAYS = {
    column(256): np.array([[3.0, 4.0], [0.0, 0.0]]),
    column(384): np.array([[0.0, 5.0], [1.0, 0.0]]),
}


@pytest.mark.parametrize(
    ("how", "rows"),
    [
        ("average", [[0.3, 0.9], [0.5, 0.0]]),
        ("max", [[0.6, 1.0], [1.0, 0.0]]),
        ("stack", [[0.6, 0.8, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]]),
    ],
)
def test_each_scale_is_normalised_and_so_is_the_result(how: str, rows: list[list[float]]) -> None:
    """L2 per descriptor, then the combination, then L2 again (Appendix B)."""
    np.testing.assert_allclose(aggregate(ARRAYS, how), sklearn_l2(rows), rtol=1e-6)


def test_nets_are_stacked_after_scales_are_averaged() -> None:
    """D and E, two scales each: an average for each net, side by side."""
    arrays = {
        column(256): np.array([[1.0, 0.0]]),
        column(384): np.array([[0.0, 1.0]]),
        column(256, "E"): np.array([[2.0, 0.0]]),
        column(384, "E"): np.array([[2.0, 0.0]]),
    }
    expected = sklearn_l2([[0.5, 0.5, 1.0, 0.0]])
    np.testing.assert_allclose(aggregate(arrays, "average"), expected, rtol=1e-6)


def test_none_leaves_raw_values() -> None:
    """Without normalisation an average is the plain mean."""
    found = aggregate(ARRAYS, "average", normalize="none")
    np.testing.assert_array_equal(found, np.array([[1.5, 4.5], [0.5, 0.0]], np.float32))


def test_power_keeps_signs() -> None:
    """The signed square root of −4 is −2."""
    found = aggregate({column(256): np.array([[-4.0, 9.0]])}, normalize="none", power=0.5)
    np.testing.assert_array_equal(found, np.array([[-2.0, 3.0]], np.float32))


@pytest.mark.parametrize("power", [0.5, 0.1, 1e-3])
def test_a_power_of_the_smallest_numbers_is_finite(power: float) -> None:
    """Denormal numbers stay finite, and their neighbours have their values."""
    values = np.array([[1e-45, -1e-40, 0.0, 9.0]], np.float32)
    found = aggregate({column(256): values}, normalize="none", power=power)
    np.testing.assert_allclose(found[0, 2:], [0.0, 9.0**power], rtol=1e-6)
    assert (np.sign(found) == np.sign(values)).all()
    assert np.isfinite(found).all()
    assert np.isfinite(aggregate({column(256): values}, power=power)).all()


@pytest.mark.parametrize("how", ["average", "max", "stack"])
@pytest.mark.parametrize("power", [None, 0.5])
def test_gradients_times_descriptors_add_up(how: str, power: float | None) -> None:
    """Norms and powers count as constants, so that what descriptors give to a row is the row."""
    rng = np.random.default_rng(0)
    arrays = {column(Q): rng.normal(size=(2, 3)) * (1, 0, 5) for Q in (256, 384)}
    tensors = {name: torch.tensor(a, requires_grad=True) for name, a in arrays.items()}
    rows = combine([tensors], how, "descriptor", power)
    np.testing.assert_allclose(rows.detach(), aggregate(arrays, how, power=power), rtol=1e-6)
    weights = torch.from_numpy(rng.normal(size=rows.shape[1]))
    gradients = torch.autograd.grad((rows @ weights).sum(), list(tensors.values()))
    given = [(g * t).sum(1) for g, t in zip(gradients, tensors.values(), strict=True)]
    torch.testing.assert_close(sum(given), rows @ weights)


def test_what_is_zero_has_no_gradient_of_a_power() -> None:
    """Parts that cancel to 0 give nothing to its root, whose slope there is infinite."""
    parts = torch.tensor([[2.0, -2.0], [3.0, 1.0]], requires_grad=True)
    score = combine([{column(256): parts.sum(1)[None]}], normalize="none", power=0.5).sum()
    (gradient,) = torch.autograd.grad(score, parts)
    np.testing.assert_allclose(gradient * parts.detach(), [[0, 0], [1.5, 0.5]])


def test_arrays_of_any_kind_are_taken_and_left_as_they_are() -> None:
    """Read-only, turned and half-precision arrays give the same rows, and keep their numbers."""
    values = np.array([[3.0, 4.0], [1.0, 0.0]], np.float32)
    expected, before = aggregate({column(256): values.copy()}, power=0.5), values.copy()
    kinds = [values, values[::-1], values.astype(np.float16), np.asfortranarray(values)]
    for array in kinds:
        array.flags.writeable = False
        found = aggregate({column(256): array}, power=0.5)
        np.testing.assert_allclose(found, expected[::-1] if array is kinds[1] else expected)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize(
    "wrong",
    [{"how": "mean"}, {"normalize": "l1"}, {"power": 0.0}, {"power": 2.0}, {"power": "sqrt"}],
)
def test_unknown_settings_are_refused(wrong: dict[str, object]) -> None:
    """A wrong word or power is an error that names what would be right."""
    with pytest.raises(ParameterError, match="must be"):
        aggregate(ARRAYS, **wrong)
    with pytest.raises(ParameterError, match="at least one"):
        aggregate({})


def test_raw_locations_are_no_normalised_ones() -> None:
    """Descriptors pooled of raw locations are refused where they should be normalised."""
    raw, l2 = (Column(column(256), {"locations": how}, 2) for how in ("raw", "l2"))
    Aggregation().check([raw, l2])
    Aggregation(normalize="locations").check([l2, l2])
    with pytest.raises(ParameterError, match="normalize='locations'"):
        Aggregation(normalize="locations").check([l2, raw])
