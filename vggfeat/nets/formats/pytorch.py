"""torch's own files: ``.pth`` and ``.safetensors``, with our names, torchvision's or timm's."""

from __future__ import annotations

import pickle  # for its exception only
import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from vggfeat.errors import WeightsError
from vggfeat.nets.checksums import OWN, checked
from vggfeat.nets.formats import pickles
from vggfeat.nets.formats.parameters import FC, Contents, Pair, Parameter, named_by_order, pairs_of
from vggfeat.nets.preprocessing import TORCHVISION, PixelConvention

CANONICAL = re.compile(r"(?:.*\.)?(conv[1-5]_[1-4]|fc[678])\.(weight|bias)")
TORCH = re.compile(r"(?:.*\.)?(features|classifier)\.(\d+)\.(\w+)")
TIMM = re.compile(r"(?:.*\.)?(pre_logits\.fc1|pre_logits\.fc2|head\.fc)\.(weight|bias)")
TIMM_FC = {"pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7", "head.fc": "fc8"}
TORCHVISION_FC = {0: "fc6", 3: "fc7", 6: "fc8"}
NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts keep it
DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


def safetensors_contents(path: Path) -> Contents:
    """Read a ``.safetensors``.

    Raises
    ------
    WeightsError
        If it has no layers of a VGG net.
    """
    file: Any = safe_open(path, framework="pt")
    metadata = dict(file.metadata() or {})
    if metadata.get(OWN, "").startswith("{"):  # a header, where weights have a version
        raise WeightsError(
            "it is a saved SVM, which has no layers of a net. `vggfeat predict` takes it; here "
            "name weights of a net"
        )
    reader = checked(metadata)
    parameters = {}
    for name in file.keys():  # noqa: SIM118  # it is no mapping
        entry = file.get_slice(name)
        dtype = entry.get_dtype()
        if dtype in DTYPES:
            parameters[name] = Parameter(
                tuple(entry.get_shape()),
                DTYPES[dtype],
                reader(name, partial(file.get_tensor, name)),
            )
    return _contents(parameters, metadata)


def pth_contents(path: Path) -> Contents:
    """Read a ``.pth`` without running any code of it.

    Raises
    ------
    WeightsError
        If it holds something else than a dictionary of tensors.
    """
    state: Any = _loaded(path)
    for key in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise WeightsError(f"it holds a {type(state).__name__}, not a state dict")
    metadata = getattr(state, "_metadata", {}).get(OWN, {})
    parameters = {
        str(name): _parameter(str(name), value)
        for name, value in state.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    return _contents(parameters, {str(k): str(v) for k, v in metadata.items()})


def _loaded(path: Path) -> object:
    pickles.check(path)
    mappable = zipfile.is_zipfile(path)  # files from before torch 1.6 are not
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            "it is damaged, or holds Python objects beside tensors, and those are never loaded. "
            "Save a state dict: torch.save(model.state_dict(), path)"
        ) from error


def _parameter(name: str, value: Tensor) -> Parameter:
    if value.layout is not torch.strided or value.device.type != "cpu":
        raise WeightsError(f"{name} is a tensor that does not hold its numbers")
    if value.nbytes > value.untyped_storage().nbytes():  # one number may be shown as a trillion
        raise WeightsError(f"{name} promises {value.nbytes:,} bytes and holds fewer")
    dtype = str(value.dtype).removeprefix("torch.")
    return Parameter(tuple(value.shape), dtype, value.detach)


def _contents(parameters: dict[str, Parameter], metadata: dict[str, str]) -> Contents:
    """Sort parameters to layers by whichever names they have."""
    named: dict[str, dict[str, Parameter]] = defaultdict(dict)
    counted: dict[str, dict[int, dict[str, Parameter]]] = {"features": {}, "classifier": {}}
    ignored = []
    for name, parameter in parameters.items():
        if match := CANONICAL.fullmatch(name) or TIMM.fullmatch(name):
            parts = named[TIMM_FC.get(match[1], match[1])]
        elif match := TORCH.fullmatch(name):
            parts = counted[match[1]].setdefault(int(match[2]), {})
        else:
            ignored.append(name)
            continue
        if match[match.lastindex or 0] in parts:
            raise WeightsError(f"it has two parameters that end in {match[0]}")
        parts[match[match.lastindex or 0]] = parameter
    pixels = PixelConvention.from_json(metadata["pixels"]) if OWN in metadata else None
    if not counted["features"]:
        return Contents(pairs_of(named), ignored, pixels=pixels, metadata=metadata)
    pairs = _torchvision(counted["features"], counted["classifier"]) | pairs_of(named)
    return Contents(pairs, ignored, TORCHVISION, pixels, metadata)


def _torchvision(
    features: dict[int, dict[str, Parameter]], classifier: dict[int, dict[str, Parameter]]
) -> dict[str, Pair]:
    if any("running_mean" in parts for parts in features.values()):
        raise WeightsError(
            "it is a VGG net with batch normalisation, which the paper's nets do not have. "
            "Use torchvision's vgg11, vgg13, vgg16 or vgg19, not vgg16_bn"
        )
    convolutions = pairs_of({f"features.{n}": features[n] for n in sorted(features)})
    connections = pairs_of({f"classifier.{n}": classifier[n] for n in sorted(classifier)})
    pairs = named_by_order(list(convolutions.values()), [])
    if len(connections) == len(FC):
        return pairs | dict(zip(FC, connections.values(), strict=True))
    if unknown := classifier.keys() - TORCHVISION_FC.keys():
        raise WeightsError(f"its classifier.{min(unknown)} is neither fc6, fc7 nor fc8")
    return pairs | {TORCHVISION_FC[n]: connections[f"classifier.{n}"] for n in sorted(classifier)}
