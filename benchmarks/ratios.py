"""The short form: ratios that must not fall by a quarter, whatever the machine is busy with.

Seconds here are those of a processor, with one thread: what others do on the machine hardly changes
them, while it changes how long threads wait for each other. Only ratios from one run are compared,
each of the least of several interleaved repetitions; one that seems to have fallen is measured
again before it counts. What waiting costs, for files or for the disk, only the long form tells.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import contenders
import made
import torch
from contenders import Work
from floor import machine
from stages import COMMANDS, seconds_of

from vggfeat.nets.runtimes import has_bf16

FALL = 0.25
ROUNDS = 3  # of repetitions, as long as a ratio seems to have fallen
NET, Q, SCALES, IMAGES = "D", 64, (32, 48, 64), 8
Seconds = dict[str, float]
Task = tuple[Callable[[], object], float]

# How many times as fast the second is as the first, in the same work.
RATIOS: Mapping[str, tuple[str, str]] = {
    "end to end over torchvision's loop": ("torchvision", "end to end"),
    "forward over torchvision's loop": ("torchvision", "forward"),
    "bf16 end to end over torchvision's loop": ("torchvision", "bf16"),
    "mixed shapes over one shape": ("one operation of one shape", "one operation of mixed shapes"),
    "three scales at once over one by one": ("one by one", "three scales"),
    "import vggfeat over import numpy": ("import numpy", "import vggfeat"),
    "vggfeat --help over import numpy": ("import numpy", "vggfeat --help"),
}
# These hold on every machine; what the others are differs between processors and interpreters.
EVERYWHERE = ("mixed shapes over one shape", "three scales at once over one by one")
MACHINE = ("processor", "amx", "bf16", "runtime", "python", "torch")


def record(file: Path, repeat: int) -> None:
    """Write the ratios of now, against which later ones are held."""
    with tempfile.TemporaryDirectory() as folder:
        tasks = prepared(Path(folder))
        best: Seconds = {}
        for _ in range(ROUNDS):
            measure(tasks, repeat, best)
    found = ratios(best)
    told = {"machine": machine(torch.device("cpu")), "ratios": found}
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(f"{file}: {len(found)} ratios recorded")


def check(file: Path, repeat: int) -> list[str]:
    """Measure, print, and return the ratios that have fallen."""
    known = json.loads(file.read_text(encoding="utf-8"))
    recorded = comparable(known, machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        tasks = prepared(Path(folder))
        best: Seconds = {}
        for _ in range(ROUNDS):
            measure(tasks, repeat, best)
            found = ratios(best)
            if not fallen(recorded, found):
                break
    for name, value in found.items():
        before = f"recorded {recorded[name]:6.2f}" if name in recorded else "not compared here"
        print(f"{name:42}{value:6.2f}   {before}")
    return fallen(recorded, found)


def comparable(known: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, float]:
    """Return the recorded ratios that hold here."""
    same = all(known["machine"][fact] == here[fact] for fact in MACHINE)
    return {name: value for name, value in known["ratios"].items() if same or name in EVERYWHERE}


def fallen(recorded: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    """Names of the ratios that are more than a quarter below the recorded ones, or missing."""
    return [name for name, value in recorded.items() if found.get(name, 0) < (1 - FALL) * value]


def ratios(best: Mapping[str, float]) -> dict[str, float]:
    """Ratios of the fastest times, as far as they were measured."""
    return {
        name: best[slow] / best[fast]
        for name, (slow, fast) in RATIOS.items()
        if slow in best and fast in best
    }


def measure(tasks: Mapping[str, Task], repeat: int, best: Seconds) -> None:
    """Run all tasks in turn, several times, and keep the least seconds of each."""
    for _ in range(repeat):
        for name, (run, share) in tasks.items():
            start = processor_seconds()
            run()
            seconds = (processor_seconds() - start) / share
            best[name] = min(seconds, best.get(name, seconds))
    best["one operation of one shape"] = best["end to end"]


def processor_seconds() -> float:
    """Seconds that processors have worked for us, and for the processes that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def prepared(folder: Path) -> dict[str, Task]:
    """Build every task and run it once; each with what its seconds are to be divided by."""
    torch.set_num_threads(1)
    work = small(folder, "one")
    mixed = small(folder, "mixed")
    three = replace(work, scales=SCALES)
    singles = [contenders.vggfeat(replace(work, scales=(each,))) for each in SCALES]
    tasks: dict[str, Task] = {
        "torchvision": (contenders.torchvision_loop(work), 1),
        "end to end": (contenders.vggfeat(work), 1),
        "forward": (contenders.vggfeat_forward(work), 1),
        "one operation of mixed shapes": (
            contenders.vggfeat(mixed),
            mixed.operations / work.operations,
        ),
        "three scales": (contenders.vggfeat(three), 1),
        "one by one": (lambda: [run() for run in singles], 1),
    }
    if has_bf16(work.device):
        tasks["bf16"] = (contenders.vggfeat(replace(work, precision="bf16")), 1)
    for name, told in COMMANDS.items():
        tasks[name] = (lambda told=told: seconds_of(told), 1)
    for run, _ in tasks.values():
        run()
    return tasks


def small(folder: Path, shapes: str) -> Work:
    """Make work of less than a second."""
    weights = made.weights(folder, NET)
    images = made.images(folder / shapes, IMAGES, shapes)
    return Work(NET, "pool5", (Q,), "fp32", weights, images, shapes, torch.device("cpu"))
