"""A batch of images goes densely through a network and becomes descriptors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import isqrt
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.data.image import DECODER, RESAMPLING, ImageLike, max_pixels
from vggfeat.data.image import load as load_image
from vggfeat.errors import DeviceError, ParameterError
from vggfeat.features.module import DenseModule
from vggfeat.features.pooling import SCORES, Pooling, check_pools, resolve_pooling
from vggfeat.features.tiling import iter_tiles, longer_axis
from vggfeat.nets.config import resolve_layer
from vggfeat.nets.runtimes import (
    DTYPES,
    build_runtime,
    check_deterministic,
    describe_device,
    explain_misfit,
    resolve_device,
    resolve_precision,
    resolve_runtime,
)
from vggfeat.nets.runtimes.inference import arithmetic, place
from vggfeat.nets.vgg import VGG
from vggfeat.nets.weights import Weights, load
from vggfeat.settings import Extraction, Hardware
from vggfeat.store.column import JSON, Column, Descriptor

Key = tuple[str, str]  # a layer and a pooling

# An image of more pixels is described in tiles: in memory is one, and what poolings keep of others.
TILE_PIXELS = 2_000_000


class DenseExtractor:
    """A truncated network with its weights on a device, ready to describe images.

    Parameters
    ----------
    extraction : Extraction or str
        What is computed; of a net of Table 1 by name, the settings are the defaults.
    layers : str or sequence of str, optional
        Layers whose maps are pooled, in place of the extraction's.
    hardware : Hardware, optional
        Where it is computed.
    weights : str or Weights, optional
        A source, a file, or loaded weights, in place of the extraction's.
    **fields
        Other settings of :class:`~vggfeat.settings.Extraction` and of
        :class:`~vggfeat.settings.Hardware`, in place of those given.

    Attributes
    ----------
    extraction : Extraction
        With its layers by our names, and its precision as resolved.
    hardware : Hardware
    weights : Weights
    device : torch.device
    runtime : str
        What computes; see :func:`~vggfeat.nets.runtimes.resolve_runtime`.
    net : VGG
        The network, as far as the last layer.
    pixel_budget : int
        Pixels that are best described at a time.

    Raises
    ------
    ParameterError
        For a setting that there is not, or that is none of its choices.
    DeviceError
        If this machine lacks the device or the precision.
    WeightsError
        If the weights cannot be used, or lack a layer.

    Notes
    -----
    Pickled and copied it is its settings and weights, of which the network is built again.

    Examples
    --------
    >>> extractor = DenseExtractor("D", "pool1", weights="embedded", precision="fp32")
    >>> pixels = torch.zeros(2, 3, 32, 48, dtype=torch.uint8)
    >>> {key: d.shape for key, d in extractor.describe(pixels).items()}
    {('pool1', 'average'): torch.Size([2, 64])}
    """

    def __init__(
        self,
        extraction: Extraction | str = "D",
        layers: str | Sequence[str] | None = None,
        *,
        hardware: Hardware | None = None,
        weights: str | Weights | None = None,
        **fields: Any,
    ) -> None:
        where = {name: fields.pop(name) for name in Hardware.model_fields if name in fields}
        self.hardware = (hardware or Hardware()).but(**where)
        if isinstance(extraction, str):
            extraction = Extraction(net=extraction)
        if isinstance(weights, Weights):
            fields["weights"] = weights.origin or weights.source
        elif weights is not None:
            fields["weights"] = str(weights)
        extraction = extraction.but(layers=layers, **fields)
        names = tuple(
            dict.fromkeys(resolve_layer(extraction.net, name) for name in extraction.layers)
        )
        check_pools(extraction.pools, names, extraction.locations)
        self.device = resolve_device(self.hardware.device)
        precision = resolve_precision(extraction.precision, self.device)
        self.runtime = resolve_runtime(self.hardware.runtime, self.device, precision)
        if self.hardware.deterministic:
            check_deterministic(self.device)
        self.extraction = extraction.but(layers=names, precision=precision)
        self.weights = load(
            weights or extraction.weights, extraction.net, names, pixels=extraction.pixels
        )
        self.dtype = DTYPES[precision]
        self.net = self._build()
        self._nets = {names: self.net}
        self.pixel_budget = self._default_budget()

    def __repr__(self) -> str:
        own = self.extraction
        return (
            f"DenseExtractor({own.net!r}, {', '.join(own.layers)}, pool {own.pool}, weights "
            f"{self.weights.source}, {own.precision} on {self.device_name})"
        )

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Pickle and copy the settings and the weights: the network is built of them again."""
        again = partial(type(self), self.extraction, hardware=self.hardware, weights=self.weights)
        return again, ()

    def columns(self, scales: Iterable[int], outputs: Sequence[str] = ()) -> list[Column]:
        """List the columns that are computed at some scales, by layer, pooling and Q.

        Each has all settings that change its numbers; `outputs` names the class scores.

        Examples
        --------
        >>> extractor = DenseExtractor("D", ("pool4", "pool5"), weights="embedded", pool="cells")
        >>> [(column.descriptor.path, column.width) for column in extractor.columns([256])]
        [('/D/pool4/cells/Q256', 2048), ('/D/pool5/cells/Q256', 2048)]
        """
        channels = {layer.name: layer.outputs for layer in self.net.layers}
        S = json.loads(self.weights.about.get("S", "null"))
        columns = []
        for name in self.descriptors(scales):
            pooling = resolve_pooling(name.pool)
            columns.append(
                Column(
                    name,
                    dict(**self._settings(name.layer), **pooling.settings()),
                    pooling.width(channels[name.layer.removesuffix("_pre")]),
                    tuple(outputs) if name.layer in (SCORES, "prob") else (),
                    tuple(S) if isinstance(S, list) else S,
                )
            )
        return columns

    @property
    def cache_key(self) -> str:
        """A name for a folder: the same where all that is computed may lie in one store.

        Settings of the last layer decide those of all before it.
        """
        net, last = self.extraction.net, self.net.layers[-1].name
        digest = Column(Descriptor(net, last, "", 0), self._settings(last), 0).digest
        return f"{net}-{digest[:16]}" + "-deterministic" * self.hardware.deterministic

    def descriptors(self, scales: Iterable[int]) -> list[Descriptor]:
        """List the names of :meth:`columns`, without the digests of weights."""
        scales = list(scales)
        return [Descriptor(self.extraction.net, *key, Q) for key in self._keys() for Q in scales]

    def _settings(self, layer: str) -> dict[str, JSON]:
        return dict(  # not a display, in which one of two settings of one name would be lost
            weights=self.weights.digest(layer),
            pixels=str(self.weights.pixels),
            **self.extraction.numbers,
            resampling=RESAMPLING,
            decoder=DECODER,
        )

    def describe(self, pixels: Tensor, wanted: Iterable[Key] | None = None) -> dict[Key, Tensor]:
        """Describe images of one shape: pool over locations, average with the mirror image.

        Parameters
        ----------
        pixels : Tensor (B, 3, H, W)
            RGB: uint8, or floats in [0, 1], which are rounded to 8 bits as those of arrays are.
        wanted : iterable of (layer, pooling), optional
            What alone is computed, as far as the last of the layers; by default everything.

        Returns
        -------
        dict
            For each (layer, pooling) raw descriptors (B, D), float32, on the CPU.

        Raises
        ------
        ParameterError
            For pixels of another shape or type.
        ImageTooSmall
            If a layer would have no location; see :meth:`check_scales`.
        DeviceError
            If a descriptor overflows the precision.
        """
        kept, described = self.describe_finite(pixels, wanted)
        if len(kept) < len(pixels):
            raise DeviceError(explain_overflow(self.extraction.precision))
        return described

    def describe_finite(
        self, pixels: Tensor, wanted: Iterable[Key] | None = None
    ) -> tuple[Tensor, dict[Key, Tensor]]:
        """Describe, as :meth:`describe` does, those images whose numbers do not overflow.

        Returns
        -------
        kept : Tensor (n,) of int64
            Which images they are, ascending.
        descriptors : dict
            Theirs (n, D).
        """
        keys = self._keys(wanted)
        parts = [self._describe_or_halve(part, keys) for part in self._split(pixels)]
        descriptors = {key: torch.cat([part[key] for part in parts]) for key in keys}
        kept = _finite_rows(list(descriptors.values())).nonzero()[:, 0]
        return kept, {key: values[kept] for key, values in descriptors.items()}

    def maps(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return dense maps of images (B, 3, H, W), without their mirror images; see `describe`.

        Returns
        -------
        dict
            For each layer (B, D, h, w), float32, on the CPU.

        Raises
        ------
        DeviceError
            If a number overflows the precision.
        """
        parts: dict[str, list[Tensor]] = {name: [] for name in self.extraction.layers}
        for part in self._split(pixels):
            for name, dense_map in self._maps(part, self.extraction.layers).items():
                parts[name].append(dense_map.cpu())
        maps = {name: torch.cat(several) for name, several in parts.items()}
        if not _finite_rows(list(maps.values())).all():
            raise DeviceError(explain_overflow(self.extraction.precision))
        return maps

    @torch.inference_mode(False)  # which has gradients, whatever is around it
    def as_module(self, *, maps: bool = False) -> DenseModule:
        """Return a torch module that describes images, with gradients.

        It takes images (N, 3, H, W) of floats, RGB in [0, 1]: pixel order, range and mean are
        inside. It returns what :meth:`describe` does of them, stacked, or with `maps` what
        :meth:`maps` does.

        Parameters
        ----------
        maps : bool
            Return dense maps (N, C, h, w), of several layers a dict of them, in place of
            descriptors (N, D).

        Returns
        -------
        DenseModule
            On this extractor's device, in evaluation mode, in fp32: ``torch.autocast`` and
            ``.to()`` change that as ever. Its parameters are its own, and get gradients after
            ``.requires_grad_()``. Its state dict is a file of weights that says its pixels:
            ``torch.save(module.state_dict(), "fine.pth")`` serves wherever weights are named.

        Examples
        --------
        >>> extractor = DenseExtractor("D", "pool2", weights="embedded", precision="fp32")
        >>> module = extractor.as_module()
        >>> images = torch.rand(2, 3, 40, 60, requires_grad=True)
        >>> descriptors = module(images)
        >>> descriptors.shape
        torch.Size([2, 128])
        >>> descriptors.square().sum().backward()
        >>> images.grad.shape, any(p.requires_grad for p in module.parameters())
        (torch.Size([2, 3, 40, 60]), False)
        """
        own = {name: values.clone() for name, values in self.weights.state.items()}
        module = DenseModule(
            place(self._in_rgb(own), self.device, torch.float32).requires_grad_(False),
            self.extraction,
            self.weights.pixels.in_rgb(),
            licence=self.weights.licence,
            as_maps=maps,
            budget=self.pixel_budget,
        )
        return module.to(self.device).eval()

    def image_maps(self, image: ImageLike, Q: int) -> dict[str, Tensor]:
        """Return dense maps (D, h, w) of one image whose smallest side is Q pixels; see `maps`.

        Examples
        --------
        >>> import numpy as np
        >>> extractor = DenseExtractor("D", ("pool1", "pool2"), weights="embedded")
        >>> maps = extractor.image_maps(np.zeros((30, 40)), 60)
        >>> {layer: tuple(dense_map.shape) for layer, dense_map in maps.items()}
        {'pool1': (64, 30, 40), 'pool2': (128, 15, 20)}
        """
        self.check_scales([Q])
        maps = self.maps(self.load_pixels(image, Q))
        return {layer: dense_map[0] for layer, dense_map in maps.items()}

    def load_pixels(self, image: ImageLike, Q: int) -> Tensor:
        """Decode and rescale an image as the extraction says: (1, 3, H, W) of uint8."""
        pixels = torch.from_numpy(load_image(image, [Q], self.extraction)[Q].copy())
        return pixels.permute(2, 0, 1)[None]

    def check_scales(self, scales: Sequence[int]) -> None:
        """Refuse scales at which a layer has no location.

        Raises
        ------
        ParameterError
            With the smallest and the largest Q that would do.
        """
        poolings = map(resolve_pooling, self.extraction.pools)
        smallest = max(self.net.smallest_side, *(pooling.smallest_side for pooling in poolings))
        for Q in scales:
            if isinstance(Q, bool) or not isinstance(Q, Integral) or not smallest <= Q:
                layer = self.net.layers[-1].name
                expected = f"an int of at least {smallest} for {layer} of net {self.net.net}"
                raise ParameterError.of("Q", "DenseExtractor", expected, Q)
            if (largest := isqrt(max_pixels())) < Q:
                raise ParameterError.of("Q", "DenseExtractor", f"an int of at most {largest}", Q)
        if not scales or len(set(scales)) < len(scales):
            raise ParameterError.of("Q", "DenseExtractor", "one or more different scales", scales)

    @property
    def device_name(self) -> str:
        """What computes, as a person knows it."""
        return describe_device(self.device)

    def _keys(self, wanted: Iterable[Key] | None = None) -> list[Key]:
        """Put layers and poolings into stacking order; refuse what is not computed."""
        keys = [(layer, pool) for layer in self.extraction.layers for pool in self.extraction.pools]
        if wanted is None:
            return keys
        chosen = set(wanted)
        if not chosen or not chosen <= set(keys):
            raise ParameterError.of("wanted", "describe", f"some of {keys}", sorted(chosen))
        return [key for key in keys if key in chosen]

    def _split(self, pixels: Tensor) -> Sequence[Tensor]:
        shape: tuple[int, ...] = tuple(getattr(pixels, "shape", ()))
        dtype = getattr(pixels, "dtype", type(pixels))
        of_bytes = dtype == torch.uint8
        if len(shape) != 4 or shape[1] != 3 or not (of_bytes or _is_floating(pixels)):
            raise _no_pixels(f"{shape} of {dtype}")
        pixels = pixels if of_bytes else _as_bytes(pixels)
        return torch.split(pixels, 1) if self.hardware.deterministic else [pixels]

    def _net_until(self, layers: Iterable[str]) -> VGG:
        """Return the network that ends at the last of some layers."""
        order = [layer.name for layer in self.net.layers]
        place = {name: order.index(name.removesuffix("_pre")) for name in self.extraction.layers}
        end = max(place[layer] for layer in layers)
        names = tuple(name for name in self.extraction.layers if place[name] <= end)
        if names not in self._nets:
            self._nets[names] = self.net.truncated(*names)
        return self._nets[names]

    def _build(self) -> VGG:
        """Put the network on the device in the runtime, unless that does not suit the weights."""
        net, pixels = self._in_rgb(self.weights.state), self.weights.pixels.in_rgb()
        mean, std = torch.tensor(pixels.mean), torch.tensor(pixels.std)
        self._mean, self._std = (v.to(self.device).view(1, 3, 1, 1) for v in (mean, std))
        self._range = self.weights.pixels.range
        sizes = torch.maximum(mean.abs(), (self._range - mean).abs()) / std
        if why := explain_misfit(net, self.runtime, sizes):
            if self.hardware.runtime != "auto":
                raise ParameterError(
                    f"The runtime {self.runtime} {why}. Use the runtime 'torch' or 'auto'."
                )
            self.runtime = "torch"
        return build_runtime(net, self.runtime, self.device, self.dtype)

    def _in_rgb(self, state: Mapping[str, Tensor]) -> VGG:
        """Make a network of parameters that takes RGB, so that pixels need no reordering."""
        pixels = self.weights.pixels
        state = dict(state)
        if pixels.channels == "BGR":
            state["conv1_1.weight"] = state["conv1_1.weight"].flip(1)
        return VGG(
            self.extraction.net,
            layers=self.extraction.layers,
            dense=True,
            num_classes=len(state["fc8.bias"]) if "fc8.bias" in state else 1000,
            pool_rounding=pixels.pool_rounding,
            init=None,
        ).load(state)

    def _default_budget(self) -> int:
        if self.hardware.deterministic:
            return 1  # one image at a time, one crop at a time, tiles that threads do not change
        # On the CPU one image of 384×512 keeps two cores busy; a GPU wants some twenty.
        return 150_000 * torch.get_num_threads() if self.device.type == "cpu" else 4_000_000

    def _normalise(self, pixels: Tensor) -> Tensor:
        x = pixels.to(self.device, torch.float32) * (self._range / 255)
        x = (x - self._mean) / self._std
        return x.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def _describe(self, pixels: Tensor, keys: Sequence[Key]) -> dict[Key, Tensor]:
        poolings = {key: resolve_pooling(key[1]) for key in keys}
        flip, budget = self.extraction.flip, self.pixel_budget
        described: dict[Key, Tensor] = {}
        for key, pooling in poolings.items():
            network = partial(self._map, key[0])
            own = pooling.describe(network, pixels, flip=flip, budget=budget)
            if own is not None:
                described[key] = own
        of_maps = {key: pooling for key, pooling in poolings.items() if key not in described}
        if of_maps:
            described |= self._pool_both(pixels, of_maps)
        return {key: described[key].cpu() for key in keys}

    def _map(self, layer: str, pixels: Tensor) -> Tensor:
        return self._maps(pixels, [layer])[layer]

    def _maps(self, pixels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        axis = longer_axis(pixels)
        tiles = list(self._tiles(pixels, layers))
        return {name: torch.cat([maps[name] for maps in tiles], axis) for name in layers}

    def _describe_or_halve(self, pixels: Tensor, keys: Sequence[Key]) -> dict[Key, Tensor]:
        """Describe images, half of them at a time where the memory is too small for all."""
        with suppress(torch.OutOfMemoryError):
            return self._describe(pixels, keys)
        if len(pixels) == 1:
            raise DeviceError(
                f"An image of {pixels.shape[2]}×{pixels.shape[3]} does not fit into the memory of "
                f"{self.device_name}. Use a smaller Q, or device='cpu'."
            )
        halves = [self._describe_or_halve(half, keys) for half in pixels.chunk(2)]
        return {key: torch.cat([half[key] for half in halves]) for key in keys}

    def _pool_both(self, pixels: Tensor, poolings: Mapping[Key, Pooling]) -> dict[Key, Tensor]:
        """Pool the maps of images, and average with their mirror images if these count."""
        described = self._pool(pixels, poolings)
        if not self.extraction.flip:
            return described
        mirrored = self._pool(pixels.flip(3), poolings)
        return {
            key: pooling.average_flipped(described[key], mirrored[key])
            for key, pooling in poolings.items()
        }

    def _pool(self, pixels: Tensor, poolings: Mapping[Key, Pooling]) -> dict[Key, Tensor]:
        axis = longer_axis(pixels)
        states: dict[Key, Any] = dict.fromkeys(poolings)
        for maps in self._tiles(pixels, [layer for layer, _ in poolings]):
            for key, pooling in poolings.items():
                states[key] = pooling.add(states[key], maps[key[0]], axis)
        return {key: pooling.result(states[key], axis) for key, pooling in poolings.items()}

    @torch.inference_mode()
    def _tiles(self, pixels: Tensor, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Run the network, over one tile after another where an image exceeds the budget."""
        net = self._net_until(layers)
        with arithmetic(self.device, self.dtype, self.hardware.deterministic):
            limit = max(self.pixel_budget, TILE_PIXELS)
            for tile in iter_tiles(pixels, net.layers, net.smallest_side, limit):
                computed = net.maps(self._normalise(tile.pixels))
                maps = {name: computed[name].float() for name in dict.fromkeys(layers)}
                maps = {name: tile.crop_map(name, m, net.layers) for name, m in maps.items()}
                if self.extraction.locations == "l2":
                    maps = {name: F.normalize(m, dim=1) for name, m in maps.items()}
                yield maps


def _as_bytes(pixels: Tensor) -> Tensor:
    """Round floats in [0, 1] to 8 bits."""
    pixels = pixels.detach().float()
    if pixels.numel() and not 0 <= pixels.min() <= pixels.max() <= 1:
        raise _no_pixels(f"floats in [{pixels.min():g}, {pixels.max():g}]")
    return (pixels * 255).round().to(torch.uint8)


def _is_floating(pixels: object) -> bool:
    return isinstance(pixels, Tensor) and pixels.is_floating_point()


def _no_pixels(got: str) -> ParameterError:
    expected = (
        "a torch.Tensor (B, 3, H, W), RGB, of uint8 or of floats in [0, 1], from which no mean was "
        "subtracted: that belongs to the weights"
    )
    return ParameterError.of("pixels", "DenseExtractor", expected, got)


def explain_overflow(precision: str) -> str:
    """Say that numbers overflow, and what would be right."""
    if precision == "fp16":
        return "Its numbers overflow in fp16, which ends at 65504. Use the precision bf16 or fp32."
    return (
        f"Its numbers overflow in {precision}: the weights are those of a training that diverged, "
        "or of another range of pixels. Take others."
    )


def _finite_rows(tensors: Sequence[Tensor]) -> Tensor:
    """Tell which rows (B,) are finite in all of some tensors (B, …)."""
    return torch.stack([tensor.flatten(1).isfinite().all(1) for tensor in tensors]).all(0)
