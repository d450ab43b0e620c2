"""What computes a network on a device: torch, or a faster form for CPUs; the numbers agree."""

from __future__ import annotations

from importlib.util import find_spec
from typing import get_args

import torch

from vggfeat.errors import ParameterError
from vggfeat.nets.runtimes.packed import PackedVGG, can_pack
from vggfeat.nets.runtimes.winograd import WinogradVGG
from vggfeat.nets.vgg import VGG
from vggfeat.settings import Runtime


def resolve_runtime(runtime: str, device: torch.device, precision: str) -> str:
    """Turn a name into a runtime that this machine has.

    Parameters
    ----------
    runtime : {"auto", "torch", "packed", "openvino", "winograd"}
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

    Examples
    --------
    >>> resolve_runtime("auto", torch.device("cpu"), "fp32")
    'winograd'
    """
    if runtime not in get_args(Runtime):
        raise ParameterError.not_one_of("runtime", "DenseExtractor", get_args(Runtime), runtime)
    if device.type != "cpu":
        if runtime not in ("auto", "torch"):
            raise ParameterError(f"The runtime {runtime} is for CPUs, not for {device}.")
        return "torch"
    if runtime == "winograd" and precision != "fp32":
        raise ParameterError(
            f"The runtime winograd computes in fp32, not in {precision}, whose few bits its sums "
            "would lose. Use the runtime 'auto', or the precision fp32."
        )
    if runtime == "packed" and not can_pack():
        raise ParameterError(
            "This build of torch has no oneDNN, which the runtime 'packed' needs. "
            "Use 'auto' or 'torch'."
        )
    if runtime != "auto":
        return runtime
    if precision == "fp32":
        return "winograd"
    if find_spec("openvino"):
        return "openvino"
    return "packed" if can_pack() else "torch"


def placed(net: VGG, runtime: str, device: torch.device, dtype: torch.dtype) -> VGG:
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
    """
    net = net.requires_grad_(False).eval()
    if runtime == "openvino":
        from vggfeat.nets.runtimes.openvino import OpenVINOVGG

        return OpenVINOVGG(net, dtype)
    net = net.to(device, dtype).to(memory_format=torch.channels_last)
    fast = {"packed": PackedVGG, "winograd": WinogradVGG}.get(runtime)
    return fast(net) if fast else net
