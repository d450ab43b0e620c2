"""Describe images by all that computes here: ``python -m golden.uncapped IN.npz OUT.npz``."""

from __future__ import annotations

import sys

import numpy as np

from golden.adapter import features as adapter
from golden.cases.g02_describe import LAYERS, POOLS


def main(source: str, target: str) -> None:
    """Write an array for each precision, runtime, image, layer and pooling."""
    arrays: dict[str, np.ndarray] = {}
    with np.load(source) as file:
        images = {name: file[name] for name in file.files}
    for runtime, precision in adapter.runtimes():
        described = adapter.describe(
            images, LAYERS, pools=POOLS, runtime=runtime, precision=precision
        )
        arrays |= {f"{precision}|{runtime}|{key}": array for key, array in described.items()}
    np.savez(target, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
