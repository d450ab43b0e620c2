"""Keras's ``.h5``: weights of any Keras from 1 to 3, or whole models, read without Keras."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import h5py
import torch

from vggfeat.errors import WeightsError
from vggfeat.nets.formats import Format, register
from vggfeat.nets.formats.parameters import Contents, Pair, Parameter, name_by_order, pair

HDF5 = b"\x89HDF\r\n\x1a\n"
CONVOLUTION = re.compile(r"block([1-5])_conv([1-4])")
CONNECTIONS = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}
ANONYMOUS = re.compile(r"(conv2d|dense)(?:_(\d+))?")  # as Keras names what the user did not


def _sniff(_: Path, head: bytes) -> bool:
    return head.startswith(HDF5)


def _read(path: Path) -> Contents:
    """Read the layers of a VGG net of ``keras.applications``, or of one built in its order."""
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
    pairs = _pairs(named, anonymous)
    if "fc6" in pairs:  # Keras flattens channels last
        weight, bias = pairs["fc6"]
        pairs["fc6"] = Pair(weight.channels_first(), bias)
    return Contents(pairs, ignored)


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    datasets: list[h5py.Dataset] = []

    def visit(name: str, entry: h5py.HLObject) -> None:
        if isinstance(entry, h5py.Dataset) and not name.startswith("optimizer"):
            datasets.append(entry)

    file.visititems(visit)  # hard links only, each once: a file cannot lead it in circles
    return datasets


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
        return {name: _transpose(both) for name, both in pair(named).items()}
    pairs = pair({f"{kind}_{number:09}": p for (kind, number), p in anonymous.items()})
    in_order = [(name, _transpose(pairs[name])) for name in sorted(pairs)]
    return name_by_order(
        [both for name, both in in_order if name.startswith("conv2d")],
        [both for name, both in in_order if name.startswith("dense")],
    )


def _transpose(both: Pair) -> Pair:
    """Turn (height, width, in, out) and (in, out) into torch's order."""
    sides = len(both.weight.shape)
    if sides not in (2, 4):
        raise WeightsError(f"it has a kernel of shape {both.weight.shape}")
    return Pair(both.weight.permuted(*((3, 2, 0, 1) if sides == 4 else (1, 0))), both.bias)


def _parameter(dataset: h5py.Dataset) -> Parameter:
    if dataset.is_virtual or dataset.external:
        raise WeightsError(f"its {dataset.name} takes its numbers from another file")
    return Parameter(
        tuple(dataset.shape), dataset.dtype.name, lambda: torch.from_numpy(dataset[()])
    )


register(Format("Keras", (".h5", ".hdf5"), _sniff, _read))
