"""G19: three epochs of training with one drop of the rate, resumed, and a loop by hand."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from golden.adapter import training as adapter
from golden.case import case
from golden.inputs import Inputs
from golden.networks import tiny_vgg

RATE, MOMENTUM, DECAY = 0.001, 0.5, 0.05
EPOCHS, FALLS_AFTER, FACTOR = 3, 1, 0.1
SETTINGS: dict[str, Any] = {
    "S": 224, "batch": 4, "learning_rate": RATE, "momentum": MOMENTUM, "weight_decay": DECAY,
    "dropout": 0.0, "schedule": "step", "steps": (FALLS_AFTER,), "epochs": EPOCHS,
    "freeze": "none", "label_smoothing": 0.0, "colour_shift": True, "seed": 3,
}  # fmt: skip
ACCURACIES = [0.1, 0.4, 0.5, 0.5, 0.5003, 0.5, 0.52, 0.53, *[0.53] * 9, 0.6, *[0.6] * 12]


@case(
    "G19-training",
    command="train a tiny network: 3 epochs, batch 4, no dropout, the rate falls after the first; "
    "resumed; beside a loop of torch.optim.SGD",
    tolerance={
        "history/*/loss": {"rel": 1e-4},
        "history/*/val_loss": {"rel": 1e-4},
        "history/*/learning_rate": {"rel": 1e-9},
        "rates/*": {"rel": 1e-9},
        "weights/*": {"rel": 1e-3},
        "loop/loss/*": {"rel": 1e-4},
        "loop/apart": {"at_most": 1e-5},
        "loop/without the rule": {"rel": 0.01},
    },
)
def training(inputs: Inputs) -> dict[str, Any]:
    """Hold exactly what is drawn: order, places, pixels. Images are of scale S already."""
    course = adapter.Training(inputs["I7"], tiny_vgg, **SETTINGS)
    whole, parts = inputs.work / "whole", inputs.work / "parts"
    history = course.run(whole)
    course.run(parts, stop_after=6)
    again = course.run(parts, resume=True)
    jittered = adapter.Training(inputs["I7"], tiny_vgg, **SETTINGS | {"S": (224, 288)})
    losses, found = _loop(course, whole, rescale=True)
    _, plain = _loop(course, whole, rescale=False)
    kept = course.weights(whole)
    return {
        "order": [_drawn(course, epoch) for epoch in range(2)],
        "jittered": jittered.draws(1),
        "history": history,
        "weights": {name: float(np.linalg.norm(value)) for name, value in kept.items()},
        "resumed": {
            "history equal": again == history,
            "bits equal": _same(course.state(whole), course.state(parts)),
        },
        "loop": {
            "loss": losses,
            "apart": _apart(found, kept),
            "without the rule": _apart(plain, kept),
        },
        "rates": {
            "plateau": adapter.learning_rates(ACCURACIES, schedule="plateau", patience=3),
            "steps": adapter.learning_rates(ACCURACIES[:6], schedule="step", steps=(2, 4)),
        },
    }


def _drawn(course: adapter.Training, epoch: int) -> dict[str, list[str]]:
    """Name the images of each batch, and digest their crops."""
    found: dict[str, list[str]] = {"names": [], "crops": []}
    for names, crops, _ in course.batches(epoch):
        found["names"].append(" ".join(names))
        found["crops"].append(hashlib.sha256(np.ascontiguousarray(crops)).hexdigest()[:16])
    return found


def _loop(
    course: adapter.Training, run: Any, *, rescale: bool
) -> tuple[list[float], dict[str, np.ndarray]]:
    """Train as Section 3.1 says, in torch's own words.

    Krizhevsky's rule has the rate inside the velocity. torch's has not, and gives the same where
    its buffer is divided by the factor by which the rate falls.
    """
    net = tiny_vgg(2)
    optimiser = torch.optim.SGD(net.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
    losses = []
    for epoch in range(EPOCHS):
        if epoch == FALLS_AFTER:
            for group in optimiser.param_groups:
                group["lr"] *= FACTOR
            for state in optimiser.state.values() if rescale else ():
                state["momentum_buffer"] /= FACTOR
        total, images = 0.0, 0
        for x, labels in course.inputs(epoch, run):
            loss = torch.nn.functional.cross_entropy(net(x), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total, images = total + loss.item() * len(labels), images + len(labels)
        losses.append(total / images)
    return losses, {name: value.numpy() for name, value in net.state_dict().items()}


def _apart(found: dict[str, np.ndarray], kept: dict[str, np.ndarray]) -> float:
    """Measure how far two networks are apart, as a share of the second."""
    squares = sum(float(((found[name] - kept[name]) ** 2).sum()) for name in kept)
    return (squares / sum(float((value**2).sum()) for value in kept.values())) ** 0.5


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )
