"""Dropout whose masks belong to the images of a step, not to the process that computes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

DROPPED = ("fc6", "fc7")  # Section 3.1


class Masks:
    """Dropout after fc6 and fc7, the same for one process or many, whole or resumed.

    The masks of a step are drawn for the whole global batch from the seed and the step, and each
    process takes the rows of its images: torch's own dropout would draw others in every process.
    A mask goes before the ReLU, which comes to the same: it is not negative.

    Parameters
    ----------
    net : Module
        With the layers fc6 and fc7, and no dropout of its own.
    ratio : float
        Share of activations that become 0; the others are divided by what is left.
    seed : int

    Examples
    --------
    >>> net = nn.ModuleDict({"fc6": nn.Linear(2, 4), "fc7": nn.Linear(4, 4)})
    >>> masks = Masks(net, 0.5, seed=1)
    >>> masks.place(step=3, rows=slice(1, 2), of=2)
    >>> bool((net["fc6"](torch.ones(1, 2)) == 0).any())
    True
    """

    def __init__(self, net: nn.Module, ratio: float, seed: int) -> None:
        self.ratio = ratio
        self.seed = seed
        own = dict(net.named_parameters())
        self.widths = {name: own[f"{name}.weight"].shape[0] for name in DROPPED}
        self.device = next(net.parameters()).device
        self._drawn: tuple[int, dict[str, Tensor]] = (-1, {})
        self._now: dict[str, Tensor] = {}
        if ratio:
            for name in DROPPED:
                net.get_submodule(name).register_forward_hook(self._hook(name))

    def place(self, step: int, rows: slice, of: int) -> None:
        """Set the masks of the next forward pass: some rows of a global batch of `of` images."""
        if self._drawn[0] != step:
            # A step has a stream of its own, far from those of other steps.
            source = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + step)
            self._drawn = (
                step,
                {name: self._draw(w, of, source) for name, w in self.widths.items()},
            )
        self._now = {name: mask[rows] for name, mask in self._drawn[1].items()}

    def _draw(self, width: int, count: int, source: torch.Generator) -> Tensor:
        shape = (count, width)
        kept = torch.rand(shape, generator=source, device=self.device) >= self.ratio
        return kept / (1 - self.ratio)

    def _hook(self, name: str) -> Any:
        def masked(module: nn.Module, _: Any, output: Tensor) -> Tensor | None:
            return output * self._now[name].to(output.dtype) if module.training else None

        return masked
