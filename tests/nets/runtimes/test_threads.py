"""Networks used by several threads: the same bits, and torch as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vggfeat import DenseExtractor
from vggfeat.nets.runtimes import winograd
from vggfeat.nets.runtimes.inference import arithmetic
from vggfeat.nets.runtimes.packed import can_pack
from vggfeat.nets.runtimes.winograd import _Tiled

# A process of its own, which a hang does not outlive.
REFUSED = """
import os, threading, torch
from vggfeat.nets.runtimes import winograd
def convolve(number):
    start, begun = threading.Thread.start, []
    def refuse(thread):
        begun.append(thread)
        if len(begun) == number:
            raise RuntimeError("can't start new thread")
        start(thread)
    torch.set_num_threads(2)
    blocks, done = [(slice(0, 1), slice(0, 1))] * 2, []
    threading.Thread.start = refuse
    try:
        winograd._side_by_side(print, blocks)
    except RuntimeError as error:
        said = error
    threading.Thread.start = start
    asking = threading.Thread(target=lambda: done.append(torch.get_num_threads()))
    asking.start()
    asking.join()
    winograd._side_by_side(done.append, blocks)
    print(number, said, done[0], len(done) - 1, sep=", ", flush=True)
for number in (1, 2):
    if not os.fork():
        convolve(number)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch compute in two threads, in this one and in those that start in it."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    winograd._pool.cache_clear()  # so that its threads start anew in the test
    yield
    torch.set_num_threads(before)


def convolution() -> tuple[_Tiled, Tensor]:
    torch.manual_seed(0)
    module = nn.Conv2d(8, 130, 3, padding=1).requires_grad_(False)
    return _Tiled(module), torch.rand(2, 8, 60, 70)


def count_threads() -> tuple[int, int]:
    """Return torch's number of threads, here and in a thread that starts now."""
    answers: list[int] = []
    asking = Thread(target=lambda: answers.append(torch.get_num_threads()))
    asking.start()
    asking.join()
    return torch.get_num_threads(), answers[0]


@pytest.mark.usefixtures("two_threads")
def test_winograd_leaves_new_threads_their_cores() -> None:
    """A thread that starts after a convolution computes with as many threads as before it."""
    tiled, x = convolution()
    assert count_threads() == (2, 2)
    tiled(x, rectify=True)
    assert count_threads() == (2, 2)


@pytest.mark.usefixtures("two_threads")
def test_a_failed_convolution_leaves_new_threads_their_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where a block raises; and the next convolution works."""
    tiled, x = convolution()

    def fail(*_: object) -> Tensor:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(_Tiled, "_transformed", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            tiled(x, rectify=True)
    assert count_threads() == (2, 2)
    assert tiled(x, rectify=True).isfinite().all()


@pytest.mark.usefixtures("two_threads")
def test_an_error_comes_when_the_other_blocks_have_ended() -> None:
    """Who tries again with less finds the memory of all blocks free; those to come are left out."""
    entered, ended = Event(), []

    def compute(block: winograd.Block) -> None:
        if block[0].start == 0:
            assert entered.wait(20)
            raise RuntimeError("no memory")
        entered.set()
        time.sleep(0.2)
        ended.append(block)

    blocks = [(slice(k, k + 1), slice(0, 1)) for k in range(20)]
    with pytest.raises(RuntimeError, match="no memory"):
        winograd._side_by_side(compute, blocks)
    count = len(ended)
    time.sleep(0.5)
    assert 1 <= len(ended) == count < 19


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_threads_that_cannot_start_are_an_error() -> None:
    """Whichever of the threads the system refuses, nobody waits for it; later all is as it was.

    Each is refused in a process of its own, forked from one that has imported torch.
    """
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, timeout=60
    )
    expected = "".join(f"{number}, can't start new thread, 2, 2\n" for number in (1, 2))
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


@pytest.mark.usefixtures("two_threads")
def test_convolutions_at_once_leave_new_threads_their_cores() -> None:
    """Of four threads that convolve at once, each has the bits of one alone."""
    tiled, x = convolution()
    torch.set_num_threads(1)
    expected = tiled(x, rectify=True)
    torch.set_num_threads(2)
    ready = Barrier(4)

    def convolve(_: int) -> tuple[int, Tensor]:
        ready.wait()
        return torch.get_num_threads(), tiled(x, rectify=True)

    with ThreadPoolExecutor(4) as pool:
        for threads, found in pool.map(convolve, range(4)):
            assert threads == 2
            assert torch.equal(found, expected)
    assert count_threads() == (2, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.usefixtures("two_threads")
def test_a_forked_process_starts_threads_of_its_own() -> None:
    """The threads of the first process are not there in a second one, which does not wait."""
    blocks = [(slice(0, 1), slice(0, 1))] * 2
    done: list[object] = []
    winograd._side_by_side(done.append, blocks)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        winograd._side_by_side(done.append, blocks)
        os._exit(len(done))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("runtime", ["torch", "packed", "winograd", "openvino"])
def test_an_extractor_is_shared_by_threads(runtime: str) -> None:
    """Four threads with the same extractor have, image by image, the bits of one thread."""
    if runtime == "openvino":
        pytest.importorskip("openvino")
    if runtime == "packed" and not can_pack():
        pytest.skip("torch has no oneDNN")
    extractor = DenseExtractor(
        "D", "pool2", weights="embedded", precision="fp32", device="cpu", runtime=runtime
    )
    generator = torch.Generator().manual_seed(3)
    images = [
        torch.randint(0, 256, (1, 3, 48 + 16 * (k % 3), 64), generator=generator, dtype=torch.uint8)
        for k in range(8)
    ]

    def describe(image: Tensor) -> Tensor:
        [descriptor] = extractor.describe(image).values()
        return descriptor

    expected = [describe(image) for image in images]
    ready = Barrier(4)

    def describe_all(_: int) -> list[Tensor]:
        ready.wait()
        return [describe(image) for image in images]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(describe_all, range(4)):
            assert [torch.equal(*pair) for pair in zip(found, expected, strict=True)] == [True] * 8


def test_fp32_stays_exact_until_the_last_thread_is_done() -> None:
    """One thread's end takes no bits from another's network; then torch is as it was."""
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has one precision for all fp32")
    before = matmul.fp32_precision
    cpu = torch.device("cpu")
    first, second = (arithmetic(cpu, torch.float32, deterministic=False) for _ in range(2))
    try:
        matmul.fp32_precision = "bf16"
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
            one.submit(first.__enter__).result()
            other.submit(second.__enter__).result()
            one.submit(first.__exit__, None, None, None).result()
            assert matmul.fp32_precision == "ieee"
            other.submit(second.__exit__, None, None, None).result()
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
