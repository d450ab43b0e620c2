"""The loop against a loop written by hand; resumed, in two processes, diverged."""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.multiprocessing as mp
from helpers.colours import two_classes
from helpers.mistakes import refuses
from helpers.networks import SMALL, configured
from helpers.seams import checkpoint_every
from helpers.training import OnProgress
from safetensors.torch import load_file

from vggfeat.errors import ParameterError, StoreError, VggfeatError
from vggfeat.nets.preprocessing import PixelConvention
from vggfeat.nets.vgg import VGG
from vggfeat.settings import Training
from vggfeat.train.augment import Colours, draw, to_input
from vggfeat.train.checkpoint import LAST, differences, read
from vggfeat.train.data import open_trainset
from vggfeat.train.distributed import Processes, parallel, unsynchronised
from vggfeat.train.init import start
from vggfeat.train.loader import Loader, epoch_order
from vggfeat.train.loop import Engine, TrainingResult, dropout_seed, train

CPU = Engine(device="cpu", workers=0, minutes=0.0)
RATE = 0.01
"""Moves every layer by more than 5e-5, five times what torch takes for rounding."""
PLAIN = {"epochs": 1, "dropout": 0.0}


@pytest.fixture(autouse=True)
def _small(small_nets: None) -> None:
    """Train a net A of few channels."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of eleven images each, told apart by their brightness."""
    return two_classes(tmp_path_factory.mktemp("images"), each=11)


def settings_of(**settings: Any) -> Training:
    """Make settings of two epochs of five updates."""
    defaults = {"net": "A", "S": 224, "batch": 4, "learning_rate": RATE, "epochs": 2, "seed": 3}
    return Training(**{**defaults, **settings})


def run(
    folder: Path,
    out: Path,
    *,
    engine: Engine = CPU,
    val_fraction: float | None = None,
    resume: bool = False,
    monitor: OnProgress | None = None,
    **settings: Any,
) -> TrainingResult:
    """Train on the images of a folder."""
    data = open_trainset(folder, seed=3, val_fraction=val_fraction)
    how = {"engine": engine, "resume": resume, "monitor": monitor}
    return train(settings_of(**settings), data, out, **how)


def begun() -> VGG:
    """Begin as training does."""
    generator = torch.Generator().manual_seed(3)
    return start("A", num_classes=2, dropout=0.0, generator=generator).net


def weights_in(out: Path) -> dict[str, torch.Tensor]:
    return {k: v for k, v in load_file(out / LAST).items() if k.startswith("net.")}


def assert_same_bits(one: Path, other: Path) -> None:
    """Compare all that two runs keep of their networks, velocities included."""
    expected, found = load_file(one / LAST), load_file(other / LAST)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def assert_close(one: Path, other: Path, **tolerance: float) -> None:
    """Compare the weights that two runs came to, to rounding."""
    found = weights_in(other)
    for name, expected in weights_in(one).items():
        torch.testing.assert_close(found[name], expected, **tolerance)


@contextmanager
def sizes_of_batches() -> Iterator[list[int]]:
    """List how many images a network is given at a time."""
    sizes: list[int] = []
    forward = VGG.forward

    def counted(net: VGG, x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return forward(net, x)

    with mock.patch.object(VGG, "forward", counted):
        yield sizes


def test_steps_equal_those_written_by_hand(folder: Path, tmp_path: Path) -> None:
    """Order, crops, colours, loss and update, without dropout, as a plain loop computes them."""
    run(folder, tmp_path, **PLAIN)
    told = read(tmp_path / LAST)[1]
    colours, pixels = Colours.from_dict(told["colours"]), PixelConvention.from_json(told["pixels"])
    net = begun()
    velocity = {name: torch.zeros_like(w) for name, w in net.named_parameters()}
    part = open_trainset(folder, seed=3).train
    with Loader(part, batch_size=4, S=224, seed=3) as loader:
        for batch in loader.batches(0):
            x = to_input(batch.pixels, pixels, [draw(3, 0, int(r)) for r in batch.rows], colours)
            each = zip(x, batch.labels, strict=True)
            losses = [-net(image[None]).log_softmax(1)[0, c] for image, c in each]
            gradients = torch.autograd.grad(torch.stack(losses).mean(), list(net.parameters()))
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
    whole = run(folder, tmp_path / "whole")
    stop = OnProgress(mock.Mock(side_effect=[None] * stop_at + [KeyboardInterrupt]))
    with pytest.raises(KeyboardInterrupt), checkpoint_every(1):
        run(folder, tmp_path / "part", monitor=stop)
    done = run(folder, tmp_path / "part", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "part")
    for row, expected in zip(done.history, whole.history, strict=True):
        assert row.keys() == expected.keys()
        for key in row.keys() - {"images_per_s", "waited"}:
            assert row[key] == expected[key]


def test_parts_of_a_batch_give_the_gradient_of_the_whole(folder: Path, tmp_path: Path) -> None:
    """No more images at a time than memory is said to hold, also in validation: all is the same."""
    how = {**PLAIN, "batch": 8, "val_fraction": 0.5}
    results = {}
    for name, micro, largest in (("whole", None, 8), ("parts", 3, 3)):
        with sizes_of_batches() as sizes:
            results[name] = run(folder, tmp_path / name, engine=replace(CPU, micro=micro), **how)
        assert max(sizes) == largest
    assert_close(tmp_path / "whole", tmp_path / "parts")
    for name in ("val_loss", "val_top1", "loss"):
        whole, parts = (results[which].history[0][name] for which in ("whole", "parts"))
        assert parts == pytest.approx(whole, rel=1e-5)
    refuses(lambda: Engine(micro=0), ParameterError, ["micro"])


def _process(rank: int, port: int, folder: Path, out: Path) -> None:
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    engine = replace(CPU, minutes=0.0 if rank == 0 else 1e9)
    # Five updates an epoch: the clocks are looked at within it.
    with configured(SMALL), checkpoint_every(2):
        run(folder, out, engine=engine, epochs=4, dropout=0.0)


def test_two_processes_equal_one(folder: Path, tmp_path: Path) -> None:
    """After 20 steps without dropout, the weights of two processes are those of one, to rounding.

    By the clock of one, checkpoints are due within an epoch, by that of the other never: neither
    waits for the other there.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    both = mp.spawn(_process, (port, folder, two), nprocs=2, join=False, daemon=True)
    patience = time.monotonic() + 120
    while not both.join(timeout=5):
        assert time.monotonic() < patience, "the processes wait for each other"
    alone = run(folder, one, epochs=4, dropout=0.0)
    here = read(two / LAST)[0]
    assert read(one / LAST)[0].step == 20 == here.step
    assert_close(one, two)
    losses = [row["loss"] for row in alone.history]
    assert [row["loss"] for row in here.history] == pytest.approx(losses)


class Half(torch.nn.Module):
    """Stands for fp16 hardware: a net whose gradients are half-precision numbers on their way."""

    def __init__(self, net: torch.nn.Module, seen: list[float]) -> None:
        super().__init__()
        self.net, self.seen = net, seen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.net(x)
        scores.register_hook(self._rounded)
        return scores

    def _rounded(self, gradient: torch.Tensor) -> torch.Tensor:
        self.seen.append(float(gradient.abs().max()))
        return gradient.half().float()


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Train in fp16 as if the CPU had it; return the largest gradient of each update's scores."""
    seen: list[float] = []
    monkeypatch.setattr("vggfeat.train.loop.training_precision", lambda *_: "fp16")
    monkeypatch.setattr("vggfeat.train.loop.autocast", lambda _: nullcontext())
    monkeypatch.setattr("vggfeat.train.loop.parallel", lambda net, _, **__: Half(net, seen))
    return seen


def test_fp16_scales_the_loss(
    folder: Path, tmp_path: Path, half: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are 65,536 times as large on their way, and as they were when they are used."""
    run(folder, tmp_path / "half", **PLAIN)
    assert min(half) > 1000  # of at most 1/4 an image
    assert read(tmp_path / "half" / LAST)[0].scaler["scale"] == 65536.0
    monkeypatch.setattr("vggfeat.train.loop.training_precision", lambda *_: "fp32")
    run(folder, tmp_path / "full", **PLAIN)
    assert_close(tmp_path / "full", tmp_path / "half", rtol=1e-3, atol=1e-4)


def test_fp16_leaves_out_an_update_that_overflows(
    folder: Path, tmp_path: Path, half: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale is halved until it fits, and a resumed run goes on with it."""
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**20)  # 2¹⁸ are infinite in fp16
    monkeypatch.setattr("torch.amp.GradScaler", scaler)
    steps = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *a: (steps.append(len(half)), step(*a))[1])
    run(folder, tmp_path, epochs=1)
    kept = read(tmp_path / LAST)[0]
    skipped = kept.step - len(steps)
    assert 0 < skipped < kept.step
    assert steps == list(range(skipped + 1, kept.step + 1))  # the first ones are left out
    assert kept.scaler["scale"] == 2.0 ** (20 - skipped)
    run(folder, tmp_path, resume=True)
    assert len(steps) == 2 * kept.step - skipped
    assert read(tmp_path / LAST)[0].scaler["scale"] == kept.scaler["scale"]


def test_dropout_follows_from_seed_step_and_process(folder: Path, tmp_path: Path) -> None:
    """Each step draws anew, whatever torch's random state, which stays as it was."""
    assert len({dropout_seed(*of) for of in itertools.product(range(3), repeat=3)}) == 27
    for name, seed in (("one", 1), ("other", 2)):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        run(folder, tmp_path / name, epochs=1)
        assert torch.equal(torch.get_rng_state(), before)
    assert_same_bits(tmp_path / "one", tmp_path / "other")
    run(folder, tmp_path / "without", **PLAIN)
    one, without = (weights_in(tmp_path / name)["net.fc6.weight"] for name in ("one", "without"))
    assert not torch.equal(one, without)


def test_compiled_parts_of_a_batch_meet_once_for_an_update(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the parts of a batch all but the last keep their gradients to their process."""
    monkeypatch.setattr(torch, "compile", lambda net: torch.nn.Sequential(net))
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        two = Processes(torch.device("cpu"), rank=0, world=2)  # as if another were there
        model = parallel(begun(), two, compiled=True)
        with unsynchronised(model):
            assert not model.require_backward_grad_sync
            model(torch.zeros(1, 3, 224, 224)).sum().backward()
        assert model.require_backward_grad_sync
    finally:
        torch.distributed.destroy_process_group()


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that diverges ends with an error; what was kept before, if anything, is finite."""
    run(folder, tmp_path / "a", epochs=1)
    wild = partial(run, folder, tmp_path / "b", learning_rate=1e30)
    refused = refuses(wild, VggfeatError, ["diverged", "--learning-rate"])
    assert "checkpoint" not in str(refused)  # there is none yet
    assert not (tmp_path / "b" / LAST).exists()
    nowhere = draw(0, 0, 0)._replace(alpha=(math.nan,) * 3)
    monkeypatch.setattr("vggfeat.train.loop.draw", lambda *_: nowhere)
    again = partial(run, folder, tmp_path / "a", resume=True)
    refuses(again, VggfeatError, ["checkpoint", str(tmp_path / "a"), "intact"])
    assert all(v.isfinite().all() for v in weights_in(tmp_path / "a").values())


def test_two_runs_are_never_mixed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with a run needs --resume, and its settings and format; one at work is alone there.

    What is refused is as it was, and may be gone on with.
    """
    monkeypatch.setattr("vggfeat.train.checkpoint.LOCKED", 0.1)
    once = partial(run, folder, tmp_path, epochs=1)
    refused = []

    def meanwhile(_: object) -> None:
        refused.append(refuses(lambda: once(seed=4), StoreError, [str(tmp_path), "--out"]))

    once(monitor=OnProgress(meanwhile))
    assert refused
    before = (tmp_path / LAST).read_bytes()
    again = partial(once, resume=True)
    refuses(once, StoreError, ["--resume"])
    refuses(partial(again, dropout=0.3), StoreError, ["dropout: 0.5 → 0.3"])
    with mock.patch("vggfeat.train.checkpoint.FORMAT", 4):
        refuses(again, StoreError, ["format 3", "format 4", "--init"])
    assert (tmp_path / LAST).read_bytes() == before
    again()
    assert read(tmp_path / LAST)[1]["settings"]["seed"] == 3


def test_more_epochs_go_on_as_if_they_had_been_asked_for(folder: Path, tmp_path: Path) -> None:
    """One epoch, then two, end with the bits of two; but not where the rates depend on them."""
    run(folder, tmp_path / "grown", epochs=1)
    run(folder, tmp_path / "grown", resume=True)
    run(folder, tmp_path / "whole")
    assert_same_bits(tmp_path / "grown", tmp_path / "whole")
    cosine = partial(run, folder, tmp_path / "cosine", schedule="cosine")
    cosine(epochs=1)
    refuses(partial(cosine, resume=True), StoreError, ["epochs: 1 → 2"])


def test_a_run_without_a_later_setting_goes_on() -> None:
    """A setting that a checkpoint does not know has the value that was used before it came."""
    known, facts = ({"settings": settings_of().model_dump(mode="json"), "data": "a"} for _ in "12")
    del known["settings"]["label_smoothing"], known["settings"]["warmup"]
    assert differences(known, facts) == []
    facts["settings"]["label_smoothing"] = 0.1
    assert differences(known, facts) == ["settings (label_smoothing: 0.0 → 0.1)"]
    assert differences(known, facts | {"data": "other"})[1] == "data"


def test_a_batch_of_which_nothing_can_be_read_is_passed_over(tmp_path: Path) -> None:
    """The run goes on, its figures are those of the others, and what failed is named."""
    root = two_classes(tmp_path / "images", each=11)
    part = open_trainset(root, seed=3).train
    bad = [part.name(int(row)) for row in epoch_order(20, 3, 0)[4:8]]
    for name in bad:
        (root / name).write_bytes(b"damaged")
    with sizes_of_batches() as sizes:
        done = run(root, tmp_path / "run", epochs=1)
    assert sizes[:5] == [4, 0, 4, 4, 4]
    assert done.failed.keys() == set(bad)
    assert math.isfinite(done.history[0]["loss"])
    assert all(v.isfinite().all() for v in weights_in(tmp_path / "run").values())


def test_frozen_convolutions_stay_as_they_began(folder: Path, tmp_path: Path) -> None:
    """With freeze="conv" only the full connections move."""
    run(folder, tmp_path, epochs=1, freeze="conv")
    before = begun().state_dict()
    moved = {n for n, w in weights_in(tmp_path).items() if not torch.equal(w, before[n[4:]])}
    assert moved == {f"net.{n}" for n in before if not n.startswith("conv")}
