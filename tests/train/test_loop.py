"""The loop against a loop written by hand; resumed, in two processes, diverged."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from helpers.colours import two_classes
from helpers.networks import SMALL, configured
from helpers.seams import checkpoint_every
from safetensors.torch import load_file

from vggfeat.errors import StoreError, VggfeatError
from vggfeat.nets.preprocessing import PixelConvention
from vggfeat.nets.vgg import VGG
from vggfeat.train.augment import draw, to_input
from vggfeat.train.checkpoint import LAST, read
from vggfeat.train.colours import Colours
from vggfeat.train.loader import Loader
from vggfeat.train.loop import train
from vggfeat.train.settings import Training
from vggfeat.train.start import start
from vggfeat.train.trainset import open_trainset
from vggfeat.train.words import Engine

CPU = Engine(device="cpu", workers=0, minutes=0.0)
RATE = 0.01
"""Moves every layer by more than 5e-5, five times what torch takes for rounding."""
SETTINGS = Training(net="A", S=224, batch=4, learning_rate=RATE, epochs=2, seed=3)


@pytest.fixture(autouse=True)
def _small(small_nets: None) -> None:
    """Train a net A of few channels."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of eleven images each, told apart by their brightness."""
    return two_classes(tmp_path_factory.mktemp("images"), each=11)


def begun() -> VGG:
    """Begin as training does."""
    generator = torch.Generator().manual_seed(SETTINGS.seed)
    return start("A", num_classes=2, dropout=0.0, generator=generator).net


def weights_in(out: Path) -> dict[str, torch.Tensor]:
    return {k: v for k, v in load_file(out / LAST).items() if k.startswith("net.")}


def test_steps_equal_those_written_by_hand(folder: Path, tmp_path: Path) -> None:
    """Order, crops, colours, loss and update, without dropout, as a plain loop computes them."""
    settings = SETTINGS.model_copy(update={"dropout": 0.0, "epochs": 1})
    data = open_trainset(folder, seed=3)
    train(settings, data, tmp_path, engine=CPU)
    told = read(tmp_path / LAST)[1]
    colours, pixels = Colours.from_dict(told["colours"]), PixelConvention.from_json(told["pixels"])
    net = begun()
    velocity = {name: torch.zeros_like(w) for name, w in net.named_parameters()}
    with Loader(data.train, batch_size=4, S=224, seed=3) as loader:
        for batch in loader.batches(0):
            x = to_input(batch.pixels, pixels, [draw(3, 0, int(r)) for r in batch.rows], colours)
            losses = torch.stack(
                [
                    -net(one[None]).log_softmax(1)[0, c]
                    for one, c in zip(x, batch.labels, strict=True)
                ]
            )
            gradients = torch.autograd.grad(losses.mean(), list(net.parameters()))
            for (name, w), g in zip(net.named_parameters(), gradients, strict=True):
                velocity[name] = 0.9 * velocity[name] - RATE * (g + 5e-4 * w.data)
                w.data += velocity[name]
    before = begun().state_dict()
    for name, w in net.named_parameters():
        assert (w.data - before[name]).abs().max() > 5e-5
        torch.testing.assert_close(weights_in(tmp_path)[f"net.{name}"], w.data)


@pytest.mark.parametrize("stop_at", [1, 4, 7])
def test_stopped_and_resumed_ends_with_the_same_bits(
    folder: Path, tmp_path: Path, stop_at: int
) -> None:
    """Within an epoch or at its end, weights, velocities, metrics: all go on as they were."""
    data = open_trainset(folder, seed=3)
    whole = train(SETTINGS, data, tmp_path / "whole", engine=CPU)
    seen = []

    def stop(told: object) -> None:
        seen.append(told)
        if len(seen) == stop_at + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), checkpoint_every(1):
        train(SETTINGS, data, tmp_path / "part", engine=CPU, progress=stop)
    done = train(SETTINGS, data, tmp_path / "part", engine=CPU, resume=True)
    expected, found = (load_file(tmp_path / name / LAST) for name in ("whole", "part"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    told = ("epoch", "loss", "top1", "top5", "val_loss", "val_top1", "learning_rate")
    for one, other in zip(whole.history, done.history, strict=True):
        assert [one[key] for key in told] == [other[key] for key in told]


def test_parts_of_a_batch_give_the_gradient_of_the_whole(folder: Path, tmp_path: Path) -> None:
    """Computed three images at a time, where memory is short, the weights are the same."""
    data = open_trainset(folder, seed=3)
    for name, micro in (("whole", None), ("parts", 3)):
        engine = Engine(device="cpu", workers=0, micro=micro)
        train(SETTINGS, data, tmp_path / name, engine=engine)
    for name, expected in weights_in(tmp_path / "whole").items():
        torch.testing.assert_close(weights_in(tmp_path / "parts")[name], expected)


def _process(rank: int, port: int, folder: str, out: str) -> None:
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    engine = replace(CPU, minutes=0.0 if rank == 0 else 1e9)
    data = open_trainset(Path(folder), seed=3)
    settings = SETTINGS.model_copy(update={"epochs": 4})
    # Five updates an epoch: the clocks are looked at within it.
    with configured(SMALL), checkpoint_every(2):
        train(settings, data, Path(out), engine=engine)


def test_two_processes_equal_one(folder: Path, tmp_path: Path) -> None:
    """After 20 steps with dropout, the weights of two processes are those of one, to rounding.

    By the clock of one, checkpoints are due within an epoch, by that of the other never: neither
    waits for the other there.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = (port, str(folder), str(tmp_path / "two"))
    both = mp.spawn(_process, told, nprocs=2, join=False, daemon=True)
    patience = time.monotonic() + 120
    while not both.join(timeout=5):
        assert time.monotonic() < patience, "the processes wait for each other"
    data = open_trainset(folder, seed=3)
    settings = SETTINGS.model_copy(update={"epochs": 4})
    one = train(settings, data, tmp_path / "one", engine=CPU)
    assert read(tmp_path / "one" / LAST)[0].step == 20 == read(tmp_path / "two" / LAST)[0].step
    for name, expected in weights_in(tmp_path / "one").items():
        torch.testing.assert_close(weights_in(tmp_path / "two")[name], expected)
    two = read(tmp_path / "two" / LAST)[0].history
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one.history])


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(folder: Path, tmp_path: Path) -> None:
    """A rate that diverges ends with an error; what was kept before is finite."""
    data = open_trainset(folder, seed=3)
    train(SETTINGS.model_copy(update={"epochs": 1}), data, tmp_path / "a", engine=CPU)
    wild = SETTINGS.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(VggfeatError, match="diverged"):
        train(wild, data, tmp_path / "b", engine=CPU)
    assert all(v.isfinite().all() for v in weights_in(tmp_path / "a").values())
    assert not (tmp_path / "b" / LAST).exists()


def test_two_runs_are_never_mixed(folder: Path, tmp_path: Path) -> None:
    """A folder with a run needs --resume; another setting is named, with both values."""
    data = open_trainset(folder, seed=3)
    once = SETTINGS.model_copy(update={"epochs": 1})
    train(once, data, tmp_path, engine=CPU)
    with pytest.raises(StoreError, match="--resume"):
        train(once, data, tmp_path, engine=CPU)
    other = once.model_copy(update={"dropout": 0.3})
    with pytest.raises(StoreError, match=r"dropout: 0\.5 → 0\.3"):
        train(other, data, tmp_path, engine=CPU, resume=True)


def test_frozen_convolutions_stay_as_they_began(folder: Path, tmp_path: Path) -> None:
    """With freeze="conv" only the full connections move."""
    data = open_trainset(folder, seed=3)
    settings = SETTINGS.model_copy(update={"epochs": 1, "freeze": "conv"})
    train(settings, data, tmp_path, engine=CPU)
    before = begun().state_dict()
    moved = {n for n, w in weights_in(tmp_path).items() if not torch.equal(w, before[n[4:]])}
    assert moved == {f"net.{n}" for n in before if not n.startswith("conv")}
