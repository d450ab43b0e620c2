"""Whatever computes the network, the numbers are those of torch run plainly."""

from __future__ import annotations

import builtins
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.mistakes import refuses
from support import random_weights

from vggfeat import settings
from vggfeat.errors import MissingExtra, ParameterError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.provenance import provenance
from vggfeat.nets.config import TABLE_1, Layer
from vggfeat.nets.runtimes import (
    build_runtime,
    explain_misfit,
    has_bf16,
    list_runtimes,
    missing_runtime,
    packed,
    resolve_runtime,
)
from vggfeat.nets.runtimes import openvino as ov
from vggfeat.nets.runtimes.packed import can_pack
from vggfeat.nets.vgg import VGG
from vggfeat.nets.weights import Weights

CPU = torch.device("cpu")
SHAPES = [(1, 3, 32, 48), (3, 3, 35, 26), (2, 3, 17, 46)]
FAST = [
    pytest.param("packed", marks=pytest.mark.skipif(not can_pack(), reason="torch has no oneDNN")),
    "openvino",
]
IN_FP32 = [*FAST, "winograd"]


@pytest.fixture
def fast(request: pytest.FixtureRequest) -> str:
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return request.param


LET_GO = """
import gc, signal, subprocess, threading, torch
from vggfeat.nets.runtimes import build_runtime
from vggfeat.nets.vgg import VGG
net, cpu = VGG("A", layers="pool1", dense=True), torch.device("cpu")
made = [build_runtime(net, "openvino", cpu, torch.float32)]
del net
made[0].maps(torch.zeros(1, 3, 32, 32))
thread = threading.Thread(target=lambda: (made.clear(), gc.collect()))
thread.start()
thread.join()
signal.signal(signal.SIGCHLD, lambda *told: None)
subprocess.run(["true"])
print("survived")
"""


def network(net: str, layers: tuple[str, ...], rounding: str = "floor") -> VGG:
    torch.manual_seed(0)
    made = VGG(net, layers=layers, dense=True, num_classes=7, pool_rounding=rounding)
    for name, bias in made.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(bias)
    return made.eval().requires_grad_(False)


def both(net: VGG, runtime: str, dtype: torch.dtype, shape: tuple[int, ...]):
    """Compute maps plainly in fp32, and by a runtime in the precision."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain = net.maps(x)
        given = x.to(dtype).contiguous(memory_format=torch.channels_last)
        made = VGG(
            net.net, layers=net.wanted, dense=True, num_classes=net.num_classes,
            pool_rounding=net.pool_rounding, init=None,
        ).load(net.state_dict())  # fmt: skip
        found = build_runtime(made, runtime, CPU, dtype).maps(given)
    assert list(found) == list(plain)
    return [(plain[name], found[name].float()) for name in plain]


@pytest.mark.parametrize("fast", IN_FP32, indirect=True)
@pytest.mark.parametrize("net", TABLE_1)
def test_every_net_equals_torch_in_fp32(fast: str, net: str) -> None:
    """Maps before and after a ReLU and a pool, in batches and of odd sides, are the same."""
    layers = ("conv2_1_pre", "conv2_1", "conv3_1", "pool3")
    for rounding in ("floor", "ceil") if net == "A" else ("ceil",):  # pools are those of A
        made = network(net, layers, rounding)
        of_one_location = [(1, 3, 3, 2)] if rounding == "ceil" else []
        for shape in (*SHAPES, *of_one_location):
            for plain, found in both(made, fast, torch.float32, shape):
                torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not has_bf16(CPU), reason="this CPU does not compute in bf16")
@pytest.mark.parametrize("fast", [*FAST, "torch"], indirect=True)
@pytest.mark.parametrize("net", ["A-LRN", "E"])
def test_bf16_is_as_close_as_bf16_is(fast: str, net: str) -> None:
    """The cosine to fp32 is at least 0.9999, of every image, also through LRN."""
    for shape in SHAPES:
        for plain, found in both(network(net, ("pool3",)), fast, torch.bfloat16, shape):
            cosine = F.cosine_similarity(plain.flatten(1), found.flatten(1))
            assert cosine.min() > 0.9999


@pytest.mark.parametrize(
    "fast",
    [
        "winograd",  # what is taken in fp32
        pytest.param("packed", marks=[pytest.mark.slow, *FAST[0].marks]),
        pytest.param("openvino", marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_whole_networks_run_over_whole_images(fast: str, whole_net: Weights) -> None:
    """Posteriors and fc7 before its ReLU, of A over 224×288 pixels, to 1e-5 of their size."""
    made = VGG("A", layers=("fc7_pre", "prob"), dense=True, num_classes=10, init=None)
    made = made.load(whole_net.state).eval().requires_grad_(False)
    for plain, found in both(made, fast, torch.float32, (1, 3, 224, 288)):
        assert plain.shape[2:] == (1, 3)
        size = plain.square().mean().sqrt()
        torch.testing.assert_close(found / size, plain / size, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("fast", IN_FP32, indirect=True)
def test_descriptors_do_not_tell_what_made_them(fast: str) -> None:
    """An extractor's descriptors, and the fingerprint of its settings, are those of torch's."""
    weights = random_weights("D", ["pool3"])
    settings = {"weights": weights, "device": "cpu", "precision": "fp32"}
    plain = DenseExtractor("D", ("conv3_1", "pool3"), runtime="torch", **settings)
    other = DenseExtractor("D", ("conv3_1", "pool3"), runtime=fast, **settings)
    assert other.runtime == fast
    assert plain.extraction == other.extraction
    pixels = torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8)
    expected = plain.describe(pixels)
    for key, found in other.describe(pixels).items():
        torch.testing.assert_close(found, expected[key], rtol=1e-4, atol=1e-4)


def test_what_a_machine_lacks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO where it is installed; else packed; without oneDNN plain torch, on a GPU torch."""
    monkeypatch.setattr(packed, "can_pack", lambda: True)
    monkeypatch.setattr(ov, "find_spec", lambda name: "there")
    assert resolve_runtime("auto", CPU, "bf16") == "openvino"
    assert resolve_runtime("auto", CPU, "fp32") == "winograd"
    assert missing_runtime("openvino", CPU, "bf16") == ""
    monkeypatch.setattr(ov, "find_spec", lambda name: None)
    assert resolve_runtime("auto", CPU, "bf16") == "packed"
    assert missing_runtime("packed", CPU, "bf16") == "openvino"
    assert missing_runtime("torch", torch.device("cuda"), "bf16") == ""
    monkeypatch.setattr(packed, "can_pack", lambda: False)
    assert resolve_runtime("auto", CPU, "bf16") == "torch"
    assert resolve_runtime("auto", torch.device("cuda"), "fp32") == "torch"
    refuses(lambda: resolve_runtime("packed", CPU, "fp32"), ParameterError, ["packed", "oneDNN"])


def test_settings_have_every_runtime() -> None:
    """The choices of the setting are those that are registered."""
    assert set(get_args(settings.Runtime)) == {"auto", *(one.name for one in list_runtimes())}


@pytest.mark.parametrize("runtime", ["packed", "openvino", "winograd"])
def test_a_layer_that_a_runtime_does_not_know_is_refused(runtime: str) -> None:
    """Instead of being computed as another one; torch computes what the network itself does."""
    net, sizes = network("A", ("pool1",)), torch.ones(3)
    assert not explain_misfit(net, runtime, sizes)
    net.layers = (*net.layers, Layer("turn1", "turn", 64, 64))
    assert "turn" in explain_misfit(net, runtime, sizes)
    assert not explain_misfit(net, "torch", sizes)


def test_a_signal_is_survived_after_openvino_was_let_go_in_a_thread() -> None:
    """Garbage is collected in any thread; the signal of a child's end comes to the first one."""
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", LET_GO], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "survived"), done.stderr


def test_numbers_that_are_none_are_no_images_fault() -> None:
    """OpenVINO gives them without an error where memory ends: the run ends, no image is bad."""
    pytest.importorskip("openvino")
    net = build_runtime(network("A", ("pool1",)), "openvino", CPU, torch.float32)
    wrong = np.full((1, 64, 8, 8), np.nan, np.float32)
    net._request = SimpleNamespace(infer=lambda given, **how: [wrong])
    with pytest.raises(MemoryError, match="none"):
        net.maps(torch.zeros(1, 3, 16, 16))


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown name, a CPU's runtime on a GPU, and an extra that is not installed."""
    refuses(lambda: resolve_runtime("onnx", CPU, "fp32"), ParameterError, ["onnx", "packed"])
    refuses(
        lambda: resolve_runtime("packed", torch.device("cuda"), "fp32"),
        ParameterError,
        ["packed", "cuda"],
    )
    refuses(lambda: resolve_runtime("winograd", CPU, "bf16"), ParameterError, ["winograd", "bf16"])
    original = builtins.__import__

    def lacking(name: str, *rest: object) -> object:
        if name == "openvino":
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(ov, "_openvino", ov._openvino.__wrapped__)  # as if nobody had asked yet
    monkeypatch.setattr(builtins, "__import__", lacking)
    refuses(
        lambda: build_runtime(network("A", ("pool1",)), "openvino", CPU, torch.float32),
        MissingExtra,
        ["vggfeat[openvino]"],
    )


@pytest.mark.parametrize("fast", IN_FP32, indirect=True)
def test_what_computed_is_among_the_versions(fast: str) -> None:
    """OpenVINO's number is kept where OpenVINO computed, and there alone."""
    weights = random_weights("A", ["conv1_1"])
    extractor = DenseExtractor(
        "A", "conv1_1", weights=weights, device="cpu", precision="fp32", runtime=fast
    )
    told = provenance(extractor)
    assert told["runtime"] == fast
    assert told["versions"].get("openvino") == (version("openvino") if fast == "openvino" else None)
