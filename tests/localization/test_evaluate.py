"""Errors of localisation, counted by hand and at ILSVRC's size."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest

from vggfeat.localization.judged import Errors, Judged, LocalisationResult
from vggfeat.localization.predict import Located

TRUTH = np.array([[0.0, 0, 10, 10]])
RIGHT, HALF, WRONG = ([0.0, 0, 10, bottom] for bottom in (9.0, 5.0, 4.0))


def judged(label: int, rank: int, boxes: tuple[list[float], ...], name: str = "a") -> Judged:
    """Make a row of its boxes: central, merged, single."""
    central, merged, single = map(np.array, boxes)
    found = Located(label, 0.5, merged, 1.0, 2, 3, single)
    return Judged(name, label, TRUTH, central, rank, found, label)


def test_errors_by_hand() -> None:
    """Four rows of two classes and of a third that has none; half an overlap is wrong."""
    rows = (
        judged(0, 0, (RIGHT, RIGHT, WRONG)),
        judged(0, 1, (HALF, RIGHT, RIGHT)),
        judged(0, 2, (RIGHT, RIGHT, RIGHT), "b"),
        judged(1, 0, (WRONG, WRONG, RIGHT), "c"),
    )
    result = LocalisationResult(("bus", "cat", "dog"), rows, True, 2, {})
    np.testing.assert_allclose(result.shares()[:2], [[0.9, 0.9, 0.4], [0.5, 0.9, 0.9]])
    assert result.errors(0) == pytest.approx((1 / 3, 2 / 3, 1 / 3, 0, 1, 2 / 3, 1 / 3, 3))
    assert result.errors(1) == Errors(1, 1, 1, 1, 0, 0, 0, 1)
    assert result.errors() == Errors(0.5, 0.75, 0.5, 0.25, 0.75, 0.5, 0.25, 4)
    assert result.errors(2).of == 0
    assert np.isnan(result.errors(2)[:-1]).all()
    told = result.to_dict()
    assert told["tested"] == {"images": 3, "objects": 4, "failed": 0}
    assert told["errors"]["top2"] == 0.5
    assert told["classes"][2]["top2"] is None
    assert "top5" not in told["errors"]
    assert [row["iou"] for row in told["images"]] == pytest.approx([0.9, 0.9, 0.9, 0.4])
    central = LocalisationResult(result.classes, rows, False, 2, {})
    assert central.errors().central == 0.5
    assert np.isnan(central.errors()[1:-1]).all()
    assert not central.shares()[:, 1:].any()


def test_any_true_box_counts() -> None:
    """The best overlap with one of several, whatever the rows around it have."""
    beside = np.array([[50.0, 50, 60, 60], [0.0, 0, 10, 10], [80.0, 0, 90, 9]])
    one = judged(0, 0, (RIGHT, HALF, [80.0, 0, 90, 9]))
    rows = (one, one._replace(truths=beside), one)
    result = LocalisationResult(("cat",), rows, True, 1, {})
    np.testing.assert_allclose(result.shares()[1], [0.9, 0.5, 1])
    np.testing.assert_allclose(result.shares()[[0, 2]], [[0.9, 0.5, 0]] * 2)


def test_errors_at_ilsvrcs_size_take_no_time() -> None:
    """50,000 rows and 1,000 classes, each asked for; the sum over classes is that over all."""
    rng = np.random.default_rng(0)
    corners = rng.random((50_000, 3, 2)) * 40
    boxes = np.concatenate([corners, corners + 10 + rng.random((50_000, 3, 2)) * 60], axis=2)
    rows = tuple(
        judged(k % 1000, int(rank), tuple(some))._replace(truths=some[:1] + 3)
        for k, (some, rank) in enumerate(zip(boxes, rng.integers(0, 9, 50_000), strict=True))
    )
    result = LocalisationResult(tuple(map(str, range(1000))), rows, True, 5, {})
    start = perf_counter()
    every = [result.errors(c) for c in range(1000)]
    spent = perf_counter() - start
    assert spent < 3
    assert sum(one.of for one in every) == 50_000
    np.testing.assert_allclose(np.mean(every, axis=0)[:-1], result.errors()[:-1])
