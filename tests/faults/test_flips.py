"""Every single bit that flips, and every byte that is cut off, is found; none gives wrong numbers.

The bits are drawn at random, from all files that vggfeat writes and reads again. A damaged HDF5
file may crash the library that reads it, so that trials run in processes of their own.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from campaigns import Campaign, times
from helpers.colours import two_classes
from helpers.extraction import SCALES, SeveralSums, draw_small, extract_sums, rows
from helpers.killing import ended, forked
from helpers.seams import index_from, shard_rows
from safetensors import SafetensorError
from test_kills import OFTEN, SETTINGS, a_model

from vggfeat.errors import StoreError, VggfeatError
from vggfeat.nets.formats import find_format
from vggfeat.recipes.networks import BEST
from vggfeat.store.export import pack
from vggfeat.store.maintenance import verify
from vggfeat.store.store import FeatureStore
from vggfeat.svm import model as models
from vggfeat.train.checkpoint import LAST, read, restore
from vggfeat.train.data import open_trainset
from vggfeat.train.init import start
from vggfeat.train.loop import train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SHORT = 6  # four flips and two cuts
TOGETHER = 20  # trials of one process

Damage = Callable[[bytes], bytes]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of torch would not survive a fork."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def damages(size: int, rng: random.Random, count: int) -> list[tuple[str, Damage]]:
    """Draw flips of one bit, two of three, and cuts."""
    drawn: list[tuple[str, Damage]] = []
    for number in range(count):
        place, bit = rng.randrange(size), rng.randrange(8)
        if number % 3 < 2:
            drawn.append((f"bit {bit} of byte {place} of {size}", partial(flip, place, bit)))
        else:
            drawn.append((f"cut to {place} of {size} bytes", partial(cut, place)))
    return drawn


def flip(place: int, bit: int, image: bytes) -> bytes:
    return image[:place] + bytes([image[place] ^ 1 << bit]) + image[place + 1 :]


def cut(length: int, image: bytes) -> bytes:
    return image[:length]


def campaign(
    name: str, files: list[Path], found: Callable[[Path], None], count: int, *, whole: bool = False
) -> None:
    """Damage files, one bit or cut at a time; `found` raises unless the damage is noticed.

    It raises for a file that is whole, unless that is said, so that it is known to look.
    """
    rng = random.Random(name)
    with nullcontext() if whole else pytest.raises(AssertionError):
        found(files[0])
    with Campaign(name) as counted:
        while counted.tried < count:
            path = rng.choice(files)
            image = path.read_bytes()
            some = damages(len(image), rng, min(TOGETHER, count - counted.tried))
            try:
                lost = _lost(path, image, some, found)
            finally:
                path.write_bytes(image)
            for number, (what, _) in enumerate(some):
                with counted.trial(f"{path.name}, {what}"):
                    assert number not in lost, lost[number]


def _lost(
    path: Path, image: bytes, some: list[tuple[str, Damage]], found: Callable[[Path], None]
) -> dict[int, str]:
    """Try damages in a process of their own; return those that went unnoticed, or crashed it."""
    ours, theirs = os.pipe()
    at, lost = 0, {}

    def work(first: int) -> None:
        for number in range(first, len(some)):
            path.write_bytes(some[number][1](image))
            try:
                found(path)
                said = ""
            except Exception as error:
                said = f"{type(error).__name__}: {error}".replace("\n", " ")[:500]
            os.write(theirs, f"{number} {said}\n".encode())

    while at < len(some):
        status = ended(forked(partial(work, at)))
        os.write(theirs, b"end\n")
        lines = b""
        while not lines.endswith(b"end\n"):
            lines += os.read(ours, 65536)
        for line in lines.decode().splitlines()[:-1]:
            number, _, said = line.partition(" ")
            at = int(number) + 1
            if said:
                lost[int(number)] = said
        if status:
            lost[at] = f"the process ended with {status}"
            at += 1
    os.close(ours)
    os.close(theirs)
    return lost


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """Make a store of three columns with an index, which knows that an image has changed."""
    images, out = draw_small(tmp_path / "images"), tmp_path / "store"
    with shard_rows(8), index_from(3):
        extract_sums(images, out, SeveralSums(["pool5"]))
        extract_sums(images, out, SeveralSums(["pool4", "pool5"]), SCALES[:1])
        (images / "0000.png").write_bytes((images / "0001.png").read_bytes())
        (images / "0002.png").touch()
        with pytest.raises(KeyboardInterrupt):
            extract_sums(images, out, SeveralSums(["pool5"]), progress=interrupt)
        FeatureStore(out, "a").write_caches()  # the view went as the run noticed it
        yield out


def interrupt(done: object) -> None:
    raise KeyboardInterrupt


def noticed(store: Path, expected: dict[Any, bytes], path: Path) -> None:
    """Check that `verify` names a damage, and that reading with verification is right or fails."""
    try:
        problems = verify(store)
    except StoreError as error:
        problems = [str(error)]
    assert problems, "verify found nothing"
    right(store, expected, path)


def right(store: Path, expected: dict[Any, bytes], path: Path) -> None:
    """Check that reading with verification is right or fails."""
    with contextlib.suppress(VggfeatError):
        assert rows(store) == expected, "wrong features without an error"


def refused(reading: Callable[[], object]) -> None:
    """Check that what is damaged is not read."""
    try:
        reading()
    except (VggfeatError, SafetensorError):
        return
    raise AssertionError("read as if it were whole")


@pytest.mark.parametrize(
    "kind",
    ["shards/*.h5", "columns/*.json", "manifest.json", "index.npz", "stamps-*.npz", "features.h5"],
)
def test_store(store: Path, kind: str) -> None:
    """A flipped bit or a cut of any file of a store is found by `verify`, and never read."""
    files = sorted(store.glob(kind))
    found = partial(noticed, store, rows(store))
    campaign(
        f"flips and cuts of {kind.split('/')[-1]}",
        files,
        found,
        times(SHORT, 4 if kind.startswith("shards") else 2),
    )


@pytest.mark.parametrize("name", ["run.json", "failed.csv"])
def test_lists_of_a_run(store: Path, name: str) -> None:
    """What says how the last run went has no digest; damaged, it changes no descriptor."""
    found = partial(right, store, rows(store))
    campaign(f"flips and cuts of {name}", [store / name], found, times(SHORT), whole=True)


def test_packed_file(store: Path, tmp_path: Path) -> None:
    """A flipped bit or a cut of a packed store is found by `verify`, and never read."""
    packed = tmp_path / "packed.h5"
    pack(store, packed)
    found = partial(noticed, packed, rows(packed))
    campaign("flips and cuts of a packed file", [packed], found, times(SHORT, 2))


def test_packed_file_read_without_verification(store: Path, tmp_path: Path) -> None:
    """HDF5's own checksums of a packed file let no wrong number through either."""
    packed = tmp_path / "packed.h5"
    pack(store, packed)
    expected = read_unverified(packed)

    def found(path: Path) -> None:
        try:
            now = read_unverified(path)
        except VggfeatError:
            return
        assert now == expected, "wrong features without an error"

    campaign(
        "flips and cuts of a packed file, unverified", [packed], found, times(SHORT, 2), whole=True
    )


def read_unverified(path: Path) -> dict[str, Any]:
    """Read all names and descriptors without comparing a digest."""
    store = FeatureStore(path)
    found = store.read(names=store.names, missing="nan")
    return {"names": store.names} | {one.path: values.tobytes() for one, values in found.items()}


def test_model(tmp_path: Path) -> None:
    """A flipped bit or a cut of an SVM model is refused when it is loaded."""
    path = models.save(tmp_path / "model", a_model(0))

    def found(path: Path) -> None:
        refused(partial(models.load, path))

    campaign("flips and cuts of an SVM model", [path], found, times(SHORT, 2))


@pytest.fixture
def trained(tmp_path: Path, small_nets: None) -> Path:
    """Train a net A of few channels."""
    data = open_trainset(two_classes(tmp_path / "classes", each=6), seed=3)
    train(SETTINGS, data, tmp_path / "run", engine=OFTEN)
    return tmp_path / "run"


def test_checkpoint(trained: Path) -> None:
    """A flipped bit or a cut of a checkpoint is refused before training goes on from it."""
    net = start("A", num_classes=2).net
    optimiser = torch.optim.SGD(net.parameters(), 0.1, 0.9)

    def found(path: Path) -> None:
        refused(partial(restore, path, net, optimiser))
        with contextlib.suppress(StoreError):
            assert read(path)[0] == expected, "another position without an error"

    expected, _ = read(trained / LAST)
    campaign("flips and cuts of a checkpoint", [trained / LAST], found, times(SHORT, 2))


def test_trained_weights(trained: Path) -> None:
    """A flipped bit or a cut of weights that were trained here is refused when they are read."""

    def reading(path: Path) -> None:
        for parts in find_format(path).read(path).pairs.values():
            parts.weight.tensor()
            parts.bias.tensor()

    def found(path: Path) -> None:
        refused(partial(reading, path))

    campaign("flips and cuts of trained weights", [trained / BEST], found, times(SHORT, 2))
