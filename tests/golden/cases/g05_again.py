"""G05: the same command again computes what is missing or has changed, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from golden.adapter import features as adapter
from golden.case import case
from golden.inputs import Inputs
from golden.making.photos import pattern

LAYERS = ("pool1", "pool2")
Rows = dict[str, dict[str, np.ndarray]]


@case(
    "G05-again",
    command="G04's extract of pool1 and pool2; again with --Q 96 too; again; one image replaced; "
    "a bad one mended",
)
def extracting_again(inputs: Inputs) -> dict[str, Any]:
    """After each step: the counts, and which rows have other bits than before."""
    photos, store = inputs.copy("I1", "I1b", to="photos"), inputs.work / "f"
    values: dict[str, Any] = {"first": adapter.extract(photos, store, layers=LAYERS)["counts"]}
    before = adapter.stored(store)
    steps = {"with Q96": _nothing, "again": _nothing, "replaced": _replace, "mended": _mend}
    for step, change in steps.items():
        change(photos)
        counts = adapter.extract(photos, store, layers=LAYERS, Q=(32, 64, 96))["counts"]
        after = adapter.stored(store)
        values[step] = {"counts": counts, "failed": adapter.failed(store)}
        values[step] |= _differences(before, after)
        before = after
    return values


def _nothing(photos: Path) -> None:
    """Leave all images as they are."""


def _replace(photos: Path) -> None:
    """Put another image of the same shape, not newer than the old one, in the place of one."""
    file = photos / "photo-03.png"
    old = file.stat()
    Image.fromarray(pattern(40, 56, 33)).save(file)
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))


def _mend(photos: Path) -> None:
    """Write the image whole whose file was cut."""
    whole = pattern(48, 40, 28).tobytes()
    (photos / "bad-cut.ppm").write_bytes(b"P6\n48 40\n255\n" + whole)


def _differences(before: Rows, after: Rows) -> dict[str, list[str]]:
    """List what rows came, went and changed, by image and column."""
    old, new = (
        {f"{name} {column}": v for name, row in rows.items() for column, v in row.items()}
        for rows in (before, after)
    )
    changed = [key for key in old.keys() & new.keys() if not np.array_equal(old[key], new[key])]
    return {
        "came": sorted(new.keys() - old.keys()),
        "went": sorted(old.keys() - new.keys()),
        "changed": sorted(changed),
    }
