"""ONNX files: a ModelProto message, read without the onnx package.

Field numbers are those of ``onnx.proto``. Exporters name weights as they like, so layers are told
by their order in the graph: convolutions, then full connections (Gemm, or MatMul and Add).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from vggfeat.errors import WeightsError
from vggfeat.nets.config import FC_SIDE
from vggfeat.nets.formats.parameters import Contents, Pair, Parameter, named_by_order
from vggfeat.nets.formats.wire import BYTES, FIXED32, Field, fields, integers, mapped, text
from vggfeat.nets.preprocessing import TORCHVISION

GRAPH = 7  # of ModelProto
NODE, INITIALIZER = 1, 5  # of GraphProto
# TensorProto.data_type → dtype, and the repeated field that may hold its numbers
TYPES = {1: ("<f4", 4), 10: ("<f2", None), 11: ("<f8", 10)}
RAW, EXTERNAL = 9, 13
LAST = (0, 2, 3, 1)  # the transposition that moves channels last


@dataclass
class _Node:
    op: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, float | list[int]] = field(default_factory=dict)


def contents(path: Path) -> Contents:
    """Read the weights of a graph's convolutions and full connections.

    Raises
    ------
    WeightsError
        If the file is damaged or its graph is not that of a VGG net.
    """
    graphs = [f.data for f in fields(mapped(path)) if f.number == GRAPH and f.wire == BYTES]
    if not graphs:
        raise WeightsError("it has no ONNX graph")
    nodes, tensors = _graph(graphs[-1], path)
    convolutions, connections = _layers(nodes, tensors)
    return Contents(named_by_order(convolutions, connections), usual=TORCHVISION)


def _layers(nodes: list[_Node], tensors: dict[str, Parameter]) -> tuple[list[Pair], list[Pair]]:
    """Collect the parameters of the convolutions and of the full connections, in order."""
    added = {name: node for node in nodes if node.op == "Add" for name in node.inputs}
    convolutions: list[Pair] = []
    connections: list[Pair] = []
    channels_last = False
    for node in nodes:
        if node.op == "Transpose" and convolutions and not connections:
            channels_last = tuple(_ints(node, "perm")) == LAST
        elif node.op == "Conv":
            pair = _pair(node, node.inputs[1:], tensors)
            # Full connections may have been exported in their fully-convolutional form.
            dense = bool(connections) or pair.weight.shape[2:] == (FC_SIDE, FC_SIDE)
            (connections if dense else convolutions).append(pair)
        elif node.op == "Gemm" or (node.op == "MatMul" and _weighted(node, tensors)):
            pair = _connection(node, added, tensors)
            if channels_last and not connections:
                pair = Pair(pair.weight.channels_first(), pair.bias)
            connections.append(pair)
    return convolutions, connections


def _connection(node: _Node, added: dict[str, _Node], tensors: dict[str, Parameter]) -> Pair:
    """Return weight (out, in) and bias of a Gemm, or of a MatMul and the Add after it."""
    if node.op == "MatMul":
        bias = [name for output in node.outputs for name in _others(added.get(output), output)]
        weight, bias_ = _pair(node, [node.inputs[1], *bias], tensors)
        return Pair(weight.permuted(1, 0), bias_)
    if any(node.attributes.get(factor, 1.0) != 1.0 for factor in ("alpha", "beta")):
        raise WeightsError("a Gemm of its graph scales its terms, as no VGG net does")
    weight, bias_ = _pair(node, node.inputs[1:], tensors)
    return Pair(weight if _ints(node, "transB") == [1] else weight.permuted(1, 0), bias_)


def _weighted(node: _Node, tensors: dict[str, Parameter]) -> bool:
    return any(name in tensors for name in node.inputs[1:2])


def _others(node: _Node | None, name: str) -> list[str]:
    return [other for other in node.inputs if other != name] if node else []


def _pair(node: _Node, names: list[str], tensors: dict[str, Parameter]) -> Pair:
    known = [tensors[name] for name in names if name in tensors]
    if len(known) != 2:
        raise WeightsError(
            f"a {node.op} of its graph needs a stored weight and bias, and has of "
            f"{', '.join(names) or 'nothing'} {len(known)}. Export it without quantisation or "
            "shared computations"
        )
    return Pair(*known)


def _ints(node: _Node, name: str) -> list[int]:
    value = node.attributes.get(name, [])
    return value if isinstance(value, list) else []


def _graph(message: memoryview, path: Path) -> tuple[list[_Node], dict[str, Parameter]]:
    nodes, tensors = [], {}
    for found in fields(message):
        if found.wire == BYTES and found.number == NODE:
            nodes.append(_node(found.data))
        elif found.wire == BYTES and found.number == INITIALIZER:
            name, parameter = _tensor(found.data, path)
            if parameter is not None:
                tensors[name] = parameter
    return nodes, tensors


def _node(message: memoryview) -> _Node:
    node = _Node()
    for found in fields(message):
        if found.wire != BYTES:
            continue
        if found.number == 1:
            node.inputs.append(text(found))
        elif found.number == 2:
            node.outputs.append(text(found))
        elif found.number == 4:
            node.op = text(found)
        elif found.number == 5:
            name, value = _attribute(found.data)
            node.attributes[name] = value
    return node


def _attribute(message: memoryview) -> tuple[str, float | list[int]]:
    name, value = "", list[int]()
    for found in fields(message):
        if found.number == 1:
            name = text(found)
        elif found.number == 2 and found.wire == FIXED32:
            return name, float(struct.unpack("<f", found.data)[0])
        elif found.number in (3, 8):
            value += integers(found)
    return name, value


def _tensor(message: memoryview, path: Path) -> tuple[str, Parameter | None]:
    """Return an initialiser; None for one that is not of floats, such as a shape."""
    name, kind, sides = "", 0, list[int]()
    found: dict[int, list[Field]] = {}
    for one in fields(message):
        if one.number == 1:
            sides += integers(one)
        elif one.number == 2:
            kind = one.integer
        elif one.number == 8:
            name = text(one)
        else:
            found.setdefault(one.number, []).append(one)
    if kind not in TYPES:
        return name, None
    code, repeated = TYPES[kind]
    number = np.dtype(code)
    if EXTERNAL in found:
        data = _external([one.data for one in found[EXTERNAL]], path)
    else:
        pieces = found.get(RAW) or found.get(repeated or RAW) or []
        data = memoryview(b"".join(one.data for one in pieces)) if pieces[1:] else _first(pieces)
    if len(sides) > 4 or len(data) != math.prod(sides) * number.itemsize:
        raise WeightsError(
            f"its initialiser {name} has {len(data):,} bytes for the shape {tuple(sides[:4])}"
        )
    shape = tuple(sides)
    return name, Parameter(
        shape, number.name, lambda: torch.from_numpy(_copied(data, number).reshape(shape))
    )


def _first(pieces: list[Field]) -> memoryview:
    return pieces[0].data if pieces else memoryview(b"")


def _copied(data: memoryview, number: np.dtype) -> np.ndarray:
    return np.frombuffer(bytearray(data), number)


def _external(entries: list[memoryview], path: Path) -> memoryview:
    """Find an initialiser in the file of weights that lies beside the graph's."""
    said = {text(pair[0]): text(pair[1]) for pair in (list(fields(e)) for e in entries)}
    location = PurePosixPath(said.get("location", ""))
    # The name comes from the file: it must not lead anywhere else on this machine.
    if len(location.parts) != 1 or location.name in ("", "..") or "\\" in location.name:
        raise WeightsError(f"it keeps its weights outside its folder, at {str(location)!r}")
    beside = path.parent / location.name
    if not beside.is_file():
        raise WeightsError(f"it keeps its weights in {location.name}, which is not beside it")
    data = mapped(beside)
    try:
        start = int(said.get("offset", "0"))
        length = int(said.get("length", len(data) - start))
    except ValueError:
        raise WeightsError(f"where its weights lie in {location.name} is no number") from None
    if start < 0 or length < 0 or start + length > len(data):
        raise WeightsError(f"{location.name} ends before the weights that are said to be in it")
    return data[start : start + length]
