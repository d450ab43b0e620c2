"""Checksums in our own ``.safetensors``, so that a bit that flipped on a disk is not trained on."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vggfeat._io.checksums import append_checksum, sha256, sha256_array, strip_checksum
from vggfeat.errors import WeightsError

KEY = "sha256"
OWN = "vggfeat"  # key of our statements: the version of what is said
VERSION = "2"  # since 2, a .safetensors has checksums
WITHOUT = "1"  # the version that had no checksums
_STATEMENTS = ""  # stands for the statements, where other keys are names of parameters


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a ``.safetensors``; a full disk, which the library tells its own way, is an OSError."""
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        full = re.search("space|too large", str(error), re.IGNORECASE)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def sha256_tensor(tensor: Tensor) -> str:
    """Return the digest of a tensor: of its type, its shape and its numbers."""
    numbers = tensor.contiguous().flatten().view(torch.uint8).numpy()
    return sha256_array(str(tensor.dtype), tensor.shape, numbers.data)


def checksums_of(state: Mapping[str, Tensor], statements: Mapping[str, str]) -> str:
    """Return the digest of each parameter and of the statements, as JSON with its own checksum.

    Examples
    --------
    >>> text = checksums_of({"fc8.bias": torch.zeros(2)}, {"net": "D"})
    >>> sorted(json.loads(strip_checksum(text.encode())))
    ['', 'fc8.bias']
    """
    digests = {name: sha256_tensor(tensor) for name, tensor in state.items()}
    digests[_STATEMENTS] = _digest(statements)
    return append_checksum(json.dumps(digests, sort_keys=True).encode()).decode()


def digests_in(metadata: Mapping[str, str]) -> dict[str, str] | None:
    """Read the digests of a file's parameters; None where it has none, as those of others."""
    if KEY not in metadata:
        if metadata.get(OWN, WITHOUT) != WITHOUT:
            raise WeightsError("its checksums are gone")
        return None
    statements = {name: text for name, text in metadata.items() if name != KEY}
    content = strip_checksum(metadata[KEY].encode("utf-8", "surrogatepass"))
    if content is None:
        raise WeightsError("its checksums are not what was written")
    digests: dict[str, str] = json.loads(content)
    if digests[_STATEMENTS] != _digest(statements):
        raise WeightsError("what it says of itself is not what was written")
    return digests


def _digest(statements: Mapping[str, str]) -> str:
    return sha256(json.dumps(statements, sort_keys=True).encode())
