"""The floor: how many operations the work has, and how many a second the machine does."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

import vggfeat
from vggfeat.nets.config import layers_until, map_side
from vggfeat.nets.runtimes import DTYPES, describe_device, has_bf16, resolve_runtime
from vggfeat.nets.runtimes.packed import can_pack

SIDES = {"cpu": (2048, 4096), "cuda": (8192,), "mps": (4096,)}
TRIES = 3
PEERS = ("torchvision", "timm", "openvino", "onnxruntime", "pillow", "numpy", "scikit-learn")


def operations(net: str, layer: str, height: int, width: int) -> int:
    """Count the multiplications and additions of a net's convolutions over one image.

    Parameters
    ----------
    net, layer : str
        The net of Table 1, computed up to this layer.
    height, width : int
        Of the image that goes in, in pixels.
    """
    layers = layers_until(net, [layer])
    total = 0
    for place, each in enumerate(layers):
        if each.kind == "conv":
            h, w = (map_side(side, layers[:place]) for side in (height, width))
            total += 2 * each.kernel**2 * each.inputs * each.outputs * h * w
    return total


def matrix_rate(precision: str, device: torch.device, side: int | None = None) -> float:
    """Operations a second of a product of two square matrices, the best of several, warm."""
    return max(_rate(precision, device, n) for n in ([side] if side else SIDES[device.type]))


def _rate(precision: str, device: torch.device, n: int) -> float:
    multiply = _product(torch.rand(n, n, device=device).to(DTYPES[precision]))
    multiply()
    best = float("inf")
    for _ in range(TRIES):
        settle(device)
        start = time.perf_counter()
        multiply()
        settle(device)
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def _product(a: Tensor) -> Callable[[], Tensor]:
    """Make the product of a matrix with itself; on a CPU one of them is packed beforehand.

    Weights can be, and unpacked the product takes a tenth longer: it would be no floor.
    """
    if a.device.type == "cpu" and can_pack():
        packed = torch.ops.mkldnn._reorder_linear_weight(a, len(a))
        return lambda: torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], "")
    out = a @ a
    return lambda: torch.mm(a, a, out=out)


def settle(device: torch.device) -> None:
    """Wait for what a GPU still does."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def machine(device: torch.device) -> dict[str, object]:
    """Describe what the figures belong to."""
    return {
        "device": describe_device(device),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "runtime": {p: resolve_runtime("auto", device, p) for p in ("fp32", "bf16")},
        "bf16": has_bf16(device),
        "amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)()),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "vggfeat": vggfeat.__version__,
        "torch": str(torch.__version__),
        **{name: version(name) for name in PEERS},
    }


def processor() -> str:
    """Name the processor, as far as the system tells."""
    told = Path("/proc/cpuinfo")
    if told.exists():
        for line in told.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def version(name: str) -> str | None:
    """Version of an installed package; None without it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
