"""No test is skipped without anybody knowing."""

from __future__ import annotations

import pytest
from helpers.skips import complain


def test_a_skip_that_nobody_expects_fails(pytester: pytest.Pytester) -> None:
    """A test and a module that want an absent package fail; an expected reason skips."""
    pytester.makeconftest('pytest_plugins = ["helpers.skips"]')
    pytester.makepyfile(
        test_module="import pytest; pytest.importorskip('no_such_package')",
        test_single="""
        import pytest

        def test_wants_a_package():
            pytest.importorskip("no_such_package")

        def test_wants_root():
            pytest.skip("needs root, to become another user and back")

        @pytest.mark.xfail
        def test_is_known_to_fail():
            assert False
        """,
    )
    result = pytester.runpytest("--continue-on-collection-errors")
    result.assert_outcomes(failed=1, errors=1, skipped=1, xfailed=1)


def test_the_whole_reason_must_match() -> None:
    """A reason that only begins like an expected one is none of the list."""
    assert not complain("needs Chromium")
    assert "needs Chromium 200" in complain("needs Chromium 200")
