"""The loop against a loop written by hand; resumed, in two processes, diverged."""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
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
from vggfeat.train.loop import Engine, dropout_seed, train

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
        train(SETTINGS, data, tmp_path / "part", engine=CPU, monitor=OnProgress(stop))
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
    settings = SETTINGS.model_copy(update={"dropout": 0.0})
    for name, micro in (("whole", None), ("parts", 3)):
        engine = Engine(device="cpu", workers=0, micro=micro)
        train(settings, data, tmp_path / name, engine=engine)
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
    settings = SETTINGS.model_copy(update={"epochs": 4, "dropout": 0.0})
    # Five updates an epoch: the clocks are looked at within it.
    with configured(SMALL), checkpoint_every(2):
        train(settings, data, Path(out), engine=engine)


def test_two_processes_equal_one(folder: Path, tmp_path: Path) -> None:
    """After 20 steps without dropout, the weights of two processes are those of one, to rounding.

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
    settings = SETTINGS.model_copy(update={"epochs": 4, "dropout": 0.0})
    one = train(settings, data, tmp_path / "one", engine=CPU)
    assert read(tmp_path / "one" / LAST)[0].step == 20 == read(tmp_path / "two" / LAST)[0].step
    for name, expected in weights_in(tmp_path / "one").items():
        torch.testing.assert_close(weights_in(tmp_path / "two")[name], expected)
    two = read(tmp_path / "two" / LAST)[0].history
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one.history])


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


def test_fp16_scales_the_loss(folder: Path, tmp_path: Path, half: list[float]) -> None:
    """Gradients are 65,536 times as large on their way, and as they were when they are used."""
    data = open_trainset(folder, seed=3)
    settings = SETTINGS.model_copy(update={"epochs": 1, "dropout": 0.0})
    train(settings, data, tmp_path / "half", engine=CPU)
    assert min(half) > 1000  # of at most 1/4 an image
    assert read(tmp_path / "half" / LAST)[0].scaler["scale"] == 65536.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vggfeat.train.loop.training_precision", lambda *_: "fp32")
        train(settings, data, tmp_path / "full", engine=CPU)
    for name, expected in weights_in(tmp_path / "full").items():
        torch.testing.assert_close(
            weights_in(tmp_path / "half")[name], expected, rtol=1e-3, atol=1e-4
        )


def test_fp16_leaves_out_an_update_that_overflows(
    folder: Path, tmp_path: Path, half: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale is halved until it fits, and a resumed run goes on with it."""
    data = open_trainset(folder, seed=3)
    settings = SETTINGS.model_copy(update={"epochs": 1})
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**20)  # 2¹⁸ are infinite in fp16
    monkeypatch.setattr("torch.amp.GradScaler", scaler)
    steps = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *a: (steps.append(len(half)), step(*a))[1])
    train(settings, data, tmp_path, engine=CPU)
    kept = read(tmp_path / LAST)[0]
    skipped = kept.step - len(steps)
    assert 0 < skipped < kept.step
    assert steps == list(range(skipped + 1, kept.step + 1))  # the first ones are left out
    assert kept.scaler["scale"] == 2.0 ** (20 - skipped)
    longer = settings.model_copy(update={"epochs": 2})
    train(longer, data, tmp_path, engine=CPU, resume=True)
    assert len(steps) == 2 * kept.step - skipped
    assert read(tmp_path / LAST)[0].scaler["scale"] == kept.scaler["scale"]


def test_dropout_follows_from_seed_step_and_process(folder: Path, tmp_path: Path) -> None:
    """Each step draws anew, whatever torch's random state, which stays as it was."""
    assert len({dropout_seed(*of) for of in itertools.product(range(3), repeat=3)}) == 27
    data = open_trainset(folder, seed=3)
    for name, seed in (("one", 1), ("other", 2)):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        train(SETTINGS.model_copy(update={"epochs": 1}), data, tmp_path / name, engine=CPU)
        assert torch.equal(torch.get_rng_state(), before)
    one, other = weights_in(tmp_path / "one"), weights_in(tmp_path / "other")
    assert all(torch.equal(one[name], other[name]) for name in one)
    train(
        SETTINGS.model_copy(update={"epochs": 1, "dropout": 0.0}), data, tmp_path / "w", engine=CPU
    )
    assert not torch.equal(one["net.fc6.weight"], weights_in(tmp_path / "w")["net.fc6.weight"])


def test_parts_of_a_batch_hold_in_validation(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more images at a time than memory is said to hold, and the same figures."""
    sizes: list[int] = []
    forward = VGG.forward
    monkeypatch.setattr(VGG, "forward", lambda net, x: (sizes.append(len(x)), forward(net, x))[1])
    data = open_trainset(folder, val_fraction=0.5, seed=3)
    settings = SETTINGS.model_copy(update={"epochs": 1, "batch": 8, "dropout": 0.0})
    whole = train(settings, data, tmp_path / "whole", engine=CPU)
    assert max(sizes) == 8
    sizes.clear()
    parts = train(settings, data, tmp_path / "parts", engine=replace(CPU, micro=3))
    assert max(sizes) == 3
    for name in ("val_loss", "val_top1", "loss"):
        assert parts.history[0][name] == pytest.approx(whole.history[0][name], rel=1e-5)
    with pytest.raises(ParameterError, match="micro"):
        Engine(micro=0)


def test_compiled_parts_of_a_batch_meet_once_for_an_update(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the parts of a batch all but the last keep their gradients to their process."""
    monkeypatch.setattr(torch, "compile", lambda net: torch.nn.Sequential(net))
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        two = Processes(torch.device("cpu"), rank=0, world=2)  # as if another were there
        model = parallel(begun(), two, compiled=True)
        x = torch.zeros(1, 3, 224, 224)
        with unsynchronised(model):
            assert not model.require_backward_grad_sync
            model(x).sum().backward()
        assert model.require_backward_grad_sync
    finally:
        torch.distributed.destroy_process_group()


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that diverges ends with an error; what was kept before, if anything, is finite."""
    data = open_trainset(folder, seed=3)
    nowhere = draw(0, 0, 0)._replace(alpha=(math.nan,) * 3)
    train(SETTINGS.model_copy(update={"epochs": 1}), data, tmp_path / "a", engine=CPU)
    wild = SETTINGS.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(VggfeatError, match="diverged") as refused:
        train(wild, data, tmp_path / "b", engine=CPU)
    assert "intact" not in str(refused.value)  # there is no checkpoint yet
    assert not (tmp_path / "b" / LAST).exists()
    monkeypatch.setattr("vggfeat.train.loop.draw", lambda *_: nowhere)
    with pytest.raises(VggfeatError, match=r"The last checkpoint in .* is intact"):
        train(SETTINGS, data, tmp_path / "a", engine=CPU, resume=True)
    assert all(v.isfinite().all() for v in weights_in(tmp_path / "a").values())


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


def test_a_second_run_in_one_folder_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one is at work another writes nothing there; afterwards it may go on."""
    monkeypatch.setattr("vggfeat.train.checkpoint.LOCKED", 0.1)
    data = open_trainset(folder, seed=3)
    once = SETTINGS.model_copy(update={"epochs": 1})
    refused = []

    def meanwhile(_: object) -> None:
        with pytest.raises(StoreError, match="Another process is training in") as error:
            train(once.model_copy(update={"seed": 4}), data, tmp_path, engine=CPU)
        refused.append(error)

    train(once, data, tmp_path, engine=CPU, monitor=OnProgress(meanwhile))
    assert refused
    assert read(tmp_path / LAST)[1]["settings"]["seed"] == 3
    train(once, data, tmp_path, engine=CPU, resume=True)


def test_more_epochs_go_on_as_if_they_had_been_asked_for(folder: Path, tmp_path: Path) -> None:
    """One epoch, then two, end with the bits of two; but not where the rates depend on them."""
    data = open_trainset(folder, seed=3)
    once = SETTINGS.model_copy(update={"epochs": 1})
    train(once, data, tmp_path / "grown", engine=CPU)
    for out, resume in (("grown", True), ("whole", False)):
        train(SETTINGS, data, tmp_path / out, engine=CPU, resume=resume)
    grown, whole = weights_in(tmp_path / "grown"), weights_in(tmp_path / "whole")
    assert all(torch.equal(grown[name], whole[name]) for name in whole)
    cosine = once.model_copy(update={"schedule": "cosine"})
    train(cosine, data, tmp_path / "cosine", engine=CPU)
    longer = cosine.model_copy(update={"epochs": 2})
    with pytest.raises(StoreError, match="epochs: 1 → 2"):
        train(longer, data, tmp_path / "cosine", engine=CPU, resume=True)


def test_a_run_without_a_later_setting_goes_on(folder: Path, tmp_path: Path) -> None:
    """A setting that a checkpoint does not know has the value that was used before it came."""
    data = open_trainset(folder, seed=3)
    known = {"settings": SETTINGS.model_dump(mode="json"), "data": data.digest}
    facts = {"settings": SETTINGS.model_dump(mode="json"), "data": data.digest}
    del known["settings"]["label_smoothing"], known["settings"]["warmup"]
    assert differences(known, facts) == []
    facts["settings"]["label_smoothing"] = 0.1
    assert differences(known, facts) == ["settings (label_smoothing: 0.0 → 0.1)"]
    assert differences(known, facts | {"data": "other"})[1] == "data"


def test_a_checkpoint_of_another_format_is_refused(folder: Path, tmp_path: Path) -> None:
    """Which it has, which is read, and how to go on; it stays as it is."""
    data = open_trainset(folder, seed=3)
    once = SETTINGS.model_copy(update={"epochs": 1})
    with mock.patch("vggfeat.train.checkpoint.FORMAT", 2):
        train(once, data, tmp_path, engine=CPU)
    before = (tmp_path / LAST).read_bytes()
    again = partial(train, once, data, tmp_path, engine=CPU, resume=True)
    refuses(again, StoreError, mentions=("format 2", "format 3", "--init"))
    assert (tmp_path / LAST).read_bytes() == before


def test_a_batch_of_which_nothing_can_be_read_is_passed_over(tmp_path: Path) -> None:
    """The run goes on, its figures are those of the others, and what failed is named."""
    root = two_classes(tmp_path / "images", each=11)
    data = open_trainset(root, seed=3)
    bad = [data.train.name(int(row)) for row in epoch_order(20, SETTINGS.seed, 0)[4:8]]
    for name in bad:
        (root / name).write_bytes(b"damaged")
    once = SETTINGS.model_copy(update={"epochs": 1})
    sizes: list[int] = []
    forward = VGG.forward
    with mock.patch.object(
        VGG, "forward", lambda net, x: (sizes.append(len(x)), forward(net, x))[1]
    ):
        done = train(once, data, tmp_path / "run", engine=CPU)
    assert sizes[:5] == [4, 0, 4, 4, 4]
    assert done.failed.keys() == set(bad)
    assert math.isfinite(done.history[0]["loss"])
    assert all(v.isfinite().all() for v in weights_in(tmp_path / "run").values())


def test_frozen_convolutions_stay_as_they_began(folder: Path, tmp_path: Path) -> None:
    """With freeze="conv" only the full connections move."""
    data = open_trainset(folder, seed=3)
    settings = SETTINGS.model_copy(update={"epochs": 1, "freeze": "conv"})
    train(settings, data, tmp_path, engine=CPU)
    before = begun().state_dict()
    moved = {n for n, w in weights_in(tmp_path).items() if not torch.equal(w, before[n[4:]])}
    assert moved == {f"net.{n}" for n in before if not n.startswith("conv")}
