"""What docs/numbers.md promises of every runtime and precision, measured again on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
NUMBER = r"([\d.e+-]+)"
ROW = re.compile(rf"\| (cpu|cuda) \| (\w+) \| (\w+) \|{4 * f' {NUMBER} [|]'}")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Load the script, which is no part of the package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module("deviations")


@cache
def promised() -> dict[tuple[str, str, str], list[float]]:
    """Read the page: measured and promised, from fp32 and between batches."""
    page = (ROOT / "docs" / "numbers.md").read_text(encoding="utf-8")
    return {row[:3]: [float(one) for one in row[3:]] for row in ROW.findall(page)}


def test_the_page_promises_more_than_was_measured() -> None:
    """Both promises of every row have slack: at least half as much again as was measured."""
    assert len(promised()) == 7
    for measured, apart, most, most_apart in promised().values():
        assert 1.5 * measured <= most
        assert 1.5 * apart <= most_apart


@pytest.mark.slow
def test_this_machine_keeps_what_the_page_promises(script: ModuleType) -> None:
    """Real weights and images, every runtime and precision that is here."""
    for one in script.deviations(count=4, scales=[64]):
        if one[:3] not in promised():
            continue  # a GPU's, of which nothing is promised
        _, _, most, most_apart = promised()[one[:3]]
        assert one.from_fp32 <= most, one
        assert one.between_batches <= most_apart, one
