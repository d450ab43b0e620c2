"""Greedy merging: by hand, against a plain loop, and by its properties."""

from __future__ import annotations

from itertools import combinations
from time import process_time
from typing import Any

import numpy as np
import pytest
from helpers.mistakes import refuses
from hypothesis import given, settings
from hypothesis import strategies as st

from vggfeat.errors import ParameterError
from vggfeat.localization.boxes import iou
from vggfeat.localization.merging import MATCHES, Merged, merge, overfeat_score
from vggfeat.settings import Merging
from vggfeat.validation import checked

AVERAGES = ("count", "score", "pair")


def boxes_of(n: int, seed: int, spread: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes around three objects, and class outputs."""
    rng = np.random.default_rng(seed)
    objects = np.array([[20.0, 20, 120, 90], [60, 40, 160, 140], [200, 10, 260, 200]])
    boxes = objects[rng.integers(0, 3, n)] + rng.normal(0, spread, (n, 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return boxes, rng.random(n)


def merge_by(boxes: np.ndarray, scores: np.ndarray, **settings: Any) -> Merged:
    return merge(boxes, scores, Merging(**settings))


def row_of(*lefts: float) -> np.ndarray:
    """Boxes of 10×10 pixels side by side."""
    return np.array([[left, 0.0, left + 10, 10] for left in lefts])


def plainly(boxes: np.ndarray, scores: np.ndarray, worst: float, match: str, average: str) -> list:
    """Merge as the paper says it, all pairs anew at every step: boxes, scores and counts."""
    order = np.lexsort((scores, *boxes.T[::-1]))
    pool = {k: [boxes[row], scores[row], 1] for k, row in enumerate(order)}
    while len(pool) > 1:
        score = MATCHES[match].score
        matches = [
            (-score(pool[a][0][None], pool[b][0][None])[0, 0], a, b)
            for a, b in combinations(sorted(pool), 2)
        ]
        best, a, b = min(matches)
        if -best < worst:
            break
        (one, s, m), (other, t, n) = pool[a], pool.pop(b)
        mine, theirs = {"count": (m, n), "score": (s, t), "pair": (1, 1)}[average]
        pool[a] = [(mine * one + theirs * other) / (mine + theirs), s + t, m + n]
    return sorted(pool.values(), key=lambda one: -one[1])


def test_two_near_and_one_far_by_hand() -> None:
    """IoU 8/12 merges, 0 does not; outputs add up; the far box of highest output comes first."""
    boxes = np.array([[0.0, 0, 10, 10], [50, 50, 60, 60], [2, 0, 12, 10]])
    merged = merge(boxes, np.array([0.3, 0.6, 0.2]))
    assert merged.boxes.tolist() == [[50, 50, 60, 60], [1, 0, 11, 10]]
    assert merged.scores.tolist() == [0.6, 0.5]
    assert merged.counts.tolist() == [1, 2]
    assert merged.groups.tolist() == [1, 0, 1]


def test_the_best_match_goes_first_by_hand() -> None:
    """Of three in a row the two that match best merge, and their average is too far from the third.

    Left edges 0, 2 and 6, all 10 wide: IoU 8/12, 6/14 and 4/16. At a threshold of 0.4 the first
    two become 1–11, whose IoU with 6–16 is 5/15.
    """
    boxes, scores = row_of(0, 2, 6), np.ones(3)
    assert sorted(merge_by(boxes, scores, threshold=0.4).boxes[:, 0].tolist()) == [1, 6]
    assert merge_by(boxes, scores, threshold=1 / 3).boxes.tolist() == [[8 / 3, 0, 38 / 3, 10]]


@pytest.mark.parametrize(
    ("average", "left"),
    [
        ("count", (0 + 0.5 + 3) / 3),
        ("score", (0 * 3 + 0.5 + 3) / 5),
        ("pair", (0.25 + 3) / 2),
    ],
)
def test_averages_by_hand(average: str, left: float) -> None:
    """Left edges 0, 0.5 and 3, of which the first two merge before the third joins them."""
    merged = merge_by(row_of(0, 0.5, 3), np.array([3.0, 1.0, 1.0]), average=average)
    assert merged.boxes[0, 0] == pytest.approx(left)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("seed", range(4))
def test_equals_a_plain_loop(match: str, average: str, seed: int) -> None:
    """What is remembered between steps changes nothing."""
    boxes, scores = boxes_of(40, seed, spread=4 + 6 * seed)
    threshold = MATCHES[match].threshold
    expected = plainly(boxes, scores, threshold, match, average)
    merged = merge_by(boxes, scores, match=match, average=average)
    assert len(merged.boxes) == len(expected)
    np.testing.assert_allclose(merged.boxes, [box for box, _, _ in expected])
    np.testing.assert_allclose(merged.scores, [score for _, score, _ in expected])
    assert merged.counts.tolist() == [count for _, _, count in expected]


def test_overfeats_score_as_printed_prefers_less_overlap() -> None:
    """Centres 5 apart and no common pixel score 5; twice the same 4×4 box scores 16, worse."""
    boxes = np.array([[0.0, 0, 4, 4], [3.0, 4, 7, 8]])
    assert (-overfeat_score(boxes[:1], boxes)).tolist() == [[16, 5]]
    assert len(merge_by(boxes, np.ones(2), match="overfeat", threshold=5).boxes) == 1
    assert len(merge_by(boxes, np.ones(2), match="overfeat", threshold=4.9).boxes) == 2


COORDINATES = st.integers(0, 40)
BOXES = st.lists(
    st.tuples(COORDINATES, COORDINATES, st.integers(1, 20), st.integers(1, 20), st.integers(0, 8)),
    min_size=1,
    max_size=30,
)


def made(rows: list) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and outputs of what hypothesis drew."""
    left, top, width, height, score = np.array(rows, dtype=np.float64).T
    return np.stack([left, top, left + width, top + height], axis=1), score / 8


@settings(deadline=None, max_examples=60)
@given(
    BOXES,
    st.randoms(use_true_random=False),
    st.sampled_from(AVERAGES),
    st.sampled_from(list(MATCHES)),
)
def test_the_order_of_windows_does_not_matter(rows: list, random, average: str, match: str) -> None:
    """Shuffled, with ties and doubles, all is the same to the last bit; so it is merged again."""
    boxes, scores = made(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    one = merge_by(boxes, scores, average=average, match=match)
    other = merge_by(boxes[order], scores[order], average=average, match=match)
    for a, b in zip(one[:3], other[:3], strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(one.boxes[one.groups[order]], other.boxes[other.groups])
    again = merge_by(one.boxes, one.scores, match=match)  # what is left matches too badly
    assert np.array_equal(one.boxes, again.boxes)
    assert np.array_equal(one.scores, again.scores)


@settings(deadline=None, max_examples=60)
@given(BOXES)
def test_nothing_is_lost(rows: list) -> None:
    """Outputs and windows add up, groups tell where each went, and no pair is left that matches."""
    boxes, scores = made(rows)
    merged = merge(boxes, scores)
    np.testing.assert_allclose(merged.scores.sum(), scores.sum())
    assert merged.counts.tolist() == np.bincount(merged.groups).tolist()
    np.testing.assert_allclose(np.bincount(merged.groups, scores), merged.scores)
    for group, box in enumerate(merged.boxes):
        np.testing.assert_allclose(boxes[merged.groups == group].mean(0), box)
    for a, b in combinations(merged.boxes, 2):
        assert iou(a[None], b[None]) < 0.4
    assert (np.diff(merged.scores) <= 0).all()


def test_equal_boxes_one_and_none() -> None:
    """A thousand times the same is that to the last bit; without windows there is nothing."""
    box = np.array([0.1, 0.2, 33.3, 44.4])
    merged = merge(np.tile(box, (1000, 1)), np.full(1000, 0.001))
    assert np.array_equal(merged.boxes, box[None])
    assert merged.counts.tolist() == [1000]
    assert merge(box[None], np.ones(1)).boxes.tolist() == [box.tolist()]
    assert merge(np.empty((0, 4)), np.empty(0)).boxes.shape == (0, 4)


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("spread", [0.5, 12.0, 60.0])
def test_the_cost_is_bounded(spread: float, match: str) -> None:
    """Of 2,000 boxes in less than a second; the best of three, as other work takes the memory."""
    boxes, scores = boxes_of(2000, 0, spread)
    times = []
    for _ in range(3):
        begun = process_time()
        merge_by(boxes, scores, match=match)
        times.append(process_time() - begun)
    assert min(times) < 1.0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        # An IoU of 0 have boxes that do not touch, one of 1.5 or NaN none.
        *(({"match": "iou", "threshold": t}, "threshold") for t in (0.0, 1.5, np.nan)),
        *(({"match": "overfeat", "threshold": t}, "threshold") for t in (-1.0, np.inf)),
        *(({"match": "dice"}, "'iou'"), ({"average": "median"}, "'count'")),
    ],
)
def test_what_would_merge_all_or_none_is_refused(wrong: dict[str, Any], named: str) -> None:
    refuses(lambda: checked(Merging, **wrong), ParameterError, [named])
