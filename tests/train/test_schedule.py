"""Updates and rates: Krizhevsky's rule by NumPy, and when the rate drops, worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.mistakes import refuses
from pydantic import ValidationError
from torch import nn

from vggfeat.errors import ParameterError
from vggfeat.settings import Training
from vggfeat.train.checkpoint import Position
from vggfeat.train.loop import finished, make_optimiser, make_scheduler, step_scheduler

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
    (0.59, 0.000001),  # 2: the plateau after the third drop ends it
)
PLATEAU: dict[str, Any] = {"patience": 2, "threshold": 0.01}
STEPS: dict[str, Any] = {"schedule": "step", "steps": (1, 3), "epochs": 4, "learning_rate": 0.1}
COSINE: dict[str, Any] = {"schedule": "cosine", "epochs": 4, "learning_rate": 0.1}


class Course:
    """A run without images: an optimiser, its schedule, and where it stands."""

    def __init__(self, net: nn.Module | None = None, **settings: Any) -> None:
        self.settings = Training(**settings)
        self.net = net or nn.Linear(3, 2)
        self.optimiser = make_optimiser(self.settings, self.net)
        self.scheduler = make_scheduler(self.settings, self.optimiser)
        self.here = Position(learning_rate=self.rate)

    @property
    def rate(self) -> float:
        return float(self.optimiser.param_groups[0]["lr"])

    @property
    def finished(self) -> bool:
        return finished(self.settings, self.here)

    def end_epoch(self, accuracy: float = 0.5) -> float:
        assert not self.finished
        self.here.epoch += 1
        self.here.learning_rate = step_scheduler(self.scheduler, self.optimiser, accuracy)
        return self.here.learning_rate


def test_plateau_on_a_made_sequence() -> None:
    """The rate drops where the sequence says, three times, and the next plateau is the end."""
    course = Course(**PLATEAU)
    assert course.rate == 0.01
    found = [course.end_epoch(accuracy) for accuracy, _ in MADE]
    assert found == pytest.approx([rate for _, rate in MADE], rel=1e-12)
    assert course.finished


def test_plateau_ends_after_the_papers_epochs_or_its_drops() -> None:
    """Accuracy that always rises ends after 74 epochs; without drops the first plateau ends it."""
    course = Course()
    assert {course.end_epoch(epoch / 100) for epoch in range(74)} == {0.01}
    assert course.finished
    course = Course(drops=0, patience=1)
    course.end_epoch()
    assert not course.finished
    course.end_epoch()
    assert course.finished


RISE = [0.1 / 3, 0.2 / 3]  # to the rate of the third epoch, in equal steps
FALL = [0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(5)]


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        (STEPS, [0.1, 0.01, 0.01, 0.001, 0.001]),
        (COSINE, FALL),
        (COSINE | {"epochs": 6, "warmup": 2}, RISE + FALL),
    ],
)
def test_steps_and_cosine_by_hand(settings: dict[str, Any], rates: list[float]) -> None:
    """Whatever the accuracy, each epoch has its rate, and the last ends it."""
    course = Course(**settings)
    found = [course.rate, *(course.end_epoch() for _ in rates[1:])]
    assert found == pytest.approx(rates, abs=1e-12)
    assert course.finished


@pytest.mark.parametrize("settings", [PLATEAU, STEPS, COSINE, COSINE | {"warmup": 2}])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_schedule_goes_on_from_its_state(settings: dict[str, Any], after: int) -> None:
    """Through JSON, as a checkpoint has it, the rates that follow are the same."""
    whole, resumed = Course(**settings), Course(**settings)
    for accuracy in (0.5, 0.5, 0.4)[:after]:
        whole.end_epoch(accuracy)
    state = {name: v for name, v in whole.scheduler.state_dict().items() if name != "milestones"}
    resumed.scheduler.load_state_dict(json.loads(json.dumps(state)))
    resumed.optimiser.param_groups[0]["lr"] = whole.rate
    resumed.here = replace(whole.here)
    while not whole.finished and whole.here.epoch < 12:
        accuracy = MADE[whole.here.epoch][0]
        assert whole.end_epoch(accuracy) == resumed.end_epoch(accuracy)
    assert whole.finished == resumed.finished


@pytest.mark.parametrize(
    "settings",
    [
        *({"schedule": "step", "steps": steps} for steps in ((74,), (0, 3), ())),
        *({"schedule": "plateau", "steps": (3,)}, {"schedule": "cosine", "warmup": 74}),
        {"warmup": 3},
    ],
)
def test_settings_that_no_schedule_has_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=list(settings)[-1]):
        Training(**settings)


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).to(torch.float64)


def give_gradients(net: nn.Module, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found = [rng.normal(size=p.shape) for p in net.parameters()]
    for parameter, gradient in zip(net.parameters(), found, strict=True):
        parameter.grad = torch.from_numpy(gradient)
    return found


@pytest.mark.parametrize(
    "settings", [STEPS, {"patience": 1, "learning_rate": 0.1}, COSINE | {"warmup": 1}]
)
def test_updates_are_krizhevskys_across_changes_of_the_rate(settings: dict[str, Any]) -> None:
    """Weights and biases follow v ← 0.9 v − 0.0005·ε·w − ε·g, w ← w + v, step by step."""
    course = Course(small_net(), **settings)
    net, rates = course.net, set()
    w = [p.detach().numpy().copy() for p in net.parameters()]
    v = [np.zeros_like(x) for x in w]
    for epoch in range(3):
        rates.add(course.rate)
        for step in range(2):
            g = give_gradients(net, 2 * epoch + step)
            for i in range(len(w)):
                v[i] = 0.9 * v[i] - 0.0005 * course.rate * w[i] - course.rate * g[i]
                w[i] = w[i] + v[i]
            course.optimiser.step()
            for found, expected in zip(net.parameters(), w, strict=True):
                np.testing.assert_allclose(found.detach(), expected, rtol=1e-11, atol=1e-13)
        course.end_epoch(0.5)
    assert len(rates) > 1  # or no change was seen


def test_a_net_of_which_all_is_frozen_is_refused() -> None:
    refuses(lambda: Course(small_net().requires_grad_(False)), ParameterError, ["frozen"])
