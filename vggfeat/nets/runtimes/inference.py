"""torch itself as a runtime, and what networks made for inference alone have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from threading import Lock
from typing import Any, Self

import torch

from vggfeat.nets.config import layers_until, resolve_layer
from vggfeat.nets.runtimes import Runtime, register
from vggfeat.nets.vgg import VGG


class Inference(VGG):
    """A dense network like another one, without its numbers: subclasses keep them their way."""

    def __init__(self, net: VGG) -> None:
        super().__init__(
            net.net,
            layers=net.wanted,
            dense=True,
            num_classes=net.num_classes,
            pool_rounding=net.pool_rounding,
            init=None,
        )
        self.eval()

    def truncated(self, *layers: str) -> Self:
        """Return the network up to the last of `layers`, sharing its numbers."""
        other = copy(self)
        other.wanted = tuple(dict.fromkeys(resolve_layer(self.net, layer) for layer in layers))
        other.layers = layers_until(self.net, other.wanted, self.num_classes)
        return other


def place(net: VGG, device: torch.device, dtype: torch.dtype) -> VGG:
    """Put a network on a device, in the layout in memory that convolutions are fastest in."""
    return net.to(device, dtype).to(memory_format=torch.channels_last)


@contextmanager
def arithmetic(device: torch.device, dtype: torch.dtype, deterministic: bool) -> Iterator[None]:
    """Set how a device computes while a network runs, whatever the program around it has set.

    Where torch would compute fp32 in TF32 on a GPU, or in bf16 on a CPU, results have ten or eight
    bits, not 24: that is off. If `deterministic`, cuDNN takes algorithms that repeat their results,
    without trying which is fastest.
    """
    fp32 = dtype == torch.float32
    with ExitStack() as settings:
        settings.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cpu" and fp32:
            settings.enter_context(_all_bits)
        elif device.type == "cuda" and (fp32 or deterministic):
            tf32 = not fp32 and torch.backends.cudnn.allow_tf32
            flags = {"benchmark": False, "deterministic": deterministic, "allow_tf32": tf32}
            settings.enter_context(torch.backends.cudnn.flags(enabled=True, **flags))
        yield


class _AllBits:
    """Let oneDNN compute fp32 in fp32: `torch.set_float32_matmul_precision` may allow less.

    The setting is the whole process's: it goes back when the last of several threads is done.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._before: list[tuple[Any, str]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            several = [getattr(torch.backends.mkldnn, name, None) for name in ("matmul", "conv")]
            kinds: list[Any] = [kind for kind in several if hasattr(kind, "fp32_precision")]  # 2.9
            self._before = [(kind, kind.fp32_precision) for kind in kinds]
            for kind in kinds:
                kind.fp32_precision = "ieee"

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for kind, precision in self._before:
                    kind.fp32_precision = precision


_all_bits = _AllBits()
register(Runtime("torch", 0, place, devices=("cpu", "cuda", "mps")))
