"""A test may be skipped for the reasons of ``tests/skips.toml`` alone; any other skip fails."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

LIST = Path(__file__).parents[1] / "skips.toml"


@cache
def expected_reasons() -> tuple[re.Pattern[str], ...]:
    """Read the patterns of expected reasons."""
    rows = tomllib.loads(LIST.read_text())["skip"]
    return tuple(re.compile(row["reason"]) for row in rows)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that is skipped for a reason nobody expects."""
    return _fail_if_unexpected((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module that is skipped for a reason nobody expects."""
    return _fail_if_unexpected((yield))


def _fail_if_unexpected(report: Report) -> Report:
    if report.skipped and not hasattr(report, "wasxfail"):
        *_, reason = report.longrepr if isinstance(report.longrepr, tuple) else (report.longrepr,)
        if complaint := complain(str(reason)):
            report.outcome, report.longrepr = "failed", complaint
    return report


def complain(reason: str) -> str:
    """Say why a skip with this reason fails; empty if the reason is expected."""
    reason = reason.removeprefix("Skipped: ")
    if any(pattern.fullmatch(reason) for pattern in expected_reasons()):
        return ""
    return (
        f"Skipped for a reason that tests/skips.toml does not list: {reason}. Install what the "
        "test needs (make test does), or add the reason and say where the test does run."
    )
