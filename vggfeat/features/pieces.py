"""Pieces of a large picture whose maps, put together, equal the map of the whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from vggfeat.errors import ParameterError
from vggfeat.nets.config import Layer

# All strides of Table 1 divide it, so that pieces cut at its multiples pool as the whole does.
STRIDE = 32


@dataclass(frozen=True)
class Kept:
    """Which part of a crop's map belongs to its piece; the rest is margin.

    Parameters
    ----------
    axis : int
        Axis along which the picture was cut.
    start : int
        Where the piece begins in the crop, in pixels.
    length : int or None
        Length of the piece in pixels; None to the end of the picture.
    """

    axis: int
    start: int
    length: int | None

    def of(self, name: str, dense_map: Tensor, layers: Sequence[Layer]) -> Tensor:
        """Cut a layer's map to the piece."""
        stride = stride_of(name, layers)
        first = self.start // stride
        count = dense_map.shape[self.axis] - first
        if self.length is not None:
            count = self.length // stride
        return dense_map.narrow(self.axis, first, count)


def in_pieces(
    x: Tensor, layers: Sequence[Layer], smallest: int, limit: int
) -> Iterator[tuple[Tensor, Kept | None]]:
    """Cut pictures of more pixels than a limit along their longer side.

    Parameters
    ----------
    x : Tensor (B, 3, H, W)
        Pictures of one shape.
    layers : sequence of Layer
        What runs over the pieces.
    smallest : int
        Pixels along a side that make a location.
    limit : int
        Pixels of a piece, margins included, where its margins leave room.

    Yields
    ------
    pixels, kept
        A piece with its margins, and which part of its map is its own; None for the whole.
    """
    if x.numel() <= 3 * limit:
        yield x, None
        return
    axis = longer_axis(x)
    length = x.shape[axis]
    before, after = margins(layers)
    room = limit // (len(x) * x.shape[5 - axis]) - before - after
    # A piece shorter than its margins would mostly compute what is thrown away.
    piece = max(room // STRIDE * STRIDE, before + after)
    for start in range(0, length, piece):
        first = max(0, start - before)
        # What the last piece would have is too little for a location of its own.
        last = length - start - piece < smallest
        end = length if last else min(length, start + piece + after)
        yield x.narrow(axis, first, end - first), Kept(axis, start - first, None if last else piece)
        if last:
            return


def longer_axis(pixels: Tensor) -> int:
    """Axis (2 or 3) along which pictures (B, 3, H, W) are longer."""
    return 2 if pixels.shape[2] > pixels.shape[3] else 3


def stride_of(name: str, layers: Sequence[Layer]) -> int:
    """Pixels between two locations of a layer's map.

    Examples
    --------
    >>> from vggfeat.nets.config import layers_of
    >>> stride_of("conv3_1", layers_of("D")), stride_of("fc7", layers_of("D"))
    (4, 32)
    """
    stride = 1
    for layer in layers:
        stride *= 2 if layer.kind == "pool" else 1
        if layer.name == name.removesuffix("_pre"):
            return stride
    raise ParameterError.not_one_of("layer", "stride_of", [layer.name for layer in layers], name)


def margins(layers: Sequence[Layer]) -> tuple[int, int]:
    """Pixels that a piece needs before and after it so that its map equals the whole picture's.

    Zero padding at a cut reaches as far inwards as the convolutions see; fc6 looks ahead by six
    locations. Both are rounded up to the stride.

    Examples
    --------
    >>> from vggfeat.nets.config import layers_of, layers_until
    >>> margins(layers_until("E", ["pool5"])), margins(layers_of("E"))
    ((128, 128), (128, 320))
    """
    reach = ahead = 0
    stride = 1
    for layer in layers:
        if layer.kind == "conv":
            reach += (layer.kernel // 2) * stride
        elif layer.kind == "fc":
            ahead += (layer.kernel - 1) * stride
        elif layer.kind == "pool":
            stride *= 2
    before = math.ceil(reach / STRIDE) * STRIDE
    return before, before + math.ceil(ahead / STRIDE) * STRIDE
