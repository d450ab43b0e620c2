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


def test_epochs_in_a_file_are_in_their_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is over stands above what follows it, and once; now and then a line between."""
    clock = iter(range(0, 1000, 40))
    monkeypatch.setattr(output, "monotonic", lambda: next(clock))
    with output.counted_bar() as bar:
        for epoch in (1, 2, 3):
            output.settle(bar)
            task = bar.add_task(f"epoch {epoch}", total=2)
            for done in (1, 2):
                bar.update(task, completed=done)
    lines = [line.split()[1] for line in capsys.readouterr().err.splitlines() if "epoch" in line]
    assert lines == sorted(lines)
    assert set(lines) == {"1", "2", "3"}
