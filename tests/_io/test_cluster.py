"""A Ray cluster, as far as it is known without one: addresses, GPUs, and what a task takes."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace

import pytest
from helpers.mistakes import refuses

from vggfeat._io.cluster import choose_slot, connect, own_gpu
from vggfeat.errors import DeviceError, MissingExtra, ParameterError


def test_without_ray_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever asks for a cluster without the extra learns what to type."""
    monkeypatch.setitem(sys.modules, "ray", None)
    refuses(lambda: connect(), MissingExtra, ["vggfeat[ray]"])


@pytest.mark.parametrize(
    ("given", "visible", "device"),
    [(1, None, "cuda:1"), ("1", "1", "cuda:0"), ("3", "2,3", "cuda:1"), (0, "", "cuda:0")],
)
def test_the_gpu_of_a_task(
    given: str | int, visible: str | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray numbers the GPUs of the machine; torch, those that the process sees."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_gpu_ids=lambda: [given]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert own_gpu() == device


@pytest.mark.parametrize(
    ("device", "nodes", "expected"),
    [
        ("auto", [{"CPU": 16.0}, {"CPU": 6.0}], ("cpu", 4, 5)),
        ("auto", [{"CPU": 2.0}, {"memory": 1.0}], ("cpu", 2, 1)),
        ("auto", [{"CPU": 32.0, "GPU": 4.0}, {"CPU": 64.0}], ("cuda", 8, 4)),
        ("cuda", [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 6.0, "GPU": 2.0}], ("cuda", 3, 3)),
        ("cpu", [{"CPU": 32.0, "GPU": 4.0}], ("cpu", 4, 8)),
    ],
)
def test_what_a_task_takes(
    device: str,
    nodes: list[dict[str, float]],
    expected: tuple[str, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A GPU with its share of the cores, or at most four cores; a dead node counts for nothing."""
    listed = [{"Alive": True, "Resources": node} for node in nodes]
    listed.append({"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}})
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: listed))
    slot = choose_slot(device)
    assert (slot.device, slot.threads, slot.slots) == expected
    assert slot.resources["num_cpus"] == slot.threads
    assert slot.resources.get("num_gpus", 0) == (slot.device == "cuda")
    assert slot.nodes == len(nodes)


def test_devices_that_the_cluster_lacks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is never replaced silently, and Ray says which one a task has."""
    listed = [{"Alive": True, "Resources": {"CPU": 4.0}}]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: listed))
    refuses(lambda: choose_slot("cuda"), DeviceError, ["no GPU"])
    refuses(lambda: choose_slot("cuda:1"), ParameterError, ["cuda:1", "auto"])
    listed[0]["Resources"] = {}
    refuses(lambda: choose_slot("auto"), DeviceError, ["no CPUs"])


def test_an_address_where_nothing_listens_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong address ends the run within seconds, with how a cluster is started."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # taken, and not listening
        refuses(
            lambda: connect(f"127.0.0.1:{bound.getsockname()[1]}"),
            DeviceError,
            ["ray start --head"],
        )
