"""What a million, a hundred million and a billion images cost: the tables of `docs/scale.md`.

`python benchmarks/large_costs.py` prints them. Nothing here is measured: the constants are, and say
where; a test holds the page and these formulas together.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from floor import operations

IMAGES = (10**6, 10**8, 10**9)
WIDTHS = {"pool5": 512, "fc7": 4096}

# Measured: benchmarks/README.md, "Measured"; an image of 500×375 through E at Q = 384, mirrored.
CPU_SECONDS = 0.690  # from file to store, on two cores of an AMD EPYC (Zen 4), bf16
DECODE_SECONDS = 0.0031  # of one core: decoding and rescaling
# Assumed: the maker's figure for dense bf16 products on an H200, and the share of it that a whole
# extraction reaches. No GPU was at hand; the hours are inversely proportional to both.
GPU_RATE, GPU_SHARE = 989e12, 0.5
# Measured: benchmarks/large_store.py, a million rows.
NAME_BYTES = 134  # of a name of 19 characters, its id and its stamp, and of HDF5
OPEN_BYTES = 400  # of memory for an image of an opened store

SHARD_BYTES, SHARD_SECONDS = 64 << 20, 30.0  # when an extraction writes a shard
MERGED_BYTES = 128 << 20  # of a shard that `vggfeat store merge` writes


class Cost(NamedTuple):
    """What some images cost in time."""

    gpu_hours: float
    cpu_hours: float
    decode_cores: float


def time_of(images: int, net: str = "E", Q: int = 384, long: int = 512) -> Cost:
    """Compute hours, and the cores that decode for one GPU.

    GPU hours = images × 2 (mirror image) × operations / (rate × share) / 3600; CPU hours are of a
    machine of two cores; cores = seconds to decode an image × images a second of the GPU.
    """
    seconds = 2 * operations(net, "pool5", Q, long) / (GPU_RATE * GPU_SHARE)
    return Cost(images * seconds / 3600, images * CPU_SECONDS / 3600, DECODE_SECONDS / seconds)


def image_bytes(width: int, dtype: str, scales: int) -> int:
    """Compute bytes on disk for an image: numbers × 2 or 4, its name, id and stamp."""
    return width * scales * {"float16": 2, "float32": 4}[dtype] + NAME_BYTES


def shards_of(images: int, seconds: float, row: int = 4 * WIDTHS["pool5"]) -> int:
    """Count the shards that an extraction writes: every 64 MB, or 30 s."""
    rows = min(SHARD_BYTES // row, max(1.0, SHARD_SECONDS * images / seconds))
    return math.ceil(images / rows)


def merged_shards(images: int, width: int, dtype: str, scales: int) -> int:
    """Count the shards that a merge writes, of 128 MB of numbers."""
    row = image_bytes(width, dtype, scales) - NAME_BYTES
    return math.ceil(images / (MERGED_BYTES // row))


def time_table() -> str:
    """Print time."""
    lines = [
        "| images | H200 hours | hours of 2 cores | shards as written | GB to open |",
        "|---|---|---|---|---|",
    ]
    for images in IMAGES:
        cost = time_of(images)
        shards = shards_of(images, cost.gpu_hours * 3600)
        lines.append(
            f"| {images:,} | {cost.gpu_hours:,.2f} | {cost.cpu_hours:,.0f} | {shards:,} "
            f"| {images * OPEN_BYTES / 1e9:,.1f} |"
        )
    return "\n".join(lines)


def space_table() -> str:
    """Print space."""
    head = " | ".join(f"{images:,}: GB, shards" for images in IMAGES)
    lines = [f"| layer, type, scales | bytes an image | {head} |", "|---" * 5 + "|"]
    for layer, width in WIDTHS.items():
        for dtype in ("float16", "float32"):
            for scales in (1, 3):
                each = image_bytes(width, dtype, scales)
                shards = [merged_shards(images, width, dtype, scales) for images in IMAGES]
                cells = " | ".join(
                    f"{each * images / 1e9:,.0f}, {count:,}"
                    for images, count in zip(IMAGES, shards, strict=True)
                )
                lines.append(f"| {layer}, {dtype}, {scales} | {each:,} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(time_table(), space_table(), sep="\n\n")
