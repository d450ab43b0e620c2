"""ONNX files, read through the ``onnx`` package: the extra ``onnx``.

Exporters name weights as they like, so layers are told by their order in the graph: convolutions,
then full connections (Gemm, or MatMul and Add).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

from vggfeat.errors import MissingExtra, WeightsError
from vggfeat.nets.config import FC_SIDE
from vggfeat.nets.formats import Format, register
from vggfeat.nets.formats.parameters import Contents, Pair, Parameter, name_by_order
from vggfeat.nets.preprocessing import TORCHVISION

FLOATS = {1: "float32", 10: "float16", 11: "float64"}  # TensorProto.DataType
LAST = [0, 2, 3, 1]  # the transposition that moves channels last


def _sniff(_: Path, head: bytes) -> bool:
    """Tell a ModelProto, which has no magic number: its IR version, then another field."""
    return head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] in (b"\x12", b"\x3a", b"\x42")


def _read(path: Path) -> Contents:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra.of("Reading ONNX files", "onnx", "onnx") from error
    graph = onnx.load_model(path, load_external_data=False).graph

    def parameter(tensor: Any) -> Parameter:
        _check_external(tensor, path)

        def numbers() -> torch.Tensor:
            array = onnx.numpy_helper.to_array(tensor, str(path.parent))
            return torch.from_numpy(array.copy())  # of bytes that may not be written

        return Parameter(tuple(tensor.dims), FLOATS[tensor.data_type], numbers)

    tensors = {
        tensor.name: parameter(tensor) for tensor in graph.initializer if tensor.data_type in FLOATS
    }
    return Contents(name_by_order(*_layers(graph.node, tensors)), usual=TORCHVISION)


def _check_external(tensor: Any, path: Path) -> None:
    """Refuse numbers outside of the file's folder: their place is what the file says."""
    for name in (entry.value for entry in tensor.external_data if entry.key == "location"):
        if PureWindowsPath(name).name != name or name in ("", ".."):
            raise WeightsError(f"it keeps its weights outside its folder, at {name!r}")
        if not (path.parent / name).is_file():
            raise WeightsError(f"it keeps its weights in {name}, which is not beside it")


def _layers(nodes: Sequence[Any], tensors: dict[str, Parameter]) -> tuple[list[Pair], list[Pair]]:
    """Collect the parameters of the convolutions and of the full connections, in order."""
    added = {name: node for node in nodes if node.op_type == "Add" for name in node.input}
    convolutions: list[Pair] = []
    connections: list[Pair] = []
    channels_last = False
    for node in nodes:
        if node.op_type == "Transpose" and convolutions and not connections:
            channels_last = _attributes(node).get("perm") == LAST
        elif node.op_type == "Conv":
            both = _pair(node, node.input[1:], tensors)
            # Full connections may have been exported in their fully-convolutional form.
            dense = bool(connections) or both.weight.shape[2:] == (FC_SIDE, FC_SIDE)
            (connections if dense else convolutions).append(both)
        elif node.op_type == "Gemm" or (node.op_type == "MatMul" and node.input[1] in tensors):
            both = _connection(node, added, tensors)
            if channels_last and not connections:
                both = Pair(both.weight.channels_first(), both.bias)
            connections.append(both)
    return convolutions, connections


def _connection(node: Any, added: dict[str, Any], tensors: dict[str, Parameter]) -> Pair:
    """Return weight (out, in) and bias of a Gemm, or of a MatMul and the Add after it."""
    if node.op_type == "MatMul":
        sums = [(output, added[output]) for output in node.output if output in added]
        biases = [name for output, add in sums for name in add.input if name != output]
        weight, bias = _pair(node, [node.input[1], *biases], tensors)
        return Pair(weight.permuted(1, 0), bias)
    attributes = _attributes(node)
    if any(attributes.get(factor, 1.0) != 1.0 for factor in ("alpha", "beta")):
        raise WeightsError("a Gemm of its graph scales its terms, as no VGG net does")
    weight, bias = _pair(node, node.input[1:], tensors)
    return Pair(weight if attributes.get("transB") == 1 else weight.permuted(1, 0), bias)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    return {entry.name: get_attribute_value(entry) for entry in node.attribute}


def _pair(node: Any, names: Sequence[str], tensors: dict[str, Parameter]) -> Pair:
    known = [tensors[name] for name in names if name in tensors]
    if len(known) != 2:
        raise WeightsError(
            f"a {node.op_type} of its graph needs a stored weight and bias, and has of "
            f"{', '.join(names) or 'nothing'} {len(known)}. Export it without quantisation or "
            "shared computations"
        )
    return Pair(*known)


register(Format("ONNX", (".onnx",), _sniff, _read))
