"""Training by torchrun on two hosts, against training in one process; by the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.colours import two_classes
from hosts import ADDRESSES, cable, two_hosts
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")]

SETTINGS = ("--net", "A", "--S", "224", "--batch", "8", "--epochs", "2", "--learning-rate", "1e-4",
            "--dropout", "0", "--quiet", "--device", "cpu", "--precision", "fp32")  # fmt: skip
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
            "--master-addr", ADDRESSES[0], "--master-port", "29507")  # fmt: skip


def start(*command: str | Path, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment})


def test_two_hosts_train_as_one_process_does(tmp_path: Path) -> None:
    """Configuration A without dropout, the gradients over a cable: the same weights."""
    data = two_classes(tmp_path / "images", each=11)
    training = ("-m", "vggfeat", "train", "--data", data, *SETTINGS, "--out")
    with two_hosts() as spaces:
        both = []
        for rank, space in enumerate(spaces):
            joined = ("ip", "netns", "exec", space, *TORCHRUN, "--node-rank", str(rank), *training)
            network = cable("ab"[rank])
            both.append(start(*joined, tmp_path / "two", GLOO_SOCKET_IFNAME=network))
        assert [host.wait(timeout=900) for host in both] == [0, 0]
    assert start(sys.executable, *training, tmp_path / "one").wait(timeout=900) == 0
    expected, found = (load_file(tmp_path / out / "last.safetensors") for out in ("one", "two"))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        if name.startswith("momentum."):
            # What gradients came to: of other images, or counted otherwise, it would be another.
            assert (found[name] - value).norm() <= 0.01 * value.norm(), name
        elif value.is_floating_point():
            torch.testing.assert_close(found[name], value)
