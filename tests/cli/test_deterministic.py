"""``--deterministic``: other threads, shares, jobs and neighbours, the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.cli import run, run_process
from helpers.networks import write_weights
from support import random_weights

from vggfeat.store.store import FeatureStore

# In fp32, where the bits of an image differ with those beside it, if nothing is done about it.
HOW = ("--deterministic", "--precision", "fp32", "-q")
FAST = ("--layer", "pool3", "--Q", "32", "--weights", "embedded", *HOW)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute in one thread in this process, and leave no flag of torch behind."""
    threads = torch.get_num_threads()
    flags = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    assert flags == (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
    )


def rows(folder: str) -> dict[str, bytes]:
    """Read the one part of a store: each image's bits by its name."""
    store = FeatureStore(folder)
    [values] = store.read().values()
    return {name: row.tobytes() for name, row in zip(store.names, values, strict=True)}


def test_other_threads_and_shares_extract_the_same_bits(
    tmp_path: Path, draw: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run of two threads, in a process of its own; two shares of one thread, joined."""
    for number in range(7):
        draw(f"p/{number}.png", 40 + 8 * (number % 2), 40, seed=number)
    monkeypatch.chdir(tmp_path)
    two_threads = {"OMP_NUM_THREADS": "2"}
    run_process("extract", "p", *FAST, "-o", "a", "--workers", "1", env=two_threads)
    for shard in ("1/2", "2/2"):
        run("extract", "p", *FAST, "-o", "b", "--shard", shard, "--workers", "3")
    assert all(FeatureStore(name).provenance("D")["deterministic"] for name in "ab")
    assert rows("a") == rows("b")
    assert FeatureStore("a").names == FeatureStore("b").names


@pytest.mark.slow
def test_scores_have_the_same_bits_whoever_the_neighbours_are(
    tmp_path: Path, draw: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole network's posteriors of an image among others by two threads, and alone by one."""
    weights = random_weights("A", ["fc8"])
    weights.state["fc8.weight"] /= 100  # or the softmax would leave zeros and ones
    write_weights(tmp_path / "net.safetensors", weights)
    for number in range(4):
        draw(f"p/{number}.png", 60, 44, seed=number)
    draw("q/2.png", 60, 44, seed=2)
    monkeypatch.chdir(tmp_path)
    how = ("--weights", "net.safetensors", "--Q", "224", *HOW)
    run_process("classify", "p", *how, "-o", "a", env={"OMP_NUM_THREADS": "2"})
    run("classify", "q", *how, "-o", "b")
    assert FeatureStore("a").provenance("A")["deterministic"]
    [posteriors] = FeatureStore("b").read().values()
    assert posteriors.max() < 0.99
    assert rows("b") == {"q/2.png": rows("a")["p/2.png"]}
