"""What TensorBoard reads back of a run that was killed and resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vggfeat.train.checkpoint import Position
from vggfeat.train.monitor import Board, TrainingProgress

TOLD = TrainingProgress(0, 10, 40, 6.5, {"top1": 0.02, "top5": 0.1}, 0.01, 1000.0, 0.25)
ROW = {
    "epoch": 1, "learning_rate": 0.01, "loss": 6.0, "top1": 0.05, "top5": 0.2,
    "val_loss": 5.5, "val_top1": 0.1, "val_top5": 0.3, "images_per_s": 1000.0, "waited": 0.2,
}  # fmt: skip


def test_errors_in_percent_against_updates_and_epochs(tmp_path: Path) -> None:
    """Update 10 of the third epoch of 40 is update 90 in all; an epoch is its number.

    Killed at update 30 and resumed at 20: no update is there twice, no epoch is missing.
    """
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed = Board(tmp_path, classes=1000)
    for batch in (10, 20, 30):
        killed.update(replace(TOLD, batch=batch))
    killed.close()
    resumed = Board(tmp_path, 1000, Position(epoch=1, step=20, history=[ROW]))
    resumed.update(replace(TOLD, epoch=2, loss=3.0, figures={"top1": 0.4}))
    resumed.epoch({**ROW, "epoch": 2})
    resumed.close()

    def scalars(folder: str, name: str) -> list[tuple[int, float]]:
        events = EventAccumulator(str(tmp_path / folder)).Reload().Scalars(name)
        return [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events]

    assert scalars("updates", "train/loss") == [(10, 6.5), (20, 6.5), (90, 3.0)]
    assert scalars("updates", "train/top-1 error") == [(10, 98.0), (20, 98.0), (90, 60.0)]
    assert scalars("updates", "speed/waited, percent") == [(10, 25.0), (20, 25.0), (90, 25.0)]
    assert scalars("epochs", "val/top-5 error") == [(1, 70.0), (2, 70.0)]
    assert scalars("epochs", "val/loss") == [(1, 5.5), (2, 5.5)]
    assert scalars("epochs", "learning rate") == [(1, 0.01), (2, 0.01)]


def test_five_classes_have_no_top_5_error(tmp_path: Path) -> None:
    """Nothing is ever outside of the five best: there is no such curve, as there is no column."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = Board(tmp_path, classes=5)
    board.update(TOLD)
    board.epoch(ROW)
    board.close()
    for folder in ("updates", "epochs"):
        names = EventAccumulator(str(tmp_path / folder)).Reload().Tags()["scalars"]
        assert "train/top-1 error" in names
        assert not [name for name in names if "top-5" in name]
