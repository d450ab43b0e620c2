"""Aggregation against sums worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import normalize as sklearn_l2

from vggfeat.errors import ParameterError
from vggfeat.features.aggregate import Aggregation, aggregate
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


@pytest.mark.parametrize(
    "wrong", [{"how": "mean"}, {"normalize": "l1"}, {"power": 0.0}, {"power": 2.0}]
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
    with pytest.raises(ParameterError, match="--normalize locations"):
        Aggregation(normalize="locations").check([l2, raw])
