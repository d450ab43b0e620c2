"""G21: images of many pixels, described in tiles as if they were described whole."""

from __future__ import annotations

from typing import Any

from golden.adapter import networks as adapter
from golden.case import Found, case
from golden.inputs import Inputs
from golden.making.photos import pattern
from golden.summaries import distance, summary, within

SHAPES = {"wide": (330, 40), "tall": (44, 302)}
"""Width and height; neither length is a multiple of a tile's."""
LAYERS, POOLS = ("pool2", "pool3"), ("average", "max", "cells")
WHOLE = 10**9


@case(
    "G21-tiles",
    command="describe D pool2 and pool3 x average, max, cells in tiles of 3,000 pixels",
    tolerance={**within("rows/*", 1e-5), "*apart/*": {"at_most": 1e-5}},
)
def tiles(inputs: Inputs) -> Found:
    """Tell how far tiles are from the whole, as a share of its norm, in descriptors and maps."""
    arrays: dict[str, Any] = {}
    apart: dict[str, float] = {}
    for seed, (name, (width, height)) in enumerate(SHAPES.items()):
        pixels = pattern(width, height, 60 + seed)
        in_tiles, whole = (
            adapter.describe_in_tiles(pixels, LAYERS, POOLS, size) for size in (3000, WHOLE)
        )
        arrays |= {f"{name}/{path}": row for path, row in in_tiles[0].items()}
        for found, known in zip(in_tiles, whole, strict=True):
            apart |= {f"{name}/{path}": distance(found[path], known[path]) for path in known}
    rows = {path: summary(row) for path, row in arrays.items()}
    return Found({"rows": rows, "apart": apart}, arrays)
