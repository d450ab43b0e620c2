"""The page of promises names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_each_promise_names_a_test_that_there_is() -> None:
    """Every test that docs/reliability.md names is defined, and every campaign is named there."""
    named = set(NAMED.findall((ROOT / "docs" / "reliability.md").read_text()))
    there = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in ROOT.glob("tests/**/test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert named <= there
    assert {one for one in there if one[0].startswith("tests/faults/")} <= named
