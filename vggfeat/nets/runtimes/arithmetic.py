"""How a network computes: in which mode of the device, and what is said when numbers overflow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from vggfeat.errors import DeviceError
from vggfeat.nets.bounds import largest_number
from vggfeat.nets.runtimes.winograd import AMPLIFICATION
from vggfeat.nets.vgg import VGG

# Below the end of fp32 and bf16 (3.4e38) with room for what a fast convolution adds up meanwhile.
SAFE = 1e36


def check_deterministic(device: torch.device) -> None:
    """Refuse to promise the same bits where nothing holds the promise; prepare CUDA for it.

    Raises
    ------
    DeviceError
        On a device whose maker does not say how it repeats a result.
    """
    if device.type == "mps":
        raise DeviceError(
            "Nothing says that an Apple GPU repeats its results bit by bit. Use --device cpu with "
            "--deterministic, or leave it out."
        )
    if device.type == "cuda":
        # Read when cuBLAS is first used; a choice of the user's stands.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def arithmetic(device: torch.device, dtype: torch.dtype, deterministic: bool) -> Iterator[None]:
    """Set how a device computes while a network runs, whatever the program around it has set.

    Parameters
    ----------
    device : torch.device
    dtype : torch.dtype
        What the network computes in. Where torch computes fp32 in TF32 on a GPU, or in bf16 on a
        CPU, its results have ten or eight bits, not 24: that is off.
    deterministic : bool
        Whether cuDNN takes algorithms that repeat their results, without trying which is fastest.
    """
    fp32 = dtype == torch.float32
    with ExitStack() as settings:
        settings.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cpu" and fp32:
            settings.enter_context(_all_bits)
        elif device.type == "cuda" and (fp32 or deterministic):
            tf32 = not fp32 and torch.backends.cudnn.allow_tf32
            flags = {"benchmark": False, "deterministic": deterministic, "allow_tf32": tf32}
            settings.enter_context(torch.backends.cudnn.flags(enabled=True, **flags))
        yield


class _AllBits:
    """Let oneDNN compute fp32 in fp32: `torch.set_float32_matmul_precision` may allow less.

    The setting is the whole process's: it goes back when the last of several threads is done.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._before: list[tuple[Any, str]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            several = [getattr(torch.backends.mkldnn, name, None) for name in ("matmul", "conv")]
            kinds: list[Any] = [kind for kind in several if hasattr(kind, "fp32_precision")]  # 2.9
            self._before = [(kind, kind.fp32_precision) for kind in kinds]
            for kind in kinds:
                kind.fp32_precision = "ieee"

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for kind, precision in self._before:
                    kind.fp32_precision = precision


_all_bits = _AllBits()


def trusted(runtime: str, net: VGG, mean: Tensor, std: Tensor, largest: float) -> str:
    """Return the runtime, or torch where a number might overflow unseen.

    The ReLUs of the fast runtimes turn NaN into 0, torch's do not. They are used where the weights
    prove that no number overflows; of all trained networks met so far, they do.

    Parameters
    ----------
    runtime : str
        As :func:`~vggfeat.nets.runtimes.resolve_runtime` returns it.
    net : VGG
        Dense, with its weights, on the CPU.
    mean, std : Tensor (3,)
        Of the pixel convention.
    largest : float
        White, in the pixel convention; black is 0.

    Raises
    ------
    WeightsError
        If a parameter is not a finite number.
    """
    reach = largest_number(net, -mean / std, (largest - mean) / std)
    if runtime == "winograd":
        reach *= AMPLIFICATION
    return runtime if reach < SAFE else "torch"


def overflow(precision: str) -> str:
    """Say that numbers overflowed, and what would be right.

    Examples
    --------
    >>> overflow("fp16")
    'Its numbers overflow in fp16, which ends at 65504. Use --precision bf16 or fp32.'
    """
    if precision == "fp16":
        return "Its numbers overflow in fp16, which ends at 65504. Use --precision bf16 or fp32."
    return (
        f"Its numbers overflow in {precision}: the weights are those of a training that diverged, "
        "or of another range of pixels. Take others."
    )


def poisoned(dense_map: Tensor) -> Tensor:
    """Turn infinities into NaN, which no pooling, soft-max or normalisation can lose.

    Examples
    --------
    >>> poisoned(torch.tensor([1.0, float("-inf")]))
    tensor([1., nan])
    """
    return dense_map + (dense_map - dense_map)


def finite_rows(found: Sequence[Tensor]) -> Tensor:
    """Tell which rows (B,) are finite in all of some tensors (B, …)."""
    return torch.stack([one.flatten(1).isfinite().all(1) for one in found]).all(0)
