"""What weights say of themselves, as a tensor: it goes wherever a state dict is saved."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from vggfeat.errors import WeightsError
from vggfeat.nets.checksums import OWN, VERSION
from vggfeat.nets.preprocessing import PixelConvention

KEY = "_extra_state"  # torch's name of what a module keeps beside parameters and buffers
CONSTANTS = ("mean", "std")  # buffers of the same module, which the statements have too


def to_tensor(net: str, pixels: PixelConvention, licence: str) -> Tensor:
    """Return the statements of a file of weights as bytes of JSON, (n,) of uint8.

    Examples
    --------
    >>> from vggfeat.nets.preprocessing import TORCHVISION
    >>> statements = from_tensor(to_tensor("D", TORCHVISION, "MIT"))
    >>> statements["net"], PixelConvention.from_json(statements["pixels"]) == TORCHVISION
    ('D', True)
    """
    statements = {OWN: VERSION, "net": net, "pixels": pixels.to_json(), "licence": licence}
    return torch.frombuffer(bytearray(json.dumps(statements).encode()), dtype=torch.uint8)


def from_tensor(values: Tensor) -> dict[str, str]:
    """Inverse of :func:`to_tensor`; of what another program keeps there, nothing.

    Raises
    ------
    WeightsError
        If they begin as ours do and cannot be read.
    """
    if values.dtype != torch.uint8 or values.ndim != 1:
        return {}
    data = values.cpu().numpy().tobytes()
    if not data.startswith(f'{{"{OWN}"'.encode()):
        return {}
    try:
        statements = json.loads(data)
        return {key: str(statements[key]) for key in (OWN, "net", "pixels", "licence")}
    except (ValueError, KeyError, RecursionError) as error:
        raise WeightsError("what it says of its pixels cannot be read") from error


def find(state: Mapping[str, Tensor]) -> tuple[dict[str, str], set[str]]:
    """Find the statements in a state dict; return them and the names that they make known.

    The module that keeps them may be a part of another.
    """
    for name, values in state.items():
        prefix, dot, last = name.rpartition(".")
        if last == KEY and (statements := from_tensor(values)):
            return statements, {f"{prefix}{dot}{constant}" for constant in CONSTANTS}
    return {}, set()
