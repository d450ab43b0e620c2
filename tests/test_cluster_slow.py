"""A cluster of two nodes loses a worker and then a node, and the store is that of a local run."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hosts import ADDRESSES, kill_all, pids, two_hosts
from PIL import Image
from support import noise

from vggfeat import DenseExtractor, FeatureStore, extract, find_images
from vggfeat.store.maintenance import verify

pytest.importorskip("ray", reason="the extra ray is not installed")
psutil = pytest.importorskip("psutil")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")]

IMAGES = 3000
SHAPES = [(50, 40), (40, 50), (44, 44), (64, 40), (40, 61), (48, 40)]
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        image = noise(*SHAPES[number % len(SHAPES)], seed=number)
        Image.fromarray(image).save(folder / f"{number:04}.jpg", quality=90)
    (folder / "0777.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def local(images: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Describe the images in one process."""
    found = find_images([str(images)])
    extractor = DenseExtractor("D", "pool2", weights="embedded", device="cpu", precision="fp32")
    folder = tmp_path_factory.mktemp("local") / "f"
    store = FeatureStore(folder, "a")
    extract(found, extractor, [32], store)
    return store


def begin(images: Path, out: Path, address: str, *before: str) -> subprocess.Popen[str]:
    """Start an extraction in a cluster."""
    command = [
        *(*before, sys.executable, "-m", "vggfeat", "extract", str(images), "--out", str(out)),
        *("--net", "D", "--layer", "pool2", "--Q", "32", "--weights", "embedded"),
        *("--precision", "fp32", "--engine", "ray", "--address", address, "--json", "--quiet"),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_shards(out: Path, running: subprocess.Popen[str], count: int) -> None:
    """Wait until so many shards are there."""
    while len(list(out.glob("shards/[!.]*.h5"))) < count:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)


def kill_a_worker(processes: Callable[[], list[psutil.Process]]) -> None:
    """Kill one of the processes that describe images; between two tasks none has its name."""
    for _ in range(1000):
        for process in processes():
            with suppress(psutil.Error):
                if "ray::_describe" in " ".join(process.cmdline()):
                    process.kill()
                    return
        time.sleep(0.01)
    raise AssertionError("nobody describes images")


def lose_both(
    running: subprocess.Popen[str],
    out: Path,
    processes: Callable[[], list[psutil.Process]],
    remove: Callable[[], None],
) -> dict[str, object]:
    """Kill a worker and remove a node while the images are described."""
    wait_for_shards(out, running, 5)
    kill_a_worker(processes)
    wait_for_shards(out, running, 20)
    remove()
    assert len(list(out.glob("shards/[!.]*.h5"))) < 50  # there was something left to do
    told, said = running.communicate(timeout=600)
    assert running.returncode == 0, said
    return json.loads(told)


def check(out: Path, result: dict[str, object], local: FeatureStore) -> None:
    """Compare with the local run, bit for bit."""
    # What a lost task had written counts as there when the block is done again.
    assert (result["computed"] + result["present"], result["skipped"]) == (IMAGES - 1, 1)
    assert verify(out) == []
    store = FeatureStore(out)
    assert store.names == local.names
    assert store.failed == local.failed
    for part, values in local.read().items():
        np.testing.assert_array_equal(store.read()[part], values)
    rows = sum(len(header.names) for header in store.index.headers)
    assert rows < 1.1 * IMAGES  # what was under way on the lost node may be there twice


def test_a_worker_and_a_node_are_lost(images: Path, local: FeatureStore, tmp_path: Path) -> None:
    """Two nodes on this machine: one worker is killed, one node removed, nothing is lost."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = nodes.add_node(num_cpus=1)
        out = tmp_path / "f"
        running = begin(images, out, nodes.address)
        result = lose_both(
            running,
            out,
            lambda: psutil.Process().children(recursive=True),
            lambda: nodes.remove_node(second, allow_graceful=False),
        )
    finally:
        nodes.shutdown()
    check(out, result, local)


def processes_of(space: str) -> list[psutil.Process]:
    found = []
    for pid in pids(space):
        with suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return found


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    with two_hosts() as spaces:
        yield spaces


def test_one_of_two_hosts_is_lost(
    images: Path,
    local: FeatureStore,
    hosts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two hosts that share a file system: `ray start` on each, then one goes off."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    first, second = (["ip", "netns", "exec", space] for space in hosts)
    short = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets lie in it: paths are short
    quiet = ["--disable-usage-stats", "--num-cpus=1", "--object-store-memory=400000000"]
    head = [*RAY, "start", "--head", f"--node-ip-address={ADDRESSES[0]}", "--port=6379"]
    other = [*RAY, "start", f"--address={ADDRESSES[0]}:6379", f"--node-ip-address={ADDRESSES[1]}"]
    try:
        subprocess.run([*first, *head, f"--temp-dir={short}", *quiet], check=True)
        subprocess.run([*second, *other, *quiet], check=True)
        out = tmp_path / "f"
        running = begin(images, out, f"{ADDRESSES[0]}:6379", *first)
        result = lose_both(running, out, lambda: processes_of(hosts[0]), lambda: kill_all(hosts[1]))
    finally:
        for space in hosts:
            kill_all(space)
        shutil.rmtree(short, ignore_errors=True)
    check(out, result, local)
