"""What TensorBoard reads back, after a run and after one that was resumed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vggfeat.errors import MissingExtra
from vggfeat.train.checkpoint import Position
from vggfeat.train.monitor import Board, TrainingProgress, writer_class

TOLD = TrainingProgress(0, 10, 40, 6.5, {"top1": 0.02, "top5": 0.1}, 0.01, 1000.0, 0.25)
ROW = {
    "epoch": 1, "learning_rate": 0.01, "loss": 6.0, "top1": 0.05, "top5": 0.2,
    "val_loss": 5.5, "val_top1": 0.1, "val_top5": 0.3, "images_per_s": 1000.0, "waited": 0.2,
}  # fmt: skip


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload().Scalars(name)
    return [(event.step, pytest.approx(event.value, rel=1e-6)) for event in found]


def test_errors_in_percent_against_updates_and_epochs(tmp_path: Path) -> None:
    """Update 10 of the third epoch of 40 is update 90 in all; an epoch is its number."""
    pytest.importorskip("tensorboard")
    board = Board(tmp_path)
    board.update(TOLD)
    board.update(replace(TOLD, epoch=2, loss=3.0, figures={"top1": 0.4}))
    board.epoch(ROW)
    board.close()
    assert scalars(tmp_path / "updates", "train/loss") == [(10, 6.5), (90, 3.0)]
    assert scalars(tmp_path / "updates", "train/top-1 error") == [(10, 98.0), (90, 60.0)]
    assert scalars(tmp_path / "updates", "speed/waited, percent") == [(10, 25.0), (90, 25.0)]
    assert scalars(tmp_path / "epochs", "val/top-5 error") == [(1, 70.0)]
    assert scalars(tmp_path / "epochs", "learning rate") == [(1, 0.01)]


def test_a_resumed_run_takes_back_what_its_checkpoint_does_not_have(tmp_path: Path) -> None:
    """Killed at update 30 and resumed at 20: no update is there twice, no epoch is missing."""
    pytest.importorskip("tensorboard")
    board = Board(tmp_path)
    for batch in (10, 20, 30):
        board.update(replace(TOLD, batch=batch))
    board.close()
    resumed = Board(tmp_path, Position(epoch=1, step=20, history=[ROW]))
    resumed.update(replace(TOLD, batch=25, loss=1.0))
    resumed.epoch({**ROW, "epoch": 2})
    resumed.close()
    assert scalars(tmp_path / "updates", "train/loss") == [(10, 6.5), (20, 6.5), (25, 1.0)]
    assert scalars(tmp_path / "epochs", "val/loss") == [(1, 5.5), (2, 5.5)]


def test_without_tensorboard_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lacks it is told how to get it."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'vggfeat\[tensorboard\]'"):
        writer_class()
