"""What all contenders are given: images of VOC's shapes, and one file of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vggfeat._io.assets import asset
from vggfeat.nets.formats import write
from vggfeat.nets.preprocessing import TORCHVISION
from vggfeat.nets.vgg import VGG
from vggfeat.nets.weights import load

ONE_SHAPE = (500, 375)
# VOC's shares: of sixteen images seven are 500×375, three 500×333, one 375×500; among 280 genuine
# ones there were 70 shapes, most of them once. None stands for the next of the rare ones.
SIXTEEN = (
    *((500, 375), (500, 333), None, (500, 375), (375, 500), (500, 375), None, (500, 375)),
    *((500, 333), None, (500, 375), None, (500, 375), (500, 333), (500, 375), None),
)
RARE = (
    *((333, 500), (500, 334), (486, 500), (500, 281), (500, 332), (500, 400), (334, 500)),
    *((500, 335), (448, 336), (500, 374), (500, 500), (374, 500), (500, 352), (480, 360)),
    *((340, 500), (500, 421), (360, 480), (268, 400), (421, 500), (335, 500), (500, 357)),
)
SHAPES = ("one", "mixed")
QUALITY = 88  # with it and the noise, files have about the size of VOC's
NOISE = 6


def images(folder: Path, count: int, shapes: str) -> tuple[Path, ...]:
    """Write JPEGs, the same ones on every call: four of clipart10 side by side, with some noise.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    count : int
        How many.
    shapes : {"one", "mixed"}
        All of 500×375 pixels, or a mixture like VOC's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted(asset("clipart10").glob("*/*.jpg"))
    found = []
    for k, (width, height) in enumerate(sizes(count, shapes)):
        four = [sources[(4 * k + part) * 37 % len(sources)] for part in range(4)]
        path = folder / f"{shapes}_{k:04}.jpg"
        _image(four, width, height, seed=k).save(path, quality=QUALITY)
        found.append(path)
    return tuple(found)


def sizes(count: int, shapes: str) -> list[tuple[int, int]]:
    """List width and height of the images."""
    if shapes == "one":
        return [ONE_SHAPE] * count
    rare = 0
    found = []
    for k in range(count):
        size = SIXTEEN[k % len(SIXTEEN)]
        if size is None:
            size = RARE[rare % len(RARE)]
            rare += 1
        found.append(size)
    return found


def _image(four: list[Path], width: int, height: int, seed: int) -> Image.Image:
    whole = Image.new("RGB", (width, height))
    half = ((width + 1) // 2, (height + 1) // 2)
    for part, path in enumerate(four):
        with Image.open(path) as image:
            cell = image.convert("RGB").resize(half, Image.Resampling.BICUBIC)
        whole.paste(cell, (part % 2 * half[0], part // 2 * half[1]))
    noise = np.random.default_rng(seed).normal(0, NOISE, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(whole) + noise, 0, 255).astype(np.uint8))


def weights(folder: Path, net: str, layer: str = "pool5") -> Path:
    """Write the convolutions of a net as a .pth with torchvision's names, which all of them load.

    Net D has the embedded numbers, in torchvision's pixel convention and with its rounding of odd
    sides; others have random ones, the same on every call.
    """
    if net == "D":
        state = dict(load("embedded", "D", [layer]).state)
        # From BGR in 0…255 to RGB in 0…1 over torchvision's standard deviation.
        scale = 255 * torch.tensor(TORCHVISION.std).view(1, 3, 1, 1)
        state["conv1_1.weight"] = state["conv1_1.weight"].flip(1) * scale
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            state = VGG(net, layers=layer, dense=True, init="kaiming").state_dict()
    path = folder / f"{net}_{layer}.pth"
    source = "made for a benchmark"
    return write(path, state, TORCHVISION, net=net, source=source, licence="none")
