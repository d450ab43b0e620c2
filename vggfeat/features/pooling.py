"""Poolings: how a dense map becomes a descriptor. Nothing else knows any of them by name."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from vggfeat.errors import ParameterError
from vggfeat.nets.config import INPUT_SIDE

if TYPE_CHECKING:
    from torch import Tensor

    Network = Callable[[Tensor], Tensor]

SCORES = "fc8"  # the layer whose map is of class scores
MOST_CROPS = 99  # along a side

_KINDS: dict[str, type[Pooling]] = {}  # by regular expressions of their names
_EXAMPLES: dict[str, type[Pooling]] = {}  # by a name each
Kind = TypeVar("Kind", bound="type[Pooling]")


class Pooling(ABC):
    """Pools dense maps into descriptors.

    A pooling is a subclass with a name, given by :func:`register`; its parameters are in the name.
    Of an image that goes through the network in tiles the maps are put together, and pooled whole.
    Where that takes too much memory, a pooling overrides :meth:`add` and :meth:`result`.
    """

    about: ClassVar[str] = ""  # a few words for --help
    posteriors: ClassVar[bool] = False  # of class scores alone
    inexact: ClassVar[str] = ""  # why evidence maps follow a convention; empty: they add up
    parts: ClassVar[tuple[str, ...]] = ("",)  # names of a descriptor's parts, as wide as the map
    smallest_side: ClassVar[int] = 1  # of an image, in pixels
    crop_pixels: int = 0  # of an image, that go through the network by `describe`

    @abstractmethod
    def pool(self, dense_map: Tensor) -> Tensor:
        """Pool maps (B, C, h, w) into descriptors (B, D); differentiable.

        What only rescales, such as a norm, is detached, so that evidence maps add up.
        """

    def add(self, state: Any, tile: Tensor, axis: int) -> Any:
        """Take in the next tile of maps cut along an axis, 2 or 3; the first state is None."""
        return [*(state or []), tile]

    def result(self, state: Any, axis: int) -> Tensor:
        """Return the descriptors (B, D) of all tiles."""
        import torch

        return self.pool(torch.cat(state, axis))

    def width(self, channels: int) -> int:
        """Count the numbers of a descriptor of a map of so many channels."""
        return channels * len(self.parts)

    def unflip(self, descriptors: Tensor) -> Tensor:
        """Turn descriptors (B, D) of mirror images into those of the images themselves."""
        return descriptors

    def average_flipped(self, descriptors: Tensor, mirrored: Tensor) -> Tensor:
        """Average descriptors (B, D) of images with those of their mirror images."""
        return (descriptors + self.unflip(mirrored)) / 2

    def settings(self) -> dict[str, Any]:
        """Return what of it is not in its name, such as the digest of a file, for its columns."""
        return {}

    def describe(
        self, network: Network, pixels: Tensor, *, flip: bool, budget: int
    ) -> Tensor | None:
        """Describe images by running the network as the pooling wants it; None to pool a map.

        Parameters
        ----------
        network : callable
            Dense maps (b, C, h, w) of pixels (b, 3, H, W).
        pixels : Tensor (B, 3, H, W) of uint8
        flip : bool
            Whether mirror images count as well.
        budget : int
            Pixels that may go through the network at a time.
        """
        return None


def register(pattern: str, **example: object) -> Callable[[Kind], Kind]:
    """Give a pooling its name: ``"crops{grid}"``, with an example of what stands in braces.

    The pooling is made with the texts that a name has there; a ValueError refuses the name.
    """

    def enter(kind: Kind) -> Kind:
        _KINDS[re.sub(r"\{(\w+)\}", r"(?P<\1>.+)", pattern)] = kind
        _EXAMPLES[pattern.format(**example)] = kind
        return kind

    return enter


@register("average")
class Average(Pooling):
    """The mean over all locations (Appendix B)."""

    about = "the paper's"

    def pool(self, dense_map: Tensor) -> Tensor:
        """Return means (B, C)."""
        return self.result(self.add(None, dense_map, 3), 3)

    def add(self, state: Any, tile: Tensor, axis: int) -> Any:
        """Add up locations."""
        total, locations = state or (0, 0)
        flat = tile.flatten(2)
        return total + flat.sum(2), locations + flat.shape[2]

    def result(self, state: Any, axis: int) -> Tensor:
        """Return means (B, C)."""
        total, locations = state
        mean: Tensor = total / locations
        return mean


@register("max")
class Maximum(Pooling):
    """The largest value of each channel."""

    inexact = "a maximum over locations is not linear: it is given to where it is"

    def pool(self, dense_map: Tensor) -> Tensor:
        """Return maxima (B, C); of equal locations the first counts."""
        return dense_map.flatten(2).max(2).values

    def add(self, state: Any, tile: Tensor, axis: int) -> Any:
        """Keep a tile's maxima alone."""
        return super().add(state, self.pool(tile)[..., None, None], axis)


@register("gem{p}", p=3)
class GeM(Pooling):
    """The generalised mean over all locations (Radenović et al., 2018; beyond the paper).

    It is (mean of x^p)^(1/p) of activations x of at least 1e-6: with p = 1 the average of a map
    without negative numbers, and nearer to the maximum the larger p is.

    Examples
    --------
    >>> import torch
    >>> [round(GeM(p).pool(torch.tensor([[[[3.0, 4.0]]]])).item(), 3) for p in ("1", "2", "99")]
    [3.5, 3.536, 3.972]
    """

    about = "generalised mean, of any power"
    inexact = "a generalised mean is not linear: a location has its activation times the gradient"
    smallest = 1e-6

    def __init__(self, p: str) -> None:
        self.p = float(p)
        if not 0 < self.p < float("inf") or f"{self.p:g}" != p:
            raise ValueError(p)

    def pool(self, dense_map: Tensor) -> Tensor:
        """Return means (B, C)."""
        return self.result(self.add(None, dense_map, 3), 3)

    def add(self, state: Any, tile: Tensor, axis: int) -> Any:
        """Add up powers of shares of the maximum, which never overflow."""
        activations = tile.flatten(2).clamp(min=self.smallest)
        total, locations, earlier = state or (0, 0, None)
        maxima = activations.detach().amax(2)
        if earlier is not None:
            maxima = maxima.maximum(earlier)
            total = total * (earlier / maxima).pow(self.p)
        shares = activations / maxima[:, :, None]
        return total + shares.pow(self.p).sum(2), locations + activations.shape[2], maxima

    def result(self, state: Any, axis: int) -> Tensor:
        """Return the mean, times the maximum."""
        total, locations, maxima = state
        means: Tensor = maxima * (total / locations).pow(1 / self.p)
        return means


@register("cells")
class Cells(Pooling):
    """The mean over each quarter of the map.

    Where a side has an odd number of locations, the middle one counts in both halves, as
    torch's adaptive average pooling has it.

    Examples
    --------
    >>> import torch
    >>> pooling = Cells()
    >>> pooling.pool(torch.tensor([[[[1.0, 2.0]], [[5.0, 7.0]]]]))
    tensor([[1., 5., 2., 7., 1., 5., 2., 7.]])
    >>> pooling.unflip(torch.tensor([[1, 2, 3, 4]]))
    tensor([[2, 1, 4, 3]])
    """

    about = "four quarters"
    parts = ("_top_left", "_top_right", "_bottom_left", "_bottom_right")

    def pool(self, dense_map: Tensor) -> Tensor:
        """Return means (B, 4 C): cell by cell, row by row."""
        return _means(dense_map, (2, 2)).permute(0, 2, 3, 1).flatten(1)

    def add(self, state: Any, tile: Tensor, axis: int) -> Any:
        """Keep only two numbers for each place along the cut."""
        halves = _means(tile, (2, tile.shape[3]) if axis == 3 else (tile.shape[2], 2))
        return super().add(state, halves, axis)

    def unflip(self, descriptors: Tensor) -> Tensor:
        """Exchange left and right."""
        return descriptors.reshape(len(descriptors), 2, 2, -1).flip(2).flatten(1)


@register("softmax")
class Softmax(Average):
    """The posteriors of the mean class scores, in the paper's order (Section 3.2)."""

    posteriors = True
    inexact = "posteriors are no sum over locations: each has its activation times the gradient"

    def result(self, state: Any, axis: int) -> Tensor:
        """Return posteriors (B, C)."""
        return super().result(state, axis).softmax(1)


@register("posteriors")
class Posteriors(Average):
    """The mean of the posteriors of all locations.

    Examples
    --------
    >>> import torch
    >>> scores = torch.tensor([[[[0.0, 20.0]], [[0.0, 0.0]]]])  # two classes, two locations
    >>> [round(pooling.pool(scores)[0, 0].item(), 3) for pooling in (Softmax(), Posteriors())]
    [1.0, 0.75]
    """

    posteriors = True
    inexact = Softmax.inexact

    def add(self, state: Any, tile: Tensor, axis: int) -> Any:
        """Add up posteriors."""
        return super().add(state, tile.softmax(1), axis)


@register("crops{grid}", grid=5)
class MultiCrop(Softmax):
    """The mean of the posteriors of a grid of crops, each run on its own (Section 3.2)."""

    smallest_side = INPUT_SIDE

    def __init__(self, grid: str) -> None:
        self.grid = int(grid)
        if not 1 <= self.grid <= MOST_CROPS or str(self.grid) != grid:
            raise ValueError(grid)
        self.crop_pixels = (self.grid * INPUT_SIDE) ** 2

    def describe(self, network: Network, pixels: Tensor, *, flip: bool, budget: int) -> Tensor:
        """Average the posteriors of all crops, and of their mirror images."""
        from vggfeat.features.multicrop import average_crops

        def posteriors(crops: Tensor) -> Tensor:
            return self.pool(network(crops))

        return average_crops(posteriors, pixels, self.grid, flip=flip, budget=budget)


@cache
def resolve_pooling(name: str) -> Pooling:
    """Return the pooling of a name.

    Raises
    ------
    ParameterError
        Listing the names that there are.

    Examples
    --------
    >>> resolve_pooling("crops3").grid, resolve_pooling("cells").width(512)
    (3, 2048)
    """
    pooling = _find(name)
    if pooling is None:
        raise _unknown(name, (SCORES,))
    return pooling


def _unknown(name: str, layers: Sequence[str]) -> ParameterError:
    """Say which poolings there are for these layers."""
    kinds = [
        example
        for example, kind in _EXAMPLES.items()
        if not kind.posteriors or tuple(layers) == (SCORES,)
    ]
    expected = f"one of {', '.join(map(repr, kinds))}, or several joined by +"
    return ParameterError.of("pool", "Extraction", expected, name)


def _find(name: str) -> Pooling | None:
    for pattern, kind in _KINDS.items():
        if found := re.fullmatch(pattern, name):
            try:
                return kind(*found.groups())
            except ValueError:
                continue
    return None


def check_pools(pools: Sequence[str], layers: Sequence[str], locations: str) -> None:
    """Refuse poolings that are none, that come twice, or that do not fit the layers.

    Examples
    --------
    >>> check_pools(("softmax", "crops5"), ("fc8",), "raw")
    >>> check_pools(("softmax",), ("fc7",), "raw")
    Traceback (most recent call last):
    vggfeat.errors.ParameterError: The pool 'softmax' makes posteriors of class scores, ...
    """
    pool = "+".join(pools)
    if len(set(pools)) < len(pools):
        raise ParameterError.of("pool", "Extraction", "different poolings joined by +", pool)
    for name in pools:
        if _find(name) is None:
            raise _unknown(name, layers)
    poolings = [resolve_pooling(name) for name in pools]
    if not any(pooling.posteriors for pooling in poolings):
        return
    if tuple(layers) != (SCORES,):
        raise ParameterError(
            f"The pool {pool!r} makes posteriors of class scores, which {SCORES} has alone, not "
            f"{', '.join(layers)}. Use the layer {SCORES}, or the pool 'average'."
        )
    if locations != "raw":
        raise ParameterError(
            f"The pool {pool!r} makes posteriors of class scores as they are: with normalised "
            "locations there are none. Leave normalize='locations' out."
        )


def gives_posteriors(name: str) -> bool:
    """Tell whether a pooling makes an image's posteriors, which add up to 1."""
    pooling = _find(name)
    return pooling is not None and pooling.posteriors


def list_features() -> str:
    """List the poolings that make features, with a few words on each, for a line of help.

    Examples
    --------
    >>> list_features().split(", ")[:2]
    ["average (the paper's)", 'max']
    """
    kinds = [(name, kind) for name, kind in _EXAMPLES.items() if not kind.posteriors]
    return ", ".join(f"{name} ({kind.about})" if kind.about else name for name, kind in kinds)


def _means(dense_map: Tensor, cells: tuple[int, int]) -> Tensor:
    from torch.nn.functional import adaptive_avg_pool2d

    return adaptive_avg_pool2d(dense_map, cells)
