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
            "--dropout", "0")  # fmt: skip
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1")


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env)


def test_two_hosts_train_as_one_process_does(tmp_path: Path) -> None:
    """Configuration A without dropout, the gradients over a cable: the same weights."""
    data = two_classes(tmp_path / "images", each=11)

    def training(out: str) -> list[str]:
        told = ("train", "--data", data, "--out", tmp_path / out, *SETTINGS, "--quiet")
        return ["-m", "vggfeat", *map(str, told), "--device", "cpu", "--precision", "fp32"]

    with two_hosts() as spaces:
        meet = ("--master-addr", ADDRESSES[0], "--master-port", "29507")
        both = [
            start(
                [
                    *("ip", "netns", "exec", space, *TORCHRUN, *meet, "--node-rank", str(rank)),
                    *training("two"),
                ],
                GLOO_SOCKET_IFNAME=cable("ab"[rank]),
            )
            for rank, space in enumerate(spaces)
        ]
        for one in both:
            _, said = one.communicate(timeout=900)
            assert one.returncode == 0, said
    alone = start([sys.executable, *training("one")])
    _, said = alone.communicate(timeout=900)
    assert alone.returncode == 0, said
    expected, found = (load_file(tmp_path / out / "last.safetensors") for out in ("one", "two"))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        if name.startswith("momentum."):
            # What gradients came to: of other images, or counted otherwise, it would be another.
            assert (found[name] - value).norm() <= 0.01 * value.norm(), name
        elif value.is_floating_point():
            torch.testing.assert_close(found[name], value)
