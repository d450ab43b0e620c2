"""Keras's ``.h5``: weights of any Keras from 1 to 3, or whole models, read without Keras."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import h5py
import torch

from vggfeat.errors import WeightsError
from vggfeat.nets.formats.parameters import Contents, Pair, Parameter, named_by_order, pairs_of

CONVOLUTION = re.compile(r"block([1-5])_conv([1-4])")
CONNECTIONS = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}
HARMLESS = 64 << 20  # bytes that a dataset may promise, whatever it holds
RATIO = 100  # of bytes promised to bytes held above that; weights hardly compress
ANONYMOUS = re.compile(r"(conv2d|dense)(?:_(\d+))?")  # as Keras names what the user did not


def contents(path: Path) -> Contents:
    """Read the layers of a VGG net of ``keras.applications``, or of one built in its order.

    Raises
    ------
    WeightsError
        If the file is damaged or has no such layers.
    """
    file = h5py.File(path, "r")  # closed with the last parameter that reads from it
    named: dict[str, dict[str, Parameter]] = defaultdict(dict)
    anonymous: dict[tuple[str, int], dict[str, Parameter]] = defaultdict(dict)
    ignored = []
    for dataset in _datasets(file):
        part = "bias" if dataset.ndim == 1 else "weight"
        key = _layer(dataset)
        if isinstance(key, str):
            named[key][part] = _parameter(dataset)
        elif key and not named:
            anonymous[key][part] = _parameter(dataset)
        else:
            ignored.append(str(dataset.name).lstrip("/"))
    return Contents(_reordered(_pairs(named, anonymous)), ignored)


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []

    def visit(name: str, entry: h5py.HLObject) -> None:
        if isinstance(entry, h5py.Dataset) and not name.startswith("optimizer"):
            found.append(entry)

    file.visititems(visit)  # hard links only, each once: a file cannot lead it in circles
    return found


def _layer(dataset: h5py.Dataset) -> str | tuple[str, int] | None:
    """Name the layer of a dataset: ours, or Keras's own kind and number, or None.

    Keras 3 keeps the user's name of a layer as an attribute of the group ``vars``.
    """
    stated = dataset.parent.attrs.get("name", "") if dataset.parent else ""
    names = [str(stated), *str(dataset.name).split("/")]
    for name in names:
        if match := CONVOLUTION.fullmatch(name):
            return f"conv{match[1]}_{match[2]}"
        if name in CONNECTIONS:
            return CONNECTIONS[name]
    for name in names:
        if match := ANONYMOUS.fullmatch(name):
            return match[1], int(match[2] or 0)
    return None


def _pairs(
    named: dict[str, dict[str, Parameter]],
    anonymous: dict[tuple[str, int], dict[str, Parameter]],
) -> dict[str, Pair]:
    if named:
        return {name: _transposed(pair) for name, pair in pairs_of(named).items()}
    pairs = pairs_of({f"{kind}_{number:09}": p for (kind, number), p in anonymous.items()})
    in_order = [(name, _transposed(pairs[name])) for name in sorted(pairs)]
    return named_by_order(
        [pair for name, pair in in_order if name.startswith("conv2d")],
        [pair for name, pair in in_order if name.startswith("dense")],
    )


def _transposed(pair: Pair) -> Pair:
    """Turn (height, width, in, out) and (in, out) into torch's order."""
    sides = len(pair.weight.shape)
    if sides not in (2, 4):
        raise WeightsError(f"it has a kernel of shape {pair.weight.shape}")
    return Pair(pair.weight.permuted(*((3, 2, 0, 1) if sides == 4 else (1, 0))), pair.bias)


def _reordered(pairs: dict[str, Pair]) -> dict[str, Pair]:
    """Give fc6 its inputs in the order channel, height, width: Keras flattens channels last."""
    if "fc6" in pairs:
        weight, bias = pairs["fc6"]
        pairs["fc6"] = Pair(weight.channels_first(), bias)
    return pairs


def _parameter(dataset: h5py.Dataset) -> Parameter:
    if dataset.is_virtual or dataset.external:
        raise WeightsError(f"its {dataset.name} takes its numbers from another file")
    held = dataset.id.get_storage_size()
    if dataset.nbytes > max(HARMLESS, RATIO * held):
        raise WeightsError(f"its {dataset.name} promises {dataset.nbytes:,} bytes, holds {held:,}")
    return Parameter(
        tuple(dataset.shape), dataset.dtype.name, lambda: torch.from_numpy(dataset[()])
    )
