"""Everyone who describes images by a VGG net: vggfeat, and what a user would pick instead.

A contender is prepared with its work (its network is built, its weights are loaded) and gives a
function without arguments, which does the work once and returns descriptors (scales, N, D). The
forward-only ones are given decoded, rescaled images; the others begin with the files. All see the
same pixels: bilinear and antialiased by Pillow, the longer side rounded down.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from floor import operations
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from vggfeat.data.batching import DecodedImage, make_batches
from vggfeat.data.image import load, rescaled_size
from vggfeat.data.imageset import find_images
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.nets.config import torchvision_names
from vggfeat.nets.preprocessing import TORCHVISION
from vggfeat.nets.runtimes import DTYPES
from vggfeat.store.store import FeatureStore

Run = Callable[[], np.ndarray]
TORCHVISION_NETS = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}
BATCH = 4  # images, with their mirror images twice as many, where all are of one shape


class Skip(Exception):
    """Why a contender does not run here."""


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Parameters
    ----------
    net, layer : str
        The net of Table 1; the layer that is averaged over locations and with the mirror image.
    scales : tuple of int
        Smallest sides Q.
    precision : {"fp32", "bf16"}
        Of the arithmetic.
    weights : Path
        See :func:`made.weights`.
    images : tuple of Path
        See :func:`made.images`.
    shapes : str
        ``"one"`` or ``"mixed"``.
    device : torch.device
        Where it is done.
    runtime : str
        Of vggfeat.
    """

    net: str
    layer: str
    scales: tuple[int, ...]
    precision: str
    weights: Path
    images: tuple[Path, ...]
    shapes: str
    device: torch.device
    runtime: str = "auto"

    @cached_property
    def operations(self) -> int:
        """Operations of the whole work, mirror images included."""
        total = 0
        for path in self.images:
            with Image.open(path) as image:
                sizes = [rescaled_size(*image.size, Q) for Q in self.scales]
            total += sum(operations(self.net, self.layer, h, w) for w, h in sizes)
        return 2 * total

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic."""
        return DTYPES[self.precision]


def extractor_of(work: Work) -> DenseExtractor:
    """Build ours: the one place that chooses its runtime."""
    return DenseExtractor(
        work.net,
        work.layer,
        weights=str(work.weights),
        device=str(work.device),
        precision=work.precision,
        runtime=work.runtime,
    )


def vggfeat(work: Work) -> Run:
    """Ours, from files to a store on disk."""
    extractor = extractor_of(work)
    images = find_images([str(path) for path in work.images])

    def run() -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            store = FeatureStore(folder, "a")
            extract(images, extractor, work.scales, store)
            return np.stack(list(store.read(extractor.descriptors(work.scales)).values()))

    return run


def vggfeat_forward(work: Work) -> Run:
    """Ours, on decoded images: normalised, forward, averaged."""
    extractor = extractor_of(work)
    waiting = list(make_batches(decoded(work), extractor.pixel_budget))

    def run() -> np.ndarray:
        rows: dict[tuple[int, int], np.ndarray] = {}
        for batch in waiting:
            [described] = extractor.describe(batch.pixels).values()
            for row, vector in zip(batch.rows, described.numpy(), strict=True):
                rows[batch.Q, row] = vector
        count = range(len(work.images))
        return np.stack([[rows[Q, row] for row in count] for Q in work.scales])

    return run


def torchvision_loop(work: Work) -> Run:
    """Run the loop that one writes by hand around torchvision's features."""
    features = torchvision_features(work).to(work.device, work.dtype)

    @torch.inference_mode()
    def run() -> np.ndarray:
        found = []
        for Q in work.scales:
            prepare = prepared(Q)
            for path in work.images:
                with Image.open(path) as image:
                    x = prepare(image.convert("RGB"))[None].to(work.device, work.dtype)
                found.append(averaged(features(torch.cat([x, x.flip(3)]))))
        return by_scale(torch.cat(found), work)

    return run


def timm_eager(work: Work) -> Run:
    """Timm's network with its transforms and a loader with processes."""
    return timm_run(work, timm_features(work))


def timm_compiled(work: Work) -> Run:
    """Do the same with torch.compile, its weights frozen: the best that it can do."""
    torch._dynamo.reset()
    features = torch.compile(timm_features(work), options={"freezing": True})
    return timm_run(work, features)


def timm_features(work: Work) -> Callable[[Tensor], Tensor]:
    """Timm's vgg16 or vgg19 with our weights, dense."""
    timm = wanted("timm")
    with torch.device("meta"):
        model = timm.create_model(TORCHVISION_NETS[work.net], num_classes=0)
    model.features = loaded(model.features, work)
    model.pre_logits = nn.Identity()  # its 100 million numbers are of no use here
    model = model.eval().requires_grad_(False).to(work.device, work.dtype)
    model = model.to(memory_format=torch.channels_last)
    return model.forward_features


def timm_run(work: Work, features: Callable[[Tensor], Tensor]) -> Run:
    """Feed a network by timm's transforms, less the crop, and torch's loader."""
    loaders = [loader(work, timm_transform(Q)) for Q in work.scales]

    @torch.no_grad()  # inference mode would make frozen weights impossible
    def run() -> np.ndarray:
        found = []
        for x in (batch for each in loaders for batch in each):
            x = x.to(work.device, work.dtype, memory_format=torch.channels_last)
            found.append(averaged(features(torch.cat([x, x.flip(3)]))))
        return by_scale(torch.cat(found), work)

    return run


def timm_transform(Q: int) -> Callable[[Image.Image], Tensor]:
    """Timm's own transform for evaluation, of the whole image instead of its middle."""
    made = wanted("timm.data").create_transform(
        Q, interpolation="bilinear", mean=TORCHVISION.mean, std=TORCHVISION.std, crop_pct=1.0
    )
    kept = [each for each in made.transforms if not isinstance(each, transforms.CenterCrop)]
    return transforms.Compose(kept)


class Files(Dataset[Tensor]):
    """Images that are opened when they are asked for."""

    def __init__(self, paths: Sequence[Path], prepare: Callable[[Image.Image], Tensor]) -> None:
        self.paths = paths
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as image:
            return self.prepare(image.convert("RGB"))


def loader(work: Work, prepare: Callable[[Image.Image], Tensor]) -> DataLoader[Tensor]:
    """Read ahead in processes that stay; images of different shapes cannot share a batch."""
    return DataLoader(
        Files(work.images, prepare),
        batch_size=BATCH if work.shapes == "one" else 1,
        num_workers=min(4, os.cpu_count() or 1),
        persistent_workers=True,
    )


def torchvision_features(work: Work) -> nn.Sequential:
    """Torchvision's vgg16 or vgg19 up to the layer, with our weights."""
    with torch.device("meta"):
        model = getattr(torchvision.models, TORCHVISION_NETS[work.net])()
    return loaded(model.features, work)


def loaded(features: nn.Sequential, work: Work) -> nn.Sequential:
    """Cut a network's features after the layer, and give them the weights of the file."""
    name = next(k for k, ours in torchvision_names(work.net).items() if ours == work.layer)
    features = features[: int(name.removeprefix("features.")) + 1]
    state = torch.load(work.weights, weights_only=True)
    state = {key.removeprefix("features."): tensor for key, tensor in state.items()}
    features.load_state_dict(state, assign=True)
    return features.eval().requires_grad_(False)


def decoded(work: Work) -> Iterator[DecodedImage]:
    """Decode and rescale all images."""
    return (DecodedImage(row, load(path, work.scales)) for row, path in enumerate(work.images))


def prepared(Q: int) -> transforms.Compose:
    """Torchvision's transforms of a PIL image: as ours, smallest side Q."""
    normalise = transforms.Normalize(TORCHVISION.mean, TORCHVISION.std)
    return transforms.Compose([transforms.Resize(Q), transforms.ToTensor(), normalise])


def averaged(maps: Tensor) -> Tensor:
    """Descriptors of maps of images and, after them, of their mirror images."""
    one, other = maps.float().mean((2, 3)).cpu().chunk(2)
    return (one + other) / 2


def by_scale(descriptors: Tensor, work: Work) -> np.ndarray:
    """Shape (scales, N, D) of descriptors that were computed scale by scale."""
    return descriptors.numpy().reshape(len(work.scales), len(work.images), -1)


def wanted(name: str) -> Any:
    """Import a peer, or say that it is not here."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Skip(f"{name} is not installed") from error
