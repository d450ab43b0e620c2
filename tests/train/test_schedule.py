"""When the rate drops and when training ends, on sequences of accuracies worked out by hand."""

from __future__ import annotations

import json

import pytest

from vggfeat.errors import ParameterError
from vggfeat.train.schedule import Plateau, Schedule, Step

# With patience 2 and threshold 0.01: the accuracy of each epoch, and the rate after it. Where an
# epoch is no improvement on the best one, its number in the row is given.
MADE = (
    (0.30, 0.01),  # best 0.30
    (0.50, 0.01),  # best 0.50
    (0.505, 0.01),  # too little: 1
    (0.52, 0.01),  # best 0.52, since 0.505 did not become the best
    (0.52, 0.01),  # 1
    (0.40, 0.001),  # 2: first drop
    (0.525, 0.001),  # 1: the best outlives the drop
    (0.535, 0.001),  # best 0.535
    (0.53, 0.001),  # 1
    (0.54, 0.0001),  # too little, 2: second drop
    (0.50, 0.0001),  # 1
    (0.51, 0.00001),  # 2: third drop
    (0.545, 0.00001),  # 1: a gain of 0.01, not more
    (0.60, 0.00001),  # best 0.60
    (0.59, 0.00001),  # 1
    (0.59, 0.00001),  # 2: the plateau after the third drop ends it
)


def rates(schedule: Schedule, accuracies: list[float]) -> list[float]:
    """Rates after each epoch, until the schedule is finished."""
    found = []
    for accuracy in accuracies:
        assert not schedule.finished
        schedule.step(accuracy)
        found.append(schedule.learning_rate)
    return found


def test_plateau_on_a_made_sequence() -> None:
    """The rate drops where the sequence says, three times, and the next plateau is the end."""
    schedule = Plateau(0.01, patience=2, threshold=0.01, drops=3)
    assert schedule.learning_rate == 0.01
    found = rates(schedule, [accuracy for accuracy, _ in MADE])
    assert found == pytest.approx([rate for _, rate in MADE], rel=1e-12)
    assert schedule.finished


def test_plateau_ends_after_max_epochs() -> None:
    """Accuracy that always rises never drops the rate; the paper's 74 epochs end it."""
    schedule = Plateau()
    assert set(rates(schedule, [epoch / 100 for epoch in range(74)])) == {0.01}
    assert schedule.finished


@pytest.mark.parametrize("after", range(1, len(MADE)))
def test_plateau_continues_from_its_state(after: int) -> None:
    """Stopped after any epoch, written as JSON and resumed, the rates are the same."""
    accuracies = [accuracy for accuracy, _ in MADE]
    first = Plateau(0.01, patience=2, threshold=0.01)
    rates(first, accuracies[:after])
    second = Plateau(0.01, patience=2, threshold=0.01)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    rest = rates(second, accuracies[after:])
    assert rest == pytest.approx([rate for _, rate in MADE[after:]], rel=1e-12)
    assert second.finished


def test_step_drops_after_the_listed_epochs() -> None:
    """With drops after 2 and 3 epochs of 5, whatever the accuracy; also from a saved state."""
    schedule = Step(0.5, epochs=(2, 3), max_epochs=5)
    assert rates(schedule, [0.0, 0.9, 0.0]) == pytest.approx([0.5, 0.05, 0.005])
    resumed = Step(0.5, epochs=(2, 3), max_epochs=5)
    resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert rates(resumed, [0.1, 0.1]) == pytest.approx([0.005, 0.005])
    assert resumed.finished


def test_states_do_not_cross() -> None:
    """A state of the other schedule is refused rather than half adopted."""
    with pytest.raises(ParameterError, match="'state' parameter of Plateau must be its own"):
        Plateau().load_state_dict(Step(epochs=[1]).state_dict())
    with pytest.raises(ParameterError, match="'state' parameter of Step must be its own"):
        Step(epochs=[1]).load_state_dict(Plateau().state_dict())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("learning_rate", 0.0),
        ("patience", 0),
        ("threshold", -0.1),
        ("drops", -1),
        ("max_epochs", 0),
    ],
)
def test_settings_out_of_range_are_named(setting: str, value: float) -> None:
    """A setting that makes no sense is named with its range."""
    with pytest.raises(ParameterError, match=f"'{setting}' parameter of Plateau must be"):
        Plateau(**{setting: value})


@pytest.mark.parametrize("epochs", [[3, 2], [2, 2], [0], [74]])
def test_epochs_that_cannot_be_are_refused(epochs: list[int]) -> None:
    """Epochs of drops ascend and lie before the last epoch."""
    with pytest.raises(ParameterError, match="'epochs' parameter of Step must be ascending"):
        Step(epochs=epochs)


@pytest.mark.parametrize("accuracy", [float("nan"), 71.5, -0.1])
def test_an_accuracy_that_is_none_is_refused(accuracy: float) -> None:
    """NaN and per cent would freeze the best accuracy for ever."""
    with pytest.raises(ParameterError, match=r"must be a float in \[0, 1\]"):
        Plateau().step(accuracy)
