"""torch's own files: ``.pth`` and ``.safetensors``, with our names, torchvision's or timm's."""

from __future__ import annotations

import pickle  # for its exception only
import re
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from vggfeat.errors import WeightsError
from vggfeat.nets import statements as own
from vggfeat.nets.checksums import (
    KEY,
    OWN,
    VERSION,
    checksums_of,
    digests_in,
    save_tensors,
    sha256_tensor,
)
from vggfeat.nets.config import torchvision_names
from vggfeat.nets.formats import ASSUMED, Format, register
from vggfeat.nets.formats.parameters import FC, Contents, Pair, Parameter, name_by_order, pair
from vggfeat.nets.preprocessing import CAFFE, TORCHVISION, PixelConvention

ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # of a .pth before torch 1.6
CANONICAL = re.compile(r"(?:.*\.)?(conv[1-5]_[1-4]|fc[678])\.(?P<part>weight|bias)")
TORCH = re.compile(r"(?:.*\.)?(features|classifier)\.(?:module\.)?(\d+)\.(?P<part>\w+)")
TIMM = re.compile(r"(?:.*\.)?(pre_logits\.fc1|pre_logits\.fc2|head\.fc)\.(?P<part>weight|bias)")
TIMM_FC = {"pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7", "head.fc": "fc8"}
TORCHVISION_FC = {0: "fc6", 3: "fc7", 6: "fc8"}
NESTED = ("state_dict", "model_state_dict", "model", "net")  # where training scripts keep it
OTHERS = {  # what a zip file of others has inside, what it is then, and what to do
    "constants.pkl": ("a TorchScript program", "torch.save(torch.jit.load(old).state_dict(), new)"),
    "model.weights.h5": ("a Keras model", 'model.save_weights("new.weights.h5")'),
    ".npy": ("a file of NumPy arrays", "torch.save({name: tensor, …}, new), torchvision's names"),
}
DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


def _sniff_safetensors(path: Path, head: bytes) -> bool:
    header = int.from_bytes(head[:8], "little")  # bytes of the JSON that follows
    return head[8:9] == b"{" and header <= path.stat().st_size


def _read_safetensors(path: Path) -> Contents:
    file: Any = safe_open(path, framework="pt")
    metadata = dict(file.metadata() or {})
    if metadata.get(OWN, "").startswith("{"):  # a header, where weights have a version
        raise WeightsError(
            "it is a saved SVM, which has no layers of a net. `vggfeat predict` takes it; here "
            "name weights of a net"
        )
    digests = digests_in(metadata)

    def read(name: str) -> Tensor:
        tensor: Tensor = file.get_tensor(name)
        if digests is not None and sha256_tensor(tensor) != digests.get(name):
            raise WeightsError(f"{name} is not what was written: its checksum does not match")
        return tensor

    parameters = {}
    kept = {}
    for name in file.keys():  # noqa: SIM118  # it is no mapping
        entry = file.get_slice(name)
        dtype = entry.get_dtype()
        if dtype in DTYPES:
            shape = tuple(entry.get_shape())
            parameters[name] = Parameter(shape, DTYPES[dtype], partial(read, name))
        elif name.rpartition(".")[2] == own.KEY:
            kept[name] = read(name)
    return _contents(parameters, metadata, kept)


def _write_safetensors(path: Path, state: dict[str, Tensor], statements: dict[str, str]) -> None:
    metadata = {"format": "pt", OWN: VERSION, **statements}
    metadata[KEY] = checksums_of(state, metadata)
    save_tensors(state, path, metadata)


def _sniff_pth(_: Path, head: bytes) -> bool:
    return head.startswith((ZIP, LEGACY))


def _read_pth(path: Path) -> Contents:
    _refuse_others(path)
    state, others = _find_state(_load(path))
    metadata = getattr(state, "_metadata", {}).get(OWN, {})
    parameters = {
        str(name): _parameter(str(name), value)
        for name, value in state.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    kept = {str(name): v for name, v in state.items() if isinstance(v, Tensor)}
    contents = _contents(parameters, {str(k): str(v) for k, v in metadata.items()}, kept)
    contents.ignored += others
    return contents


def _refuse_others(path: Path) -> None:
    """Say what a zip file is that others write, and how to write one that is read."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    for ending, (kind, right) in OTHERS.items():
        if any(name.endswith(ending) for name in names):
            raise WeightsError(f"it is {kind}, which is not read. Write its weights alone: {right}")


def _find_state(content: object) -> tuple[Mapping[Any, Any], list[str]]:
    """Find the state dict in what a training script saved; name others that are beside it."""
    if isinstance(content, Mapping) and not any(isinstance(v, Tensor) for v in content.values()):
        inside = {str(key): v for key, v in content.items() if isinstance(v, Mapping)}
        keys = [key for key, value in inside.items() if _holds_layers(value)]
        keys = keys or [key for key in NESTED if key in inside]
        known = [key for key in NESTED if key in keys]
        if not known and len(keys) > 1:
            raise WeightsError(
                f"it holds several state dicts: {', '.join(keys)}. Save one of them alone"
            )
        for key in known or keys:
            state, others = _find_state(inside[key])
            beside = (f"{k} (a state dict beside {key}, which is read)" for k in keys if k != key)
            return state, [*others, *beside]
    if not isinstance(content, Mapping):
        raise WeightsError(f"it holds a {type(content).__name__}, not a state dict")
    return content, []


def _holds_layers(content: Mapping[Any, Any]) -> bool:
    """Tell whether layers of a net are in it, or in what it holds: an optimizer has none."""
    return any(
        any(pattern.fullmatch(str(name)) for pattern in (CANONICAL, TORCH, TIMM))
        if isinstance(value, Tensor)
        else isinstance(value, Mapping) and _holds_layers(value)
        for name, value in content.items()
    )


def _write_pth(path: Path, state: dict[str, Tensor], statements: dict[str, str]) -> None:
    """Write torchvision's names; what we state rides where load_state_dict passes it by."""
    names = torchvision_names(statements["net"])
    modules = {ours.removesuffix("_pre"): module for module, ours in reversed(names.items())}
    renamed: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in state.items():
        layer, _, part = name.rpartition(".")
        renamed[f"{modules[layer]}.{part}"] = tensor
    metadata = {"": {"version": 1}, OWN: {OWN: VERSION, **statements}}
    renamed._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]
    with path.open("wb") as out:  # torch takes no name that begins with a dot
        torch.save(renamed, out)


def _load(path: Path) -> object:
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
    dtype = str(value.dtype).removeprefix("torch.")
    return Parameter(tuple(value.shape), dtype, value.detach)


def _contents(
    parameters: dict[str, Parameter], metadata: dict[str, str], tensors: Mapping[str, Tensor]
) -> Contents:
    """Sort parameters to layers by whichever names they have; `tensors` may have statements."""
    found, constants = own.find(tensors)
    metadata = {**found, **metadata}
    named: dict[str, dict[str, Parameter]] = defaultdict(dict)
    counted: dict[str, dict[int, dict[str, Parameter]]] = {"features": {}, "classifier": {}}
    ignored = []
    for name, parameter in parameters.items():
        if match := CANONICAL.fullmatch(name) or TIMM.fullmatch(name):
            parts = named[TIMM_FC.get(match[1], match[1])]
        elif match := TORCH.fullmatch(name):
            parts = counted[match[1]].setdefault(int(match[2]), {})
        elif name in constants:
            continue
        else:
            ignored.append(name)
            continue
        if match["part"] in parts:
            raise WeightsError(f"it has two parameters that end in {match[0]}")
        parts[match["part"]] = parameter
    usual, pixels = (TORCHVISION if counted["features"] else CAFFE), None
    if OWN in metadata and ASSUMED in metadata:
        usual = PixelConvention.from_json(metadata[ASSUMED])
    elif OWN in metadata:
        pixels = PixelConvention.from_json(metadata["pixels"])
    said = {key: text for key, text in metadata.items() if key not in ("format", OWN, KEY)}
    pairs = pair(named)
    if counted["features"]:
        pairs = _torchvision(counted["features"], counted["classifier"]) | pairs
    return Contents(pairs, ignored, usual, pixels, said)


def _torchvision(
    features: dict[int, dict[str, Parameter]], classifier: dict[int, dict[str, Parameter]]
) -> dict[str, Pair]:
    """Name layers that torchvision numbers."""
    if any("running_mean" in parts for parts in features.values()):
        raise WeightsError(
            "it is a VGG net with batch normalisation, which the paper's nets do not have. "
            "Use torchvision's vgg11, vgg13, vgg16 or vgg19, not vgg16_bn"
        )
    convolutions = pair({f"features.{n}": features[n] for n in sorted(features)})
    connections = pair({f"classifier.{n}": classifier[n] for n in sorted(classifier)})
    pairs = name_by_order(list(convolutions.values()), [])
    if len(connections) == len(FC):
        return pairs | dict(zip(FC, connections.values(), strict=True))
    if unknown := classifier.keys() - TORCHVISION_FC.keys():
        raise WeightsError(f"its classifier.{min(unknown)} is neither fc6, fc7 nor fc8")
    return pairs | {TORCHVISION_FC[n]: connections[f"classifier.{n}"] for n in sorted(classifier)}


register(
    Format(
        "safetensors", (".safetensors",), _sniff_safetensors, _read_safetensors, _write_safetensors
    )
)
register(Format("PyTorch", (".pth", ".pt"), _sniff_pth, _read_pth, _write_pth))
