"""A network in 600 numbers, and pictures for it, where a test cannot afford to train a VGG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from vggfeat.nets.pixels import PixelConvention
from vggfeat.nets.weights import Weights
from vggfeat.train.start import Start

LAYERS = ("conv1_1", "fc6", "fc7", "fc8")
PIXELS = PixelConvention("RGB", 255.0, (120.0, 120.0, 120.0))


class Tiny(nn.Module):
    """What of a VGG the loop relies on, in 600 numbers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1_1 = nn.Conv2d(3, 4, 3, stride=56)
        self.fc6 = nn.Linear(4 * 16, 6)
        self.fc7 = nn.Linear(6, 5)
        self.fc8 = nn.Linear(5, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv1_1(x)).flatten(1)
        return self.fc8(torch.relu(self.fc7(torch.relu(self.fc6(x)))))


def begin(net: str, *, num_classes: int, from_weights: Weights | None = None, **_: object) -> Start:
    """Stand in for `start`: drawn as ever, or all taken from weights."""
    torch.manual_seed(1)
    tiny = Tiny(num_classes)
    if from_weights is None:
        return Start(tiny, (), LAYERS)
    tiny.load_state_dict(from_weights.state)
    return Start(tiny, LAYERS, ())


def load_best(path: Path, net: str, layers: list[str]) -> Weights:
    """Read what `write_best` wrote, as if it were of a network of Table 1."""
    return Weights(net, load_file(path), PIXELS, path.name, "none", origin=str(path))


@contextmanager
def stand_in() -> Iterator[pytest.MonkeyPatch]:
    """Put the tiny network wherever training meets a VGG: begun, written, read."""

    def write_best(run: Any) -> None:
        state = {name: value.detach().contiguous() for name, value in run.net.state_dict().items()}
        save_file(state, run.out / "best.safetensors")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with several, waiting for each other is most of their work
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vggfeat.train.start.start", begin)
        patch.setattr("vggfeat.train.loop._Run._write_best", write_best)
        patch.setattr("vggfeat.train.chain.load", load_best)
        yield patch
    torch.set_num_threads(threads)


def two_classes(root: Path, each: int = 5) -> Path:
    """Draw two classes that are told apart by their brightness."""
    rng = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 190)):
        (root / label).mkdir(parents=True)
        for n in range(each):
            noise = rng.integers(-50, 50, (6, 7, 3)) + level
            picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
            picture.resize((260, 230)).save(root / label / f"{n}.png")
    return root
