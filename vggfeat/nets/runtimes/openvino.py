"""A network as OpenVINO runs it, the fastest engine for CPUs in bf16: the extra ``openvino``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import Any, Self

import torch
from torch import Tensor

from vggfeat._io.text import short_of_memory
from vggfeat.errors import MissingExtra
from vggfeat.nets.config import Layer
from vggfeat.nets.runtimes import Runtime, register
from vggfeat.nets.runtimes.inference import Inference
from vggfeat.nets.vgg import VGG


class OpenVINOVGG(Inference):
    """A dense network on the CPU, computed by OpenVINO in float32 or bfloat16.

    Images may be of any shape: OpenVINO keeps what it made for each shape that it has met.
    Several threads may use it; one at a time computes, on all its cores.
    """

    def __init__(self, net: VGG, dtype: torch.dtype) -> None:
        super().__init__(net)
        self._whole = net
        self._hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
        }
        self._lock = Lock()
        self._compile()

    def truncated(self, *layers: str) -> Self:
        """Return the network up to the last of `layers`, compiled anew of the same weights."""
        other = super().truncated(*layers)
        other._compile()
        return other

    def _compile(self) -> None:
        ov, core = _openvino()
        self._compiled = core.compile_model(_graph(self, self._whole, ov), "CPU", self._hints)
        self._request = self._compiled.create_infer_request()

    def maps(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the activations of every layer asked for, float32; see :meth:`VGG.maps`.

        Raises
        ------
        MemoryError
            If numbers are not finite: OpenVINO gives such where memory ends, and no error.
        """
        self._check_size(pixels)
        given = pixels.float().contiguous().numpy()
        with self._lock:
            answer = self._request.infer([given], share_inputs=True)
            found = {name: torch.from_numpy(answer[k].copy()) for k, name in enumerate(self.wanted)}
        if not all(torch.isfinite(one).all() for one in found.values()):
            raise MemoryError("OpenVINO gave numbers that are none, as it does when memory ends")
        return found


@cache
def _openvino() -> tuple[Any, Any]:
    """Return the package, and its core, one for the life of the process.

    A core gives the thread that makes it a stack for signals, and frees that stack when it goes.
    If it goes in another thread, as what is garbage may, the next signal of the first one, such as
    that a child has ended, ends the process.
    """
    try:
        with _untold():
            import openvino
    except ImportError as error:
        if short_of_memory(error):
            raise
        raise MissingExtra.of("The runtime openvino", "OpenVINO", "openvino") from error
    return openvino, openvino.Core()


@contextmanager
def _untold() -> Iterator[None]:
    """Import OpenVINO without its telemetry, which forks and tells an analytics server of it."""
    name = "openvino_telemetry"
    if name in sys.modules:  # somebody else's import has told already
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        yield
    finally:
        del sys.modules[name]


def _graph(spec: VGG, net: VGG, ov: Any) -> Any:
    """Write the network in OpenVINO's operations."""
    ops = ov.opset13
    x = pixels = ops.parameter([-1, 3, -1, -1], ov.Type.f32, "pixels")
    found = {}
    for layer in spec.layers:
        x = _operation(layer, x, net, ops)
        if layer.name + "_pre" in spec.wanted:
            found[layer.name + "_pre"] = x
        if layer.relu:
            x = ops.relu(x)
        if layer.name in spec.wanted:
            found[layer.name] = x
    results = [ops.result(found[name]) for name in spec.wanted]
    return ov.Model(results, [pixels], spec.net)


def _operation(layer: Layer, x: Any, net: VGG, ops: Any) -> Any:
    """Apply a layer up to its ReLU."""
    if layer.kind == "pool":
        # Its own ceil refuses a map of one location; a margin at the end is the same.
        end = [1, 1] if net.pool_rounding == "ceil" else [0, 0]
        return ops.max_pool(x, [2, 2], [1, 1], [0, 0], end, [2, 2]).output(0)
    if layer.kind == "lrn":
        # OpenVINO divides α by n, as torch does.
        return ops.lrn(x, ops.constant([1]), alpha=5e-4, beta=0.75, bias=2.0, size=5)
    if layer.kind == "prob":
        return ops.softmax(x, 1)
    module = getattr(net, layer.name)
    weight = ops.constant(module.weight.detach().float().contiguous().numpy())
    bias = ops.constant(module.bias.detach().float().reshape(1, -1, 1, 1).numpy())
    side = layer.padding
    return ops.add(ops.convolution(x, weight, [1, 1], [side] * 2, [side] * 2, [1, 1]), bias)


def _check() -> None:
    if not find_spec("openvino"):
        raise MissingExtra.of("The runtime openvino", "OpenVINO", "openvino")


def _build(net: VGG, _: torch.device, dtype: torch.dtype) -> VGG:
    return OpenVINOVGG(net, dtype)


register(Runtime("openvino", 2, _build, _check))
