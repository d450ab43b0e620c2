"""The rules hold what they allow and miss what they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from golden.case import plain
from golden.rules import Rule, Verdict, compare, kind_of, table, unused
from golden.summaries import SUMS, distance, signs, summary, within


def held(
    kept: Any, found: Any, rule: Rule = "exact", margin: Any = None, beside: float | None = None
) -> bool:
    """Compare one value, with a norm beside it."""
    norms = {} if beside is None else {"norm": beside}
    margins = {} if margin is None else {"a/x": margin}
    values = ({"a": {"x": value, **norms}} for value in (kept, found))
    verdicts = {v.path: v for v in compare(*values, {"a/x*": rule}, margins)}
    return all(v.holds for path, v in verdicts.items() if path.startswith("a/x"))


@pytest.mark.parametrize(
    ("kept", "found", "rule", "expected"),
    [
        (3, 3, "exact", True),
        (3, 4, "exact", False),
        (1.5, 1.5000001, "exact", False),
        (True, 1, "exact", False),
        ("a", "a", "exact", True),
        ("nan", "nan", "exact", True),
        ([1, 2], [1, 2], "exact", True),
        ([1, 2], [1, 2, 3], "exact", False),
        ([1, 2], [2, 1], "exact", False),
        ([], [1], "exact", False),
        (2.0, 2.4, {"abs": 0.5}, True),
        (2.0, 2.6, {"abs": 0.5}, False),
        (2.0, "nan", {"abs": 0.5}, False),
        (2.0, None, {"abs": 0.5}, False),
        (-100.0, -100.9, {"rel": 0.01}, True),
        (-100.0, -101.1, {"rel": 0.01}, False),
        (0.0, 1e-12, {"rel": 0.01}, False),
        (7.0, 0.9, {"at_most": 1.0}, True),
        (0.1, 1.1, {"at_most": 1.0}, False),
    ],
)
def test_rules_of_one_value(kept: Any, found: Any, rule: Rule, expected: bool) -> None:
    """Each rule at both sides of its limit."""
    assert held(kept, found, rule) is expected


def test_a_norm_beside_the_value_is_the_unit() -> None:
    """1e-2 of a norm of 50 is 0.5; without a norm there is no rule, and that is an error."""
    assert held(1.0, 1.4, {"rel_norm": 1e-2}, beside=50.0)
    assert not held(1.0, 1.6, {"rel_norm": 1e-2}, beside=50.0)
    with pytest.raises(ValueError, match="norm"):
        held(1.0, 1.4, {"rel_norm": 1e-2})


def test_a_list_is_measured_as_a_whole() -> None:
    """Differences of 3 and 4 are 5/√2 = 3.54 in the mean; lists of another length are none."""
    assert held([1.0, 2.0], [4.0, 6.0], {"rms_norm": 0.04}, beside=100.0)
    assert not held([1.0, 2.0], [4.0, 6.0], {"rms_norm": 0.03}, beside=100.0)
    assert not held([1.0, 2.0], [1.0, 2.0, 0.0], {"rms_norm": 0.03}, beside=100.0)
    assert not held([1.0, 2.0], [1.0, "nan"], {"rms_norm": 0.03}, beside=100.0)
    with pytest.raises(ValueError, match="norm"):
        held([1.0], [1.5], {"rms_norm": 1e-2})


def test_a_choice_may_be_another_of_its_set() -> None:
    """Where the second best was as good, either will do; without a set the choice is exact."""
    assert held(1.0, 2.0, "choice", margin=[1.0, 2.0])
    assert not held(1.0, 4.0, "choice", margin=[1.0, 2.0])
    assert not held(1.0, 2.0, "choice")
    assert held(1.0, 1.0, "choice")


SCORES = {"a": 3.0, "b": 2.0, "c": 1.95, "d": 0.0}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["a", "b", "c"], True),
        (["a", "c", "b"], True),  # two that differ by 0.05
        (["b", "a", "c"], False),
        (["a", "b", "d"], False),  # c is far better
        (["a", "b", "b"], False),
        (["a", "b", "e"], False),
        (["a", "b"], False),  # a prefix
        ([], False),
        (["a", "b", "c", "d"], False),
        ("abc", False),
    ],
)
def test_an_order_may_swap_what_is_close(found: Any, expected: bool) -> None:
    """The first three of four, by scores that may be off by 0.1."""
    assert held(["a", "b", "c"], found, {"order": 0.1}, margin=SCORES) is expected
    assert not held(["a", "b", "c"], ["a", "b", "c"], {"order": 0.1})  # no scores are kept


def test_first_places_may_go_to_another_that_is_as_good() -> None:
    """Of two that differ by 0.05 either may be among the first two."""
    assert held(["a", "b"], ["a", "c"], {"order": 0.1}, margin=SCORES)
    assert not held(["a", "b"], ["a", "d"], {"order": 0.1}, margin=SCORES)


def test_paths_that_come_and_go_are_misses() -> None:
    """Unless the kept path is optional, as what a machine lacks is."""
    came = compare({"a": 1}, {"a": 1, "b": 2}, {}, {})
    assert [v.path for v in came if not v.holds] == ["b"]
    went = compare({"a": 1, "b": {"c": 2}}, {"a": 1}, {}, {})
    assert [v.path for v in went if not v.holds] == ["b/c"]
    optional = compare({"a": 1, "b": 2.0}, {"a": 1}, {"b": {"abs": 1.0, "optional": True}}, {})
    assert all(v.holds for v in optional)


def test_the_longest_pattern_holds() -> None:
    """One value of many may be held tighter, or looser."""
    rules: dict[str, Rule] = {"*": {"abs": 1.0}, "row/b": "exact"}
    verdicts = compare({"row": {"a": 1.0, "b": 1.0}}, {"row": {"a": 1.5, "b": 1.5}}, rules, {})
    assert [(v.path, v.holds) for v in verdicts] == [("row/a", True), ("row/b", False)]


def test_a_rule_must_be_one_and_a_pattern_must_fit() -> None:
    """A slip of the pen in a tolerance does not make a test that holds anything."""
    for rule in ("exactly", {"abs": 1.0, "rel": 1.0}, {"atol": 1.0}, {"optional": True}):
        with pytest.raises(ValueError, match="no rule"):
            kind_of(rule)
    values = {"a": {"x": [1.0, 2.0]}, "b": 3}
    assert unused(values, {"a/x/*": {"abs": 1.0}, "b": "exact", "c*": "exact"}) == ["c*"]


def test_a_table_shows_the_first_ten_misses() -> None:
    """Each with its path, both values, the difference and what is allowed."""
    verdicts = [Verdict(f"path/{n:02}", 1.5, 2.5, 1.0, 0.25) for n in range(12)]
    lines = table(verdicts).splitlines()
    assert lines[0].split() == ["path", "kept", "found", "Δ", "allowed"]
    assert lines[1].split() == ["path/00", "1.5", "2.5", "1", "0.25"]
    assert len(lines) == 12
    assert "2 more" in lines[-1]
    assert verdicts[0].used == 4.0


def test_values_become_plain_and_keep_nine_digits() -> None:
    """What cannot be written as it is, is an error and never a guess."""
    values = {1: np.float32(1 / 3), "b": (np.int64(7), np.bool_(True), None), "c": np.array([0.1])}
    assert plain(values) == {"1": 0.333333343, "b": [7, True, None], "c": [0.1]}
    assert plain([float("nan"), float("-inf")]) == ["nan", "-inf"]
    with pytest.raises(TypeError, match="bytes"):
        plain({"a": b"1"})


def test_a_summary_measures_a_difference_in_any_direction() -> None:
    """Two and a half times the tolerance is a miss, a third of it is none."""
    random = np.random.RandomState(0)
    vector = random.rand(400)
    norm = np.linalg.norm(vector)

    def misses(other: np.ndarray) -> int:
        values = ({"v": summary(array)} for array in (vector, other))
        return sum(not v.holds for v in compare(*values, within("v", 1e-5), {}))

    assert misses(vector) == 0
    assert misses(vector.astype(np.float32).astype(float)) == 0
    for _ in range(50):
        difference = random.randn(400)
        difference *= 1e-5 * norm / np.linalg.norm(difference)
        assert misses(vector + 2.5 * difference) > 0
        assert misses(vector + difference / 3) == 0
    assert misses(vector[::-1]) > 0  # same norm, same mean
    assert distance(vector * 1.25, vector) == pytest.approx(0.25)


def test_signs_are_fixed_balanced_and_unlike_each_other() -> None:
    """Their first places by value, since kept sums mean nothing with others."""
    table_of_signs = np.stack([signs(number, 4096) for number in range(SUMS)])
    assert set(np.unique(table_of_signs)) == {-1.0, 1.0}
    products = table_of_signs @ table_of_signs.T / 4096
    assert np.abs(products - np.eye(SUMS)).max() < 0.06
    assert np.abs(table_of_signs.mean(axis=1)).max() < 0.06
    first = "".join("+" if sign > 0 else "-" for sign in signs(0, 16))
    assert first == "--+++-++---+++--"
