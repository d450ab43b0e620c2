"""I4: a whole net A with three classes by an integer formula (0.5 GB), and four images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from golden.inputs import made
from golden.making.photos import pattern

CLASSES = 3
FILE = "net-A.safetensors"
_CONVOLUTIONS = ((64, 3), (128, 64), (256, 128), (256, 256), (512, 256), *[(512, 512)] * 3)
_CONNECTIONS = ((4096, 512 * 7 * 7), (4096, 4096), (CLASSES, 4096))
_PLACES = (0, 3, 6, 8, 11, 13, 16, 18)  # of convolutions among torchvision's modules of vgg11


@made("I4")
def whole_net(folder: Path) -> None:
    """Write the weights under torchvision's names, and images of 256 × 224."""
    from safetensors.numpy import save_file

    shapes = {f"features.{n}": (*s, 3, 3) for n, s in zip(_PLACES, _CONVOLUTIONS, strict=True)}
    shapes |= {f"classifier.{n}": s for n, s in zip((0, 3, 6), _CONNECTIONS, strict=True)}
    tensors: dict[str, np.ndarray] = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        tensors[f"{name}.weight"] = weights(shape, seed)
        tensors[f"{name}.bias"] = weights((shape[0], 24), seed + 100)[:, 0] / 16
    save_file(tensors, folder / FILE)
    for number in range(4):
        Image.fromarray(pattern(256, 224, 40 + number)).save(folder / f"wide-{number}.png")


def weights(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Spread numbers evenly over ±√(6 / inputs), so that activations neither die nor explode.

    Number i is (i · 2654435761) mod 2³², mixed once more, since these alone lie on a lattice.
    """
    mixed = np.arange(1, 1 + int(np.prod(shape)), dtype=np.uint32)
    mixed *= np.uint32(2654435761)
    mixed ^= np.uint32(seed * 0x9E3779B9 % 2**32)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(2246822519)
    mixed ^= mixed >> np.uint32(13)
    values = mixed.astype(np.float32)
    values -= np.float32(2**31)
    values *= np.float32((6 / np.prod(shape[1:])) ** 0.5 / 2**31)
    return values.reshape(shape)
