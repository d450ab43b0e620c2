"""Two versions on one machine: what is close enough, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden.ab import conclude, report
from golden.case import Case, Taken
from golden.collect import save
from golden.inputs import Inputs, Shared, made
from golden.rules import Rule
from golden.strict import strict, tightened

TOLERANCE: dict[str, Rule] = {
    "row/sums/*": {"rel_norm": 1e-2},
    "recall/*": {"abs": 0.05},
    "C": "choice",
    "top": {"order": 0.5},
    "far": {"at_most": 1e-3},
}
VALUES: dict[str, Any] = {
    "row": {"norm": 100.0, "sums": [1.0, 2.0]},
    "recall": {"cat": 0.5},
    "C": 1.0,
    "top": ["a", "b"],
    "far": 2e-4,
    "count": 3,
}
ARRAYS = {
    "X": np.full((2, 50), 10.0, np.float32),
    "scores/cat": np.array([0.5, -100.0]),
    "rows": np.arange(4),
}


def write(folder: Path, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Path:
    """Write one case as `golden.collect` does."""
    folder.mkdir(exist_ok=True)
    case = Case("G98-one", "one", TOLERANCE, lambda inputs: {})
    margins = {"C": [1.0, 2.0], "top": {"a": 1.0, "b": 0.9}}
    save(folder, case, Taken(values, arrays, margins, {"I1": "ab"}, 0.0))
    return folder


def missed(tmp_path: Path, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> list[str]:
    """Return the paths that do not hold."""
    kept = write(tmp_path / "kept", VALUES, ARRAYS)
    found = write(tmp_path / "found", VALUES | values, ARRAYS | arrays)
    return [v.path for v in strict(kept, found)["G98-one"] if not v.holds]


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({}, None),
        ({"row": {"norm": 100.0, "sums": [1.00005, 2.0]}}, None),  # 5e-7 of the norm
        ({"row": {"norm": 100.0, "sums": [1.0002, 2.0]}}, "row/sums/0"),
        ({"recall": {"cat": 0.5000005}}, None),
        ({"recall": {"cat": 0.501}}, "recall/cat"),  # within the kept tolerance
        ({"C": 2.0}, "C"),  # as good a choice, but another
        ({"top": ["b", "a"]}, "top/0"),
        ({"far": 9e-4}, None),
        ({"far": 2e-3}, "far"),
        ({"count": 4}, "count"),
        ({"more": 1}, "more"),
    ],
)
def test_values_are_held_strictly(tmp_path: Path, values: dict[str, Any], path: str | None) -> None:
    """Numbers to 1e-6, everything that is chosen, counted or named exactly."""
    assert missed(tmp_path, values, {})[:1] == ([path] if path else [])


@pytest.mark.parametrize(
    ("arrays", "path"),
    [
        ({"X": np.full((2, 50), np.float32(10.000005))}, None),
        ({"X": np.full((2, 50), np.float32(10.00005))}, "array X"),
        ({"X": np.full((2, 50), np.float32(np.nan))}, "array X"),
        ({"X": np.full((2, 50), 10.0)}, "array X"),  # of another type
        ({"X": np.full((50, 2), 10.0, np.float32)}, "array X"),
        ({"scores/cat": np.array([0.5000005, -100.0])}, None),
        ({"scores/cat": np.array([0.50001, -100.0])}, "array scores/cat"),  # 1e-7 of the norm
        ({"rows": np.array([0, 1, 3, 2])}, "array rows"),
        ({"new": np.zeros(1)}, "array new"),
    ],
)
def test_arrays_are_held_by_norm_and_scores_one_by_one(
    tmp_path: Path, arrays: dict[str, np.ndarray], path: str | None
) -> None:
    """Small numbers in a large array count for little; a score counts by itself."""
    assert missed(tmp_path, {}, arrays) == ([path] if path else [])


def test_a_case_that_is_gone_is_a_miss_and_a_new_one_is_not(tmp_path: Path) -> None:
    """The version before cannot have what came later."""
    kept = write(tmp_path / "kept", VALUES, ARRAYS)
    (tmp_path / "empty").mkdir()
    gone = strict(kept, tmp_path / "empty")
    assert not gone["G98-one"][0].holds
    new = strict(tmp_path / "empty", kept)
    assert new == {"G98-one": []}
    assert "1 misses" in report(gone)
    assert "not compared" in report(new)


def test_a_case_that_the_guard_lacks_fails_unless_new_ones_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole cases that were not compared do not pass as if they were."""
    now = write(tmp_path / "now", VALUES, ARRAYS)
    (tmp_path / "empty").mkdir()
    for kept, new, status, line in (
        (now, None, 0, "0 misses"),
        (tmp_path / "empty", None, 1, "G98-one: the guard lacks it, so nothing was compared."),
        (tmp_path / "empty", "yes", 1, "make golden-ab NEW=allowed"),
        (tmp_path / "empty", "allowed", 0, "new: not compared"),
    ):
        monkeypatch.delenv("NEW", raising=False)
        if new:
            monkeypatch.setenv("NEW", new)
        assert conclude(strict(kept, now)) == status
        assert line in capsys.readouterr().out
    other = write(tmp_path / "other", VALUES | {"count": 4}, ARRAYS)
    assert conclude(strict(other, now)) == 1  # what differs is never allowed


def test_no_rule_becomes_looser() -> None:
    """A tolerance that is tighter than 1e-6 stays."""
    rules = tightened({"a": {"abs": 1e-9}, "b": {"rel": 0.1, "optional": True}, "c": "choice"})
    assert rules == {"a": {"abs": 1e-9}, "b": {"rel": 1e-6, "optional": True}, "c": "exact"}


def test_inputs_are_made_once_and_known_by_their_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compressor changes the file and not the digest; a pixel, or a name, changes it."""
    from PIL import Image

    from golden import inputs

    calls: list[Path] = []
    monkeypatch.setattr(inputs, "MAKERS", {})

    def digest(name: str, level: int, grey: int) -> str:
        @made("I9")
        def write_it(folder: Path) -> None:
            calls.append(folder)
            Image.new("L", (9, 9), grey).save(folder / name, compress_level=level)

        shared = Shared(tmp_path / f"{name}-{level}-{grey}")
        seen = Inputs(shared, shared.work("case"))
        copied = seen.copy("I9", to="copy")
        assert (copied / name).read_bytes() == (seen["I9"] / name).read_bytes()
        assert seen.used == {"I9"}
        return shared.sha256("I9")

    first = digest("a.png", 0, 7)
    assert len(calls) == 1
    assert digest("a.png", 9, 7) == first
    assert digest("a.png", 0, 8) != first
    assert digest("b.png", 0, 7) != first
