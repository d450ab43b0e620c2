"""What computes a network: torch, or a faster form for CPUs; the numbers agree.

A runtime is a module of this package that registers itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from vggfeat.errors import MissingExtra, ParameterError

if TYPE_CHECKING:  # torch takes a second to import
    import torch

    from vggfeat.nets.vgg import VGG


@dataclass(frozen=True)
class Runtime:
    """A way to compute a network, for inference alone.

    Parameters
    ----------
    name : str
        As users ask for it.
    speed : int
        Of several that run, ``"auto"`` takes that of the highest.
    build : callable
        Takes a dense network on the CPU in float32, a device and a dtype; returns one that computes
        there.
    check : callable
        Raises :class:`ParameterError` or :class:`MissingExtra` where it cannot run.
    devices : tuple of str
        Kinds of devices that it is for.
    precisions : tuple of str
        Precisions that it computes in.
    kinds : tuple of str
        Kinds of layers that it knows; empty where torch computes those that it does not.
    """

    name: str
    speed: int
    build: Callable[[VGG, torch.device, torch.dtype], VGG]
    check: Callable[[], None] = lambda: None
    devices: tuple[str, ...] = ("cpu",)
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")
    kinds: tuple[str, ...] = ()


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
    >>> import torch
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


def build_runtime(net: VGG, runtime: str, device: torch.device, dtype: torch.dtype) -> VGG:
    """Put a network with its weights on a device, ready for inference alone.

    Parameters
    ----------
    net : VGG
        Dense, on the CPU, float32; not to be used any more.
    runtime : str
        As :func:`resolve_runtime` returns it.
    device : torch.device
    dtype : torch.dtype
        What it computes in.

    Raises
    ------
    ParameterError
        If the runtime does not know a layer of the network.
    """
    [chosen] = [each for each in list_runtimes() if each.name == runtime]
    if unknown := {layer.kind for layer in net.layers} - set(chosen.kinds) if chosen.kinds else ():
        raise ParameterError(
            f"The runtime {runtime} does not compute {', '.join(sorted(unknown))}, which net "
            f"{net.net} has. Use the runtime 'torch'."
        )
    return chosen.build(net.requires_grad_(False).eval(), device, dtype)


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
