"""What computes a network on a device: torch, its packed form, or OpenVINO; the numbers agree."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from vggfeat.errors import ParameterError
from vggfeat.nets.packed import PackedVGG, can_pack
from vggfeat.nets.vgg import VGG

RUNTIMES = ("auto", "torch", "packed", "openvino")


def resolve_runtime(runtime: str, device: torch.device) -> str:
    """Turn a name into a runtime that this machine has.

    Parameters
    ----------
    runtime : {"auto", "torch", "packed", "openvino"}
        ``"torch"`` runs anywhere. On CPUs there are two that are faster: ``"packed"``, torch's own
        oneDNN with packed weights and fused ReLUs, and ``"openvino"``, an extra. ``"auto"`` takes
        OpenVINO where it is installed, which is the fastest; else packed; else torch.
    device : torch.device
        Where the network runs.

    Raises
    ------
    ParameterError
        If it is none of these, or asked for where it does not run.

    Examples
    --------
    >>> resolve_runtime("torch", torch.device("cpu"))
    'torch'
    """
    if runtime not in RUNTIMES:
        raise ParameterError.not_one_of("runtime", "DenseExtractor", RUNTIMES, runtime)
    if device.type != "cpu":
        if runtime not in ("auto", "torch"):
            raise ParameterError(f"The runtime {runtime} is for CPUs, not for {device}.")
        return "torch"
    if runtime == "packed" and not can_pack():
        raise ParameterError(
            "This build of torch has no oneDNN, which the runtime 'packed' needs. "
            "Use 'auto' or 'torch'."
        )
    if runtime != "auto":
        return runtime
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
        from vggfeat.nets.ov import OpenVINOVGG

        return OpenVINOVGG(net, dtype)
    net = net.to(device, dtype).to(memory_format=torch.channels_last)
    return PackedVGG(net) if runtime == "packed" else net
