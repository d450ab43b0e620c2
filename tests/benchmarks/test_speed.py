"""The benchmark of speed: what it counts, whom it believes, and when it fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from vggfeat.nets.vgg import VGG

FOLDER = Path(__file__).parents[2] / "benchmarks"
MODULES = ("aims", "contenders", "floor", "made", "race", "ratios", "speed", "stages")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """Load the scripts, which are no part of the package."""
    sys.path.insert(0, str(FOLDER))
    threads = torch.get_num_threads()
    yield SimpleNamespace(**{name: import_module(name) for name in MODULES})
    sys.path.remove(str(FOLDER))
    torch.set_num_threads(threads)


@pytest.fixture
def work(bench: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    """Two images of different shapes through the first two stages of net D."""
    images = bench.made.images(tmp_path, 2, "mixed")
    weights = bench.made.weights(tmp_path, "D", "pool2")
    return bench.contenders.Work("D", "pool2", (32, 48), "fp32", weights, images, "mixed", CPU)


def test_operations_by_hand(bench: SimpleNamespace) -> None:
    """E over 384×512 pixels: multiplications a location, summed by hand over Table 1's stages."""
    stages = [3 * 64 + 64 * 64, 64 * 128 + 128 * 128, 128 * 256 + 3 * 256**2]
    stages += [256 * 512 + 3 * 512**2, 4 * 512**2]
    locations = [384 * 512 // 4**stage for stage in range(5)]
    expected = 2 * 9 * sum(a * b for a, b in zip(stages, locations, strict=True))
    assert bench.floor.operations("E", "pool5", 384, 512) == expected
    assert round(expected / 1e9) == 153


def test_operations_as_torch_counts(bench: SimpleNamespace) -> None:
    """As many operations as torch's own counter finds, on odd sides as well."""
    net = VGG("A", layers="pool5", dense=True).eval()
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 67, 45))
    assert bench.floor.operations("A", "pool5", 67, 45) == counter.get_total_flops()


def test_work_counts_mirror_images(bench: SimpleNamespace, work: SimpleNamespace) -> None:
    """Operations of all images at all scales, twice over for their mirror images."""
    sizes = [(32, 42), (48, 64), (32, 48), (48, 72)]  # of 500×375 and 500×333 pixels
    total = sum(bench.floor.operations("D", "pool2", *size) for size in sizes)
    assert work.operations == 2 * total


def test_images_are_the_same_on_every_call(bench: SimpleNamespace, tmp_path: Path) -> None:
    """Two calls write the same bytes, of the shapes they say, in VOC's shares."""
    one, other = (bench.made.images(tmp_path / n, 32, "mixed") for n in "ab")
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]
    sizes = []
    for path in one:
        with Image.open(path) as image:
            sizes.append(image.size)
    assert sizes == bench.made.sizes(32, "mixed")
    assert sizes.count((500, 375)) == 14
    assert sizes.count((500, 333)) == 6
    assert len(set(sizes)) == 13
    assert set(bench.made.sizes(5, "one")) == {(500, 375)}


def test_weights_are_the_same_on_every_call(bench: SimpleNamespace, tmp_path: Path) -> None:
    """Random weights have a fixed seed, and leave torch's own generator alone."""
    before = torch.random.get_rng_state()
    first, second = (
        torch.load(bench.made.weights(tmp_path / name, "A", "pool3")) for name in ("one", "other")
    )
    assert first.keys() == second.keys() == {f"features.{k}.{p}" for k in (0, 3, 6, 8) for p in WB}
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(before, torch.random.get_rng_state())


WB = ("weight", "bias")


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("vggfeat-forward", "torch"),
        ("vggfeat-torch", "torch"),
        ("torchvision", "torchvision"),
        ("timm", "timm"),
        ("openvino-forward", "openvino"),
        ("onnxruntime-forward", "onnxruntime"),
    ],
)
def test_contenders_do_the_same_work(
    bench: SimpleNamespace, work: SimpleNamespace, name: str, needs: str
) -> None:
    """Each of them finds vggfeat's descriptors, from the same weights and pixels."""
    pytest.importorskip(needs, reason=f"{needs} is not installed")
    found = bench.race.CONTENDERS[name](work)()
    reference = bench.contenders.vggfeat(work)()
    assert found.shape == (2, 2, 128)
    assert bench.race.agreement(found, reference) > 0.99999
    np.testing.assert_allclose(found, reference, rtol=2e-3, atol=2e-3 * reference.max())


def test_different_work_is_marked(bench: SimpleNamespace, work: SimpleNamespace) -> None:
    """One image of another cosine, or descriptors of another shape, are different work."""
    reference = np.ones((1, 2, 4))
    other = reference.copy()
    other[0, 1, 0] = 1.05  # cosine 0.99977
    marked = {}
    for name, found in {"same": 3 * reference, "other": other, "shape": other[:, :1]}.items():
        marked[name] = bench.race.Row.of(name, work)
        bench.race.judge(marked[name], found, reference)
    assert [row.note for row in marked.values()] == ["", "different work", "different work"]
    assert marked["other"].agreement == pytest.approx(4.05 / (2 * np.sqrt(3 + 1.05**2)))
    assert marked["shape"].agreement is None


def test_race_goes_on_without_who_cannot(
    bench: SimpleNamespace, work: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is not installed, or breaks, has a reason instead of figures; the floor comes first."""

    def absent(_: object) -> Callable[[], np.ndarray]:
        raise bench.contenders.Skip("it is not installed")

    def broken(_: object) -> Callable[[], np.ndarray]:
        raise RuntimeError("no compiler\nand more")

    runs = {"good": lambda _: lambda: np.ones((2, 2, 3)), "absent": absent, "broken": broken}
    monkeypatch.setattr(bench.race, "CONTENDERS", runs)
    rows = bench.race.race(work, list(runs), 3, np.ones((2, 2, 3)), side=64)
    floor, good, *others = rows
    assert (floor.name, floor.ratio, floor.images_per_s) == ("floor", 1, 2 / floor.seconds[0])
    assert floor.tflops == pytest.approx(work.operations / floor.seconds[0] / 1e12)
    assert good.ratio == pytest.approx(good.images_per_s / floor.images_per_s)
    assert len(good.seconds) == 3
    assert good.spread == pytest.approx(max(good.seconds) / min(good.seconds) - 1)
    assert [row.note for row in others] == [
        "skipped: it is not installed",
        "failed: RuntimeError: no compiler",
    ]
    assert [row.images_per_s for row in others] == [None, None]


@pytest.mark.slow
def test_whole_run_and_its_file(
    bench: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two images through the first stage: rows, stages, memory and start-up are in the file."""
    file = tmp_path / "speed.json"
    told = "--quick --layer pool1 --Q 32 24,40 --precision fp32 --images 2 --repeat 1"
    only = ["--only", "vggfeat", "torchvision", "--json", str(file)]
    assert bench.speed.main([*told.split(), *only]) == 0
    found = json.loads(file.read_text())
    rows = [(row["name"], row["Q"], row["shapes"]) for row in found["rows"]]
    # Whoever is not vggfeat runs at the first scale alone, as there is no 384.
    assert rows == [
        *((name, [32], shapes) for shapes in ("one", "mixed") for name in ("floor", *only[1:3])),
        *((name, [24, 40], "one") for name in ("floor", "vggfeat")),
    ]
    keys = "name net Q precision images_per_s tflops ratio shapes spread agreement note seconds"
    assert all(row.keys() == set(keys.split()) for row in found["rows"])
    assert all(row["images_per_s"] > 0 and row["note"] == "" for row in found["rows"])
    [stages] = found["stages"]
    parts = ("decode", "rescale", "forward", "pool", "write", "end to end", "waiting")
    assert all(stages[part] > 0 for part in parts)
    assert 0 < stages["but forward"] < 1
    assert [each["images"] for each in found["memory"]] == [2, 8]
    assert all(0.05 < each["gigabytes"] < 4 for each in found["memory"])
    assert found["start_up"].keys() == {"import numpy", "import vggfeat", "vggfeat --help"}
    assert found["machine"]["torch"] == torch.__version__
    assert "net D, Q = 32, fp32, mixed shapes" in capsys.readouterr().out


def test_aims_are_ratios_of_rates(bench: SimpleNamespace) -> None:
    """Shapes are compared by operations, not by images; different work proves nothing."""
    row = bench.race.Row
    rows = [
        row("vggfeat", "E", [384], "fp32", "one", 10.0, tflops=2.0),
        row("vggfeat", "E", [384], "fp32", "mixed", 12.0, tflops=1.7),
        row("openvino-forward", "E", [384], "fp32", "one", 1.0, tflops=1.6),
        row("openvino-forward", "E", [384], "fp32", "mixed", 1, 9.0, note="different work"),
        row("vggfeat", "D", [384], "bf16", "mixed", 12.0, tflops=1.7),
    ]
    found = bench.aims.reached(rows, "E", [384], gpu=False)
    assert [(aim["ratio"], aim["aim"]) for aim in found] == [(2.0 / 1.6, 1.0), (0.85, 0.9)]


def recorded(bench: SimpleNamespace, folder: Path, ratio: float) -> Path:
    """Write a file in which forward is so many times as fast as torchvision."""
    name = "forward over torchvision's loop"
    told = {"machine": bench.floor.machine(CPU), "ratios": {name: ratio}}
    file = folder / "check.json"
    file.write_text(json.dumps(told))
    return file


@pytest.mark.parametrize(("before", "status"), [(2.6, 0), (2.7, 1)])
def test_check_fails_on_a_quarter(
    bench: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    before: float,
    status: int,
) -> None:
    """A ratio of 2 is more than a quarter below 2.7, not below 2.6; what fell is named."""
    monkeypatch.setattr(bench.ratios, "prepared", lambda _: {})
    monkeypatch.setattr(
        bench.ratios,
        "measure",
        lambda tasks, repeat, best: best.update({"torchvision": 4, "forward": 2}),
    )
    file = recorded(bench, tmp_path, before)
    assert bench.speed.main(["--quick", "--check", str(file)]) == status
    assert ("forward over torchvision" in capsys.readouterr().err) == bool(status)


def test_check_measures_again_before_it_fails(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slow round, in which the machine was busy, is no fall."""
    rounds = iter([3.0, 2.0])

    def measure(tasks: object, repeat: int, best: dict[str, float]) -> None:
        best["torchvision"] = 4.0
        best["forward"] = min(next(rounds), best.get("forward", 9))

    monkeypatch.setattr(bench.ratios, "prepared", lambda _: {})
    monkeypatch.setattr(bench.ratios, "measure", measure)
    assert bench.ratios.check(recorded(bench, tmp_path, 2.0), 1) == []
    assert next(rounds, None) is None


def test_least_seconds_are_kept(bench: SimpleNamespace) -> None:
    """Of every task the least is kept over all rounds, divided by its share of the work."""
    best = {"end to end": 0.0}
    sums = {"half": (lambda: sum(range(200_000)), 2.0), "whole": (lambda: sum(range(200_000)), 1.0)}
    bench.ratios.measure(sums, 3, best)
    assert 1 < best["whole"] / best["half"] < 4
    before = dict(best)
    bench.ratios.measure(sums, 1, best)
    assert all(best[name] <= before[name] for name in before)


def test_recorded_ratios_of_other_machines(bench: SimpleNamespace) -> None:
    """What our own runs cost beside each other is compared everywhere, all else on its machine."""
    here = bench.floor.machine(CPU)
    known = {"machine": here, "ratios": dict.fromkeys(bench.ratios.RATIOS, 1.0)}
    assert bench.ratios.comparable(known, here).keys() == bench.ratios.RATIOS.keys()
    other = bench.ratios.comparable(known, {**here, "amx": not here["amx"]})
    assert other.keys() == set(bench.ratios.EVERYWHERE) < bench.ratios.RATIOS.keys()


def test_shipped_ratios_are_those_that_are_measured() -> None:
    """The file of `make bench-check` names the ratios of the script, each a number above 0."""
    shipped = json.loads((FOLDER / "speed_check.json").read_text())
    sys.path.insert(0, str(FOLDER))
    measured = import_module("ratios").RATIOS
    sys.path.remove(str(FOLDER))
    assert shipped["ratios"].keys() == measured.keys()
    assert min(shipped["ratios"].values()) > 0
