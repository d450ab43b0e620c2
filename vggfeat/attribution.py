"""Which parts of an image a class score comes from: gradient times activation, by autograd.

A score is differentiated through the pooling and the aggregation that make descriptors. Norms and
signed powers only rescale, and count as constants there: so the parts of all locations add up to
the score less its bias. Where pooling and aggregation are linear, they are the very terms of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggfeat.data.image import ImageLike, decode, rescaled_size
from vggfeat.errors import DataError, ParameterError
from vggfeat.features.aggregate import Aggregation, combine
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pooling import resolve_pooling
from vggfeat.nets.config import Layer, stride_of, window_of
from vggfeat.store.column import Descriptor
from vggfeat.svm.model import SavedModel, refuse_boxes
from vggfeat.svm.rows import Floats

CELL = 8  # pixels of the image at the largest Q to a step of the grid: pool5's stride is 32
GRADIENTS = 1_000_000  # numbers of the gradients that are held at a time, where classes are many


class Share(NamedTuple):
    """What one descriptor gives to the scores.

    Parameters
    ----------
    descriptor : Descriptor
        Net, layer, pooling and scale.
    norm : float
        The L2 norm by which the descriptor was divided; 1 if it was not.
    totals : array, shape (V, C)
        What it gives to each score: from the image, and from its mirror image if it counts.
    """

    descriptor: Descriptor
    norm: float
    totals: Floats


@dataclass(frozen=True)
class Explanation:
    """Class scores of an image as sums over its locations.

    Parameters
    ----------
    classes : tuple of str
        The C classes.
    scores : array, shape (C,)
        As :func:`~vggfeat.experiments.predict.predict` gives them.
    bias : array, shape (C,)
        The part of each score that comes from no location.
    evidence : array, shape (C, H, W)
        What each step of an even grid over the upright image gives: H × W is the image's size
        at the largest Q, divided by 8. The sum over the grid plus the bias is the score.
    shares : tuple of Share
        The same by net, layer, pooling, scale and mirror image.
    row_norm : float
        The L2 norm by which the whole row was divided; 1 if it was not. This and the norms of
        the shares scale the map; they depend on the whole image, not on any location.
    why : str
        Why the map is not exact; empty if it is.
    size : tuple of int
        Width and height of the upright image, in pixels.
    """

    classes: tuple[str, ...]
    scores: Floats
    bias: Floats
    evidence: Floats
    shares: tuple[Share, ...]
    row_norm: float
    why: str
    size: tuple[int, int]

    @property
    def exact(self) -> bool:
        """Whether score and locations are linearly related, so that no convention is needed."""
        return not self.why

    @property
    def sums(self) -> Floats:
        """Sum of all locations, shape (C,)."""
        total: Floats = self.evidence.sum(axis=(1, 2))
        return total

    @property
    def adds_up(self) -> bool:
        """Whether sums and bias are the scores, as most poolings have it that are not linear."""
        return np.allclose(self.sums, self.scores - self.bias, rtol=1e-3, atol=1e-6)

    @property
    def strongest(self) -> Floats:
        """Where each class has most evidence for it: x and y in pixels, shape (C, 2).

        From the left and upper edges of the upright image on, so that its centre is half its
        size. Of a cell of a coarse map, which is larger than a step, it is the middle.
        """
        return np.array([_middle_of_highest(one) for one in self.evidence]) * self.size

    def to_dict(self) -> dict[str, Any]:
        """Return all but the maps as plain JSON types."""
        return {
            "classes": {
                name: {
                    "score": float(self.scores[c]),
                    "bias": float(self.bias[c]),
                    "sum": float(self.sums[c]),
                    "strongest": [round(float(value), 1) for value in self.strongest[c]],
                }
                for c, name in enumerate(self.classes)
            },
            "exact": self.exact,
            "why": self.why,
            "row_norm": self.row_norm,
            "shares": [
                {**one.descriptor._asdict(), "norm": one.norm, "totals": one.totals.tolist()}
                for one in self.shares
            ],
        }


@torch.inference_mode(False)  # which has gradients, whatever is around it
def explain(
    model: SavedModel,
    image: ImageLike,
    extractors: Sequence[DenseExtractor],
    classes: Sequence[str] | None = None,
    *,
    best: int | None = None,
) -> Explanation:
    """Share the class scores of an image out over its locations.

    Parameters
    ----------
    model : SavedModel
        A linear SVM on whole images.
    image : path, PIL image or array
        See :func:`~vggfeat.data.image.decode`.
    extractors : sequence of DenseExtractor
        As from :func:`~vggfeat.experiments.predict.model_extractors`.
    classes : sequence of str, optional
        Classes to explain; all by default.
    best : int, optional
        Explain so many of them alone, those of highest score, the highest first.

    Returns
    -------
    Explanation

    Raises
    ------
    ImageError
        If the image cannot be read.
    ParameterError
        For a class that the model does not know.
    DataError
        If the model looks at given boxes or at crops, or its extractors are others than it was
        trained with.

    Notes
    -----
    What a location gives is spread evenly over its pixels (see :func:`footprint`); mirror images
    are turned back. The maps of all scales are held at a time.

    Examples
    --------
    >>> extractor = DenseExtractor("D", "pool2", weights="embedded", precision="fp32")
    >>> columns = tuple(extractor.columns([32]))
    >>> coef, bias = np.linspace(-1, 1, 256).reshape(2, 128), np.array([0.5, -0.5])
    >>> how, sources = Aggregation().to_dict(), ("embedded",)
    >>> model = SavedModel(coef, bias, ("cat", "dog"), (1.0,), columns, sources, how)
    >>> found = explain(model, np.eye(40), [extractor])
    >>> found.exact, found.evidence.shape, np.allclose(found.sums + found.bias, found.scores)
    (True, (2, 4, 4), True)
    """
    refuse_boxes(model)
    _check_descriptors(model, extractors)
    aggregation = Aggregation(**model.aggregation)
    rows = rows_of(classes, model.classes)
    decoded = [decode(image, extractor.extraction) for extractor in extractors]
    shape = grid_shape(decoded[0].size, max(model.scales))
    pooled: dict[Descriptor, _Pooled] = {}
    for extractor, upright in zip(extractors, decoded, strict=True):
        pooled |= _pool(extractor, upright, model.scales, shape)
    values = {column.descriptor: pooled[column.descriptor].values for column in model.columns}
    row = combine([values], aggregation.how, aggregation.normalize, aggregation.power)
    scores = model.scores(row.detach().numpy())[0]
    if best is not None:
        rows = sorted(rows, key=lambda c: -scores[c])[:best]
    margins = torch.from_numpy(model.coef[rows]).double() @ row[0]
    drawn = {
        descriptor: pooled[descriptor].spread(given)
        for descriptor, given in _share_out(margins, pooled).items()
    }
    norms, row_norm = _norms(values, aggregation)
    return Explanation(
        classes=tuple(model.classes[c] for c in rows),
        scores=scores[rows],
        bias=model.intercept[rows],
        evidence=torch.cat(list(drawn.values())).sum(0).numpy(),
        shares=tuple(
            Share(descriptor, norms[descriptor], parts.sum((2, 3)).numpy())
            for descriptor, parts in drawn.items()
        ),
        row_norm=row_norm,
        why=not_linear(model),
        size=decoded[0].size,
    )


def not_linear(model: SavedModel) -> str:
    """Say why the maps of a model are not exact; nothing if they are.

    Examples
    --------
    >>> how = {"how": "stack", "power": 0.5}
    >>> model = SavedModel(np.eye(2), np.zeros(2), ("cat", "dog"), (1.0,), (), (), how)
    >>> not_linear(model)
    'power 0.5 is not linear: the shares are a convention'
    """
    power = model.aggregation["power"]
    pools = dict.fromkeys(column.descriptor.pool for column in model.columns)
    reasons = [why for pool in pools if (why := resolve_pooling(pool).inexact)]
    if model.aggregation["how"] == "max":
        reasons.append(
            "a maximum across scales is not linear: it is given to the scale that has it"
        )
    if power not in (None, 1):
        reasons.append(f"power {power:g} is not linear: the shares are a convention")
    return "; ".join(reasons)


def rows_of(classes: Sequence[str] | None, known: Sequence[str]) -> list[int]:
    """Find classes by name; all without names.

    Raises
    ------
    ParameterError
        For one that is not known.
    """
    names = list(known)
    if unknown := [name for name in classes or () if name not in names]:
        raise ParameterError.not_one_of("class", "the model", names, unknown[0])
    return [names.index(name) for name in (names if classes is None else classes)]


def grid_shape(size: tuple[int, int], Q: int) -> tuple[int, int]:
    """Rows and columns of the grid over an image of this width and height.

    Examples
    --------
    >>> grid_shape((500, 375), 256)
    (32, 43)
    """
    width, height = rescaled_size(*size, Q)
    return -(-height // CELL), -(-width // CELL)


def footprint(name: str, layers: Sequence[Layer], count: int, side: int, n: int) -> Floats:
    """Spread the locations along one axis of a layer's map over a grid along a side of the image.

    Parameters
    ----------
    name : str
        The layer. Location i stands for the stride's pixels from i·stride on; one of a full
        connection for the window of 7 such cells of pool5 that fc6 looks at (Section 3.2).
    layers : sequence of Layer
        Of the network.
    count : int
        Locations.
    side : int
        Pixels of the image; what lies outside of it does not count.
    n : int
        Equal steps of the grid.

    Returns
    -------
    array, shape (n, count)
        Shares by area; each column's sum is 1, so that nothing is lost or added.

    Examples
    --------
    >>> from vggfeat.nets.config import layers_of
    >>> footprint("pool2", layers_of("D"), 2, 6, 3)
    array([[0.5, 0. ],
           [0.5, 0. ],
           [0. , 1. ]])
    """
    starts = np.arange(count) * stride_of(name, layers)
    ends = np.minimum(starts + window_of(name, layers), side)
    edges = np.linspace(0, side, n + 1)[:, None]
    common = np.minimum(ends, edges[1:]) - np.maximum(starts, edges[:-1])
    shares = np.clip(common, 0, None)
    whole: Floats = shares / shares.sum(axis=0)
    return whole


class _Pooled(NamedTuple):
    """A descriptor (1, D), the maps (V, K, h, w) it is pooled from, and where their cells lie."""

    values: Tensor
    activations: Tensor  # of the image, and of its mirror image if it counts
    down: Tensor  # (H, h)
    across: Tensor  # (W, w)

    def spread(self, given: Tensor) -> Tensor:
        """Spread what locations give, (V, C, h, w), over the upright image: (V, C, H, W)."""
        upright, *mirrored = self.down @ given @ self.across.T
        return torch.stack([upright, *(one.flip(2) for one in mirrored)])


def _pool(
    extractor: DenseExtractor, image: Image.Image, scales: Sequence[int], shape: tuple[int, int]
) -> Iterator[tuple[Descriptor, _Pooled]]:
    """Describe an image as `DenseExtractor.describe` does, in double precision and with a graph."""
    extractor.check_scales(scales)
    layers = extractor.net.layers
    for Q in scales:
        pixels = extractor.load_pixels(image, Q)
        height, width = pixels.shape[2:]
        both = [pixels, pixels.flip(3)] if extractor.extraction.flip else [pixels]
        maps = [extractor.maps(one) for one in both]
        for descriptor in extractor.descriptors([Q]):
            activations = torch.cat([one[descriptor.layer] for one in maps]).double()
            activations.requires_grad_()
            pooling = resolve_pooling(descriptor.pool)
            values = pooling.pool(activations)
            if len(values) > 1:
                values = pooling.average_flipped(values[:1], values[1:])
            h, w = activations.shape[2:]
            down = footprint(descriptor.layer, layers, h, height, shape[0])
            across = footprint(descriptor.layer, layers, w, width, shape[1])
            places = torch.from_numpy(down), torch.from_numpy(across)
            yield descriptor, _Pooled(values, activations, *places)


def _share_out(margins: Tensor, pooled: Mapping[Descriptor, _Pooled]) -> dict[Descriptor, Tensor]:
    """Take gradient times activation of each margin (C,), by descriptor: (V, C, h, w)."""
    maps = [one.activations for one in pooled.values()]
    given: list[list[Tensor]] = [[] for _ in maps]
    at_once = max(1, GRADIENTS // sum(activations.numel() for activations in maps))
    of_each = torch.eye(len(margins), dtype=margins.dtype)
    for first in range(0, len(margins), at_once):
        some = of_each[first : first + at_once]
        gradients = torch.autograd.grad(
            margins, maps, some, retain_graph=True, is_grads_batched=True
        )
        for parts, gradient, activations in zip(given, gradients, maps, strict=True):
            parts.append((gradient * activations.detach()).sum(2))
    together = (torch.cat(parts).transpose(0, 1) for parts in given)
    return dict(zip(pooled, together, strict=True))


def _norms(
    values: Mapping[Descriptor, Tensor], aggregation: Aggregation
) -> tuple[dict[Descriptor, float], float]:
    """Return what `combine` divides each descriptor by, and the row that they become."""
    if aggregation.normalize == "none":
        return dict.fromkeys(values, 1.0), 1.0
    power = aggregation.power
    raised = {
        name: combine([{name: one.detach()}], normalize="none", power=power)
        for name, one in values.items()
    }
    norms = {name: float(one.norm()) or 1.0 for name, one in raised.items()}
    prepared = {name: one / norms[name] for name, one in raised.items()}
    row = combine([prepared], aggregation.how, normalize="none")
    return norms, float(row.norm()) or 1.0


def _check_descriptors(model: SavedModel, extractors: Sequence[DenseExtractor]) -> None:
    ours = [column.descriptor for column in model.columns]
    for pool in dict.fromkeys(name.pool for name in ours):
        if resolve_pooling(pool).crop_pixels:
            raise DataError(
                f"This model's descriptors are pooled by {pool!r}, from crops of an image and not "
                "from its map. Train one with --pool average or max."
            )
    given = [name for extractor in extractors for name in extractor.descriptors(model.scales)]
    if set(given) != set(ours):
        raise DataError(
            f"This model scores {', '.join(name.path for name in ours)}; the nets given make "
            f"{', '.join(name.path for name in given)}. Open those it was trained with: "
            "model_extractors(model)."
        )


def _middle_of_highest(evidence: Floats) -> Floats:
    """Place the highest step as shares (x, y) of the image; of equals, the one in the middle."""
    slack = 1e-9 * float(np.abs(evidence).max())
    highest = np.argwhere(evidence >= evidence.max() - slack)
    away = ((highest - highest.mean(axis=0)) ** 2).sum(axis=1)
    row, column = highest[away.argmin()] + 0.5
    return np.array([column / evidence.shape[1], row / evidence.shape[0]])
