"""The update rule against a loop written by hand in NumPy, and against torch's where they agree."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from vggfeat.errors import ParameterError
from vggfeat.train.optimiser import set_learning_rate, sgd

# The rate drops between the fourth and the fifth step.
RATES = (0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01)


def small_net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).to(dtype)


def gradients(net: nn.Module, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=p.shape) for p in net.parameters()]


def give(net: nn.Module, found: list[np.ndarray]) -> None:
    for parameter, gradient in zip(net.parameters(), found, strict=True):
        parameter.grad = torch.from_numpy(gradient).to(parameter.dtype)


def values(net: nn.Module) -> list[np.ndarray]:
    return [p.detach().numpy().copy() for p in net.parameters()]


def test_updates_are_krizhevskys_across_a_drop_of_the_rate() -> None:
    """Weights and biases follow v ← 0.9 v − 0.0005·ε·w − ε·g, w ← w + v, step by step."""
    net = small_net()
    optimiser = sgd(net, RATES[0])
    w = values(net)
    v = [np.zeros_like(x) for x in w]
    for step, rate in enumerate(RATES):
        g = gradients(net, step)
        for i in range(len(w)):
            v[i] = 0.9 * v[i] - 0.0005 * rate * w[i] - rate * g[i]
            w[i] = w[i] + v[i]
        set_learning_rate(optimiser, rate)
        give(net, g)
        optimiser.step()
        for found, expected in zip(values(net), w, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_torchs_rule_is_the_same_until_the_rate_drops() -> None:
    """At a constant rate both agree; after a drop torch's velocity is a tenth of ours."""
    net = small_net()
    other = copy.deepcopy(net)
    ours = sgd(net, RATES[0])
    torchs = torch.optim.SGD(other.parameters(), RATES[0], momentum=0.9, weight_decay=5e-4)
    differences = []
    for step, rate in enumerate(RATES):
        for model, optimiser in ((net, ours), (other, torchs)):
            set_learning_rate(optimiser, rate)
            give(model, gradients(model, step))
            optimiser.step()
        pairs = zip(values(net), values(other), strict=True)
        differences.append(max(np.abs(a - b).max() for a, b in pairs))
    assert max(differences[:4]) < 1e-14
    assert min(differences[4:]) > 1e-2


def test_a_resumed_optimiser_continues_exactly() -> None:
    """With its state saved, loaded into another net's and continued, the bits are the same."""
    net = small_net(torch.float32)
    optimiser = sgd(net, 0.1)
    for step in range(2):
        give(net, gradients(net, step))
        optimiser.step()
    other = copy.deepcopy(net)
    resumed = sgd(other, 1.0)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for step in range(2, 5):
        for model, which in ((net, optimiser), (other, resumed)):
            give(model, gradients(model, step))
            which.step()
    assert all(map(np.array_equal, values(net), values(other)))


def test_frozen_layers_and_those_without_gradients_stay() -> None:
    """Neither a step nor the penalty moves a frozen layer, or one that took no part."""
    net = small_net()
    net[0].requires_grad_(False)
    optimiser = sgd(net, 0.1)
    before = values(net)
    optimiser.step()  # no gradients at all
    net[2].weight.grad = torch.ones_like(net[2].weight)
    optimiser.step()
    same = list(map(np.array_equal, values(net), before))
    assert same == [True, True, False, True]


def test_a_closure_computes_the_gradients() -> None:
    """The loss comes back, as from torch's optimisers, and its gradients are used."""
    net = nn.Linear(1, 1, bias=False).to(torch.float64)
    nn.init.constant_(net.weight, 3.0)
    optimiser = sgd(net, 0.1, weight_decay=0.0)

    def closure() -> float:
        loss = net.weight.square().sum()
        loss.backward()
        return loss.item()

    assert optimiser.step(closure) == 9.0
    assert net.weight.item() == pytest.approx(3.0 - 0.1 * 6.0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("weight_decay", float("inf")),
    ],
)
def test_settings_out_of_range_are_named(setting: str, value: float) -> None:
    """A rate, momentum or penalty that makes no sense is named with its range."""
    with pytest.raises(ParameterError, match=f"'{setting}' parameter of Momentum must be a float"):
        sgd(small_net(), **{"learning_rate": 0.1} | {setting: value})


def test_a_net_that_is_all_frozen_is_refused() -> None:
    """Nothing to train is an error, not a run that changes nothing."""
    with pytest.raises(ParameterError, match="All parameters are frozen"):
        sgd(small_net().requires_grad_(False), 0.1)
