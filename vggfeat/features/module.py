"""An extractor as a torch module: images in, descriptors or dense maps out, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggfeat.errors import ParameterError
from vggfeat.features.pooling import resolve_pooling
from vggfeat.nets.preprocessing import PixelConvention
from vggfeat.nets.statements import from_tensor, to_tensor
from vggfeat.nets.vgg import VGG
from vggfeat.settings import Extraction

Key = tuple[str, str]  # a layer and a pooling

# An optimiser that changes pixels may leave [0, 1] a little. What lies farther out holds numbers
# up to 255, or is normalised already.
LOWEST, HIGHEST = -1.0, 2.0


class DenseModule(nn.Module):
    """What :meth:`DenseExtractor.as_module` returns.

    Parameters
    ----------
    net : VGG
        Its parameters are the module's own; it takes RGB.
    extraction : Extraction
    pixels : PixelConvention
        Of `net`, in RGB. The state dict says it too: whoever reads one, by
        ``load_state_dict`` or as a file of weights, has its pixels.
    licence : str
        Of the parameters.
    as_maps : bool
        Whether dense maps are returned, in place of descriptors.
    budget : int
        Pixels that may go through the network at a time, where a pooling runs it on crops.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: VGG,
        extraction: Extraction,
        pixels: PixelConvention,
        *,
        licence: str,
        as_maps: bool,
        budget: int,
    ) -> None:
        super().__init__()
        self.net = net
        self.extraction = extraction
        self.register_buffer("mean", torch.tensor(pixels.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(pixels.std).view(1, 3, 1, 1))
        self.pixels = pixels
        self.licence = licence
        self.as_maps = as_maps
        self.budget = budget

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, without dropout, also as a part of a module that is trained."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """Describe images (N, 3, H, W), RGB in [0, 1].

        Returns
        -------
        Tensor (N, D)
            Raw descriptors of each layer and pooling, stacked in the order of
            :meth:`DenseExtractor.describe`; or dense maps (N, C, h, w), of several layers a dict
            of them.

        Raises
        ------
        ParameterError
            For images of another shape, type or range.
        ImageTooSmall
            If a layer would have no location.
        """
        _check_images(images)
        images = images.to(self.mean.device)
        layers, pools = self.extraction.layers, self.extraction.pools
        if self.as_maps:
            maps = self._maps(images, layers)
            return maps if len(layers) > 1 else maps[layers[0]]
        keys = [(layer, pool) for layer in layers for pool in pools]
        crops = {key: self._describe_crops(images, *key) for key in keys}
        described = {key: own for key, own in crops.items() if own is not None}
        if left := [key for key in keys if key not in described]:
            described |= self._pool(images, left)
        return torch.cat([described[key] for key in keys], 1)

    def get_extra_state(self) -> Tensor:
        """Return what the state dict says of itself: net, pixels, licence."""
        return to_tensor(self.net.net, self.pixels, self.licence)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over what another module's state dict says; its mean and std are buffers."""
        statements = from_tensor(state)
        self.pixels = PixelConvention.from_json(statements["pixels"])
        self.net.pool_rounding = self.pixels.pool_rounding
        self.licence = statements["licence"]

    def _describe_crops(self, images: Tensor, layer: str, pool: str) -> Tensor | None:
        """Let a pooling that runs the network itself describe images; None of any other."""
        network = partial(self._map, layer)
        flip, budget = self.extraction.flip, self.budget
        return resolve_pooling(pool).describe(network, images, flip=flip, budget=budget)

    def _pool(self, images: Tensor, keys: Sequence[Key]) -> dict[Key, Tensor]:
        """Pool the maps of images, and average with their mirror images if these count."""
        layers = [layer for layer, _ in keys]
        views = [images, images.flip(3)] if self.extraction.flip else [images]
        upright, *mirrored = (self._maps(view, layers) for view in views)
        pooled = {}
        for layer, pool in keys:
            pooling = resolve_pooling(pool)
            pooled[layer, pool] = pooling.pool(upright[layer])
            for maps in mirrored:
                other = pooling.pool(maps[layer])
                pooled[layer, pool] = pooling.average_flipped(pooled[layer, pool], other)
        return pooled

    def _map(self, layer: str, images: Tensor) -> Tensor:
        return self._maps(images, [layer])[layer]

    def _maps(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        x = (_widened(images) * self.pixels.range - self.mean) / self.std
        x = x.to(next(self.net.parameters()).dtype)
        computed = self.net.maps(x.contiguous(memory_format=torch.channels_last))
        maps = {layer: _widened(computed[layer]) for layer in dict.fromkeys(layers)}
        if self.extraction.locations == "l2":
            maps = {layer: F.normalize(dense_map, dim=1) for layer, dense_map in maps.items()}
        return maps


def _widened(values: Tensor) -> Tensor:
    """Return values with at least the 24 bits of fp32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _check_images(images: Tensor) -> None:
    """Refuse what is no batch of RGB images in [0, 1]."""
    shape, dtype = tuple(getattr(images, "shape", ())), getattr(images, "dtype", type(images))
    if not isinstance(images, Tensor) or len(shape) != 4 or shape[1] != 3:
        raise _no_images(f"{shape} of {dtype}")
    if not images.is_floating_point():
        raise _no_images(f"{dtype}: divide by its range")
    if torch.compiler.is_compiling() or not images.numel():
        return  # numbers are not known when a graph is made
    low, high = images.detach().aminmax()
    if not LOWEST <= low <= high <= HIGHEST:
        raise _no_images(f"numbers in [{low:g}, {high:g}]")


def _no_images(got: str) -> ParameterError:
    expected = (
        "a torch.Tensor (N, 3, H, W) of floats, RGB in [0, 1], from which no mean was subtracted: "
        "that belongs to the weights"
    )
    return ParameterError.of("images", "DenseModule", expected, got)
