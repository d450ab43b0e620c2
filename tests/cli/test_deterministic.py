"""``--deterministic``: other threads, shares, jobs and neighbours, the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cli import run, run_process
from helpers.networks import PIXELS
from PIL import Image
from support import random_state

from vggfeat.nets.formats import write
from vggfeat.store.store import FeatureStore

# In fp32, where the bits of an image differ with those beside it, if nothing is done about it.
HOW = ("--deterministic", "--precision", "fp32", "-q")
FAST = ("--layer", "pool3", "--Q", "32", "--weights", "embedded", *HOW)
RECIPE = """
title = "Brightness"
dataset = "sample"
[features]
nets = ["D"]
weights = "embedded"
layers = ["pool3"]
Q = [32]
"""


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
    stores = [FeatureStore(name) for name in "ab"]
    assert all(store.provenance("D")["deterministic"] for store in stores)
    assert stores[0].names == stores[1].names
    [first], [second] = (store.read().values() for store in stores)
    assert first.tobytes() == second.tobytes()


def a_set(root: Path) -> None:
    """Draw three classes of eight images, of other brightness each."""
    rng = np.random.default_rng(0)
    for label, low in (("dark", 0), ("grey", 25), ("light", 50)):
        for number in range(8):
            path = root / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(low, low + 80, (40, 48, 3), np.uint8)).save(path)


@pytest.mark.slow
def test_an_svm_has_the_same_figures_whatever_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features described anew and SVMs trained in two processes give every figure of one."""
    a_set(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    results = []
    for jobs in ("1", "2"):
        own = {"VGGFEAT_HOME": str(tmp_path / jobs)}
        done = run("svm", "--dataset", "set", *FAST, "--json", "--jobs", jobs, env=own)
        results.append({name: done.json[name] for name in ("measures", "tables", "figures")})
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_recipe_describes_with_the_bits_of_an_extraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image has the same bits alone as among all those of a table."""
    a_set(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(RECIPE)
    run("run", "own.toml", "--dataset", "set", "--features", "a", "--jobs", "1", *HOW)
    run("extract", "set/grey/3.png", *FAST, "-o", "b")
    assert FeatureStore("a").provenance("D")["deterministic"]
    table, alone = rows("a"), rows("b")
    assert len(table) == 24
    assert [*alone.values()] == [table["grey/3.png"]]


@pytest.mark.slow
def test_scores_have_the_same_bits_whoever_the_neighbours_are(
    tmp_path: Path, draw: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole network's posteriors of an image among others by two threads, and alone by one."""
    state = random_state("A", ["fc8"])
    state["fc8.weight"] /= 100  # or the softmax would leave zeros and ones
    about = {"net": "A", "source": "random", "licence": "none"}
    write(tmp_path / "net.safetensors", state, PIXELS, **about)
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
