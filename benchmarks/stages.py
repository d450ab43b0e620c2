"""Where the time of our own run goes, how much memory it takes, and how soon it starts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import contenders
import torch
from contenders import Work
from floor import settle

from vggfeat.data.batching import make_batches
from vggfeat.data.image import decode, rescale
from vggfeat.data.imageset import find_images
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.store.store import FeatureStore

COMMANDS = {
    "import numpy": ["-c", "import numpy"],
    "import vggfeat": ["-c", "import vggfeat"],
    "vggfeat --help": ["-m", "vggfeat", "--help"],
}


class Stopwatch(Counter[str]):
    """Seconds by name; methods that it watches add to them."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def time(self, name: str, task: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Call something, and add how long it took."""
        start = time.perf_counter()
        found = task(*args, **named)
        settle(self.device)
        self[name] += time.perf_counter() - start
        return found

    def watch(self, owner: object, method: str) -> None:
        """Time every call of an object's method from now on."""
        task = getattr(owner, method)
        setattr(owner, method, lambda *args, **named: self.time(method, task, *args, **named))


def stages(work: Work, repeat: int) -> dict[str, float]:
    """Milliseconds an image of every stage, each the least of several repetitions.

    Returns
    -------
    dict
        ``decode``, ``rescale``, ``forward``, ``pool`` (with normalising and mirroring) and
        ``write`` by themselves, in one thread; ``end to end``; and within that ``waiting`` for
        images. ``but forward`` is the share of the end to end time that no network ran.
    """
    contenders.vggfeat(work)()  # warm
    alone = [by_themselves(work) for _ in range(repeat)]
    whole = min((in_a_run(work) for _ in range(repeat)), key=lambda run: run["end to end"])
    found = {name: min(each[name] for each in alone) for name in alone[0]} | dict(whole)
    share = 1 - found.pop("maps") / found["end to end"]
    per_image = {name: 1e3 * s / len(work.images) for name, s in found.items()}
    return per_image | {"but forward": share}


def by_themselves(work: Work) -> dict[str, float]:
    """Seconds of every stage on all images, while nothing else runs."""
    clock = Stopwatch(work.device)
    for path in work.images:
        image = clock.time("decode", decode, path)
        for Q in work.scales:
            clock.time("rescale", rescale, image, Q)
    extractor = contenders.extractor_of(work)
    waiting = list(make_batches(contenders.decoded(work), extractor.pixel_budget))
    extractor.describe(waiting[0].pixels)  # warm
    clock.watch(extractor.net, "maps")
    for batch in waiting:
        clock.time("describe", extractor.describe, batch.pixels)
    written(work, extractor, clock)
    forward = clock["maps"]
    return {
        "decode": clock["decode"],
        "rescale": clock["rescale"],
        "forward": forward,
        "pool": clock["describe"] - forward,
        "write": clock["write"],
    }


def written(work: Work, extractor: DenseExtractor, clock: Stopwatch) -> None:
    """Keep descriptors, and time it; their numbers do not matter."""
    images, columns = find_images(work.images), extractor.columns(work.scales)
    arrays = {c.descriptor: torch.rand(len(images), c.width).numpy() for c in columns}
    ids = torch.arange(1, 2 * len(images) + 1).reshape(-1, 2).numpy()
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(folder, "a")
        store.add_columns(columns)
        clock.time("write", store.write, images.names, ids, images.stamps(), arrays)
        clock.time("write", store.finish, images.names, {})


def in_a_run(work: Work) -> dict[str, float]:
    """Seconds of a whole run, of the network in it, and of what it waited for."""
    clock = Stopwatch(work.device)
    extractor = contenders.extractor_of(work)
    images = find_images([str(path) for path in work.images])
    extractor.describe(next(make_batches(contenders.decoded(work), 1)).pixels)  # warm
    clock.watch(extractor.net, "maps")
    clock.watch(extractor, "describe")
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(folder, "a")
        clock.watch(store, "write")
        clock.watch(store, "finish")
        clock.time("end to end", extract, images, extractor, work.scales, store)
    busy = clock["describe"] + clock["write"] + clock["finish"]
    return {
        "end to end": clock["end to end"],
        "maps": clock["maps"],
        "waiting": clock["end to end"] - busy,
    }


def peak(work: Work) -> dict[str, Any]:
    """Most memory of an end to end run, in GB, in a process of its own."""
    told = {**asdict(work), "device": str(work.device)}
    command = [sys.executable, __file__, json.dumps(told, default=str)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603  # this very script
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def alone(told: dict[str, Any]) -> None:
    """Do the work of another process, and print what it took."""
    from memory import Peak

    watch = Peak()
    watch.start()
    work = Work(
        **{
            **told,
            "scales": tuple(told["scales"]),
            "weights": Path(told["weights"]),
            "images": tuple(map(Path, told["images"])),
            "device": torch.device(told["device"]),
        }
    )
    contenders.vggfeat(work)()
    kept = {name: told[name] for name in ("net", "scales", "precision", "shapes")}
    print(json.dumps({**kept, "images": len(work.images), "gigabytes": watch.gigabytes}))


def start_up(repeat: int) -> dict[str, float]:
    """Seconds until a command has done nothing, the least of several; numpy's beside them."""
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeat + 1):  # the first fills the system's cache, and is never the least
        for name, told in COMMANDS.items():
            found[name].append(seconds_of(told))
    return {name: min(seconds) for name, seconds in found.items()}


def seconds_of(told: Sequence[str]) -> float:
    """Seconds of one run of Python."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *told], check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # COMMANDS
    return time.perf_counter() - start


if __name__ == "__main__":
    alone(json.loads(sys.argv[1]))
