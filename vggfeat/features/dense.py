"""The heart: a batch of pictures goes densely through a network and becomes descriptors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt
from numbers import Integral
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.data.bounds import max_pixels
from vggfeat.data.images import DECODER, RESAMPLING, Picture
from vggfeat.data.images import load as load_picture
from vggfeat.errors import DeviceError, ParameterError
from vggfeat.features.arithmetic import (
    arithmetic,
    check_deterministic,
    finite_rows,
    overflow,
    poisoned,
    trusted,
)
from vggfeat.features.crops import SIDE, crop_posteriors
from vggfeat.features.device import DTYPES, describe_device, resolve_device, resolve_precision
from vggfeat.features.extraction import SCORES, Extraction, Part, crops_in
from vggfeat.features.pieces import in_pieces, longer_axis
from vggfeat.features.pooling import POOLINGS, Pool, upright
from vggfeat.features.runtime import placed, resolve_runtime
from vggfeat.nets.table1 import resolve_layer
from vggfeat.nets.vgg import VGG
from vggfeat.nets.weights import Weights, load

if TYPE_CHECKING:
    from vggfeat.features.cluster import Cluster

# A picture of more pixels is described in pieces, and its memory stays that of one piece.
PIECE_PIXELS = 2_000_000


class DenseExtractor:
    """A truncated network with its weights on a device, ready to describe pictures.

    Parameters
    ----------
    net : str
        Configuration of Table 1.
    layers : str or sequence of str
        Layers whose maps are pooled; ``"fc7"`` is the paper's (Appendix B).
    weights : str or Weights
        A source (``"auto"``, ``"authors"``, ``"torchvision"``, ``"embedded"``), a file, or
        loaded weights.
    flip : bool
        Whether descriptors are averaged with those of the mirror image.
    pool : str
        How a map becomes a descriptor; see :class:`~vggfeat.features.extraction.Extraction`.
    locations : {"raw", "l2"}
        Whether every location's descriptor is L2-normalised before pooling.
    exif : bool
        Whether a recorded orientation is applied on decoding.
    device, precision : str
        See :func:`~vggfeat.features.device.resolve_device` and
        :func:`~vggfeat.features.device.resolve_precision`.
    runtime : str
        What computes; see :func:`~vggfeat.features.runtime.resolve_runtime`.
    deterministic : bool
        Whether a picture's descriptor has the same bits on the same machine, whatever was
        described with it: each goes through the network on its own. See ``docs/numbers.md``.

    Attributes
    ----------
    cluster : Cluster or None
        What describes whole sets of pictures in its stead, where it was opened for a cluster.

    Examples
    --------
    >>> extractor = DenseExtractor("D", "pool1", weights="embedded", precision="fp32")
    >>> pixels = torch.zeros(2, 3, 32, 48, dtype=torch.uint8)
    >>> {key: d.shape for key, d in extractor.describe(pixels).items()}
    {('pool1', 'average'): torch.Size([2, 64])}
    """

    cluster: Cluster | None = None

    def __init__(
        self,
        net: str = "D",
        layers: str | Sequence[str] = "fc7",
        *,
        weights: str | Weights = "auto",
        flip: bool = True,
        pool: str = "average",
        locations: str = "raw",
        exif: bool = True,
        device: str = "auto",
        precision: str = "auto",
        runtime: str = "auto",
        deterministic: bool = False,
    ) -> None:
        asked = [layers] if isinstance(layers, str) else list(layers)
        names = tuple(dict.fromkeys(resolve_layer(net, name) for name in asked))
        self.device = resolve_device(device)
        precision = resolve_precision(precision, self.device)
        self.runtime = resolve_runtime(runtime, self.device, precision)
        if deterministic:
            check_deterministic(self.device)
        # No part of the extraction and its fingerprint: the descriptors mean the same, and agree
        # with others as those of two batches do. What a store holds says how it was computed, and
        # a deterministic run refuses to go on where another kind began.
        self.deterministic = deterministic
        self.weights = load(weights, net, names)
        self.extraction = Extraction(
            net=net,
            weights_sha256=self.weights.sha256,
            layers=names,
            flip=flip,
            pool=pool,
            locations=locations,
            exif=exif,
            precision=precision,
            resampling=RESAMPLING,
            decoder=DECODER,
            pixels=str(self.weights.pixels),
        )
        self.dtype = DTYPES[self.extraction.precision]
        self.net = self._build()
        self.pixel_budget = self._default_budget()

    def describe(self, pixels: Tensor) -> dict[tuple[str, str], Tensor]:
        """Describe pictures of one shape: pool over locations, average with the mirror image.

        Parameters
        ----------
        pixels : Tensor (B, 3, H, W) of uint8
            RGB.

        Returns
        -------
        dict
            For each (layer, pooling) raw descriptors (B, D), float32, on the CPU.

        Raises
        ------
        PictureTooSmall
            If a layer would have no location; see :meth:`check_scales`.
        DeviceError
            If a descriptor overflows the precision.
        """
        kept, described = self.describe_finite(pixels)
        if len(kept) < len(pixels):
            raise DeviceError(overflow(self.extraction.precision))
        return described

    def describe_finite(self, pixels: Tensor) -> tuple[Tensor, dict[tuple[str, str], Tensor]]:
        """Describe those of some pictures whose numbers do not overflow.

        Parameters
        ----------
        pixels : Tensor (B, 3, H, W) of uint8
            RGB.

        Returns
        -------
        kept : Tensor (n,) of int64
            Which pictures they are, ascending.
        descriptors : dict
            Theirs (n, D), as from :meth:`describe`.

        Examples
        --------
        >>> extractor = DenseExtractor("D", "pool1", weights="embedded", precision="fp32")
        >>> kept, found = extractor.describe_finite(torch.zeros(2, 3, 32, 48, dtype=torch.uint8))
        >>> kept.tolist(), found["pool1", "average"].shape
        ([0, 1], torch.Size([2, 64]))
        """
        alone = torch.split(pixels, 1) if self.deterministic else [pixels]
        several = [self._fitting(some) for some in alone]
        found = {key: torch.cat([one[key] for one in several]) for key in several[0]}
        kept = finite_rows(list(found.values())).nonzero()[:, 0]
        return kept, {key: d[kept] for key, d in found.items()}

    def maps(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the dense maps of pictures of one shape, without their mirror images.

        Parameters
        ----------
        pixels : Tensor (B, 3, H, W) of uint8
            RGB.

        Returns
        -------
        dict
            For each layer (B, D, h, w), float32, on the CPU.

        Raises
        ------
        DeviceError
            If a number overflows the precision.
        """
        alone = torch.split(pixels, 1) if self.deterministic else [pixels]
        several = [self._maps(some) for some in alone]
        found = {name: torch.cat([one[name] for one in several]) for name in several[0]}
        if not finite_rows(list(found.values())).all():
            raise DeviceError(overflow(self.extraction.precision))
        return found

    def picture_maps(self, picture: Picture, Q: int) -> dict[str, Tensor]:
        """Return the dense maps of one picture at one scale.

        Parameters
        ----------
        picture : path, PIL image or array
            See :func:`~vggfeat.data.images.decode`.
        Q : int
            Smallest side, in pixels.

        Returns
        -------
        dict
            For each layer (D, h, w), float32, on the CPU.

        Raises
        ------
        PictureError
            If the picture cannot be read.

        Examples
        --------
        >>> import numpy as np
        >>> extractor = DenseExtractor("D", ("pool1", "pool2"), weights="embedded")
        >>> found = extractor.picture_maps(np.zeros((30, 40)), 60)
        >>> {layer: tuple(m.shape) for layer, m in found.items()}
        {'pool1': (64, 30, 40), 'pool2': (128, 15, 20)}
        """
        self.check_scales([Q])
        pixels = torch.from_numpy(load_picture(picture, [Q], exif=self.extraction.exif)[Q].copy())
        maps = self.maps(pixels.permute(2, 0, 1)[None])
        return {layer: dense_map[0] for layer, dense_map in maps.items()}

    def check_scales(self, scales: Sequence[int]) -> None:
        """Refuse scales at which a layer has no location.

        Raises
        ------
        ParameterError
            With the smallest Q that would do; and with the largest, at which a square picture has
            as many pixels as are allowed.
        """
        crops = any(map(crops_in, self.extraction.pools))
        smallest = max(self.net.smallest_side, SIDE if crops else 1)
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
        return self.cluster.name if self.cluster else describe_device(self.device)

    @property
    def store_key(self) -> str:
        """What names a folder below the cache in which nothing else meets these descriptors."""
        return self.extraction.fingerprint[:16] + ("-deterministic" if self.deterministic else "")

    def part(self, key: tuple[str, str], Q: int) -> Part:
        """Name the array of a store to which descriptors of this key and scale belong."""
        return Part(self.extraction.net, *key, Q)

    def _build(self) -> VGG:
        pixels = self.weights.pixels
        state = dict(self.weights.state)
        first = state["conv1_1.weight"]
        if pixels.channels == "BGR":
            # The network takes RGB from here on, so that pixels need no reordering.
            state["conv1_1.weight"] = first.flip(1)
        net = VGG(
            self.extraction.net,
            layers=self.extraction.layers,
            dense=True,
            num_classes=len(state["fc8.bias"]) if "fc8.bias" in state else 1000,
            pool_rounding=pixels.pool_rounding,
            init=None,
        ).load(state)
        order = slice(None, None, -1 if pixels.channels == "BGR" else 1)
        mean, std = torch.tensor(pixels.mean[order]), torch.tensor(pixels.std[order])
        self.runtime = trusted(self.runtime, net, mean, std, pixels.range)
        self._mean, self._std = (one.to(self.device).view(1, 3, 1, 1) for one in (mean, std))
        self._range = pixels.range
        return placed(net, self.runtime, self.device, self.dtype)

    def _default_budget(self) -> int:
        if self.deterministic:
            return 1  # one picture at a time, one crop at a time, pieces that threads do not change
        # On the CPU one picture of 384×512 keeps two cores busy; a GPU wants some twenty.
        return 150_000 * torch.get_num_threads() if self.device.type == "cpu" else 4_000_000

    def _normalise(self, pixels: Tensor) -> Tensor:
        x = pixels.to(self.device, torch.float32) * (self._range / 255)
        x = (x - self._mean) / self._std
        return x.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def _describe(self, pixels: Tensor) -> dict[tuple[str, str], Tensor]:
        described = self._pooled(pixels)
        if self.extraction.flip:
            mirrored = self._pooled(pixels.flip(3))
            described = {
                key: (d + upright(mirrored[key], key[1])) / 2 for key, d in described.items()
            }
        for how in self.extraction.pools:
            if grid := crops_in(how):
                described[SCORES, how] = crop_posteriors(
                    self._crop_scores,
                    pixels,
                    grid,
                    flip=self.extraction.flip,
                    budget=self.pixel_budget,
                )
        return {key: d.cpu() for key, d in described.items()}

    def _crop_scores(self, crops: Tensor) -> Tensor:
        """Class scores (b, C) of crops, whose dense maps have one location."""
        [maps] = self._pieces(crops)
        return maps[SCORES][:, :, 0, 0]

    def _maps(self, pixels: Tensor) -> dict[str, Tensor]:
        axis = longer_axis(pixels)
        pieces = list(self._pieces(pixels))
        return {name: torch.cat([one[name] for one in pieces], axis).cpu() for name in pieces[0]}

    def _fitting(self, pixels: Tensor) -> dict[tuple[str, str], Tensor]:
        """Describe pictures, half of them at a time where the memory is too small for all."""
        try:
            return self._describe(pixels)
        except torch.OutOfMemoryError:
            pass
        return self._describe_halves(pixels)  # outside of the handler, whose error holds memory

    def _describe_halves(self, pixels: Tensor) -> dict[tuple[str, str], Tensor]:
        if len(pixels) == 1:
            raise DeviceError(
                f"A picture of {pixels.shape[2]}×{pixels.shape[3]} does not fit into the memory of "
                f"{describe_device(self.device)}. Use a smaller Q, or --device cpu."
            )
        halves = [self._fitting(half) for half in pixels.chunk(2)]
        return {key: torch.cat([half[key] for half in halves]) for key in halves[0]}

    def _pooled(self, pixels: Tensor) -> dict[tuple[str, str], Tensor]:
        hows = [how for how in self.extraction.pools if how in POOLINGS]
        if not hows:
            return {}
        pools: dict[tuple[str, str], Pool] = {}
        axis = longer_axis(pixels)
        for maps in self._pieces(pixels):
            for layer, dense_map in maps.items():
                for how in hows:
                    pools.setdefault((layer, how), POOLINGS[how](axis)).add(dense_map)
        return {key: pool.result() for key, pool in pools.items()}

    @torch.inference_mode()
    def _pieces(self, pixels: Tensor) -> Iterator[dict[str, Tensor]]:
        """Run the network, over one piece after another where a picture exceeds the budget."""
        with arithmetic(self.device, self.dtype, self.deterministic):
            limit = max(self.pixel_budget, PIECE_PIXELS)
            for piece, kept in in_pieces(pixels, self.net.layers, self.net.smallest_side, limit):
                x = self._normalise(piece)
                maps = {name: poisoned(m.float()) for name, m in self.net.maps(x).items()}
                if kept is not None:
                    maps = {name: kept.of(name, m, self.net.layers) for name, m in maps.items()}
                if self.extraction.locations == "l2":
                    maps = {name: F.normalize(m, dim=1) for name, m in maps.items()}
                yield maps
