"""When the learning rate drops, and when training ends (Section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from vggfeat.errors import ParameterError

FACTOR = 10.0  # the paper divides the rate by it
EPOCHS = 74  # of the paper: 370,000 iterations of 256 images


class Schedule(Protocol):
    """What training asks of a schedule.

    It is told the validation accuracy after every epoch, by :meth:`step`, and its state goes into
    checkpoints.
    """

    @property
    def learning_rate(self) -> float:
        """Rate of the epoch that comes next."""

    @property
    def finished(self) -> bool:
        """Whether no epoch comes next."""

    def step(self, accuracy: float) -> None:
        """Count an epoch, after which the validation accuracy was this, in [0, 1]."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON types."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; settings stay those of the constructor."""


class Plateau:
    """Divide the learning rate by 10 when validation accuracy stops improving (Section 3.1).

    The paper did so three times and stopped after 74 epochs; training here also ends where
    accuracy stops improving a fourth time. What "stops" means the paper leaves open.

    Parameters
    ----------
    learning_rate : float
        Rate at the beginning.
    patience : int
        Epochs in a row without improvement that make a plateau.
    threshold : float
        Accuracy, in [0, 1], by which an epoch must exceed the best one to be an improvement;
        smaller gains add up, since the best one stays the same.
    drops : int
        How often the rate drops.
    max_epochs : int
        Epochs after which training ends in any case.

    Examples
    --------
    >>> schedule = Plateau(0.01, patience=2, threshold=0.0)
    >>> for accuracy in (0.3, 0.5, 0.5, 0.4):
    ...     schedule.step(accuracy)
    >>> schedule.learning_rate, schedule.finished
    (0.001, False)
    """

    def __init__(
        self,
        learning_rate: float = 1e-2,
        *,
        patience: int = 3,
        threshold: float = 1e-3,
        drops: int = 3,
        max_epochs: int = EPOCHS,
    ) -> None:
        _check_rate(learning_rate, "Plateau")
        _check_count("patience", "Plateau", patience, 1)
        _check_count("drops", "Plateau", drops, 0)
        _check_count("max_epochs", "Plateau", max_epochs, 1)
        if not 0 <= threshold < 1:
            raise ParameterError.of("threshold", "Plateau", "a float in [0, 1)", threshold)
        self.initial = learning_rate
        self.patience = patience
        self.threshold = threshold
        self.drops = drops
        self.max_epochs = max_epochs
        self.epoch = 0
        self.best: float | None = None
        self.waited = 0
        self.plateaus = 0

    @property
    def learning_rate(self) -> float:
        """Rate of the epoch that comes next."""
        return self.initial / FACTOR ** min(self.plateaus, self.drops)

    @property
    def finished(self) -> bool:
        """Whether the last rate has had its plateau, or all epochs are over."""
        return self.plateaus > self.drops or self.epoch >= self.max_epochs

    def step(self, accuracy: float) -> None:
        """Count an epoch and judge its validation accuracy.

        Raises
        ------
        ParameterError
            If the accuracy is not in [0, 1], as NaN is not.
        """
        if not 0 <= accuracy <= 1:
            raise ParameterError.of("accuracy", "Plateau.step", "a float in [0, 1]", accuracy)
        self.epoch += 1
        if self.best is None or accuracy > self.best + self.threshold:
            self.best, self.waited = float(accuracy), 0
            return
        self.waited += 1
        if self.waited == self.patience:
            self.waited = 0
            self.plateaus += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON types."""
        names = ("epoch", "best", "waited", "plateaus")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; settings stay those of the constructor.

        Raises
        ------
        ParameterError
            If it is the state of another schedule.
        """
        _adopt(self, state)


class Step:
    """Divide the learning rate by 10 after the epochs listed, whatever the accuracy.

    Parameters
    ----------
    learning_rate : float
        Rate at the beginning.
    epochs : sequence of int
        Numbers of epochs, ascending, after which the rate drops.
    max_epochs : int
        Epochs after which training ends.

    Examples
    --------
    >>> schedule = Step(0.1, epochs=[1, 3], max_epochs=4)
    >>> rates = []
    >>> while not schedule.finished:
    ...     rates.append(schedule.learning_rate)
    ...     schedule.step(0.5)
    >>> rates
    [0.1, 0.01, 0.01, 0.001]
    """

    def __init__(
        self, learning_rate: float = 1e-2, *, epochs: Sequence[int], max_epochs: int = EPOCHS
    ) -> None:
        _check_rate(learning_rate, "Step")
        _check_count("max_epochs", "Step", max_epochs, 1)
        if list(epochs) != sorted({int(e) for e in epochs if 0 < e < max_epochs}):
            raise ParameterError.of(
                "epochs", "Step", f"ascending integers in 1…{max_epochs - 1}", list(epochs)
            )
        self.initial = learning_rate
        self.epochs = tuple(epochs)
        self.max_epochs = max_epochs
        self.epoch = 0

    @property
    def learning_rate(self) -> float:
        """Rate of the epoch that comes next."""
        return self.initial / FACTOR ** sum(self.epoch >= epoch for epoch in self.epochs)

    @property
    def finished(self) -> bool:
        """Whether all epochs are over."""
        return self.epoch >= self.max_epochs

    def step(self, accuracy: float) -> None:
        """Count an epoch; its accuracy changes nothing."""
        self.epoch += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON types."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; settings stay those of the constructor.

        Raises
        ------
        ParameterError
            If it is the state of another schedule.
        """
        _adopt(self, state)


def _adopt(schedule: Plateau | Step, state: Mapping[str, Any]) -> None:
    own = schedule.state_dict()
    if state.keys() != own.keys():
        kind = type(schedule).__name__
        raise ParameterError.of("state", kind, f"its own, with {', '.join(own)}", dict(state))
    for name, value in state.items():
        setattr(schedule, name, value)


def _check_rate(learning_rate: float, owner: str) -> None:
    if not 0 < learning_rate < float("inf"):
        raise ParameterError.of("learning_rate", owner, "a float in (0, inf)", learning_rate)


def _check_count(parameter: str, owner: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ParameterError.of(parameter, owner, f"an integer from {least} on", value)
