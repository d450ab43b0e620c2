"""A network for the CPU in fp32: 3×3 convolutions with a quarter of the multiplications.

Winograd's minimal filtering F(4×4, 3×3) (Lavin & Gray, arXiv 1509.09308): where a convolution
multiplies each of 4×4 outputs by 9 weights, 144 products, here a tile of 6×6 inputs is transformed,
multiplied by 6×6 transformed weights, 36 products, and transformed back. Nearly all of a VGG net is
3×3, and what is left of the work is products of matrices, which every BLAS does at full rate. The
sums are other ones, with other roundings: `docs/numbers.md` has what that amounts to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggfeat.nets.config import Layer
from vggfeat.nets.runtimes import Runtime, register
from vggfeat.nets.runtimes.inference import Inference, place
from vggfeat.nets.runtimes.packed import PackedVGG, can_pack
from vggfeat.nets.vgg import VGG

Block = tuple[slice, slice]  # which images, and which rows of their tiles

OUT, IN = 4, 6  # sides of a tile: of the outputs, and of the inputs that they need
# Tiles transformed at once, which should stay in the processor's cache; below so few, the weights,
# four times as many as before, are read for too little.
MANY, FEW = 192, 16
# conv1_2 is the one 3×3 convolution with fewer channels, where transforming costs what is saved.
INPUTS, OUTPUTS = 64, 128

# Lavin & Gray's B^T, G and A^T, for the points 0, 1, -1, 2, -2 and infinity.
_B = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_G = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_A = [
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
]
# Of the 36 products, the one that every output of a tile contains once: it takes the bias along.
_ONCE = IN + 1


class WinogradVGG(Inference):
    """A dense network on the CPU in float32, for inference alone.

    `net`, float32, computes what is no 3×3 convolution of many channels.

    Examples
    --------
    >>> net = VGG("A", layers="pool2", dense=True).eval().requires_grad_(False)
    >>> x = torch.rand(1, 3, 64, 48)
    >>> with torch.inference_mode():
    ...     torch.allclose(WinogradVGG(net)(x), net(x), rtol=1e-4, atol=1e-5)
    True
    """

    def __init__(self, net: VGG) -> None:
        super().__init__(net)
        self._rest = PackedVGG(net) if can_pack() else net
        self._tiled = {
            layer.name: _Tiled(getattr(net, layer.name)) for layer in self.layers if _suits(layer)
        }

    def _compute(self, layer: Layer, x: Tensor, *, rectify: bool) -> Tensor:
        tall, wide = _tiles(x)
        if layer.name in self._tiled and len(x) * tall * wide >= FEW:
            return self._tiled[layer.name](x, rectify)
        return self._rest._compute(layer, x, rectify=rectify)


class _Tiled:
    """A convolution with a padding of 1, computed tile by tile."""

    def __init__(self, module: nn.Conv2d) -> None:
        weight = module.weight.detach().double()
        there = torch.tensor(_G, dtype=torch.float64)
        # (36, inputs, outputs): a matrix for each number of a transformed tile.
        found = torch.einsum("ik, ockl, jl -> ijco", there, weight, there)
        self._weights = found.flatten(0, 1).float().contiguous()
        assert module.bias is not None
        self._bias = module.bias.detach().float()
        # Both axes at once: rows and columns of a tile are transformed alike.
        self._forth = torch.kron(torch.tensor(_B), torch.tensor(_B)).float()
        self._back = torch.kron(torch.tensor(_A), torch.tensor(_A)).float()

    def __call__(self, x: Tensor, rectify: bool) -> Tensor:
        """Convolve maps (B, C, H, W), with a ReLU after it if ``rectify``."""
        batch, _, height, width = x.shape
        tall, wide = _tiles(x)
        last = self._bias.shape[0]
        below, right = OUT * tall - height + 1, OUT * wide - width + 1
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below)).contiguous()
        found = x.new_empty(batch, tall, OUT, wide, OUT, last)

        def compute(block: Block) -> None:
            some, rows = block
            # From (4, 4, images, tall, wide, channels).
            outputs = self._transformed(padded[some], rows, wide).permute(2, 3, 0, 4, 1, 5)
            if rectify:
                torch.clamp(outputs, min=0, out=found[some, rows])
            else:
                found[some, rows] = outputs

        _side_by_side(compute, list(_blocks(batch, tall, wide)))
        maps = found.view(batch, OUT * tall, OUT * wide, last)[:, :height, :width]
        return maps.permute(0, 3, 1, 2)

    def _transformed(self, padded: Tensor, rows: slice, wide: int) -> Tensor:
        """Return the outputs (4, 4, images, tall, wide, channels) of some rows of tiles."""
        count, tall, inputs = len(padded), rows.stop - rows.start, padded.shape[-1]
        image, row, column, _ = padded.stride()
        tiles = padded.as_strided(
            (IN, IN, count, tall, wide, inputs),
            (row, column, image, OUT * row, OUT * column, 1),
            padded.storage_offset() + rows.start * OUT * row,
        )
        forth = (self._forth @ tiles.reshape(IN**2, -1)).view(IN**2, -1, inputs)
        products = torch.bmm(forth, self._weights)
        products[_ONCE] += self._bias
        outputs = self._back @ products.flatten(1)
        return outputs.view(OUT, OUT, count, tall, wide, -1)


def _suits(layer: Layer) -> bool:
    return (
        layer.kind == "conv"
        and layer.kernel == 3
        and layer.inputs >= INPUTS
        and layer.outputs >= OUTPUTS
    )


def _tiles(x: Tensor) -> tuple[int, int]:
    """Tiles that cover a map, down and across."""
    return -(-x.shape[-2] // OUT), -(-x.shape[-1] // OUT)


def _side_by_side(compute: Callable[[Block], None], blocks: list[Block]) -> None:
    """Compute blocks, one on each core: products this small are slower on several cores at once."""
    threads = min(torch.get_num_threads(), len(blocks))
    if threads == 1:
        for block in blocks:
            compute(block)
        return
    inference = torch.is_inference_mode_enabled()

    def work(block: Block) -> None:
        with torch.inference_mode(inference):  # which holds for one thread
            compute(block)

    pool = _pool(threads, os.getpid())
    futures = [pool.submit(work, block) for block in blocks]
    try:
        for future in futures:
            future.result()
    finally:  # after an error too: who tries again needs the memory that the other blocks hold
        for future in futures:
            future.cancel()
        wait(futures)


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Start threads that compute on one core each, for the life of a process.

    A forked process does not have them: it starts others, under its own number.
    """
    pool = ThreadPoolExecutor(threads, "winograd")
    all_started = Barrier(threads)

    def start(_: int) -> None:
        all_started.wait()  # so that each thread comes here once
        torch.set_num_threads(1)

    before = torch.get_num_threads()
    try:
        list(pool.map(start, range(threads)))
    except BaseException:  # of too many threads, or Ctrl-C: those that did start would wait
        all_started.abort()
        pool.shutdown()
        raise
    finally:  # torch starts new threads with the number that was set last, in whichever thread
        torch.set_num_threads(before)
    return pool


def _blocks(batch: int, tall: int, wide: int) -> Iterator[Block]:
    """Take images and rows of tiles, so that about MANY are transformed at once."""
    images = max(1, MANY // (tall * wide))
    rows = max(1, MANY // wide)
    for first in range(0, batch, images):
        for top in range(0, tall, rows):
            yield slice(first, min(first + images, batch)), slice(top, min(top + rows, tall))


def _build(net: VGG, device: torch.device, dtype: torch.dtype) -> VGG:
    return WinogradVGG(place(net, device, dtype))


register(Runtime("winograd", 3, _build, precisions=("fp32",)))
