"""Break it many times, and count: what all campaigns of faults have in common.

``make test-faults`` sets VGGFEAT_FAULTS, the number of faults of a campaign; without it each
campaign is a short one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType


def times(short: int, share: float = 1.0) -> int:
    """Return how often to break something: `short`, or a share of the number asked for."""
    asked = os.environ.get("VGGFEAT_FAULTS")
    return max(short, round(int(asked) * share)) if asked else short


@dataclass
class Trial:
    """How many faults one trial had; it may learn that as it goes."""

    faults: int


class Campaign:
    """Counts what was tried and what survived, and fails if anything was lost.

    Parameters
    ----------
    name : str
        Stands before the counts.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tried = self.survived = 0
        self.lost: list[str] = []

    def __enter__(self) -> Campaign:
        return self

    @contextmanager
    def trial(self, what: object, faults: int = 1) -> Iterator[Trial]:
        """Count a fault, or several: survived if all that was promised holds."""
        trial = Trial(faults)
        try:
            yield trial
        except Exception as error:
            self.lost.append(f"{what}: {type(error).__name__}: {error}"[:2000])
            self.tried += max(1, trial.faults)
        else:
            self.tried += trial.faults
            self.survived += trial.faults

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        lost = self.tried - self.survived
        print("", *self.lost[:5], sep="\n")
        counts = f"tried {self.tried}, survived {self.survived}, lost {lost}"
        print(f"{self.name}: {counts}", flush=True)
        if kind is None:
            assert self.tried, f"{self.name} tried nothing"
            assert not lost, f"{lost} of {self.tried} were lost"
