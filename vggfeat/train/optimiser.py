"""The update rule of Section 3.1: mini-batch gradient descent with momentum and L2 penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from vggfeat.errors import ParameterError


class Momentum(torch.optim.Optimizer):
    """Krizhevsky's update, with the learning rate inside the velocity.

    With the rate ε, the momentum μ, the penalty λ and the gradient g of the mean loss over the
    batch, a step is v ← μ·v − ε·(g + λ·w), then w ← w + v, as in cuda-convnet and Caffe.
    ``torch.optim.SGD`` keeps ε outside: b ← μ·b + g + λ·w, then w ← w − ε·b. The two are the same
    while ε is; when ε drops, torch shrinks the velocity gathered so far along with it, and here
    that velocity runs on and decays by μ at every step.

    Parameters
    ----------
    parameters : iterable of Parameter
        What is updated.
    learning_rate, momentum, weight_decay : float
        ε, μ and λ. A change of the rate is written to ``param_groups[…]["lr"]``, where torch's
        optimisers have it, too; :func:`set_learning_rate` does so.

    Examples
    --------
    >>> w = nn.Parameter(torch.tensor([1.0]))
    >>> optimiser = Momentum([w], 0.5, momentum=0.9, weight_decay=0.0)
    >>> for gradient in (1.0, 0.0):
    ...     w.grad = torch.tensor([gradient])
    ...     optimiser.step()
    >>> w  # 1 − 0.5, then a velocity of 0.9 · −0.5
    Parameter containing:
    tensor([0.0500], requires_grad=True)
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
    ) -> None:
        _check("learning_rate", learning_rate, learning_rate > 0, "(0, inf)")
        _check("momentum", momentum, 0 <= momentum < 1, "[0, 1)")
        _check("weight_decay", weight_decay, weight_decay >= 0, "[0, inf)")
        settings = {"lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(parameters, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch has two overloads
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the gradients and returns the loss, as torch's optimisers allow.

        Returns
        -------
        float or None
            The loss, where there is a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            weights = [w for w in group["params"] if w.grad is not None]
            if not weights:
                continue
            velocities = [self._velocity(w) for w in weights]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, [w.grad for w in weights], alpha=-rate)
            torch._foreach_add_(velocities, weights, alpha=-rate * decay)
            torch._foreach_add_(weights, velocities)
        return loss

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["velocity"] = torch.zeros_like(weight)
        velocity: Tensor = state["velocity"]
        return velocity


def sgd(
    net: nn.Module, learning_rate: float, momentum: float = 0.9, weight_decay: float = 5e-4
) -> Momentum:
    """Make the paper's optimiser for the parameters of a network that are not frozen.

    Weights and biases have the same rate and the same penalty, as the text reads. (Model files of
    the time often doubled the rate of biases and left them without penalty, which the paper does
    not mention.) So do layers taken from net A.

    Parameters
    ----------
    net : Module
        Its parameters with ``requires_grad`` are updated.
    learning_rate, momentum, weight_decay : float
        See :class:`Momentum`; the paper begins at 1e-2.

    Raises
    ------
    ParameterError
        If a setting is out of its range, or all parameters are frozen.

    Examples
    --------
    >>> len(sgd(nn.Linear(3, 2), 1e-2).param_groups[0]["params"])
    2
    """
    free = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not free:
        raise ParameterError("All parameters are frozen: there is nothing to train.")
    return Momentum(free, learning_rate, momentum, weight_decay)


def set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    """Let the next steps have this learning rate.

    Examples
    --------
    >>> optimiser = sgd(nn.Linear(3, 2), 1e-2)
    >>> set_learning_rate(optimiser, 1e-3)
    >>> optimiser.param_groups[0]["lr"]
    0.001
    """
    for group in optimiser.param_groups:
        group["lr"] = learning_rate


def _check(parameter: str, value: float, holds: bool, interval: str) -> None:
    if not holds or value == float("inf"):
        raise ParameterError.of(parameter, "Momentum", f"a float in {interval}", value)
