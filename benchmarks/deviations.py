"""How far descriptors are from torch's in fp32, and from themselves in other batches.

`python benchmarks/deviations.py` prints the tables of `docs/numbers.md`: deviations with the
embedded weights on clip art that is shipped, and what `--deterministic` costs. A test holds what
the page promises, on the machine that runs it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggfeat._io.assets import asset
from vggfeat.data.image import decode
from vggfeat.features.extractor import DenseExtractor
from vggfeat.nets.runtimes import has_bf16, resolve_device
from vggfeat.nets.runtimes.packed import can_pack

Rows = NDArray[np.floating]


class Deviation(NamedTuple):
    """Largest distances of an image's descriptors, as shares of their length."""

    device: str
    runtime: str
    precision: str
    from_fp32: float
    between_batches: float


def combinations() -> list[tuple[str, str, str]]:
    """List what this machine has: device, runtime and precision."""
    has = {
        "torch": True,
        "packed": can_pack(),
        "openvino": bool(find_spec("openvino")),
        "winograd": True,
    }
    gpu = ["fp32", "bf16", "fp16"] if torch.cuda.is_available() else []
    cpu = ["fp32", "bf16"] if has_bf16(torch.device("cpu")) else ["fp32"]
    return [("cuda", "torch", how) for how in gpu] + [
        ("cpu", runtime, how)
        for runtime in has
        if has[runtime]
        for how in (cpu if runtime != "winograd" else ["fp32"])
    ]


def images(count: int, Q: int) -> Tensor:
    """Take clip art of different classes, all brought to one shape: (B, 3, Q, 5 Q / 4)."""
    paths = sorted(asset("clipart10").glob("*/*.jpg"))
    some = [decode(path).resize((Q * 5 // 4, Q)) for path in paths[:: len(paths) // count][:count]]
    return torch.from_numpy(np.stack([np.asarray(one) for one in some])).permute(0, 3, 1, 2)


def opened(device: str, runtime: str, precision: str, **more: bool) -> DenseExtractor:
    """Open the embedded net D up to pool5."""
    return DenseExtractor(
        "D", "pool5", weights="embedded", device=device, runtime=runtime, precision=precision,
        **more,
    )  # fmt: skip


def rows(extractor: DenseExtractor, some: Tensor, batch: int) -> Rows:
    """Describe images in batches of so many."""
    found = [extractor.describe(one)["pool5", "average"] for one in torch.split(some, batch)]
    return torch.cat(found).double().numpy()


def distance(found: Rows, expected: Rows) -> float:
    """Return the largest distance of a row, as a share of its length."""
    apart = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return float(apart.max())


def deviation(device: str, runtime: str, precision: str, some: Tensor, plain: Rows) -> Deviation:
    """Measure one combination; `plain` are torch's descriptors in fp32, one image at a time."""
    extractor = opened(device, runtime, precision)
    alone = rows(extractor, some, 1)
    batched = [rows(extractor, some, batch) for batch in (2, 3, len(some))]
    apart = max(distance(one, alone) for one in batched)
    worst = max(distance(one, plain) for one in (alone, *batched))
    return Deviation(device, runtime, precision, worst, apart)


def deviations(count: int, scales: Sequence[int]) -> list[Deviation]:
    """Measure all that this machine has, at several scales: the largest of each."""
    sets = [images(count, Q) for Q in scales]
    plain = [rows(opened("cpu", "torch", "fp32"), some, 1) for some in sets]
    found = []
    for one in combinations():
        several = [deviation(*one, *those) for those in zip(sets, plain, strict=True)]
        worst = max(each.from_fp32 for each in several)
        found.append(Deviation(*one, worst, max(each.between_batches for each in several)))
    return found


def cost(device: str, runtime: str, precision: str, some: Tensor, repeats: int) -> float:
    """Return the time of a deterministic run over that of another: the median of pairs."""
    kinds = [opened(device, runtime, precision, deterministic=how) for how in (True, False)]
    ratios = []
    for _ in range(repeats + 1):
        seconds = []
        for extractor in kinds:
            _, _, height, width = some.shape
            fits = max(1, extractor.pixel_budget // (height * width))
            start = time.perf_counter()
            rows(extractor, some, fits)
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return float(np.median(ratios[1:]))  # the first pair warms up


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--Q", type=int, nargs="+", default=[64, 96, 224])
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args(arguments)
    print("| device | runtime | precision | from fp32 | between batches |\n|---|---|---|---|---|")
    for one in deviations(asked.images, asked.Q):
        apart = f"{one.from_fp32:.1e} | {one.between_batches:.1e}"
        print(f"| {one.device} | {one.runtime} | {one.precision} | {apart} |", flush=True)
    print("\n| runtime | precision | time with --deterministic, relative |\n|---|---|---|")
    some, device = images(asked.images, asked.Q[-1]), resolve_device().type
    for _, runtime, precision in [one for one in combinations() if one[0] == device]:
        ratio = cost(device, runtime, precision, some, asked.repeats)
        print(f"| {runtime} | {precision} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
