"""Which device and which precision a network runs on: probed, never assumed; and in which mode."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Lock
from typing import Any, get_args

import torch

from vggfeat.errors import DeviceError, ParameterError
from vggfeat.settings import Precision

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str = "auto") -> torch.device:
    """Turn a name into a device that this machine has.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"} or "cuda:1" and the like
        ``"auto"`` takes CUDA, else MPS, else the CPU.

    Raises
    ------
    DeviceError
        If a device asked for by name is missing: it is never replaced silently.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    kind, _, index = device.partition(":")
    if kind not in DEVICES or (index and not index.isdigit()):
        raise ParameterError.not_one_of("device", "vggfeat", DEVICES, device)
    has = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if kind == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if has[name]))
    missing_index = kind == "cuda" and index and int(index) >= torch.cuda.device_count()
    if not has[kind] or missing_index:
        there = ", ".join(name for name in has if has[name])
        raise DeviceError(
            f"This machine has no device {device!r}; torch {torch.__version__} sees: {there}. "
            "Use --device auto, or install a torch that was built for it."
        )
    return torch.device(device)


def resolve_precision(precision: str, device: torch.device, stored: Iterable[str] = ()) -> str:
    """Turn a name into a precision that the device's hardware computes in.

    Parameters
    ----------
    precision : {"auto", "fp32", "bf16", "fp16"}
        ``"auto"`` takes what is stored, else bf16 where the hardware has it, else fp32.
    device : torch.device
        Where the network runs.
    stored : iterable of str
        Precisions of the columns that a store has, of which ``"auto"`` takes the first that this
        device computes in.

    Raises
    ------
    DeviceError
        If the hardware would only emulate it.

    Examples
    --------
    >>> resolve_precision("fp32", resolve_device("cpu"))
    'fp32'
    """
    if precision not in get_args(Precision):
        raise ParameterError.not_one_of("precision", "vggfeat", get_args(Precision), precision)
    if precision == "auto":
        for one in stored:
            with suppress(DeviceError):
                return resolve_precision(one, device)
        return "bf16" if has_bf16(device) else "fp32"
    if precision == "bf16" and not has_bf16(device):
        raise DeviceError(
            f"{describe_device(device)} does not compute in bf16; emulated, it would be slower "
            "than fp32. Use --precision fp32 or auto."
        )
    if precision == "fp16" and device.type == "cpu":
        raise DeviceError("The CPU does not compute in fp16. Use --precision fp32, bf16 or auto.")
    return precision


def has_bf16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies bf16 itself: AMX or AVX512-BF16, Ampere and later."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        return _cpu_has("_is_amx_tile_supported") or _cpu_has("_is_avx512_bf16_supported")
    return False


def _cpu_has(probe: str) -> bool:
    """Ask torch's probes of the CPU, which have no public name yet; an absent one says no."""
    return bool(getattr(torch.cpu, probe, bool)())


def describe_device(device: torch.device) -> str:
    """Name a device as a person knows it.

    Examples
    --------
    >>> describe_device(torch.device("cpu")).startswith("CPU")
    True
    """
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    if device.type == "mps":
        return "Apple GPU (mps)"
    return f"CPU ({torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()})"


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
