"""Following a training run."""

from __future__ import annotations

from collections.abc import Callable

from vggfeat.train.monitor import Monitor, TrainingProgress


class OnProgress(Monitor):
    """Does something whenever a run reports progress."""

    def __init__(self, act: Callable[[TrainingProgress], object]) -> None:
        self.act = act

    def progress(self, progress: TrainingProgress) -> None:
        """Do it."""
        self.act(progress)
