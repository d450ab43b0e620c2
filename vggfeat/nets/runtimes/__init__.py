"""Where and how a network is computed: the device, the precision, and the runtime.

Runtimes are torch, and faster forms for CPUs; their numbers agree. A runtime is a module of this
package that registers itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from vggfeat.errors import DeviceError, MissingExtra, ParameterError
from vggfeat.settings import Execution, Precision

if TYPE_CHECKING:
    from vggfeat.nets.vgg import VGG

DEVICES = ("auto", "cpu", "cuda", "mps")
HEADROOM = 40_000  # Winograd's transforms go 36,100 times beyond what they begin and end with
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

if hasattr(os, "register_at_fork"):
    # The threads that OpenMP computes with stay with the parent: a forked child that waits for
    # them hangs or dies, and computes with its own one instead.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


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
    mps = torch.backends.mps.is_available()
    has = ["cuda"] * torch.cuda.is_available() + ["mps"] * mps + ["cpu"]
    if kind == "auto":
        return torch.device(has[0])
    missing_index = kind == "cuda" and index and int(index) >= torch.cuda.device_count()
    if kind not in has or missing_index:
        raise DeviceError(
            f"This machine has no device {device!r}; torch {torch.__version__} sees: "
            f"{', '.join(has)}. "
            "Use device='auto', or install a torch that was built for it."
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
        for known in stored:
            with suppress(DeviceError):
                return resolve_precision(known, device)
        return "bf16" if has_bf16(device) else "fp32"
    if precision == "bf16" and not has_bf16(device):
        raise DeviceError(
            f"{describe_device(device)} does not compute in bf16; emulated, it would be slower "
            "than fp32. Use precision='fp32' or precision='auto'."
        )
    if precision == "fp16" and device.type == "cpu":
        raise DeviceError(
            "The CPU does not compute in fp16. Use precision='fp32' or precision='auto'."
        )
    return precision


def check_machine(execution: Execution) -> None:
    """Refuse a device or a precision that there is not, or that this machine lacks.

    Raises
    ------
    ParameterError, DeviceError
        Naming it.
    """
    resolve_precision(execution.precision, resolve_device(execution.device))


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
    """Name a device as a person knows it."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    if device.type == "mps":
        return "Apple GPU (mps)"
    return f"CPU ({torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()})"


def check_deterministic(device: torch.device) -> None:
    """Refuse to promise the same bits where nothing holds the promise; prepare CUDA for it."""
    if device.type == "mps":
        raise DeviceError(
            "Nothing says that an Apple GPU repeats its results bit by bit. Use device='cpu' with "
            "deterministic=True, or leave that out."
        )
    if device.type == "cuda":
        # Read when cuBLAS is first used; a choice of the user's stands.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@dataclass(frozen=True)
class Runtime:
    """A way to compute a network, for inference alone."""

    name: str
    speed: int  # of several that run, "auto" takes that of the highest
    # Of a dense network on the CPU in float32 it makes one for a device and a dtype.
    build: Callable[[VGG, torch.device, torch.dtype], VGG]
    check: Callable[[], None] = lambda: None  # raises ParameterError, or MissingExtra
    devices: tuple[str, ...] = ("cpu",)
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")
    kinds: tuple[str, ...] = ("conv", "lrn", "pool", "fc", "prob")  # of layers


_REGISTRY: dict[str, Runtime] = {}


def register(runtime: Runtime) -> None:
    """Add a runtime to those that are chosen from."""
    _REGISTRY[runtime.name] = runtime


@cache
def list_runtimes() -> tuple[Runtime, ...]:
    """List the runtimes, the fastest first, having imported each module of this package.

    Examples
    --------
    >>> [runtime.name for runtime in list_runtimes()]
    ['winograd', 'openvino', 'packed', 'torch']
    """
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return tuple(sorted(_REGISTRY.values(), key=lambda runtime: -runtime.speed))


def resolve_runtime(name: str, device: torch.device, precision: str) -> str:
    """Turn a name into a runtime that this machine has.

    Parameters
    ----------
    name : {"auto", "torch", "packed", "openvino", "winograd"}
        ``"torch"`` runs anywhere. On CPUs there are faster ones: ``"winograd"``, with a quarter of
        the multiplications, in fp32 alone; ``"packed"``, torch's own oneDNN with packed weights
        and fused ReLUs; and ``"openvino"``, an extra. ``"auto"`` takes the fastest: Winograd in
        fp32; else OpenVINO where it is installed; else packed; else torch.
    device : torch.device
        Where the network runs.
    precision : {"fp32", "bf16", "fp16"}
        What it computes in.

    Raises
    ------
    ParameterError
        If it is none of these, or asked for where it does not run.
    MissingExtra
        If the package that it needs is not installed.

    Examples
    --------
    >>> resolve_runtime("auto", torch.device("cpu"), "fp32")
    'winograd'
    """
    names = [runtime.name for runtime in list_runtimes()]
    if name not in ("auto", *names):
        raise ParameterError.not_one_of("runtime", "DenseExtractor", ("auto", *names), name)
    for runtime in list_runtimes():
        if name in ("auto", runtime.name):
            try:
                _check(runtime, device, precision)
            except (ParameterError, MissingExtra):
                if name != "auto":
                    raise
            else:
                return runtime.name
    raise AssertionError("torch runs anywhere")


def missing_runtime(name: str, device: torch.device, precision: str) -> str:
    """Name a faster runtime than the chosen one whose extra is not installed; empty if none is.

    Examples
    --------
    >>> missing_runtime("winograd", torch.device("cpu"), "fp32")
    ''
    """
    for runtime in list_runtimes():  # the fastest first
        if runtime.name == name:
            break
        try:
            _check(runtime, device, precision)
        except MissingExtra:
            return runtime.name
        except ParameterError:
            continue
    return ""


def build_runtime(net: VGG, runtime: str, device: torch.device, dtype: torch.dtype) -> VGG:
    """Put a dense float32 network on a device, ready for inference alone; it is used up."""
    [chosen] = [each for each in list_runtimes() if each.name == runtime]
    return chosen.build(net.requires_grad_(False).eval(), device, dtype)


def explain_misfit(net: VGG, runtime: str, sizes: Tensor) -> str:
    """Say why a runtime must not compute a dense float32 network; empty where it may.

    `sizes` (3,) are the largest values of each channel of its input, without their signs.
    """
    if runtime == "torch":
        return ""
    [chosen] = [each for each in list_runtimes() if each.name == runtime]
    if unknown := {layer.kind for layer in net.layers} - set(chosen.kinds):
        return f"does not compute {', '.join(sorted(unknown))}, which net {net.net} has"
    # A fused ReLU makes 0 of NaN.
    if _overflows(net, sizes):
        return "does not tell that numbers overflow, as with these weights they may"
    return ""


@torch.no_grad()
def _overflows(net: VGG, sizes: Tensor) -> bool:
    """Tell whether numbers of a hard image, white and noise, come near the end of fp32 and bf16."""
    side = net.smallest_side
    pixels = torch.ones(1, 3, side, side)
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)).sign()
    pixels[..., side // 2 :] = noise[..., side // 2 :]
    return not net.eval()(HEADROOM * sizes.view(3, 1, 1) * pixels).isfinite().all()


def _check(runtime: Runtime, device: torch.device, precision: str) -> None:
    """Refuse a runtime where it does not run."""
    if device.type not in runtime.devices:
        raise ParameterError(f"The runtime {runtime.name} is for CPUs, not for {device}.")
    if precision not in runtime.precisions:
        raise ParameterError(
            f"The runtime {runtime.name} computes in {', '.join(runtime.precisions)}, not in "
            f"{precision}. Use the runtime 'auto', or another precision."
        )
    runtime.check()
