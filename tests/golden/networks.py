"""A tiny network of Table 1's kind: five convolutions, three full connections, 4,000 numbers."""

from __future__ import annotations

import torch
from torch import nn

from golden.making.whole import weights

WIDTHS = (3, 4, 4, 8, 8, 8)
FC6, FC7 = 6, 5


class TinyVGG(nn.Module):
    """A convolution and a max-pool in each of five stages; the names are those of net A."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        for stage in range(1, 6):
            layer = nn.Conv2d(WIDTHS[stage - 1], WIDTHS[stage], 3, padding=1)
            self.add_module(f"conv{stage}_1", layer)
        self.fc6 = nn.Linear(WIDTHS[-1] * 7 * 7, FC6)
        self.fc7 = nn.Linear(FC6, FC7)
        self.fc8 = nn.Linear(FC7, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute class scores (B, classes) of crops (B, 3, 224, 224)."""
        for stage in range(1, 6):
            x = torch.relu(self.get_submodule(f"conv{stage}_1")(x))
            x = nn.functional.max_pool2d(x, 2)
        x = torch.relu(self.fc6(x.flatten(1)))
        return self.fc8(torch.relu(self.fc7(x)))


def tiny_vgg(classes: int) -> TinyVGG:
    """Make the network with weights by a formula."""
    net = TinyVGG(classes)
    state = net.state_dict()
    for seed, (name, value) in enumerate(state.items()):
        shape = tuple(value.shape)
        spread = weights(shape, 900 + seed) if value.ndim > 1 else weights((*shape, 24), 900 + seed)
        state[name] = torch.from_numpy(spread if value.ndim > 1 else spread[:, 0].copy() / 4)
    net.load_state_dict(state)
    return net
