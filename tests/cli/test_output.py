"""What is shown while commands work."""

from __future__ import annotations

import pytest

from vggfeat.cli import output


def test_progress_in_a_file_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where stderr is no terminal, as on a cluster, a log tells how far the work is meanwhile."""
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(output, "monotonic", lambda: next(clock))
    with output.counting("localize", quiet=False) as tell:
        assert tell is not None
        told = []
        for done in range(1, 5):
            tell(done, 9)
            told.append(capsys.readouterr().err)
    assert sum("/9" in line for line in told) in (1, 2, 3)
    assert all(line.count("\n") <= 1 for line in told)
    assert "localize" in "".join(told)
