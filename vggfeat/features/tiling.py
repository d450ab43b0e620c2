"""Tiles of a large image whose maps, put together, equal the map of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from vggfeat.nets.config import STRIDE, Layer, margins, stride_of


@dataclass(frozen=True)
class Tile:
    """A part of images that goes through the network alone, with margins around it."""

    pixels: Tensor  # (B, 3, H, W), with its margins
    axis: int  # along which the images are cut
    start: int = 0  # where the tile begins in `pixels`
    length: int | None = None  # without its margins; None to the end of the images

    def crop_map(self, name: str, dense_map: Tensor, layers: Sequence[Layer]) -> Tensor:
        """Cut a layer's map to the tile's own locations."""
        stride = stride_of(name, layers)
        first = self.start // stride
        count = dense_map.shape[self.axis] - first
        if self.length is not None:
            count = self.length // stride
        return dense_map.narrow(self.axis, first, count)


def iter_tiles(
    pixels: Tensor, layers: Sequence[Layer], smallest: int, limit: int
) -> Iterator[Tile]:
    """Cut images (B, 3, H, W) of more pixels than a limit along their longer side.

    Parameters
    ----------
    layers : sequence of Layer
        What runs over the tiles.
    smallest : int
        Pixels along a side that make a location.
    limit : int
        Pixels of a tile, margins included, where its margins leave room.
    """
    axis = longer_axis(pixels)
    if pixels.numel() <= 3 * limit:
        yield Tile(pixels, axis)
        return
    side = pixels.shape[axis]
    before, after = margins(layers)
    room = limit // (len(pixels) * pixels.shape[5 - axis]) - before - after
    # Tiles are cut at multiples of the stride, and pool as the whole does. One shorter than its
    # margins would mostly compute what is thrown away.
    length = max(room // STRIDE * STRIDE, before + after)
    for start in range(0, side, length):
        first = max(0, start - before)
        # What the last tile would have is too little for a location of its own.
        last = side - start - length < smallest
        end = side if last else min(side, start + length + after)
        own = None if last else length
        yield Tile(pixels.narrow(axis, first, end - first), axis, start - first, own)
        if last:
            return


def longer_axis(pixels: Tensor) -> int:
    """Axis (2 or 3) along which images (B, 3, H, W) are longer."""
    return 2 if pixels.shape[2] > pixels.shape[3] else 3
