"""Shares of a list: each image once, every kind for everybody, always the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggfeat.data.partition import WHOLE, Partition, parse_partition
from vggfeat.errors import ParameterError


@given(n=st.integers(0, 400), parts=st.integers(1, 60))
def test_every_image_is_dealt_once(n: int, parts: int) -> None:
    """Shares are ascending, disjoint, all of the list together, and differ by one at most."""
    shares = [Partition(part, parts).rows(n) for part in range(1, parts + 1)]
    assert sorted(row for share in shares for row in share.tolist()) == list(range(n))
    assert all((np.diff(share) > 0).all() for share in shares)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("kind", ["sorted", "periodic", "folders"])
def test_sizes_are_balanced(kind: str) -> None:
    """Pixels of a share are within 5 % of the mean, however large and small images are listed."""
    n, parts = 8_000, 8
    rows = np.arange(n)
    pixels = {
        "sorted": 1e5 + 100.0 * rows,
        "periodic": np.where(rows % parts == 3, 1e7, 1e5),  # one of every eight is huge
        "folders": np.random.default_rng(0).uniform(1e5, 1e7, n // 500)[rows // 500],
    }[kind]
    sums = [pixels[Partition(part, parts).rows(n)].sum() for part in range(1, parts + 1)]
    limit = 0.25 if kind == "periodic" else 0.05
    assert max(abs(one / np.mean(sums) - 1) for one in sums) < limit


def test_the_deal_never_changes() -> None:
    """A share that is done again, by another version or machine, has the images of the first."""
    first = [3, 4, 6], [0, 2], [1, 5]
    assert tuple(Partition(part, 3).rows(7).tolist() for part in (1, 2, 3)) == first
    third = [6, 13, 22, 31, 37, 54, 71, 77, 93, 103, 107, 120, 138]
    assert Partition(3, 16).rows(200).tolist() == third


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"}, Partition(4, 4)),
        (
            slurm := {"ID": "3", "COUNT": "16", "MIN": "1", "MAX": "16", "STEP": "1"},
            Partition(3, 16),
        ),
        ({"ID": "9", "COUNT": "4", "MIN": "5", "MAX": "11", "STEP": "2"}, Partition(3, 4)),
        ({"RANK": "5", "WORLD_SIZE": "8"}, Partition(6, 8)),
        ({**slurm, "RANK": "1", "WORLD_SIZE": "2"}, Partition(6, 32)),
    ],
)
def test_what_surrounds_a_process(environment: dict[str, str], expected: Partition) -> None:
    """An array from any first task, in any steps; torchrun's ranks; and ranks within tasks."""
    short = ("ID", "COUNT", "MIN", "MAX", "STEP")
    named = {
        f"SLURM_ARRAY_TASK_{name}" if name in short else name: value
        for name, value in environment.items()
    }
    assert parse_partition("auto", named) == expected


def test_typed_shares_win() -> None:
    """What is typed counts, whatever surrounds the process; nothing typed is the whole."""
    around = {"RANK": "0", "WORLD_SIZE": "2"}
    assert parse_partition("3/16", around) == Partition(3, 16)
    assert parse_partition(None, around) == WHOLE


@pytest.mark.parametrize(
    ("typed", "environment", "expected"),
    [
        ("0/4", {}, "one of 1/N"),
        ("5/4", {}, "one of 1/N"),
        ("half", {}, "one of 1/N"),
        ("1/-2", {}, "one of 1/N"),
        ("auto", {}, "neither a SLURM array"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "RANK should be a number and is 'x'"),
        ("auto", {"RANK": "4", "WORLD_SIZE": "4"}, "Got '5/4'"),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "0",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "RANK": "5",
                "WORLD_SIZE": "4",
            },
            "Got '6/4'",
        ),
        (
            "auto",
            {
                f"SLURM_ARRAY_TASK_{name}": value
                for name, value in {"ID": "7", "COUNT": "3", "MIN": "1", "MAX": "7"}.items()
            },
            "an array without gaps",
        ),
    ],
)
def test_shares_that_are_none(typed: str, environment: dict[str, str], expected: str) -> None:
    """A wrong share, an environment without one, or one that could be several, is refused."""
    with pytest.raises(ParameterError, match=expected):
        parse_partition(typed, environment)
