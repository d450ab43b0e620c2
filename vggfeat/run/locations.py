"""What each location of a dense map gives to a descriptor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from vggfeat.errors import DeviceError
from vggfeat.features.aggregate import Aggregation
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pooling import resolve_pooling
from vggfeat.learn.solvers import Floats
from vggfeat.run.spans import Spans, spans_of, spread
from vggfeat.store.column import Descriptor


@dataclass(frozen=True)
class Located:
    """A descriptor of an image, and what each location gives to it.

    Parameters
    ----------
    descriptor : Descriptor
        Net, layer, pooling and scale.
    raw : array, shape (K,)
        The descriptor as a store holds it.
    norm : float
        Its L2 norm after the power; 1 where nothing is normalised.
    given : list of array, shape (K, h, w)
        What each location gives to the descriptor after the power: of the image, and of its
        mirror image if it counts.
    rows : Spans
        Where the h rows lie, the same in both.
    columns : list of Spans
        Where the w columns of each lie in the image.
    size : tuple of int
        Width and height of the image at this scale.
    """

    descriptor: Descriptor
    raw: Floats
    norm: float
    given: list[Floats]
    rows: Spans
    columns: list[Spans]
    size: tuple[int, int]

    @property
    def prepared(self) -> Floats:
        """The descriptor as it goes into the row, shape (K,)."""
        total: Floats = _sum(self.given)[:, 0, 0] / self.norm
        return total

    def drawn(self, weights: Floats, shape: tuple[int, int]) -> Floats:
        """Weigh the channels and spread the locations over a grid.

        Parameters
        ----------
        weights : array, shape (C, K)
            What counts each channel of the prepared descriptor for.
        shape : tuple of int
            Rows and columns of the grid, H and W.

        Returns
        -------
        array, shape (V, C, H, W)
            From the image, and from its mirror image; the sum over V, H and W is the weights
            times the prepared descriptor.
        """
        width, height = self.size
        down = spread(self.rows, height, shape[0])
        drawn = []
        for given, columns in zip(self.given, self.columns, strict=True):
            across = spread(columns, width, shape[1])
            drawn.append(down @ np.tensordot(weights / self.norm, given, 1) @ across.T)
        return np.stack(drawn)


def located(
    extractor: DenseExtractor, image: Image.Image, scales: Sequence[int], how: Aggregation
) -> Iterator[Located]:
    """Describe an image as :meth:`DenseExtractor.describe` does, and keep the locations.

    Parameters
    ----------
    extractor : DenseExtractor
        The network.
    image : PIL.Image.Image
        Upright, in mode RGB.
    scales : sequence of int
        Smallest sides Q; the maps of one are held at a time.
    how : Aggregation
        Its power and normalisation are applied.

    Yields
    ------
    Located
        One for each scale, layer and pooling.

    Raises
    ------
    DeviceError
        If a descriptor overflows the precision.
    """
    for Q in scales:
        pixels = extractor.load_pixels(image, Q)
        both = [pixels, pixels.flip(3)] if extractor.extraction.flip else [pixels]
        found = [extractor.maps(one) for one in both]
        for descriptor in extractor.descriptors([Q]):
            maps = [one[descriptor.layer][0].numpy().astype(np.float64) for one in found]
            yield _locate(descriptor, maps, extractor, how, (pixels.shape[3], pixels.shape[2]))


def _locate(
    descriptor: Descriptor,
    maps: list[Floats],
    extractor: DenseExtractor,
    how: Aggregation,
    size: tuple[int, int],
) -> Located:
    shared = gifts(maps, descriptor.pool)
    raw = _sum(shared)[:, 0, 0]
    if not np.isfinite(raw).all():
        raise DeviceError(
            f"Descriptors overflow in {extractor.extraction.precision}. Train the model with "
            "--precision bf16 or fp32."
        )
    given = raised(shared, how.power)
    norm = 1.0 if how.normalize == "none" else float(np.linalg.norm(_sum(given))) or 1.0
    height, width = maps[0].shape[1:]
    columns = spans_of(descriptor.layer, extractor.net.layers, width)
    both = [columns, columns.mirrored(size[0])][: len(maps)]
    rows = spans_of(descriptor.layer, extractor.net.layers, height)
    return Located(descriptor, raw, norm, given, rows, both, size)


def gifts(maps: Sequence[Floats], pool: str) -> list[Floats]:
    """Split a descriptor into what each location gives to it.

    Parameters
    ----------
    maps : sequence of array, shape (K, h, w)
        A dense map, and that of the mirror image where descriptors are averaged with it.
    pool : str
        How a map becomes a descriptor, each of whose numbers is of one channel. A location gives
        its activation times the gradient there: of a maximum everything is given by the location
        that holds it, the first of equals.

    Returns
    -------
    list of array, shape (P K, h, w), P being the parts of the pooling
        Their sum over locations and maps is the descriptor.

    Examples
    --------
    >>> dense_map = np.array([[[1.0, 3.0]]])
    >>> gifts([dense_map], "average")[0].tolist(), gifts([dense_map], "max")[0].tolist()
    ([[[0.5, 1.5]]], [[[0.0, 3.0]]])
    """
    pooling = resolve_pooling(pool)
    given = []
    for dense_map, is_mirrored in zip(maps, (False, True), strict=False):
        activations = torch.tensor(dense_map[None].copy(), requires_grad=True)
        descriptor = pooling.pool(activations) / len(maps)
        if is_mirrored:
            descriptor = pooling.unflip(descriptor)
        gradients = [
            torch.autograd.grad(part.sum(), activations, retain_graph=True)[0]
            for part in descriptor.chunk(len(pooling.parts), dim=1)
        ]
        given.append((torch.cat(gradients) * activations).flatten(0, 1).detach().numpy())
    return given


def raised(given: Sequence[Floats], power: float | None) -> list[Floats]:
    """Split the signed power of a descriptor among locations.

    Parameters
    ----------
    given : sequence of array, shape (K, h, w)
        As from :func:`gifts`.
    power : float or None
        With None or 1 nothing changes. Otherwise there is no split that follows from the formula;
        by convention the locations whose gift has the sign of the whole share it in proportion.

    Returns
    -------
    list of array, shape (K, h, w)
        Their sum is sign(d)·|d|^power of the descriptor d.

    Examples
    --------
    >>> raised([np.array([[[3.0, 1.0, 0.0]]])], 0.5)[0].tolist()
    [[[1.5, 0.5, 0.0]]]
    """
    if power is None or power == 1:
        return list(given)
    whole = _sum(given)
    kept = [np.where(np.sign(one) == np.sign(whole), one, 0) for one in given]
    total = _sum(kept)
    wanted = np.sign(whole) * np.abs(whole) ** power
    factor = np.divide(wanted, total, out=np.zeros_like(total), where=total != 0)
    return [one * factor for one in kept]


def _sum(given: Sequence[Floats]) -> Floats:
    total: Floats = np.sum([one.sum(axis=(1, 2), keepdims=True) for one in given], axis=0)
    return total
