"""Digests of our own ``.safetensors``, so that a bit that flipped on a disk is not trained on."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vggfeat.errors import WeightsError

KEY = "sha256"
OWN = "vggfeat"  # key of our statements: the version of what is said
UNSEALED = "1"  # the version that had no checksums
_ABOUT = ""  # stands for the statements, where other keys are names of parameters


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a ``.safetensors``.

    Raises
    ------
    OSError
        If the disk is full, which the library reports in its own way.
    """
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        full = re.search("space|too large", str(error), re.IGNORECASE)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def seals(state: Mapping[str, Tensor], statements: Mapping[str, str]) -> str:
    """Return as JSON the digest of each parameter, and that of what is said of all.

    Examples
    --------
    >>> sorted(json.loads(seals({"fc8.bias": torch.zeros(2)}, {"net": "D"})))
    ['', 'fc8.bias']
    """
    found = {name: _digest(tensor) for name, tensor in state.items()}
    return json.dumps({_ABOUT: _said(statements, found), **found}, sort_keys=True)


def checked(
    metadata: Mapping[str, str],
) -> Callable[[str, Callable[[], Tensor]], Callable[[], Tensor]]:
    """Return what makes a reader of a parameter compare its digest; files without one are read.

    Raises
    ------
    WeightsError
        If what the file says of itself is not what was written.
    """
    if KEY not in metadata and metadata.get(OWN, UNSEALED) != UNSEALED:
        raise WeightsError("its checksums are gone")
    if KEY not in metadata:
        return lambda name, tensor: tensor
    statements = {name: said for name, said in metadata.items() if name != KEY}
    try:
        found = dict(json.loads(metadata[KEY]))
        about = found.pop(_ABOUT)
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError("its checksums cannot be read") from error
    if about != _said(statements, found):
        raise WeightsError("what it says of itself is not what was written")

    def reader(name: str, tensor: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def read() -> Tensor:
            value = tensor()
            if _digest(value) != found.get(name):
                raise WeightsError(f"{name} is not what was written: its checksum does not match")
            return value

        return read

    return reader


def _said(statements: Mapping[str, str], found: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([statements, found], sort_keys=True).encode()).hexdigest()


def _digest(tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
